"""The delivery of events: who is called, in which order, and what happens when somebody fails."""

import logging
import threading

import pytest

from epochal import Callback
from epochal.core.errors import ArgumentError, AttachError, CapabilityError, SignatureError, UnknownEvent
from epochal.testing import RecordEvents, simulate

ONE_EPOCH = [{"val/loss": 1.0}]


class Do(Callback):
    """Calls functions at events: ``Do("a", on_fit_epoch_end=fn)``."""

    def __init__(self, label="", guarded=False, **at):
        self.guarded = guarded
        if label:
            self.name = label
        for event, fn in at.items():
            setattr(self, event, fn)


def raising(error):
    def fail(run):
        raise error

    return fail


def test_callbacks_and_functions_are_called_in_the_users_order(drive):
    seen = []
    run = drive(Do("a", on_fit_epoch_end=lambda run: seen.append("a"))).run
    run.add_callback("on_fit_epoch_end", lambda run: seen.append("f"))
    run.add(Do("b", on_fit_epoch_end=lambda run: seen.append("b")))
    run.on("on_fit_epoch_end")(lambda run: seen.append("g"))
    run.engine.fire("on_fit_epoch_end")
    assert seen == ["a", "f", "b", "g"]


def test_only_methods_that_are_overridden_are_held():
    class Base(Callback):
        def on_train_end(self, run): ...

    class Two(Base):
        def teardown(self, run): ...

    slots = simulate([Two()], ONE_EPOCH).run.engine.dispatcher.slots
    held = {event for event, slot in slots.items() if any(handle.label == "Two" for handle in slot.handles)}
    assert held == {"on_train_end", "teardown"}


def test_what_is_added_during_an_event_counts_from_the_next_event_on(drive):
    seen, driver = [], drive()

    def add(run):
        run.add_callback("on_fit_epoch_end", lambda run: seen.append("new"))

    driver.run.add_callback("on_fit_epoch_end", add, once=True)
    driver.engine.fire("on_fit_epoch_end")
    assert seen == []
    driver.engine.fire("on_fit_epoch_end")
    assert seen == ["new"]


def test_what_is_removed_during_an_event_counts_from_the_next_event_on(drive):
    seen, driver = [], drive()
    driver.run.add_callback("on_fit_epoch_end", lambda run: handle.remove())
    handle = driver.run.add_callback("on_fit_epoch_end", lambda run: seen.append(1))
    driver.engine.fire("on_fit_epoch_end")
    driver.engine.fire("on_fit_epoch_end")
    assert seen == [1]
    handle.remove()  # once more does no harm


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every": 1}, [1, 2, 3, 4, 5, 6, 7]),
        ({"every": 3}, [3, 6]),
        ({"once": True}, [1]),
        ({"every": 3, "once": True}, [3]),
    ],
)
def test_every_is_the_nth_occurrence_and_once_the_first_let_through(drive, options, expected):
    driver, seen = drive(), []
    driver.run.add_callback("on_fit_epoch_end", lambda run: seen.append(number), **options)
    for number in range(1, 8):  # noqa: B007  # the function reads it
        driver.engine.fire("on_fit_epoch_end")
    assert seen == expected


def test_one_function_may_be_registered_twice_and_removed_once(drive):
    driver, seen = drive(), []

    def fn(run):
        seen.append(1)

    handle = driver.run.add_callback("on_fit_epoch_end", fn)
    driver.run.add_callback("on_fit_epoch_end", fn)
    driver.engine.fire("on_fit_epoch_end")
    handle.remove()
    driver.engine.fire("on_fit_epoch_end")
    assert seen == [1, 1, 1]


def test_the_decorator_returns_the_function_itself(drive):
    run = drive().run

    @run.on("on_fit_epoch_end", every=2)
    def fn(run):
        return 5

    assert fn(run) == 5


