"""Saves are written while the training goes on, one at a time, and none that was wanted is lost."""

import logging
import os
import threading

import pytest
import torch

from epochal import Best, Callback, Checkpoint, EarlyStopping, Every, Loop
from epochal.checkpointing.parts import encode_parts
from epochal.checkpointing.store import CheckpointStore
from epochal.checkpointing.writer import Writer
from epochal.core.errors import CheckpointError

DATA = [torch.randn(8, 4, generator=torch.Generator().manual_seed(number)) for number in range(6)]


class GatedStore(CheckpointStore):
    """A store on a disk that can be made to wait, or to fail."""

    def __init__(self, directory):
        super().__init__(directory)
        self.gate, self.failing = threading.Event(), 0
        self.gate.set()

    def write(self, *args, **options):
        assert self.gate.wait(30)
        if self.failing:
            self.failing -= 1
            raise OSError("the disk is gone")
        return super().write(*args, **options)


class Do(Callback):
    def __init__(self, **at):
        for event, fn in at.items():
            setattr(self, event, fn)


def net_of(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))


def train(tmp_path, *callbacks, epochs=1, hook=None, inside=None, name="run", keep=None):
    """Train a small net; ``hook(net, run)`` is called before the step, ``inside(run)`` after it."""
    net = net_of()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    loop = Loop(model=net, optimizer=optimizer, callbacks=callbacks, dir=tmp_path, name=name)
    store = GatedStore(tmp_path / name / "checkpoints")
    loop.store = loop.run.checkpoint_store = loop.run.engine.saver.store = store
    if keep is not None:
        keep.append(store)
    with loop as run:
        for epoch in run.epochs(epochs):
            for x in run.batches(DATA):
                optimizer.zero_grad()
                loss = net(x).square().mean()
                loss.backward()
                if hook is not None:
                    hook(net, run)
                optimizer.step()
                run.log({"train/loss": loss})
                if inside is not None:
                    inside(run)
            with run.validation():
                run.log({"val/loss": 1.0 / (epoch + 1)})
    return run, store


def steps(run):
    return [one.manifest.step for one in run.checkpoints]


# -- one at a time ----------------------------------------------------------------------------------------------------


def test_while_one_is_written_periodic_saves_wait_and_become_one_of_the_latest_moment(tmp_path):
    def busy(run):
        if run.step == 1:
            run.checkpoint_store.gate.clear()

    def free(run):
        if run.batch == 4:
            run.checkpoint_store.gate.set()
            run.engine.saver.flush()

    a = Checkpoint(Every(batches=1), keep_last=-1, name="a")
    b = Checkpoint(Every(batches=2), keep_last=-1, name="b")
    run, _ = train(tmp_path, Do(optimizer_step=busy, on_train_batch_start=free), a, b)
    first, second = run.checkpoints[0].manifest, run.checkpoints[1].manifest
    assert (first.step, second.step) == (1, 5)
    assert second.asked_by == ("a", "b")  # b asked at steps 2 and 4
    assert second.reason.count("every batch ") == 4
    assert "every 2 batches (batch 2 of epoch 1)" in second.reason


@pytest.mark.parametrize("asked", ["person", "best"])
def test_what_is_wanted_of_this_very_moment_makes_the_training_wait(tmp_path, asked):
    def slow(run):
        store = run.checkpoint_store
        if run.step == 1:
            store.gate.clear()
        if run.step == 3:
            threading.Timer(0.05, store.gate.set).start()
            if asked == "person":
                run.save("mine")
            else:
                with run.validation():
                    run.log({"val/loss": 0.5})

    every = Checkpoint(Every(batches=1), keep_last=-1)
    best = Checkpoint(Best("val/loss"), keep_last=-1, name="best")
    run, _ = train(tmp_path, every, best, inside=slow)
    wanted = [one for one in run.checkpoints if one.manifest.pinned or "best" in one.manifest.asked_by]
    assert [one.manifest.step for one in wanted] == {"person": [3, 6], "best": [3]}[asked]


