"""Commands, pauses and validations that are asked for: taken at safe points, bounded, answered when they are applied."""

import json
import os
import signal
import threading
import time
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal import Callback, Checkpoint, EarlyStopping, Elapsed, Every, Stop, Throughput, Watchdog
from epochal.callbacks.watchdog import Silence
from epochal.core.control import MOST_RATE, VERBS, Argument, argument, check_arguments, described
from epochal.core.declared import Between, declared
from epochal.core.errors import ArgumentError, CapabilityError, SignatureError
from epochal.core.requests import Command
from epochal.core.run import Run
from epochal.core.sharing import MOST, agree, packed
from epochal.testing import check_events, simulate

EPOCHS = [{"val/loss": loss} for loss in (1.0, 0.5, 0.25)]


class Desk(Callback):
    """Sends commands at moments, (epoch, batch), and writes down the answers with where they came."""

    def __init__(self, *sent, own=None):
        self.sent, self.own = sent, own
        self.answers = []
        self.notes = []

    def on_train_start(self, run):
        self.run = run
        run.engine.answer = lambda one, state, text: self.answers.append((one, state, text, (run.epoch, run.batch)))
        run.engine.note = lambda *row: self.notes.append(row)
        if self.own is not None:
            self.own(run)

    def on_train_batch_start(self, run):
        for number, (at, name, arguments) in enumerate(self.sent):
            if at == (run.epoch, run.batch):
                run.engine.requests.add_command(Command(f"{name}-{number}", name, arguments, "ann"))

    def final(self):
        """Return the last answer to each command: its state, its text and where it came."""
        return {one: (state, text, at) for one, state, text, at in self.answers}


def send(*sent, others=(), batches=4, epochs=EPOCHS, own=None, **options):
    desk = Desk(*sent, own=own)
    result = simulate([*others, desk], epochs, batches=batches, **options)
    check_events(result.events)
    return result, desk


class Later:
    """Does something from another thread as soon as the run waits."""

    def __init__(self, act):
        self.act, self.waited = act, []

    def callback(self):
        outer = self

        class WhenPaused(Callback):
            def on_pause(self, run):
                outer.waited.append((run.epoch, run.batch))
                threading.Thread(target=outer.act, args=(run,), daemon=True).start()

        return WhenPaused()


def pause_at(epoch, batch, event="on_train_batch_end"):
    one = Callback()
    setattr(one, event, lambda run: run.pause() if (run.epoch, run.batch) == (epoch, batch) else None)
    return one


# -- the table ---------------------------------------------------------------------------------------------------------


def test_every_command_of_the_table_can_be_described_and_read_back_as_json():
    run = simulate([], EPOCHS).run
    rows = json.loads(json.dumps(described(run)))
    assert [row["name"] for row in rows] == list(VERBS)
    assert all(row["available"] for row in rows)
    for row in rows:
        assert tuple(map(argument, row["arguments"])) == VERBS[row["name"]].arguments


@pytest.mark.parametrize(
    ("name", "given", "wrong"),
    [
        ("set_lr", {"value": -1}, "value must be a number of at least 0"),
        ("set_lr", {"value": float("nan")}, "not nan"),
        ("set_lr", {"value": float("inf")}, "not inf"),
        ("set_lr", {"value": 1e4}, "at most 1000"),
        ("set_lr", {"value": True}, "not True"),
        ("set_lr", {"value": "0.1"}, "not '0.1'"),
        ("set_lr", {"value": 10**400}, "value must be a number"),
        ("set_lr", {"value": [0.1]}, r"not \[0.1\]"),
        ("set_lr", {"valu": 1}, "did you mean value"),
        ("set_lr", {"value": 1, "group": "x" * 300}, "at most 200 characters"),
        ("set_lr", {"value": 1, "group": "a\nb"}, "in one line"),
        ("scale_lr", {}, "factor is missing"),
        ("scale_lr", {"factor": 0}, "above 0"),
        ("scale_lr", {"factor": -0.5}, "above 0"),
        ("stop", {"when": "now"}, "one of batch, epoch"),
        ("stop", {"when": 3}, "not 3"),
        ("pause", {"x": 1}, "it takes none"),
    ],
)
def test_hostile_arguments_are_refused_with_what_would_do(name, given, wrong):
    with pytest.raises(ArgumentError, match=wrong):
        check_arguments(VERBS[name].arguments, given)


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.text(), st.none(), st.lists(st.integers())))
def test_only_finite_rates_within_the_bounds_pass(value):
    one = VERBS["scale_lr"].arguments[0]
    good = type(value) in (int, float) and 0 < value <= MOST_RATE
    if good:
        assert one.check(value) == value
    else:
        with pytest.raises(ArgumentError):
            one.check(value)


