"""Our loader: one epoch is one sequence of batches, whoever reads it, from wherever."""

import copy
import logging
import pickle
import random

import numpy as np
import pytest
import torch

from epochal import Loop, ResumableLoader
from epochal.core.errors import ArgumentError
from epochal.data.position import Position
from tests.faults.loops import Numbers, Stream


class Noisy(torch.utils.data.Dataset):
    def __init__(self, size=11):
        self.size = size
        self.rng, self.own = np.random.default_rng(3), random.Random(4)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        numbers = [index, random.random(), np.random.rand(), torch.rand(1).item(), self.rng.random(), self.own.random()]
        return torch.tensor(numbers, dtype=torch.float64)


def epoch_of(loader, epoch, start=0, left_out=None):
    loader.set_epoch(epoch)
    return [(number, batch) for number, batch in loader.batches_from(start, left_out)]


def same(one, other):
    return [n for n, _ in one] == [n for n, _ in other] and all(
        torch.equal(a, b) for (_, a), (_, b) in zip(one, other, strict=True)
    )


def test_workers_positions_and_copies_give_the_same_batches():
    whole = epoch_of(ResumableLoader(Noisy(), batch_size=3), 2)
    assert sorted(int(row[0]) for _, batch in whole for row in batch) == list(range(11))
    workers = ResumableLoader(Noisy(), batch_size=3, num_workers=2, persistent_workers=True)
    epoch_of(workers, 0)
    assert same(epoch_of(workers, 2), whole)
    assert same(epoch_of(workers, 2, 2), whole[2:])
    assert same(epoch_of(workers, 2, left_out=lambda n: n == 1), [whole[0], *whole[2:]])
    again = pickle.loads(pickle.dumps(workers))
    again.num_workers, again.options = 0, {}
    assert same(epoch_of(again, 2, 1), whole[1:])
    assert same(epoch_of(copy.deepcopy(again), 2), whole)


def test_no_number_of_one_sample_is_that_of_another_or_of_another_generator():
    loader = ResumableLoader(Noisy(40), batch_size=8)
    rows = torch.cat([batch for epoch in range(2) for _, batch in epoch_of(loader, epoch)])[:, 1:]
    assert len(rows.unique()) == rows.numel()


def test_the_generators_of_the_training_are_left_alone():
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for workers in (0, 2):
        epoch_of(ResumableLoader(Noisy(), batch_size=3, num_workers=workers), 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_without_a_word_every_iteration_is_the_next_epoch():
    loader = ResumableLoader(Noisy(), batch_size=3)
    first, second = list(loader), list(loader)
    assert same(epoch_of(loader, 0), list(enumerate(first)))
    assert same(epoch_of(loader, 1), list(enumerate(second)))
    assert not same(list(enumerate(first)), list(enumerate(second)))


@pytest.mark.parametrize(("drop", "batches"), [(False, 4), (True, 3)])
def test_its_length_is_that_of_a_data_loader(drop, batches):
    options = {"batch_size": 3, "drop_last": drop}
    assert len(ResumableLoader(Noisy(), **options)) == len(torch.utils.data.DataLoader(Noisy(), **options)) == batches
    assert len(list(ResumableLoader(Noisy(), **options))) == batches


@pytest.mark.parametrize(
    ("make", "words"),
    [(lambda: ResumableLoader(Stream(), batch_size=2), "StatefulDataLoader"),
     (lambda: ResumableLoader([1, 2], batch_size=0), "batch_size"),
     (lambda: ResumableLoader([1, 2], batch_size=1, generator=torch.Generator()), "seed=")],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_the_cure(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_a_loop_tells_it_the_epoch_and_how_many_batches_come():
    loader, net, seen = ResumableLoader(Noisy(), batch_size=3), torch.nn.Linear(1, 1), []
    with Loop(model=net) as run:
        for _ in run.epochs(2):
            batches = run.batches(loader)
            assert len(batches) == 4
            seen.append(list(enumerate(batches)))
    assert all(same(seen[epoch], epoch_of(loader, epoch)) for epoch in range(2))


def resumed(folder, loader, caplog):
    """Return the numbers of the batches that come when a run goes on with another loader, and what the log says."""
    with caplog.at_level(logging.INFO, "epochal"):
        caplog.clear()
        net = torch.nn.Linear(4, 1)
        with Loop(model=net, dir=folder, name="run", resume=True) as run:
            for _ in run.epochs(1):
                length = len(batches := run.batches(loader))
                numbers = [run.batch for _ in batches]
    assert length == len(numbers)
    return numbers, caplog.text


@pytest.mark.parametrize(
    ("options", "numbers", "words"),
    [({"batch_size": 3}, [2, 3, 4], "the same to the bit"),
     ({"batch_size": 7}, [0, 1], "batch_size was 3, is 7"),
     ({"batch_size": 3, "num_workers": 2}, [2, 3, 4], "num_workers was 0, is 2"),
     ({"batch_size": 3, "num_workers": 2, "persistent_workers": True}, [2, 3, 4], "persistent workers")],
)  # fmt: skip
def test_the_log_says_what_is_exact_and_another_order_begins_anew(options, numbers, words, tmp_path, caplog):
    net = torch.nn.Linear(4, 1)
    with Loop(model=net, dir=tmp_path, name="run") as run:
        for _ in run.epochs(1):
            for _ in run.batches(torch.utils.data.DataLoader(Numbers(), batch_size=3)):
                if run.batch == 1:
                    run.save("here")
    saved = run.checkpoints.last.manifest
    assert (
        saved.order
        == "DataLoader(batches=5, samples=14, batch_size=3, sampler=SequentialSampler, drop_last=False, workers=0)"
    )
    found, text = resumed(tmp_path, torch.utils.data.DataLoader(Numbers(), **options), caplog)
    assert found == numbers
    assert words in text


def test_a_position_is_plain_data(tmp_path):
    from epochal.checkpointing.store import CheckpointStore

    position = Position()
    position.begin_epoch(0)
    loader = torch.utils.data.DataLoader(Noisy(), batch_size=3, shuffle=True, generator=torch.Generator())
    reading = position.read(loader)
    next(reading.batches)
    reading.taken = 1
    saved = CheckpointStore(tmp_path).save({"data": position.state_dict()}, epoch=0, step=1)
    again = Position()
    again.load_state_dict(saved.load("data"), {"python": random.getstate(), "torch": torch.get_rng_state()})
    again.begin_epoch(0)
    assert [n for n, _ in again.read(loader).batches] == [1, 2, 3]