def test_saves_at_epochs_ends_are_all_taken_however_slow_the_disk(tmp_path):
    def slow(run):
        store = run.checkpoint_store
        store.gate.clear()
        threading.Timer(0.05, store.gate.set).start()

    run, _ = train(tmp_path, Do(on_fit_epoch_end=slow), Checkpoint(keep_last=-1), epochs=4)
    assert steps(run) == [6, 12, 18, 24]


def test_an_idle_writer_adds_nothing_to_a_batch(tmp_path):
    seen = []
    train(tmp_path, Checkpoint(), Do(on_train_batch_end=lambda run: seen.append(run.engine.requests.waiting)), epochs=2)
    assert seen == [False] * 12


# -- when it is durable -----------------------------------------------------------------------------------------------


def test_everything_is_on_the_disk_before_on_train_end_and_the_thread_is_gone_after_teardown(tmp_path):
    seen = []

    def slow(run):
        threading.Timer(0.1, run.checkpoint_store.gate.set).start()
        run.checkpoint_store.gate.clear()

    run, _ = train(tmp_path, Checkpoint(), Do(on_fit_epoch_end=slow, on_train_end=lambda run: seen.append(steps(run))))
    assert seen == [[6]]
    assert run.past[-1].checkpoints == 1
    assert not [one.name for one in threading.enumerate() if one.name.startswith("epochal")]


def test_a_save_asked_for_when_the_training_fails_is_on_the_disk_before_the_error_comes_out(tmp_path):
    stores = []

    def fail(run):
        threading.Timer(0.1, run.checkpoint_store.gate.set).start()
        run.checkpoint_store.gate.clear()
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        train(tmp_path, Do(on_train_epoch_end=fail, on_exception=lambda run: run.save("last")), keep=stores)
    assert [one.manifest.reason for one in stores[0].checkpoints] == ["last"]
    assert not [one.name for one in threading.enumerate() if one.name.startswith("epochal")]


def test_a_failure_on_the_thread_is_told_at_the_next_safe_point_and_the_next_save_tries_again(tmp_path, caplog):
    told = []

    def fail(run):
        if run.step == 2:
            run.checkpoint_store.failing = 1

    def wait(run):
        run.engine.saver.flush()

    watch = Do(
        optimizer_step=fail,
        on_train_batch_start=wait,
        on_checkpoint_error=lambda run: told.append((run.step, str(run.engine.checkpoint_error))),
    )
    with caplog.at_level(logging.ERROR, "epochal"):
        run, _ = train(tmp_path, watch, Checkpoint(Every(batches=1), keep_last=-1))
    assert told == [(3, "the checkpoint could not be written: OSError('the disk is gone')")]
    assert steps(run) == [1, 3, 4, 5, 6]
    assert run.past[-1].checkpoint_errors == 1
    assert "a checkpoint could not be written; the training goes on" in caplog.text


def test_the_failure_of_the_last_save_is_told_before_the_training_ends(tmp_path):
    told = []

    def fail(run):
        run.checkpoint_store.failing = 1

    watch = Do(on_fit_epoch_end=fail, on_checkpoint_error=lambda run: told.append(run.engine.in_training))
    run, _ = train(tmp_path, watch, Checkpoint())
    assert (len(told), run.past[-1].checkpoint_errors, run.past[-1].checkpoints) == (1, 1, 0)


def test_flush_tells_whether_the_time_was_enough(tmp_path):
    store = GatedStore(tmp_path)
    writer = Writer(store)
    store.gate.clear()
    ended = []
    writer.write(encode_parts({"run": {"w": torch.ones(3)}}), {"epoch": 0, "step": 1}, ended.append)
    assert (writer.busy, writer.flush(0.01), ended) == (True, False, [])
    store.gate.set()
    assert (writer.flush(), writer.busy, ended) == (True, False, [None])
    writer.close()
    assert len(store.checkpoints) == 1


def test_at_any_moment_one_complete_checkpoint_is_there(tmp_path):
    """Whatever the store is doing, a reader finds a checkpoint that verifies."""
    missing, over = [], threading.Event()

    def watch():
        store = None
        while not over.is_set():
            store = CheckpointStore(tmp_path / "run" / "checkpoints")
            listed = list(store.checkpoints)
            # one that is listed may be deleted meanwhile, for a newer one that is listed the next time
            if listed and not any(one.path.exists() and one.verify().ok for one in listed[::-1]):
                again = list(CheckpointStore(store.directory).checkpoints)
                if not any(one.verify().ok for one in again):
                    missing.append(listed)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        train(tmp_path, Checkpoint(Every(batches=1), keep_last=1, keep_best=0), epochs=8)
    finally:
        over.set()
        thread.join()
    assert missing == []


