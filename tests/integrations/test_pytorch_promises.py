"""What the contract says of a plain loop beyond the usual way through it: left loops, caught errors, files, threads."""

import gc
import logging

import pytest
import torch

from epochal import Callback, Checkpoint, EarlyStopping, Every, Loop, NonFinite, Stop
from epochal.core.errors import ArgumentError, AttachError
from epochal.testing import RecordEvents, check_events

BATCHES = [torch.full((2, 1), float(i)) for i in range(4)]


def parts():
    torch.manual_seed(0)
    net = torch.nn.Linear(1, 1)
    return net, torch.optim.SGD(net.parameters(), lr=0.1)


@pytest.fixture
def loop(tmp_path):
    """Return a function that makes a Loop with a trace of its events; all traces are checked at the end."""
    traces = []

    def make(*callbacks, **options):
        net, optimizer = parts()
        record = RecordEvents()
        traces.append(record.events)
        options = {"model": net, "optimizer": optimizer, "dir": tmp_path, "name": "run", **options}
        made = Loop(callbacks=[*callbacks, record], **options)
        made.events = record.events
        return made

    yield make
    for events in traces:
        if events:
            check_events(events)


def step(run, x):
    run.optimizer.zero_grad()
    loss = run.model(x).square().mean()
    loss.backward()
    run.optimizer.step()
    return loss


class Do(Callback):
    def __init__(self, **at):
        for event, fn in at.items():
            setattr(self, event, fn)


def test_an_error_that_the_body_catches_around_a_validation_leaves_it_closed(loop):
    one = loop()
    with one as run:
        for epoch in run.epochs(2):
            for x in run.batches(BATCHES):
                step(run, x)
            try:
                with run.validation():
                    for _ in run.batches(BATCHES[:2]):
                        raise ValueError("data")
            except ValueError:
                run.log({"val/loss": float(epoch)})
    assert one.events.count("on_val_start") == one.events.count("on_val_end") == 2
    assert one.events.count("on_val_batch_start") == one.events.count("on_val_batch_end") == 2
    assert [row["val/loss"] for row in run.history] == [0.0, 1.0]


def test_an_error_that_the_body_catches_around_a_batch_leaves_it_closed(loop):
    one = loop()
    with one as run:
        for _ in run.epochs(2):
            try:
                for x in run.batches(BATCHES):
                    step(run, x)
                    raise ValueError("data")
            except ValueError:
                pass
    assert run.end_reason == "completed"
    assert one.events.count("on_train_batch_end") == 2


def test_a_generator_that_somebody_still_holds_does_not_disturb_the_next_epoch(loop):
    seen, held = [], []
    one = loop()
    with one as run:
        for _ in run.epochs(3):
            batches = run.batches(iter(BATCHES))
            held.append(batches)  # as tqdm does
            for x in batches:
                seen.append(run.batch)
                step(run, x)
                if run.batch == 1:
                    break
            if len(held) > 1:
                held.pop(0)
                gc.collect()
    assert seen == [0, 1] * 3


def test_a_generator_of_an_earlier_epoch_that_ends_late_does_not_end_this_epochs_batches(loop):
    one = loop()
    with one as run:
        old = None
        for _ in run.epochs(2):
            batches = run.batches(BATCHES)
            for x in batches:
                step(run, x)
                if old is not None:
                    old.close()
                if run.batch == 1:
                    with run.validation():
                        run.log({"val/loss": 1.0})
                    if old is None:
                        break
            old = batches
    assert one.events.count("on_train_batch_start") == 2 + 4


def test_two_loaders_in_one_epoch_are_counted_on(loop):
    seen = []
    one = loop()
    with one as run:
        for _ in run.epochs(2):
            for loader in (BATCHES[:2], iter(BATCHES[:3])):
                for x in run.batches(loader):
                    seen.append((run.batch, run.num_batches))
                    step(run, x)
    assert seen == [(0, 2), (1, 2), (2, None), (3, None), (4, None)] * 2


def test_two_loaders_without_a_length_in_one_epoch_are_counted_on(loop):
    seen = []
    with loop() as run:
        for _ in run.epochs(1):
            for _ in range(2):
                for x in run.batches(iter(BATCHES[:2])):
                    seen.append(run.batch)
                    step(run, x)
    assert seen == [0, 1, 2, 3]


def test_continue_and_return_keep_start_and_end_paired(loop):
    one = loop()

    def train():
        with one as run:
            for epoch in run.epochs(5):
                if epoch == 0:
                    continue
                for x in run.batches(BATCHES):
                    if run.batch == 1:
                        continue
                    step(run, x)
                    if epoch == 2:
                        return run
        return None

    run = train()
    assert run is not None
    assert run.end_reason == "completed"
    assert one.events.count("on_train_epoch_start") == one.events.count("on_fit_epoch_end") == 3
    assert one.events.count("on_train_batch_start") == one.events.count("on_train_batch_end") == 5


def test_a_loop_without_an_epoch_still_begins_and_ends(loop):
    one = loop()
    with one:
        pass
    assert one.events == ["on_train_start", "on_train_end", "teardown"]


def test_an_error_before_the_first_epoch_is_told_and_torn_down(loop):
    one = loop()
    with pytest.raises(ValueError, match="mine"), one:
        raise ValueError("mine")
    assert one.events == ["on_exception", "teardown"]


def test_epochs_may_be_asked_for_again(loop):
    with loop() as run:
        assert list(run.epochs(2)) == [0, 1]
        assert list(run.epochs(2)) == []
        assert list(run.epochs(4)) == [2, 3]
        assert run.num_epochs == 4