# -- commands ----------------------------------------------------------------------------------------------------------


def test_a_stop_ends_the_training_after_the_batch_and_is_answered_there():
    result, desk = send(((1, 1), "stop", {}))
    assert (result.epochs_run, result.end_reason) == (2, "stopped")
    assert result.stop_reason == "ann: asked for by a command"
    assert desk.answers == [("stop-0", "applied", "the training ends here", (1, 1))]
    assert result.run.step == 6


def test_a_stop_with_the_epoch_waits_for_its_end():
    result, desk = send(((1, 1), "stop", {"when": "epoch"}))
    assert (result.epochs_run, result.run.step) == (2, 8)
    assert [(state, at) for _, state, _, at in desk.answers] == [("taken", (1, 1)), ("applied", (1, 3))]


def test_a_stop_with_the_epoch_says_in_a_pause_that_it_waits_for_its_end():
    def act(run):
        run.engine.requests.add_command(Command("1", "stop", {"when": "epoch"}, "ann"))
        run.engine.requests.add_command(Command("2", "continue", {}, "ann"))

    result, desk = send(others=[pause_at(1, 1), Later(act).callback()])
    assert [text for one, _, text, _ in desk.answers if one == "1"] == [
        "it stops at the end of this epoch, once it continues",
        "the training ends with this epoch",
    ]
    assert result.epochs_run == 2


def test_a_stop_inside_an_accumulation_group_is_answered_when_its_step_is_done(drive):
    desk = Desk()
    driver = drive(desk).begin()
    engine = driver.engine
    engine.epoch_start(0)
    for batch in range(8):
        engine.batch_start(batch)
        if batch % 4 == 3:
            engine.stepped()
        if batch == 4:
            engine.requests.add_command(Command("1", "stop", {}, "ann"))
        engine.batch_end()
    assert [(state, at) for _, state, _, at in desk.answers] == [("taken", (0, 4)), ("applied", (0, 7))]


def test_a_save_is_answered_when_the_state_is_captured_and_kept_for_good():
    result, desk = send(((1, 1), "save", {}), others=[Checkpoint(Every(epochs=1), keep_last=1, keep_best=0)])
    assert desk.final()["save-0"] == ("applied", "the state is captured, and written from now on", (1, 1))
    kept = [one.manifest for one in result.run.checkpoints if one.manifest.pinned]
    assert [(one.epoch, one.step, one.asked_by) for one in kept] == [(1, 6, ("ann",))]


def test_a_save_that_fails_is_refused_with_the_error_and_the_training_goes_on():
    class Broken(Callback):
        def state_dict(self):
            if self.broken:
                raise ValueError("no state")
            return {}

        broken = False

        def on_train_batch_start(self, run):
            self.broken = (run.epoch, run.batch) == (1, 1)

    result, desk = send(((1, 1), "save", {}), others=[Broken()])
    state, text, at = desk.final()["save-0"]
    assert (state, at) == ("refused", (1, 1))
    assert "no state" in text
    assert result.epochs_run == 3