def test_an_event_of_the_users_own_reaches_functions_and_methods_also_nested(drive):
    seen = []

    class Mine(Callback):
        def on_teacher_update(self, run):
            seen.append("method")

    driver = drive(Mine())
    driver.run.declare("on_teacher_update")
    driver.run.declare("on_teacher_update")  # saying it twice does no harm
    driver.run.add_callback("on_teacher_update", lambda run: seen.append("function"))
    driver.run.add_callback("on_train_start", lambda run: run.emit("on_teacher_update"))
    driver.run.add_callback("on_train_start", lambda run: seen.append("after"))
    driver.begin()
    assert sorted(seen[:2]) == ["function", "method"]
    assert seen[2] == "after"


@pytest.mark.parametrize("name", ["teacher", "on_a b", "on_train_start", "on_checkpoint_error", "at_safe_point"])
def test_an_event_that_cannot_be_declared_is_refused(drive, name):
    with pytest.raises(ArgumentError, match=name):
        drive().run.declare(name)


def test_the_trainers_events_cannot_be_emitted_by_hand(drive):
    with pytest.raises(ArgumentError, match="'on_train_start' comes from the trainer; emit is for events made with"):
        drive().run.emit("on_train_start")


def test_a_mistyped_event_is_said_at_registration_with_the_nearest_name(drive):
    class Typo(Callback):
        def on_train_bacth_end(self, run): ...

    driver = drive()
    for register in (
        lambda: driver.run.add_callback("on_train_bacth_end", print),
        lambda: driver.run.on("on_train_bacth_end")(print),
        lambda: driver.run.emit("on_train_bacth_end"),
        lambda: driver.run.add(Typo()),
    ):
        with pytest.raises(UnknownEvent, match="no event 'on_train_bacth_end'; did you mean 'on_train_batch_end'"):
            register()
    assert driver.run.roster.callbacks == {}


def test_a_method_for_an_event_that_nobody_declared_is_said_when_the_training_begins(drive):
    class Mine(Callback):
        def on_q_update(self, run): ...

    with pytest.raises(UnknownEvent, match="no event 'on_q_update'"):
        drive(Mine()).begin()


def test_a_wrong_signature_is_said_at_registration(drive):
    class Wrong(Callback):
        def on_train_end(self): ...

    class Safe(Callback):
        def at_safe_point(self, run): ...

    run = drive().run
    with pytest.raises(SignatureError, match=r"on_train_end calls .*Wrong.on_train_end with one argument, the run"):
        run.add(Wrong())
    with pytest.raises(SignatureError, match="two arguments, the run and the moment"):
        run.add(Safe())
    with pytest.raises(SignatureError, match="does not take that: too many positional"):
        run.add_callback("on_train_end", lambda: None)
    with pytest.raises(SignatureError, match="5 cannot be called; pass a function of one argument"):
        run.add_callback("on_train_end", 5)
    assert run.roster.callbacks == {}
    assert all(not slot.handles for slot in run.engine.dispatcher.slots.values())


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
def test_every_must_be_a_whole_number_of_at_least_one(drive, every):
    with pytest.raises(ArgumentError, match=f"every must be an int >= 1, not {every!r}"):
        drive().run.add_callback("on_train_end", print, every=every)


def test_a_class_a_function_and_a_stranger_are_no_callbacks(drive):
    run = drive().run
    with pytest.raises(AttachError, match=r"that is the class; pass an object, RecordEvents\(\.\.\.\)"):
        run.add(RecordEvents)
    with pytest.raises(AttachError, match=r"a function goes with run.add_callback\(event, fn\)"):
        run.add(lambda run: None)
    with pytest.raises(AttachError, match="5 is not a callback: derive it from"):
        run.add(5)
    one = RecordEvents()
    run.add(one)
    with pytest.raises(AttachError, match="RecordEvents is a callback of this run already"):
        run.add(one)


def test_what_the_trainer_cannot_deliver_is_refused_at_registration(drive):
    class Needs(Callback):
        requires = frozenset({"gradients", "optimizer_step"})

    with pytest.raises(CapabilityError, match="Needs requires gradients, optimizer_step, which Driver cannot deliver"):
        drive(Needs(), provides=frozenset())


