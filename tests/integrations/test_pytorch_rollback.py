"""A plain loop goes back inside an epoch: to the same place, without the batches that are left out."""

import logging

import pytest
import torch

from epochal import Callback, Checkpoint, Every, Loop
from epochal.testing import RecordEvents, check_events
from tests.faults.loops import LOOPS, Plain, differences

KINDS = ["Plain", "Accumulating", "Noisy", "Own", "Stateful", "List"]


class Back(Callback):
    """Asks once to go back, after one batch."""

    def __init__(self, at, **options):
        self.at, self.options = at, options
        self.asked = False

    def on_train_batch_end(self, run):
        if not self.asked and (run.epoch, run.batch) == self.at:
            self.asked = True
            run.roll_back("trouble", **self.options)


class Save(Callback):
    """Saves after one batch."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_end(self, run):
        if (run.epoch, run.batch) == self.at:
            run.save("here")


def train(kind, folder, callbacks):
    torch.manual_seed(0)
    script, record, losses = LOOPS[kind](), RecordEvents(), []
    loop = Loop(
        model=script.net, **script.given(), callbacks=[*script.callbacks(), *callbacks, record], dir=folder, name="run"
    )
    with loop as run:
        run.add_callback(
            "on_train_batch_end", lambda run: losses.append((run.epoch, run.batch, run.metrics["train/loss"]))
        )
        for _ in run.epochs(2):
            script.epoch(run)
    check_events(record.events)
    return script, run, record.events, losses


@pytest.mark.parametrize("kind", KINDS)
def test_going_back_and_leaving_nothing_out_changes_nothing(kind, tmp_path):
    alone, run, _, losses = train(kind, tmp_path / "alone", [])
    again, other, events, seen = train(kind, tmp_path, [Save((1, 1)), Back((1, 3))])
    assert seen == losses[:9] + losses[7:]  # batches 2 and 3 of epoch 1 twice
    assert events.count("on_train_epoch_abort") == 1
    assert events[events.index("on_train_epoch_abort") + 1 :][:2] == ["on_resume", "on_train_epoch_start"]
    assert differences(alone.state(), again.state()) == []
    assert other.history == run.history
    assert other.step == run.step


@pytest.mark.parametrize("kind", KINDS)
def test_batches_to_skip_are_not_trained_on_again(kind, tmp_path):
    _, run, _events, seen = train(
        kind, tmp_path, [Checkpoint(Every(epochs=1)), Back((1, 3), skip=(2, 3), lr_factor=0.5)]
    )
    assert [(epoch, batch) for epoch, batch, _ in seen[5:]] == [(1, n) for n in (0, 1, 2, 3, 0, 1, 4)]
    assert run.lr["pg0"] == pytest.approx(0.5 * run.optimizer.param_groups[0]["lr"])
    assert len(run.history) == 2


def test_without_a_point_to_go_back_to_the_training_goes_on(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "epochal"):
        _, _run, events, seen = train("Plain", tmp_path, [Back((1, 3))])
    assert len(seen) == 10
    assert "is not possible" in caplog.text
    assert "on_train_epoch_abort" not in events


def test_a_validation_may_ask_for_it_too(tmp_path):
    class AfterValidation(Back):
        def on_val_end(self, run):
            if not self.asked and run.epoch == 1:
                self.asked = True
                run.roll_back("bad", skip=(4, 4))

    _, run, _events, seen = train("Plain", tmp_path, [Save((1, 1)), AfterValidation((9, 9))])
    assert [(epoch, batch) for epoch, batch, _ in seen[5:]] == [(1, n) for n in (0, 1, 2, 3, 4, 2, 3)]
    assert len(run.history) == 2


def test_the_second_loader_of_an_epoch_cannot_be_gone_back_in(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "epochal"):
        _, _run, _, seen = train("TwoLoaders", tmp_path, [Save((1, 1)), Back((1, 6))])
    assert len(seen) == 14
    assert "second run.batches" in caplog.text


def test_what_was_skipped_stays_skipped_after_a_resume(tmp_path):
    class Cut(Callback):
        def on_train_batch_start(self, run):
            if run.epoch == 1 and run.batch == 4 and cut:
                raise KeyboardInterrupt

    def again(resume):
        script = Plain()
        seen = []
        loop = Loop(
            model=script.net, **script.given(), dir=tmp_path, name="run", resume=resume,
            callbacks=[Checkpoint(Every(batches=1)), Back((1, 2), skip=(1, 2)), Cut()],
        )  # fmt: skip
        with loop as run:
            run.add_callback("on_train_batch_end", lambda run: seen.append((run.epoch, run.batch)))
            for _ in run.epochs(2):
                script.epoch(run)
        return script, seen

    cut = True
    with pytest.raises(KeyboardInterrupt):
        again(False)
    cut = False
    _, seen = again(True)
    assert {(1, 1), (1, 2)}.isdisjoint(seen)
    assert seen[-1] == (1, 4)