def test_rates_hold_from_the_next_step_on_and_the_answer_says_what_they_are():
    class Note(Callback):
        def on_train_batch_start(self, run):
            rates.append(run.lr["pg0"])

    rates = []
    _, desk = send(
        ((0, 0), "set_lr", {"value": 0.5}), ((0, 1), "scale_lr", {"factor": 0.5}), ((0, 2), "set_lr", {"value": None}),
        others=[Note()], epochs=EPOCHS[:1],
    )  # fmt: skip
    assert rates == [0.1, 0.5, 0.25, 0.05]
    assert desk.final()["set_lr-0"][1] == "the learning rate is 0.5 from the next step on"
    assert [kind for kind, *_ in desk.notes] == ["rate"] * 3
    assert desk.notes[1][2:] == ("ann", {"command": "scale_lr-1", "name": "scale_lr", "arguments": {"factor": 0.5}})


def test_a_group_that_does_not_exist_is_refused_with_those_that_do():
    _, desk = send(((0, 0), "set_lr", {"value": 0.5, "group": "pg7"}), lr=(0.1, 0.2))
    state, text, _ = desk.final()["set_lr-0"]
    assert state == "refused"
    assert "Groups: pg0, pg1" in text


def test_unknown_commands_and_wrong_arguments_are_refused_and_nothing_else_happens():
    result, desk = send(((0, 0), "stopp", {}), ((0, 1), "stop", {"when": "x"}), ((0, 2), "scale_lr", {"factor": "1"}))
    assert [(state, text) for _, state, text, _ in desk.answers] == [
        ("refused", "there is no command 'stopp'; did you mean stop?"),
        ("refused", "when must be one of batch, epoch, not 'x'"),
        ("refused", "factor must be a number above 0, at most 1000, not '1'"),
    ]
    assert result.end_reason == "completed"


def test_ten_commands_at_once_are_done_in_their_order_at_one_safe_point():
    sent = [((0, 1), "scale_lr", {"factor": 0.5})] * 10
    result, desk = send(*sent)
    assert result.run.lr["pg0"] == pytest.approx(0.1 * 0.5**10)
    assert [(one, at) for one, _, _, at in desk.answers] == [(f"scale_lr-{n}", (0, 1)) for n in range(10)]


def test_a_command_of_the_same_id_is_done_once():
    class Twice(Callback):
        def on_train_batch_start(self, run):
            if run.epoch == 0 and run.batch < 2:
                run.engine.requests.add_command(Command("same", "scale_lr", {"factor": 0.5}, "ann"))

    result, desk = send(others=[Twice()])
    assert result.run.lr["pg0"] == pytest.approx(0.05)
    assert len(desk.answers) == 1


def test_what_the_trainer_cannot_do_is_refused_with_the_reason_and_shown_as_not_available(drive):
    desk = Desk()
    driver = drive(desk, provides=frozenset({"on_train_start", "on_train_batch_start"}))
    driver.run.roster.owns["validate"] = "this trainer validates when it likes"
    driver.begin()
    rows = {row["name"]: row["why_not"] for row in described(driver.run)}
    assert rows["stop"] is None
    assert rows["validate"] == "this trainer validates when it likes"
    assert rows["pause"] == "Driver cannot do that (pause)"
    with pytest.raises(CapabilityError, match="when it likes"):
        driver.run.validate()
    with pytest.raises(CapabilityError, match="pause"):
        driver.run.pause()
    driver.engine.requests.add_command(Command("1", "validate", {}, "ann"))
    driver.epoch(batches=[{}])
    assert desk.final()["1"][:2] == ("refused", "this trainer validates when it likes")


def test_what_waits_when_the_training_ends_is_refused():
    class AtTheEnd(Callback):
        def on_train_end(self, run):
            run.engine.requests.add_command(Command("late", "pause", {}, "ann"))

    _, desk = send(((2, 3), "validate", {}), others=[AtTheEnd()])
    assert desk.final()["late"][:2] == ("refused", "the training was over before")
    assert desk.final()["validate-0"][0] == "applied"