# -- failures ---------------------------------------------------------------------------------------------------------


def test_an_unguarded_error_propagates_unchanged_with_a_note(drive):
    error = KeyError("mine")
    driver = drive(Do("bad", on_fit_epoch_end=raising(error)))
    with pytest.raises(KeyError) as caught:
        driver.engine.fire("on_fit_epoch_end")
    assert caught.value is error
    assert error.__notes__ == ["raised by bad in on_fit_epoch_end"]


def test_the_first_error_propagates_and_the_others_are_notes_on_it(drive):
    seen = []
    driver = drive(
        Do("one", teardown=raising(ValueError("first"))),
        Do("two", teardown=raising(OSError("second"))),
        Do("three", teardown=lambda run: seen.append("three")),
    )
    driver.begin()
    with pytest.raises(ValueError, match="first") as caught:
        driver.end()
    assert seen == ["three"]
    notes = " ".join(caught.value.__notes__)
    assert "raised by one in teardown" in notes
    assert "OSError('second')" in notes
    assert "raised by two in teardown" in notes


def test_on_exception_and_teardown_reach_everybody_and_only_add_notes_to_the_trainings_own_error(drive):
    record = RecordEvents()
    driver = drive(
        Do("one", on_exception=raising(ValueError("in on_exception")), teardown=raising(OSError("in teardown"))), record
    ).begin()
    error = RuntimeError("the training's")
    driver.end(error)
    assert record.events[-2:] == ["on_exception", "teardown"]
    notes = " ".join(error.__notes__)
    assert "in on_exception" in notes
    assert "in teardown" in notes
    assert driver.run.end_reason == "exception"


def test_a_failure_while_a_checkpoint_is_announced_after_an_error_still_tears_down(tmp_path):
    class Rescue(Callback):
        def on_exception(self, run):
            run.save("rescue")

        def on_model_save(self, run):
            raise ValueError("in on_model_save")

    def fail(run):
        raise RuntimeError("the training's")

    record = RecordEvents()
    with pytest.raises(RuntimeError, match="the training's") as caught:
        simulate([record, Rescue(), Do("bad", on_fit_epoch_end=fail)], ONE_EPOCH, dir=tmp_path)
    assert record.events[-3:] == ["on_exception", "on_model_save", "teardown"]
    assert "in on_model_save" in " ".join(caught.value.__notes__)


def test_a_guarded_failure_is_logged_once_with_its_traceback_counted_and_survived(caplog):
    bad = Do("bad", guarded=True, on_fit_epoch_end=raising(ValueError("boom")), on_train_end=raising(OSError("x")))
    with caplog.at_level(logging.ERROR, "epochal"):
        result = simulate([bad], ONE_EPOCH * 5)
    assert result.end_reason == "completed"
    assert [(one.name, one.exc_info[0]) for one in caplog.records] == [("epochal", ValueError)]
    assert "bad failed in on_fit_epoch_end; the training goes on" in caplog.text
    assert result.run.past[-1].failures == {"bad": 6}
    assert result.run.past[-1].switched_off == ()


def test_a_guarded_failure_in_teardown_is_in_the_summary_too():
    bad = Do("bad", guarded=True, teardown=raising(ValueError("boom")))
    assert simulate([bad], ONE_EPOCH).run.past[-1].failures == {"bad": 1}


def test_a_guarded_function_is_survived_too(drive):
    driver = drive()
    driver.run.add_callback("on_train_start", raising(ValueError("x")), guarded=True)
    driver.begin().end()
    assert driver.run.past[-1].failures == {"fail()": 1}


@pytest.mark.parametrize("event", ["on_train_batch_start", "optimizer_step", "on_train_batch_end"])
def test_three_failures_in_a_row_at_a_batch_event_switch_a_guarded_callback_off(event, caplog):
    calls, ends = [], []

    def fail(run):
        calls.append(run.step)
        raise ValueError("boom")

    bad = Do("bad", guarded=True, on_train_end=lambda run: ends.append(1), **{event: fail})
    with caplog.at_level(logging.ERROR, "epochal"):
        result = simulate([bad], ONE_EPOCH * 2, batches=5)
    assert len(calls) == 3
    assert ends == []
    assert result.run.past[-1].switched_off == ("bad",)
    assert caplog.text.count("bad is switched off: it failed 3 times in a row") == 1