@pytest.mark.parametrize("n", [-1, 1.5, True, "3", None])
def test_a_number_of_epochs_is_a_whole_number(loop, n):
    with loop() as run, pytest.raises(ArgumentError, match=f"the number of epochs, an int >= 0, not {n!r}"):
        next(run.epochs(n))


def test_validation_inside_validation_is_an_error(loop):
    with loop() as run:
        for _ in run.epochs(1):
            with (
                run.validation(),
                pytest.raises(AttachError, match="one ends before the next begins"),
                run.validation(),
            ):
                pass


def test_data_is_the_batch_as_the_loader_delivered_it_and_none_outside(loop):
    seen = []
    with loop(Do(on_train_batch_end=lambda run: seen.append(run.data))) as run:
        assert run.data is None
        for _ in run.epochs(1):
            for x in run.batches(BATCHES):
                assert run.data is x
            assert run.data is None
    assert all(a is b for a, b in zip(seen, BATCHES, strict=True))


def test_a_policy_that_needs_a_metric_nobody_logs_says_so_at_the_first_epochs_end(loop):
    from epochal import MetricNotFound

    def train():
        with one as run:
            for _ in run.epochs(3):
                with run.validation():
                    run.log({"val/loss": 1.0})

    one = loop(EarlyStopping("val/los", patience=3, mode="min"))
    with pytest.raises(MetricNotFound, match="no metric 'val/los' was measured so far; did you mean 'val/loss'"):
        train()
    assert one.run.epoch == 0


def test_a_stop_on_nan_ends_in_the_batch_that_brought_it(loop):
    with loop(Stop(when=NonFinite("train/loss"))) as run:
        for _ in run.epochs(3):
            for x in run.batches(BATCHES):
                run.log({"train/loss": step(run, x) * (float("nan") if run.batch == 2 else 1.0)})
    assert (run.epoch, run.batch, run.end_reason) == (0, 2, "stopped")
    assert run.stop_reason == "Stop: train/loss is nan"


def test_a_folder_that_cannot_be_written_costs_the_checkpoints_and_not_the_training(loop, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    told = []
    one = loop(
        Checkpoint(when=Every(epochs=1)), Do(on_checkpoint_error=lambda run: told.append(1)), dir=tmp_path / "file"
    )
    with caplog.at_level(logging.ERROR, "epochal"), one as run:
        for _ in run.epochs(2):
            for x in run.batches(BATCHES):
                step(run, x)
    assert run.end_reason == "completed"
    assert (len(told), run.past[-1].checkpoint_errors, run.past[-1].checkpoints) == (2, 2, 0)
    assert "cannot be written" in caplog.text
    assert "choose another with dir=" in caplog.text


def test_without_a_store_nothing_is_written_until_somebody_writes(loop, tmp_path):
    with loop(store=False) as run:
        for _ in run.epochs(1):
            for x in run.batches(BATCHES):
                step(run, x)
    assert list(tmp_path.iterdir()) == []
    assert run.dir == tmp_path / "run"


def test_the_optimizer_is_left_as_it_was(loop):
    one = loop()
    with one as run:
        run.set_lr(0.5)
        for _ in run.epochs(1):
            for x in run.batches(BATCHES):
                step(run, x)
        optimizer = run.optimizer
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks
    with pytest.raises(AttachError, match="two"), loop(Do(), Do(), EarlyStopping("val/loss", patience=1)) as run:
        raise AttachError("two")
    assert not run.optimizer._optimizer_step_post_hooks


def test_a_callback_in_two_loops_at_once_is_an_error_and_leaves_no_hooks(loop):
    shared = EarlyStopping("val/loss", patience=1)
    other = loop(shared, name="other")
    with loop(shared):
        with pytest.raises(AttachError, match="serves another training that is still running"):
            other.__enter__()
        assert not other.state.optimizers[0]._optimizer_step_post_hooks


def test_a_stop_at_the_last_moment_of_a_validation_ends_the_training_after_the_epoch(loop):
    with loop(Do(on_val_end=lambda run: run.stop("x"))) as run:
        for _ in run.epochs(3):
            for x in run.batches(BATCHES):
                step(run, x)
            with run.validation():
                run.log({"val/loss": 1.0})
    assert len(run.history) == 1
    assert run.history[0]["val/loss"] == 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": 5}, "model=5 cannot be saved and restored; give an nn.Module"),
        ({"optimizer": 5}, "optimizer=5 cannot be saved and restored; give a torch.optim.Optimizer"),
        ({"scheduler": 5}, "scheduler=5 cannot be saved and restored"),
        ({"state": {"x": 5}}, r"state\['x'\]=5 cannot be saved and restored; give something with state_dict"),
        ({"name": "a/b"}, "name='a/b' must be one folder's name, without a path"),
        ({"name": ".."}, "name='..' must be one folder's name, without a path"),
        ({"name": ""}, "name='' must be one folder's name"),
    ],
)
def test_what_cannot_be_used_is_said_when_the_loop_is_made(loop, options, said):
    with pytest.raises(ArgumentError, match=said):
        loop(**options)


def test_two_loops_without_a_name_of_their_own_do_not_share_a_folder(loop, tmp_path):
    one, two = loop(), loop()
    for made in (one, two):
        with made as run:
            for _ in run.epochs(1):
                pass
            run.save("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]
    assert len(one.run.checkpoints) == len(two.run.checkpoints) == 1