# -- the user's own -----------------------------------------------------------------------------------------------------


def test_a_command_of_ones_own_is_called_on_the_training_thread_and_answers():
    seen = []

    def own(run):
        @run.command("drop", label="Set dropout")
        def drop(
            run, p: Annotated[float, Between(0, 1)] = 0.5, kind: Literal["a", "b"] = "a", on: bool = False, n: int = 1
        ):
            seen.append((threading.current_thread() is threading.main_thread(), p, kind, on, n))
            return f"dropout is {p}"

    sent = [{"p": 0.25, "kind": "b", "on": True, "n": 3}, {}, {"p": 2}, {"on": "perhaps"}, {"n": 1.5}]
    _, desk = send(*[((0, number), "drop", given) for number, given in enumerate(sent)], own=own, batches=5)
    assert seen == [(True, 0.25, "b", True, 3), (True, 0.5, "a", False, 1)]
    assert [(state, text) for _, state, text, _ in desk.answers] == [
        ("applied", "dropout is 0.25"),
        ("applied", "dropout is 0.5"),
        ("refused", "p must be a number of at least 0, at most 1, not 2"),
        ("refused", "on must be one of true, false, not 'perhaps'"),
        ("refused", "n must be a whole number, not 1.5"),
    ]
    assert described(desk.run)[-1]["label"] == "Set dropout"


def test_an_error_in_a_command_of_ones_own_is_the_answer_and_the_training_goes_on(caplog):
    def own(run):
        @run.command("break")
        def broken(run):
            raise ZeroDivisionError("planted")

    result, desk = send(((0, 1), "break", {}), own=own)
    assert desk.final()["break-0"][:2] == ("refused", "it failed: ZeroDivisionError: planted; the training goes on")
    assert result.end_reason == "completed"
    assert "planted" in caplog.text


def test_a_command_of_ones_own_that_leaves_the_program_says_that_it_did():
    def own(run):
        @run.command("leave")
        def leave(run):
            raise SystemExit(3)

    desk = Desk(((0, 1), "leave", {}), own=own)
    with pytest.raises(SystemExit):
        simulate([desk], EPOCHS, batches=4)
    assert desk.final()["leave-0"] == ("refused", "it ended the training: SystemExit: 3", (0, 1))


def test_what_a_command_of_ones_own_asks_for_is_asked_for_by_who_sent_it():
    def own(run):
        run.command("enough")(lambda run: run.stop("enough"))

    result, _ = send(((0, 1), "enough", {}), own=own)
    assert result.stop_reason == "ann: enough"


def test_a_rate_that_a_command_of_ones_own_changes_is_written_down_as_a_rate():
    def own(run):
        run.command("halve")(lambda run: run.scale_lr(0.5))

    result, desk = send(((0, 1), "halve", {}), own=own)
    assert [row[:3] for row in desk.notes if row[0] == "rate"] == [("rate", "learning rate times 0.5", "ann")]
    assert [row[:3] for row in desk.notes if row[0] == "command"] == [("command", "halve", "ann")]
    assert result.lrs == [0.05] * 3


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (lambda: None, "must take the run as its first argument"),
        (lambda run, x: None, "must be a float, int, str, bool or Literal"),
        (lambda run, *x: None, "must be a plain one"),
        (lambda run, **x: None, "must be a plain one"),
        (3, "cannot be called"),
    ],
)
def test_a_wrong_signature_is_refused_at_the_declaration(function, wrong):
    with pytest.raises(SignatureError, match=wrong):
        declared("x", function, None)


