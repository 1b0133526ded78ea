"""The event grammar against a second reading of its text: a regular expression built apart from the automaton."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.core.errors import EventOrderError, UnknownEvent
from epochal.core.events import EVENT_NAMES, EVENTS, GRAMMAR, Grammar, grammar_text
from epochal.testing import check_events

LETTER = {name: chr(ord("a") + number) for number, name in enumerate(EVENT_NAMES)}
EPOCH = ["on_train_epoch_start", "on_train_batch_start", "on_train_batch_end", "on_train_epoch_end", "on_fit_epoch_end"]
VAL = ["on_val_start", "on_val_batch_start", "on_val_batch_end", "on_val_end"]
TRAINING = ["on_train_start", *EPOCH, "on_train_end", "teardown"]


class Words:
    """A set of words as one regular expression, and the set of their prefixes (the whole word included) as another."""

    def __init__(self, whole, begun):
        self.whole, self.begun = f"(?:{whole})", f"(?:{begun})"

    def __or__(self, other):
        return Words(f"{self.whole}|{other.whole}", f"{self.begun}|{other.begun}")

    def __add__(self, other):
        return Words(self.whole + other.whole, f"{self.begun}|{self.whole}{other.begun}")

    def any(self):
        return Words(f"{self.whole}*", f"{self.whole}*{self.begun}")

    def maybe(self):
        return Words(f"{self.whole}?", f"{self.begun}")

    def cut(self):
        return Words(self.begun, self.begun)


def word(*names):
    made = Words("", "")
    for name in names:
        made += Words(LETTER[name], f"{LETTER[name]}?")
    return made


def second_reading():
    save = word("on_model_save")
    val = word("on_val_start") + word("on_val_batch_start", "on_val_batch_end").any() + word("on_val_end")
    step = word("optimizer_step", "on_before_zero_grad")
    batch = word("on_train_batch_start") + step.any() + word("on_train_batch_end")
    almost = (
        word("on_train_epoch_start")
        + (batch | step | val | save).any()
        + word("on_train_epoch_end")
        + (val | save).any()
    )
    epoch = almost + word("on_fit_epoch_end") + save.any()
    aborted = almost.cut() + word("on_train_epoch_abort")
    run = (
        word("on_pretrain_routine_start", "on_pretrain_routine_end").maybe()
        + word("on_resume").maybe()
        + val.any()
        + word("on_train_start")
        + val.any()
        + (epoch | (aborted + word("on_resume").maybe())).any()
        + (val | save).any()
        + word("on_train_end")
        + save.any()
    )
    failed = run.cut() + word("on_exception") + save.any() + word("teardown")
    return re.compile(((run + word("teardown")) | failed).whole)


SECOND = second_reading()


def second_accepts(names):
    return SECOND.fullmatch("".join(LETTER[name] for name in names)) is not None


def accepted(names):
    try:
        check_events(names)
    except EventOrderError:
        return False
    return True


def some(draw, *parts, most=2):
    """Return up to ``most`` of the parts, each a function that writes its events."""
    return [name for _ in range(draw(st.integers(0, most))) for name in draw(st.sampled_from(parts))(draw)]


def a_val(draw):
    return ["on_val_start", *["on_val_batch_start", "on_val_batch_end"] * draw(st.integers(0, 2)), "on_val_end"]


def a_step(draw):
    return ["optimizer_step", "on_before_zero_grad"]


def a_save(draw):
    return ["on_model_save"]


def a_batch(draw):
    return ["on_train_batch_start", *some(draw, a_step), "on_train_batch_end"]


def until_fit_end(draw):
    return [
        "on_train_epoch_start",
        *some(draw, a_batch, a_step, a_val, a_save, most=3),
        "on_train_epoch_end",
        *some(draw, a_val, a_save),
    ]


def an_epoch(draw):
    return [*until_fit_end(draw), "on_fit_epoch_end", *some(draw, a_save)]


def an_aborted(draw):
    begun = until_fit_end(draw)
    resumed = ["on_resume"] if draw(st.booleans()) else []
    return [*begun[: draw(st.integers(0, len(begun)))], "on_train_epoch_abort", *resumed]


@st.composite
def trainings(draw):
    """A word of ``run``, or a proper prefix of one that failed, written from the grammar's text alone."""
    events = ["on_pretrain_routine_start", "on_pretrain_routine_end"] if draw(st.booleans()) else []
    events += ["on_resume"] if draw(st.booleans()) else []
    events += [*some(draw, a_val), "on_train_start", *some(draw, a_val), *some(draw, an_epoch, an_aborted, most=3)]
    events += [*some(draw, a_val, a_save), "on_train_end", *some(draw, a_save)]
    if draw(st.booleans()):
        return [*events, "teardown"]
    return [*events[: draw(st.integers(0, len(events)))], "on_exception", *some(draw, a_save), "teardown"]


@settings(deadline=None, max_examples=200)
@given(trainings())
def test_every_training_written_from_the_text_is_accepted(events):
    check_events(events)
    assert second_accepts(events)


