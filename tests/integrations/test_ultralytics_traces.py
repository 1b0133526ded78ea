"""Real traces of YOLO trainings obey the grammar, whatever happens in them."""

import pytest

from epochal import attach
from epochal.testing import RecordEvents, check_events

STEP = ["optimizer_step", "on_before_zero_grad"]
MICRO = ["on_train_batch_start", "on_train_batch_end"]
BATCH = ["on_train_batch_start", *STEP, "on_train_batch_end"]
VAL = ["on_val_start", "on_val_batch_start", "on_val_batch_end", "on_val_end"]
BEGIN = ["on_pretrain_routine_start", "on_pretrain_routine_end", "on_train_start"]
END = [*VAL, "on_train_end", "teardown"]
FAILED = ["on_exception", "teardown"]


def epoch(*batches, val=VAL, save=("on_model_save",)):
    inside = [event for batch in batches for event in batch]
    return ["on_train_epoch_start", *inside, "on_train_epoch_end", *val, *save, "on_fit_epoch_end"]


@pytest.fixture
def watched(yolo):
    model, record = yolo(), RecordEvents()
    return model, attach(model, record), record.events


def test_a_normal_training_is_what_the_grammar_says(watched, quick):
    model, run, events = watched
    model.train(**quick())
    check_events(events)
    assert events == [*BEGIN, *epoch(BATCH, BATCH), *epoch(BATCH, BATCH), *END]
    assert (run.end_reason, run.stop_reason, run.epoch, run.step, len(run.history)) == ("completed", None, 1, 4, 2)


def test_a_stop_in_a_batch_ends_after_that_batch_then_validates_and_saves(watched, quick):
    model, run, events = watched
    run.add_callback("on_train_batch_start", lambda run: run.stop("enough"), once=True)
    model.train(**quick(val=False))
    check_events(events)
    assert events == [*BEGIN, *epoch(BATCH), *END]
    assert (run.end_reason, run.stop_reason) == ("stopped", "<lambda>(): enough")


@pytest.mark.parametrize("event", ["on_pretrain_routine_start", "on_pretrain_routine_end", "on_train_start"])
def test_a_stop_before_the_first_batch_ends_after_it(watched, quick, event):
    model, run, events = watched
    run.add_callback(event, lambda run: run.stop("enough"))
    model.train(**quick())
    assert events == [*BEGIN, *epoch(BATCH), *END]


def test_a_stop_waits_for_the_step_of_its_accumulation_group(watched, quick):
    model, run, events = watched
    run.add_callback("on_train_batch_end", lambda run: run.stop("enough"), once=True)
    model.train(**quick(batch=4, nbs=12))
    check_events(events)
    assert events == [*BEGIN, *epoch(MICRO, MICRO, BATCH), *END]
    assert run.step == 1


def test_accumulation_is_visible(watched, quick):
    model, _, events = watched
    model.train(**quick(batch=4, nbs=8, epochs=1))
    check_events(events)
    assert events == [*BEGIN, *epoch(MICRO, BATCH, MICRO, BATCH), *END]


@pytest.mark.parametrize("event", ["on_train_epoch_end", "on_val_end", "on_model_save", "on_fit_epoch_end"])
def test_a_stop_at_the_end_of_an_epoch_ends_there(watched, quick, event):
    model, run, events = watched
    run.add_callback(event, lambda run: run.stop("enough"), once=True)
    model.train(**quick())
    assert events == [*BEGIN, *epoch(BATCH, BATCH), *END]
    assert run.end_reason == "stopped"


@pytest.mark.parametrize(
    "event",
    [
        "on_pretrain_routine_start",
        "on_train_batch_start",
        "optimizer_step",
        "on_val_batch_end",
        "on_fit_epoch_end",
        "on_train_end",
    ],
)
def test_an_error_in_a_callback_ends_the_training_and_reaches_the_caller(watched, quick, event):
    model, run, events = watched

    def fail(run):
        raise ZeroDivisionError("of a callback")

    run.add_callback(event, fail)
    with pytest.raises(ZeroDivisionError, match="of a callback") as caught:
        model.train(**quick(epochs=1))
    check_events(events)
    assert events[-2:] == FAILED
    assert run.end_reason == "exception"
    assert any("fail" in note and event in note for note in caught.value.__notes__)
    assert model.trainer is None or not [
        one for calls in model.trainer.callbacks.values() for one in calls if "epochal" in str(one)
    ]


@pytest.mark.parametrize(
    ("error", "reason"), [(ZeroDivisionError("step"), "exception"), (KeyboardInterrupt(), "interrupted")]
)
def test_an_error_in_the_step_and_ctrl_c_are_told_to_all(watched, quick, error, reason):
    model, run, events = watched

    def spoil(run):
        def fail(*_):
            raise error

        run.model.register_forward_hook(fail)

    run.add_callback("on_train_batch_start", spoil, once=True)
    with pytest.raises(type(error)):
        model.train(**quick())
    check_events(events)
    assert events[-2:] == FAILED
    assert run.end_reason == reason
    assert run.past[-1].end_reason == reason