def test_wrong_types_bounds_and_defaults_are_refused_at_the_declaration():
    def a_list(run, x: list): ...
    def numbers(run, x: Literal[1, 2] = 1): ...
    def upside_down(run, x: Annotated[float, Between(1, 0)]): ...
    def beyond(run, x: Annotated[float, Between(0, 1)] = 2.0): ...
    def unknown(run, x: "Nothing"): ...  # noqa: F821

    for function, wrong in (
        (a_list, "not <class 'list'>"), (numbers, "Literal of texts"), (upside_down, "nothing lies between"),
        (beyond, "default that it would refuse"), (unknown, "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(SignatureError, match=wrong):
            declared("x", function, None)


@pytest.mark.parametrize("name", ["", "stop", "1x", "a b", "<b>", "x" * 50, None])
def test_a_name_that_cannot_be_a_commands_is_refused(name):
    with pytest.raises(ArgumentError):
        declared(name, lambda run: None, None)


# -- pause --------------------------------------------------------------------------------------------------------------


def test_a_pause_waits_at_the_safe_point_until_somebody_lets_it_go_on():
    later = Later(lambda run: run.proceed())
    result, _ = send(others=[pause_at(1, 1), later.callback()])
    assert later.waited == [(1, 1)]
    assert result.end_reason == "completed"
    assert not result.run.paused


@pytest.mark.parametrize("event", ["on_train_start", "on_val_end", "on_fit_epoch_end"])
def test_it_may_be_asked_for_anywhere(event):
    later = Later(lambda run: run.proceed())
    asks = Callback()
    setattr(asks, event, lambda run: None if later.waited else run.pause())
    result, _ = send(others=[asks, later.callback()])
    assert (len(later.waited), result.end_reason) == (1, "completed")


def test_while_it_waits_commands_are_served_and_the_answers_come():
    def act(run):
        for number, (name, arguments) in enumerate(
            (("set_lr", {"value": 0.5}), ("save", {}), ("own", {}), ("pause", {}), ("continue", {}))
        ):
            run.engine.requests.add_command(Command(f"{number}", name, arguments, "ann"))

    later = Later(act)
    result, desk = send(
        others=[pause_at(1, 1), later.callback()], own=lambda run: run.command("own")(lambda run: "done")
    )
    assert {(state, at) for state, _, at in desk.final().values()} == {("applied", (1, 1))}
    assert desk.final()["3"][1] == "it was paused already"
    assert desk.final()["4"][1] == "the training goes on"
    assert [one.manifest.step for one in result.run.checkpoints] == [6]
    assert result.end_reason == "completed"


def test_a_stop_ends_a_pause_and_the_training():
    later = Later(lambda run: run.engine.requests.add_command(Command("1", "stop", {}, "ann")))
    result, desk = send(others=[pause_at(1, 1), later.callback()])
    assert (result.end_reason, result.run.step) == ("stopped", 6)
    assert desk.final()["1"][0] == "applied"


def test_a_stop_from_another_thread_ends_a_pause_too():
    later = Later(lambda run: run.stop("enough"))
    result, _ = send(others=[pause_at(1, 1), later.callback()])
    assert (result.stop_reason, result.run.step) == ("user: enough", 6)


def test_a_validation_in_a_pause_is_done_and_then_it_waits_on():
    def act(run):
        if len(later.waited) == 1:
            run.engine.requests.add_command(Command("1", "validate", {}, "ann"))
        else:
            run.proceed()

    later = Later(act)
    result, desk = send(others=[pause_at(1, 1), later.callback()])
    assert later.waited == [(1, 1), (1, 1)]
    assert desk.final()["1"] == ("applied", "val/loss 0.5", (1, 1))
    assert result.end_reason == "completed"


@pytest.mark.parametrize("event", ["on_val_end", "on_fit_epoch_end"])
def test_at_the_end_of_an_epoch_it_waits_where_it_can_save_and_a_validation_is_refused_at_once(event):
    def act(run):
        for name in ("validate", "save"):
            run.engine.requests.add_command(Command(name, name, {}, "ann"))
        end = time.monotonic() + 5
        while desk.final().get("save", ("",))[0] != "applied" and time.monotonic() < end:
            time.sleep(0.01)
        answered.append([state for _, state, *_ in desk.answers])
        run.proceed()

    later, desk, answered = Later(act), Desk(), []
    result = simulate([pause_at(1, 3, event), later.callback(), desk], EPOCHS, batches=4)
    check_events(result.events)
    why = "it waits at the end of an epoch, where no other can begin; let it continue first"
    assert desk.final()["validate"] == ("refused", why, (1, 3))
    assert answered == [["refused", "taken", "applied"]]
    assert (later.waited, [one.manifest.step for one in result.run.checkpoints]) == ([(1, 3)], [8])


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGTERM, "preempted"), (signal.SIGINT, "interrupted")])
def test_a_signal_ends_a_pause_with_everything_kept(number, reason):
    later = Later(lambda run: os.kill(os.getpid(), number))
    desk = Desk()
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        simulate([pause_at(1, 1), later.callback(), desk, Checkpoint(Every(epochs=1))], EPOCHS, batches=4)
    assert (desk.run.end_reason, desk.run.step) == (reason, 6)