# -- the same state, however it is taken ------------------------------------------------------------------------------


def contents(run):
    """Return the checksums of the tensor files of each checkpoint, by its moment."""
    return {
        (saved.manifest.step, saved.manifest.batch): {
            name: one.checksum for name, one in saved.manifest.files.items() if name.endswith(".safetensors")
        }
        for saved in run.checkpoints
    }


@pytest.mark.parametrize("when", [Every(batches=1) | Every(epochs=1), Every(epochs=1)], ids=["batches", "epochs"])
def test_eager_lazy_and_off_write_the_same_bytes(tmp_path, when):
    def every_save_is_taken(run):
        run.engine.saver.flush()

    found = {}
    for mode in ("eager", "lazy", "off"):
        saving = Checkpoint(when, keep_last=-1, snapshot=mode)
        pace = Do(on_train_batch_start=every_save_is_taken) if mode != "lazy" else Do()
        run, _ = train(tmp_path, saving, pace, epochs=2, name=mode)
        found[mode] = contents(run)
    assert found["eager"] == found["off"]
    assert len(found["lazy"]) >= 2
    assert found["lazy"].items() <= found["off"].items()


def test_a_lazy_copy_is_whole_when_the_step_changes_the_parameters(tmp_path):
    """The disk waits until the training is over: what is written must still be the parameters of the save."""
    weights = {}

    def note(run):
        weights[run.step] = {name: value.clone() for name, value in run.model.state_dict().items()}
        if run.step == 1:
            run.checkpoint_store.gate.clear()

    def free(run):
        run.checkpoint_store.gate.set()

    run, _ = train(
        tmp_path,
        Do(on_train_batch_end=note, on_train_epoch_end=free),
        Checkpoint(Every(batches=1), snapshot="lazy", keep_last=-1),
    )
    saved = run.checkpoints[0]
    assert saved.manifest.step == 1
    for name, value in saved.load("model").items():
        assert torch.equal(value, weights[1][name])


def test_lazy_finds_a_change_in_place_takes_that_checkpoint_anew_and_says_so_once(tmp_path, caplog):
    def clip(net, run):
        if run.step:
            with torch.no_grad():
                net[0].weight.clamp_(-0.5, 0.5)

    with caplog.at_level(logging.WARNING, "epochal"):
        run, _ = train(tmp_path, Checkpoint(Every(batches=1), snapshot="lazy", keep_last=-1), hook=clip, epochs=2)
    warnings = [one.getMessage() for one in caplog.records if "changed in place" in one.getMessage()]
    assert len(warnings) == 1
    assert "model: 0.weight" in warnings[0]
    assert steps(run)[-1] == 12
    assert run.past[-1].checkpoint_errors == 0
    assert "every batch (batch 1 of epoch 1)" in run.checkpoints[0].manifest.reason
    reference, _ = train(
        tmp_path,
        Checkpoint(Every(batches=1) | Every(epochs=1), snapshot="off", keep_last=-1),
        hook=clip,
        epochs=2,
        name="x",
    )
    assert contents(run).items() <= contents(reference).items()


def test_lazy_with_weights_restored_at_the_end(tmp_path):
    stop = EarlyStopping("val/loss", patience=3, restore_best=True)
    run, _ = train(tmp_path, stop, Checkpoint(snapshot="lazy"), epochs=3)
    best = run.checkpoints.best("val/loss", mode="min").load("model")
    assert all(torch.equal(value, best[name]) for name, value in run.model.state_dict().items())


def test_lazy_leaves_no_hook_behind(tmp_path):
    from torch.optim.optimizer import _global_optimizer_pre_hooks as hooks

    train(tmp_path, Checkpoint(Every(batches=1), snapshot="lazy"), epochs=2)
    assert not hooks