@settings(deadline=None, max_examples=400)
@given(trainings(), st.data())
def test_a_changed_training_is_judged_as_by_a_second_reading(events, data):
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, len(events) - 1))
        other = data.draw(st.sampled_from(EVENT_NAMES))
        change = data.draw(st.sampled_from(["leave out", "put in", "replace", "twice", "swap"]))
        if change == "leave out" and len(events) > 1:
            events = events[:place] + events[place + 1 :]
        elif change == "put in":
            events = [*events[:place], other, *events[place:]]
        elif change == "replace":
            events = [*events[:place], other, *events[place + 1 :]]
        elif change == "twice":
            events = [*events[:place], events[place], *events[place:]]
        else:
            events = [*events[:place], *reversed(events[place : place + 2]), *events[place + 2 :]]
    assert accepted(events) == second_accepts(events), events


def test_random_words_are_judged_as_by_a_second_reading():
    chance = random.Random(0)
    for _ in range(3000):
        events = [chance.choice(EVENT_NAMES) for _ in range(chance.randint(0, 6))]
        assert accepted(events) == second_accepts(events), events


@settings(deadline=None, max_examples=50)
@given(trainings())
def test_every_beginning_of_a_training_may_fail_and_tear_down(events):
    if "on_exception" in events:
        events = [*events[: events.index("on_exception")]]
    for cut in range(len(events)):
        if "teardown" not in events[:cut]:
            check_events([*events[:cut], "on_exception", "teardown"])


@settings(deadline=None, max_examples=50)
@given(trainings())
def test_teardown_comes_exactly_once_and_last(events):
    for wrong in (events[:-1], [*events, "teardown"], [*events, "on_train_start"]):
        with pytest.raises(EventOrderError):
            check_events(wrong)


@settings(deadline=None, max_examples=50)
@given(trainings(), st.integers(0, 1000))
def test_declared_events_may_stand_anywhere(events, place):
    place %= len(events) + 1
    mine = [*events[:place], "on_mine", *events[place:]]
    check_events(mine, declared=["on_mine"])
    with pytest.raises(UnknownEvent, match="on_mine"):
        check_events(mine)


def test_the_automaton_says_what_may_come_next():
    chance = random.Random(1)
    for _ in range(20):
        grammar, so_far = Grammar(), []
        while (possible := grammar.possible()) and len(so_far) < 40:
            for name in EVENT_NAMES:  # whatever it calls impossible is refused
                if name not in possible:
                    with pytest.raises(EventOrderError):
                        check_events([*so_far, name])
            so_far.append(chance.choice(possible))
            grammar.feed(so_far[-1])


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (["on_train_end"], "event 1, 'on_train_end', cannot be the first; possible here: "),
        (["on_train_start", "on_val_end"], "event 2, 'on_val_end', cannot follow 'on_train_start'; possible here: "),
        (["on_train_start"], "the trace ends after 'on_train_start', without teardown; possible here: "),
        ([], "the trace ends empty, without teardown"),
        (["on_train_start", "on_train_end", "teardown", "teardown"], "possible here: nothing, the training is over"),
        (["on_train_strat"], "there is no event 'on_train_strat'; did you mean 'on_train_start'?"),
    ],
)
def test_a_broken_trace_says_where_and_what_was_possible(events, said):
    with pytest.raises((EventOrderError, UnknownEvent)) as caught:
        check_events(events)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "events",
    [
        ["on_train_start", "on_train_end", "teardown"],
        TRAINING,
        ["on_pretrain_routine_start", "on_pretrain_routine_end", "on_resume", *VAL, *TRAINING],
        ["on_train_start", *VAL, *EPOCH, "on_model_save", *VAL, "on_train_end", "on_model_save", "teardown"],
        ["on_exception", "teardown"],
        ["on_train_start", *EPOCH, "on_train_end", "on_exception", "on_model_save", "teardown"],
        ["on_train_start", *EPOCH[:2], "on_train_epoch_abort", "on_resume", *TRAINING[1:]],
        ["on_train_start", *EPOCH[:4], *VAL, "on_train_epoch_abort", *TRAINING[1:]],
    ],
)
def test_traces_written_by_hand_are_accepted(events):
    check_events(events)


@pytest.mark.parametrize(
    "events",
    [
        [*TRAINING[:-1], "on_exception"],
        ["on_pretrain_routine_start", *TRAINING],
        ["on_train_start", *EPOCH, "on_train_epoch_abort", "on_train_end", "teardown", "teardown"],
        ["on_train_start", "on_train_epoch_start", "on_fit_epoch_end", "on_train_end", "teardown"],
        ["on_train_start", *EPOCH[:2], "on_val_start", "on_val_end", *EPOCH[2:], "on_train_end", "teardown"],
        ["on_train_start", "on_model_save", *EPOCH[:2], "on_model_save", *EPOCH[2:], "on_train_end", "teardown"],
        ["on_train_start", *EPOCH, "on_train_end", *VAL, "teardown"],
        ["on_resume", "on_resume", *TRAINING],
        ["on_train_start", "on_resume", *EPOCH, "on_train_end", "teardown"],
        ["on_exception", "on_exception", "teardown"],
    ],
)
def test_traces_written_by_hand_are_refused(events):
    with pytest.raises(EventOrderError):
        check_events(events)


def test_the_table_and_the_grammar_speak_of_the_same_events():
    used = set(re.findall(r"\w+", " ".join(GRAMMAR.values()))) - set(GRAMMAR) - {"prefix"}
    assert used == set(EVENT_NAMES) == {event.name for event in EVENTS}
    assert len(EVENT_NAMES) == len(set(EVENT_NAMES)) == 20
    assert len(grammar_text().splitlines()) == len(GRAMMAR)