def test_an_error_before_the_trainer_stands_is_told_too(watched, quick):
    model, _, events = watched
    with pytest.raises(RuntimeError, match="nowhere"):
        model.train(**quick(data="nowhere.yaml"))
    assert events == ["on_pretrain_routine_start", *FAILED]
    with pytest.raises(SyntaxError):
        model.train(**quick(no_such_argument=1))
    assert events[3:] == FAILED


def test_an_error_handled_around_train_is_not_its_own(watched, quick):
    model, run, _ = watched
    try:
        raise ValueError("of the script")
    except ValueError:
        model.train(**quick(epochs=1))
    assert run.end_reason == "completed"


def test_nan_recovery_aborts_the_epoch_and_runs_it_again(watched, quick):
    model, run, events = watched

    def spoil(trainer):
        if trainer.epoch == 1 and trainer.nan_recovery_attempts == 0:
            trainer.loss = trainer.loss * float("nan")

    model.add_callback("on_train_epoch_end", spoil)
    model.train(**quick())
    check_events(events)
    given_up = ["on_train_epoch_start", *BATCH, *BATCH, "on_train_epoch_end", *VAL, "on_train_epoch_abort"]
    assert events == [*BEGIN, *epoch(BATCH, BATCH), *given_up, *epoch(BATCH, BATCH), *END]
    assert len(run.history) == 2


def test_the_out_of_memory_retry_aborts_the_epoch_and_runs_it_again(watched, quick):
    model, run, events = watched
    batches = []

    def spoil(run):
        def fail(*_):
            hook.remove()
            raise RuntimeError("CUDA out of memory")

        hook = run.model.register_forward_hook(fail)

    run.add_callback("on_train_batch_start", spoil, once=True)
    run.add_callback(
        "on_train_batch_end", lambda run: batches.append((run.batch, run.num_batches, len(run.data["img"])))
    )
    model.train(**quick(epochs=1))
    check_events(events)
    given_up = ["on_train_epoch_start", "on_train_batch_start", "on_train_epoch_abort"]
    assert events == [*BEGIN, *given_up, *epoch(MICRO, BATCH, MICRO, BATCH), *END]
    assert batches == [(0, 4, 4), (1, 4, 4), (2, 4, 4), (3, 4, 4)]


def test_a_batch_that_time_leaves_open_is_ended(watched, quick):
    model, run, events = watched
    model.train(**quick(time=1e-9))
    check_events(events)
    assert events == [*BEGIN, *epoch(BATCH), *END]
    assert (run.end_reason, run.num_epochs) == ("completed", 1)


def test_without_validation_only_the_last_epoch_has_one(watched, quick):
    model, run, events = watched
    fitness = []
    run.add_callback("on_fit_epoch_end", lambda run: fitness.append(run.fitness))
    model.train(**quick(val=False))
    assert events == [*BEGIN, *epoch(BATCH, BATCH, val=()), *epoch(BATCH, BATCH), *END]
    assert fitness[0] is None
    assert fitness[1] == 0.0


def test_a_stop_leaves_weights_also_with_save_false(watched, quick):
    model, run, events = watched
    run.add_callback("on_fit_epoch_end", lambda run: run.stop("enough"))
    model.train(**quick(save=False))
    assert events == [*BEGIN, *epoch(BATCH, BATCH, save=()), "on_model_save", *END]


def test_several_data_sets_are_several_trainings(watched, quick, tiny_digits):
    model, run, events = watched
    model.train(**quick(data=[str(tiny_digits), "nowhere.yaml", str(tiny_digits)], epochs=1))
    cut = events.index("teardown") + 1
    check_events(events[:cut])
    assert events[:cut] == events[-cut:]
    assert events[cut:-cut] == ["on_pretrain_routine_start", *FAILED]
    assert [one.end_reason for one in run.past] == ["completed", "exception", "completed"]


def test_ultralytics_own_patience_is_a_stop_with_a_reason(watched, quick):
    model, run, _ = watched
    model.add_callback("on_train_epoch_end", lambda trainer: setattr(trainer.stopper, "best_fitness", 9.0))
    model.train(**quick(epochs=3, patience=1))
    assert run.epoch == 0
    assert run.stop_reason == "Ultralytics: no better fitness for 1 epochs (patience=1)"


def test_a_native_callback_that_stops_is_a_stop_with_a_reason(watched, quick):
    model, run, events = watched
    model.add_callback("on_train_batch_end", lambda trainer: setattr(trainer, "stop", True))
    model.train(**quick())
    assert events == [*BEGIN, *epoch(BATCH), *END]
    assert run.stop_reason == "Ultralytics: a native callback set trainer.stop"
