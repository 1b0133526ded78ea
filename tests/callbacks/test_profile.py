"""A window of PyTorch's profiler, written also where the training ends inside it."""

import copy
import json
import logging
import pickle

import pytest

from epochal import Callback, Loop, Profile, attach
from epochal.core.errors import ArgumentError

torch = pytest.importorskip("torch")


def train(*callbacks, batches=8, fail_at=None, **options):
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Loop(model=net, optimizer=optimizer, callbacks=callbacks, **options) as run:
        for _ in run.epochs(1):
            for batch in run.batches(range(batches)):
                optimizer.zero_grad()
                net(torch.randn(8, 4)).square().mean().backward()
                optimizer.step()
                if batch == fail_at:
                    raise ZeroDivisionError
    return net, run


def files(run_dir):
    return sorted(path.name for path in run_dir.glob("*/profile/*"))


def steps(run_dir, number=1):
    """The numbers of the profiler's steps in a trace."""
    (trace,) = run_dir.glob(f"*/profile/trace-{number}.json")
    names = {event["name"] for event in json.loads(trace.read_text())["traceEvents"] if "name" in event}
    return sorted(int(name.split("#")[1]) for name in names if name.startswith("ProfilerStep#"))


def test_the_window_is_the_one_asked_for(run_dir, caplog):
    caplog.set_level(logging.INFO, "epochal")
    profile = Profile(wait=2, warmup=1, active=2, top=3)
    _, run = train(profile, dir=run_dir)
    assert files(run_dir) == ["top-1.txt", "trace-1.json"]
    assert steps(run_dir) == [3, 4]
    assert "Self CPU time total" in profile.table
    assert (run.dir / "profile" / "top-1.txt").read_text() == profile.table
    assert f"Profile: the costliest operators:\n{profile.table}" in caplog.text
    assert len([line for line in profile.table.splitlines() if "us " in line or "ms " in line]) == 3


def test_windows_are_repeated_and_then_the_profiler_is_gone(run_dir):
    profile, there = Profile(wait=1, warmup=1, active=1, repeat=2), []

    class Sees(Callback):
        def on_train_batch_end(self, run):
            there.append(profile.profiler is not None)

    train(profile, Sees(), batches=9, dir=run_dir)
    assert files(run_dir) == ["top-1.txt", "top-2.txt", "trace-1.json", "trace-2.json"]
    assert [steps(run_dir, number) for number in (1, 2)] == [[2], [5]]
    assert there == [True] * 5 + [False] * 4


@pytest.mark.parametrize("fail_at", [None, 3])
def test_a_training_that_ends_in_the_window_leaves_what_was_recorded(run_dir, fail_at):
    profile = Profile(wait=1, warmup=1, active=100)
    if fail_at is None:
        train(profile, batches=4, dir=run_dir)
    else:
        with pytest.raises(ZeroDivisionError):
            train(profile, batches=8, fail_at=fail_at, dir=run_dir)
    assert files(run_dir) == ["top-1.txt", "trace-1.json"]
    assert steps(run_dir)[0] == 2
    with torch.profiler.profile():  # nobody profiles any more
        pass


def test_a_training_that_ends_before_the_window_leaves_nothing(run_dir):
    train(Profile(wait=50), dir=run_dir)
    assert files(run_dir) == []


def test_options_are_the_profilers(run_dir):
    profile = Profile(wait=0, warmup=1, active=2, record_shapes=True, profile_memory=True, sort_by="cpu_time_total")
    train(profile, dir=run_dir)
    assert "Input Shapes" in profile.table
    assert "CPU Mem" in profile.table


def test_the_training_is_the_same_bit_for_bit():
    bare, _ = train()
    watched, _ = train(Profile())
    assert torch.equal(bare.weight, watched.weight)


def test_a_second_training_is_profiled_as_the_first_and_copies_too(run_dir):
    profile = Profile(active=1)
    for one in (profile, profile, copy.deepcopy(profile), pickle.loads(pickle.dumps(profile))):
        train(one, dir=run_dir)
    assert files(run_dir) == ["top-1.txt"] * 4 + ["trace-1.json"] * 4


def test_it_can_be_copied_in_its_window():
    copies = []

    class Copies(Callback):
        def on_train_batch_end(self, run):
            copies.append(copy.deepcopy(profile))

    profile = Profile(wait=0, warmup=0)
    train(profile, Copies())
    assert all(one.profiler is None for one in copies)


@pytest.mark.parametrize("options", [{"wait": -1}, {"warmup": 0.5}, {"active": 0}, {"repeat": 0}, {"top": 0}])
def test_bad_arguments_are_refused_at_construction(options):
    with pytest.raises(ArgumentError, match="Profile"):
        Profile(**options)


@pytest.mark.slow
def test_yolo_is_profiled_too(yolo, quick):
    model = yolo()
    run = attach(model, Profile(wait=0, warmup=1, active=1))
    model.train(**quick(epochs=1))
    assert steps(run.dir.parent) == [1]
    assert "aten::" in (run.dir / "profile" / "top-1.txt").read_text()