def test_failures_that_are_not_in_a_row_switch_nothing_off():
    calls = []

    def fail_twice_of_three(run):
        calls.append(run.step)
        if len(calls) % 3:
            raise ValueError("boom")

    result = simulate([Do("bad", guarded=True, on_train_batch_end=fail_twice_of_three)], ONE_EPOCH, batches=12)
    assert len(calls) == 12
    assert result.run.past[-1].failures == {"bad": 8}
    assert result.run.past[-1].switched_off == ()


def test_a_host_that_trains_again_has_its_switched_off_callbacks_and_counts_anew(drive):
    calls = []

    def fail(run):
        calls.append(1)
        raise ValueError("boom")

    order = []
    driver = drive(
        Do("bad", guarded=True, on_train_batch_end=fail, on_train_start=lambda run: order.append("bad")),
        Do("good", on_train_start=lambda run: order.append("good")),
    )
    for _ in range(2):
        driver.begin()
        driver.epoch(batches=[{}] * 5)
        driver.end()
    assert len(calls) == 6
    assert order == ["bad", "good", "bad", "good"]
    assert [one.failures for one in driver.run.past] == [{"bad": 3}, {"bad": 3}]
    assert [one.switched_off for one in driver.run.past] == [("bad",), ("bad",)]


def test_torchs_checkpoint_exception_of_a_guarded_callback_is_survived():
    from torch.distributed.checkpoint.api import CheckpointException

    error = CheckpointException("save", {})
    assert not isinstance(error, Exception)
    assert simulate([Do("bad", guarded=True, on_fit_epoch_end=raising(error))], ONE_EPOCH).end_reason == "completed"


def test_ctrl_c_in_a_guarded_callback_is_not_swallowed():
    record = RecordEvents()
    with pytest.raises(KeyboardInterrupt):
        simulate([Do("bad", guarded=True, on_fit_epoch_end=raising(KeyboardInterrupt())), record], ONE_EPOCH)
    assert record.events[-2:] == ["on_exception", "teardown"]


# -- who, and what it cost --------------------------------------------------------------------------------------------


def test_requests_say_who_asked_also_behind_filters_failures_and_other_threads(drive):
    driver = drive(
        Do("broken", guarded=True, on_train_start=raising(ValueError("x"))),
        Do("later", on_train_start=lambda run: run.stop("b")),
    )
    driver.run.add_callback("on_train_start", lambda run: run.stop("c"), every=1)
    driver.run.declare("on_mine")
    driver.run.add_callback("on_mine", lambda run: run.stop("inner"))
    driver.run.add(Do("outer", on_train_start=lambda run: (run.emit("on_mine"), run.stop("outer"))))
    driver.begin()
    driver.run.stop("by hand")
    thread = threading.Thread(target=driver.run.stop, args=("t",))
    thread.start()
    thread.join()
    assert driver.run.stop_reason == (
        "later: b; <lambda>(): c; <lambda>()#2: inner; outer: outer; user: by hand; user: t"
    )


def test_time_is_measured_only_when_asked_for_and_covers_each_callback(drive):
    quiet = simulate([Do("a", on_fit_epoch_end=lambda run: None)], ONE_EPOCH)
    assert quiet.run.past[-1].costs == {}
    driver = drive(Do("a", on_fit_epoch_end=lambda run: None, on_train_end=lambda run: None))
    driver.run.time_callbacks()
    driver.begin()
    driver.epoch(0)
    driver.epoch(1)
    driver.end()
    ((calls, seconds),) = [driver.run.past[-1].costs["a"]]
    assert calls == 3
    assert seconds > 0
    driver.begin()
    driver.end()
    assert driver.run.past[-1].costs["a"][0] == 1  # each training's own