def test_a_pause_beside_a_stop_does_not_wait():
    stop = pause_at(1, 1)
    stop.on_train_batch_start = lambda run: run.stop("x") if (run.epoch, run.batch) == (1, 1) else None
    result, _ = send(others=[stop])
    assert result.run.step == 6


def test_nobodys_clock_runs_while_it_waits(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Work(Callback):
        def on_train_batch_start(self, run):
            now[0] += 60.0  # each batch a minute

        def on_pause(self, run):
            now[0] += 36_000.0  # ten hours

    seen = []

    class Times(Callback):
        def at_safe_point(self, run, moment):
            if moment.ended == "batch":
                seen.append(moment.seconds)

    later = Later(lambda run: run.proceed())
    limit = Stop(when=Elapsed(minutes=6))
    result, _ = send(others=[Work(), Times(), limit, pause_at(0, 1), later.callback()])
    assert seen == [60.0 * n for n in range(1, 7)]
    assert result.run.step == 6
    assert result.run.past[-1].seconds < 1000


def test_throughput_leaves_a_pause_out():
    clock = iter(range(1000))
    throughput = Throughput(samples=8, clock=lambda: next(clock))
    usual = iter(range(1000))
    plain = simulate([Throughput(samples=8, clock=lambda: next(usual))], EPOCHS, batches=4)
    later = Later(lambda run: run.proceed())

    class Wait(Callback):
        def on_pause(self, run):
            for _ in range(500):
                next(clock)

    result, _ = send(others=[throughput, Wait(), pause_at(1, 1), later.callback()])
    name = "throughput/samples_per_second"
    assert result.run.history[1][name] == pytest.approx(plain.run.history[1][name], rel=0.15)
    assert result.run.history[2]["throughput/eta_seconds"] == 0.0


def test_a_pause_is_no_hang():
    told = []
    later = Later(lambda run: (time.sleep(0.3), run.proceed()))
    watchdog = Watchdog(minutes=0.002, tell=told.append)
    send(others=[watchdog, pause_at(1, 1), later.callback()])
    assert told == []
    silence = Silence(limit=1.0)  # and behind it the silence is counted anew
    assert [silence.too_long(1, 0.0), silence.too_long(2, 5.0), silence.too_long(2, 5.9)] == [False] * 3


def test_several_processes_cannot_be_paused_or_validated_alone(drive):
    driver = drive().begin()
    driver.engine.world_size = 2
    for verb in (driver.run.pause, driver.run.validate):
        with pytest.raises(CapabilityError, match="2 processes train together"):
            verb()


# -- validate -----------------------------------------------------------------------------------------------------------


def test_a_validation_that_was_asked_for_comes_behind_the_batch_and_decides_nothing():
    stop = EarlyStopping("val/loss", patience=1)
    sent = [((0, batch), "validate", {}) for batch in range(3)]
    result, desk = send(*sent, others=[stop], epochs=[{"val/loss": 1.0}, {"val/loss": 0.5}])
    assert result.epochs_run == 2
    assert result.events.count("on_val_start") == 5
    assert [at for _, _, at in desk.final().values()] == [(0, 0), (0, 1), (0, 2)]
    assert desk.final()["validate-0"][1] == "val/loss 1"
    assert result.run.best_fitness == -0.5


def test_one_that_counts_is_a_check_as_every_other():
    class Ask(Callback):
        def on_train_batch_end(self, run):
            if run.epoch == 0 and run.batch < 2:
                run.validate("let us see")

    stop = EarlyStopping("val/loss", patience=2)
    result = simulate([Ask(), stop], [{"val/loss": 1.0}] * 3, batches=4)
    assert (result.epochs_run, result.run.step) == (1, 4)


def test_a_failed_check_of_patience_is_not_made_up_for_later():
    result, _ = send(
        ((0, 3), "validate", {}), others=[EarlyStopping("val/loss", patience=2)], epochs=[{"val/loss": 1.0}] * 5
    )
    assert result.epochs_run == 3


# -- several processes --------------------------------------------------------------------------------------------------


class Ranks:
    """Two ranks in one process: what they say is gathered, and both are given the highest."""

    def __init__(self, runs):
        self.barrier, self.said = threading.Barrier(len(runs)), [0] * len(runs)
        self.runs = runs

    def agree(self, rank):
        def highest(number):
            self.said[rank] = number
            self.barrier.wait(10)
            found = max(self.said)
            self.barrier.wait(10)
            return found

        return highest

    def meet(self):
        for rank, run in enumerate(self.runs):
            run.engine.rank, run.engine.world_size, run.engine.agree = rank, len(self.runs), self.agree(rank)
        threads = [threading.Thread(target=agree, args=(run.engine,)) for run in self.runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)


def runs(count=2):
    return [Run(host="test", provides=frozenset({"set_lr"})) for _ in range(count)]


def test_commands_of_the_first_rank_reach_all_ranks_at_the_same_step():
    both = runs()
    sent = [Command("1", "scale_lr", {"factor": 0.123456789012345}, "änn"), Command("2", "stop", {}, "bob")]
    for command in sent:
        both[0].engine.requests.add_command(command)
    Ranks(both).meet()
    assert [list(run.engine.requests.commands) for run in both] == [sent, sent]


def test_a_signal_of_one_rank_is_known_to_all_beside_a_command_of_another():
    both = runs()
    both[0].engine.requests.add_command(Command("1", "stop", {}, "ann"))
    both[1].engine.requests.add_signal(15, 0.0)
    Ranks(both).meet()
    assert [run.engine.requests.signals for run in both] == [[15], [15]]
    assert [len(run.engine.requests.commands) for run in both] == [1, 1]


def test_what_is_too_much_at_once_is_refused_and_the_rest_is_shared():
    both, answers = runs(), []
    both[0].engine.answer = lambda *row: answers.append(row)
    for number in range(200):
        both[0].engine.requests.add_command(Command(str(number), "scale_lr", {"factor": 0.5}, "ann"))
    Ranks(both).meet()
    first, second = (list(run.engine.requests.commands) for run in both)
    assert first == second
    assert 0 < len(first) < 200
    assert len(packed(first)) <= MOST
    assert len(answers) == 200 - len(first)


def test_where_ranks_train_together_a_command_waits_for_the_end_of_the_epoch(drive):
    desk = Desk()
    driver = drive(desk).begin()
    driver.engine.world_size, driver.engine.agree = 2, lambda number: number
    driver.engine.requests.add_command(Command("1", "set_lr", {"value": 0.5}, "ann"))
    driver.epoch(batches=[{}, {}])
    assert [(state, at) for _, state, _, at in desk.answers] == [("taken", (0, 0)), ("applied", (0, 1))]
    assert driver.run.lr == {"pg0": 0.5}


def test_arguments_can_be_shown_as_plain_data():
    one = Argument("n", "integer", 1, 5, required=False, default=2)
    assert argument(json.loads(json.dumps(one._asdict()))) == one