def test_of_several_the_safest_is_used(tmp_path):
    threads = set()

    def look(run):
        threads.update(one.name for one in threading.enumerate())

    both = [Checkpoint(Every(batches=1), snapshot=mode, name=mode) for mode in ("lazy", "off")]
    train(tmp_path, *both, Do(on_model_save=look))
    assert {name for name in threads if name.startswith("epochal")} <= {"epochal run store"}


def test_where_there_is_no_memory_for_a_copy_the_training_waits_and_it_is_said_once(tmp_path, caplog):
    def no_memory(run):
        writer = run.engine.saver.writer
        if writer is not None:
            writer.arena.release()
            writer.arena.spare = lambda: 100

    with caplog.at_level(logging.WARNING, "epochal"):
        run, _ = train(tmp_path, Do(on_train_batch_end=no_memory), Checkpoint(Every(batches=1), keep_last=-1))
    assert steps(run)[-1] == 6
    assert caplog.text.count("there is no memory for a copy of the state") == 1


# -- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_while_a_checkpoint_is_written_has_no_part_in_it(tmp_path):
    status = []

    def fork(run):
        if run.step != 2:
            return
        child = os.fork()
        if not child:
            saver = run.engine.saver
            ok = saver.flush(5) and not saver.busy
            run.engine.copying and run.engine.copying()
            os._exit(0 if ok else 1)
        status.append(os.waitpid(child, 0)[1])
        run.checkpoint_store.gate.set()

    def close_gate(run):
        if run.step == 1:
            run.checkpoint_store.gate.clear()

    callbacks = [Do(optimizer_step=close_gate, on_train_batch_end=fork), Checkpoint(Every(batches=1), snapshot="lazy")]
    run, _ = train(tmp_path, *callbacks)
    assert status == [0]
    assert steps(run)[-1] == 6


def test_workers_of_a_loader_run_beside_it(tmp_path):
    net = net_of()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    loader = torch.utils.data.DataLoader(torch.randn(24, 4), batch_size=4, num_workers=2)
    with Loop(model=net, optimizer=optimizer, callbacks=[Checkpoint(Every(batches=1))], dir=tmp_path) as run:
        for _ in run.epochs(2):
            for x in run.batches(loader):
                net(x).sum().backward()
                optimizer.step()
    assert run.checkpoints.last.verify().ok
    assert run.checkpoints.last.manifest.step == 12


def test_what_cannot_be_saved_is_told_at_once(tmp_path):
    class Odd(Callback):
        seen = False

        def state_dict(self):
            return {"x": object()} if self.seen else {}

        def on_train_start(self, run):
            self.seen = True

    told = []
    run, _ = train(
        tmp_path, Odd(), Checkpoint(), Do(on_checkpoint_error=lambda run: told.append(run.engine.checkpoint_error))
    )
    assert isinstance(told[0], CheckpointError)
    assert "cannot save callbacks['Odd']['x']" in str(told[0])
    assert len(run.checkpoints) == 0


def test_memory_made_ahead_is_the_memory_of_the_first_copy(tmp_path):
    weights = torch.arange(1 << 20, dtype=torch.float32)
    encoded = encode_parts({"model": {"w": weights}})
    writer = Writer(CheckpointStore(tmp_path))
    writer.reserve(encoded)
    assert writer.flush(30.0)
    address = writer.arena._address
    assert writer.arena.size >= weights.nbytes
    writer.write(encoded, {"epoch": 0, "step": 1}, lambda error: None)
    assert writer.flush(30.0)
    assert writer.arena._address == address
    assert torch.equal(writer.store.checkpoints.last.load("model")["w"], weights)
    writer.close()
    assert writer.arena.size == 0


def test_a_training_makes_the_memory_after_its_first_step_where_it_is_worth_it(tmp_path):
    net = torch.nn.Linear(3000, 2000)  # 24 MB
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Loop(model=net, optimizer=optimizer, callbacks=[Checkpoint()], dir=tmp_path) as run:
        for _ in run.epochs(1):
            for batch in run.batches(range(3)):
                if batch == 2:
                    run.engine.saver.flush()
                    assert run.engine.saver.writer.arena.size >= 24_000_000
                    assert list(run.checkpoints) == []
                net(torch.ones(1, 3000)).sum().backward()
                optimizer.step()
    assert run.checkpoints.last.verify()
