"""Rollback: a training goes back to an earlier point, leaves a stretch out, and goes on as if it had not been there."""

import pytest

from epochal import Callback, Checkpoint, Every
from epochal.core.errors import ArgumentError, CapabilityError
from epochal.core.rollback import Rollbacks, roll_back
from epochal.core.run import ALL_CAPABILITIES, Run
from epochal.testing import check_events, simulate


class GoBack(Callback):
    """Asks for a rollback at one place, once, or at every chance."""

    def __init__(self, event, at, times=1, **how):
        self.event, self.at, self.left, self.how = event, at, times, how
        self.seen = []
        setattr(self, event, self.ask)

    def ask(self, run):
        if (run.epoch, run.batch) == self.at and self.left:
            self.left -= 1
            run.roll_back("told to", **self.how)


class Learner(Callback):
    """Learns which batches it has seen."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, run):
        self.seen.append((run.epoch, run.batch))

    def state_dict(self):
        return {"seen": [list(one) for one in self.seen]}

    def load_state_dict(self, state):
        self.seen = [tuple(one) for one in state["seen"]]


def each_epoch():
    return Checkpoint(Every(epochs=1), keep_last=1, keep_best=0)


ALL = [(epoch, batch) for epoch in range(3) for batch in range(4)]
EPOCHS = [{"val/loss": 1.0}] * 3


@pytest.mark.parametrize("event", ["on_train_batch_end", "on_val_end", "on_fit_epoch_end"])
def test_everybody_is_as_if_the_stretch_had_never_been(event):
    learner, back = Learner(), GoBack(event, (1, 3), skip=(1, 2), lr_factor=0.5)
    result = simulate([learner, each_epoch(), back], EPOCHS, lr=0.1, batches=4)
    assert learner.seen == [one for one in ALL if one not in ((1, 1), (1, 2))]
    assert result.lrs == pytest.approx([0.1, 0.05, 0.05])
    assert result.epochs_run == len(result.run.history) == 3
    assert result.run.step == 10
    assert result.end_reason == "completed"
    check_events(result.events)
    where = result.events.index("on_train_epoch_abort")
    assert result.events[where : where + 3] == ["on_train_epoch_abort", "on_resume", "on_train_epoch_start"]
    assert result.run.engine.rollbacks.counts == {back.name: 1}


def test_what_is_given_up_is_not_saved():
    back = GoBack("on_fit_epoch_end", (1, 3))
    result = simulate([back, each_epoch()], EPOCHS, batches=4)
    assert result.saved == [0, 1, 2]  # epoch 1 when it was done the second time


def test_without_a_point_in_this_epoch_it_is_said_and_the_training_goes_on(caplog):
    learner = Learner()
    result = simulate([learner, GoBack("on_train_batch_end", (1, 2), skip=(2, 2))], EPOCHS, batches=4)
    assert learner.seen == ALL
    assert "on_train_epoch_abort" not in result.events
    assert "not possible: no sound point to resume from lies in epoch 1" in caplog.text


def test_the_first_epoch_has_no_start_to_go_back_to(caplog):
    result = simulate([each_epoch(), GoBack("on_train_batch_end", (0, 2))], EPOCHS, batches=4)
    assert "not possible" in caplog.text
    assert result.epochs_run == 3


def test_two_requests_of_one_moment_are_one_rollback_and_both_are_heeded():
    learner = Learner()
    backs = [GoBack("on_train_batch_end", (2, 1), skip=(place, place), lr_factor=0.5) for place in (0, 3)]
    result = simulate([learner, each_epoch(), *backs], EPOCHS, lr=1.0, batches=4)
    assert learner.seen == [one for one in ALL if one not in ((2, 0), (2, 3))]
    assert result.lrs == [1.0, 1.0, 0.25]
    assert result.events.count("on_train_epoch_abort") == 1


def test_a_second_rollback_of_an_epoch_keeps_what_the_first_left_out():
    learner = Learner()
    backs = [GoBack("on_train_batch_end", (1, 1), skip=(1, 1)), GoBack("on_train_batch_end", (1, 3), skip=(3, 3))]
    result = simulate([learner, each_epoch(), *backs], EPOCHS, batches=4)
    assert learner.seen == [one for one in ALL if one not in ((1, 1), (1, 3))]
    assert sum(result.run.engine.rollbacks.counts.values()) == 2


def test_an_epoch_that_is_left_out_whole_still_ends():
    learner = Learner()
    result = simulate([learner, each_epoch(), GoBack("on_val_end", (1, 3), skip=(0, 3))], EPOCHS, batches=4)
    assert learner.seen == [one for one in ALL if one[0] != 1]
    assert len(result.run.history) == 3


def test_a_checkpoint_with_nan_is_no_place_to_go_back_to(caplog):
    class Learnt(Callback):
        value = 0.0

        def on_train_epoch_end(self, run):
            run.model.epoch = float("nan")

    simulate([each_epoch(), Learnt(), GoBack("on_train_batch_end", (1, 2))], EPOCHS, batches=4)
    assert "has NaN in its model" in caplog.text
    assert "not possible" in caplog.text


def test_it_is_refused_where_a_trainer_cannot_do_it():
    run = Run(host="some trainer", provides=ALL_CAPABILITIES)
    with pytest.raises(CapabilityError, match="some trainer cannot go back"):
        run.roll_back("told to")


def test_a_factor_that_is_none_is_refused():
    class Wrong(Callback):
        def on_train_batch_end(self, run):
            run.roll_back("told to", lr_factor=-1)

    with pytest.raises(ArgumentError, match="lr_factor"):
        simulate([Wrong()], EPOCHS)


def test_nothing_asked_nothing_happens():
    run = Run(host="some trainer", provides=ALL_CAPABILITIES)
    assert not roll_back(run.engine)


def test_what_was_skipped_is_saved_with_the_run():
    rollbacks, again = Rollbacks(), Rollbacks()
    rollbacks.skip(1, (2, 3))
    rollbacks.count("LossSpike")
    again.load_state_dict(rollbacks.state_dict())
    assert again.state_dict() == rollbacks.state_dict()
    assert [again.skips(1, batch) for batch in range(5)] == [False, False, True, True, False]
    assert not again.skips(0, 2)
