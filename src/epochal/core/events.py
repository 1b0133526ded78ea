"""The events and their grammar, once, as data, and the automaton made from it."""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from epochal.core.errors import EventOrderError, UnknownEvent

Level = Literal["run", "epoch", "batch", "validation"]


class Event(NamedTuple):
    """One row of the event table: its name, how often it comes, and when."""

    name: str
    level: Level
    meaning: str


EVENTS: tuple[Event, ...] = (
    Event("on_pretrain_routine_start", "run", "before the trainer sets itself up"),
    Event("on_pretrain_routine_end", "run", "model, data and optimizer stand"),
    Event("on_resume", "run", "the state of a checkpoint has been restored"),
    Event("on_train_start", "run", "the training begins; callbacks have their state"),
    Event("on_train_epoch_start", "epoch", "an epoch begins"),
    Event("on_train_batch_start", "batch", "a batch begins; run.data is the batch"),
    Event("optimizer_step", "batch", "the optimizer has stepped; run.step counts it"),
    Event("on_before_zero_grad", "batch", "the last moment at which the gradients of that step are promised"),
    Event("on_train_batch_end", "batch", "the batch is done; run.outputs where the trainer shows them"),
    Event("on_train_epoch_end", "epoch", "all batches of the epoch are done, before its last validation"),
    Event("on_train_epoch_abort", "epoch", "the epoch is given up: retried or rolled back"),
    Event("on_val_start", "validation", "a validation begins"),
    Event("on_val_batch_start", "validation", "a validation batch begins"),
    Event("on_val_batch_end", "validation", "a validation batch is done"),
    Event("on_val_end", "validation", "a validation is done; its metrics are fresh"),
    Event("on_fit_epoch_end", "epoch", "the epoch is done, after its validation; all metrics are fresh"),
    Event("on_model_save", "run", "the state of a checkpoint is captured"),
    Event("on_train_end", "run", "the training is over"),
    Event("on_exception", "run", "the training fails: an error, Ctrl-C, a signal"),
    Event("teardown", "run", "the very last event, exactly once, always"),
)
EVENT_NAMES: tuple[str, ...] = tuple(event.name for event in EVENTS)
BATCH_EVENTS: frozenset[str] = frozenset(
    event.name for event in EVENTS if event.level == "batch" or event.name.startswith("on_val_batch")
)
OWN_DECLARED: tuple[str, ...] = (
    "on_checkpoint_error",
    "on_hang",
    "on_loss_spike",
    "on_pause",
    "on_continue",
)  # events beside the grammar that Epochal declares

# prefix(x): x cut off anywhere, also before its first and after its last event
GRAMMAR: dict[str, str] = {
    "trace": "body teardown | failed",
    "body": (
        "[on_pretrain_routine_start on_pretrain_routine_end] [on_resume] val* on_train_start val* "
        "(epoch | aborted [on_resume])* (val | on_model_save)* on_train_end on_model_save*"
    ),
    "failed": "prefix(body) on_exception on_model_save* teardown",
    "epoch": "unfinished on_fit_epoch_end on_model_save*",
    "aborted": "prefix(unfinished) on_train_epoch_abort",
    "unfinished": (
        "on_train_epoch_start (batch | step | val | on_model_save)* on_train_epoch_end (val | on_model_save)*"
    ),
    "batch": "on_train_batch_start step* on_train_batch_end",
    "step": "optimizer_step on_before_zero_grad",
    "val": "on_val_start (on_val_batch_start on_val_batch_end)* on_val_end",
}


def grammar_text() -> str:
    """Return the grammar as text, one rule a line, as `epochal events` prints it.

    >>> print(grammar_text().splitlines()[-2])
    step       := optimizer_step on_before_zero_grad
    """
    return "\n".join(f"{name:<10} := {rule}" for name, rule in GRAMMAR.items())


class _Automaton:
    """A nondeterministic automaton: free moves and moves that read an event, between numbered states."""

    def __init__(self) -> None:
        self.free: list[list[int]] = []
        self.reads: list[dict[str, int]] = []

    def state(self) -> int:
        self.free.append([])
        self.reads.append({})
        return len(self.free) - 1

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        todo, seen = list(states), set[int]()
        while todo:
            state = todo.pop()
            if state not in seen:
                seen.add(state)
                todo.extend(self.free[state])
        return frozenset(seen)


class _Reader:
    """Reads a rule and builds its part of the automaton between an entry and an exit state."""

    def __init__(self, machine: _Automaton, rule: str) -> None:
        self.machine = machine
        self.tokens = re.findall(r"\w+|[()\[\]|*]", rule)

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def choice(self) -> tuple[int, int]:
        entry, leave = self.machine.state(), self.machine.state()
        while True:
            first, last = self.sequence()
            self.machine.free[entry].append(first)
            self.machine.free[last].append(leave)
            if self.peek() != "|":
                return entry, leave
            self.tokens.pop(0)

    def sequence(self) -> tuple[int, int]:
        entry = last = self.machine.state()
        while self.peek() not in ("", "|", ")", "]"):
            first, end = self.repeated()
            self.machine.free[last].append(first)
            last = end
        return entry, last

    def repeated(self) -> tuple[int, int]:
        entry, leave = self.single()
        if self.peek() == "*":
            self.tokens.pop(0)
            around = self.machine.state()
            self.machine.free[around].append(entry)
            self.machine.free[leave].append(around)
            return around, around
        return entry, leave

    def single(self) -> tuple[int, int]:
        token = self.tokens.pop(0)
        if token in ("(", "["):
            entry, leave = self.choice()
            self.tokens.pop(0)
            if token == "[":
                self.machine.free[entry].append(leave)
            return entry, leave
        if token == "prefix":
            return self.prefix()
        if token in GRAMMAR:
            return _Reader(self.machine, GRAMMAR[token]).choice()
        entry, leave = self.machine.state(), self.machine.state()
        self.machine.reads[entry][token] = leave
        return entry, leave

    def prefix(self) -> tuple[int, int]:
        before = len(self.machine.free)
        self.tokens.pop(0)
        entry, _ = self.choice()
        self.tokens.pop(0)
        inside = range(before, len(self.machine.free))
        leave = self.machine.state()
        for state in inside:
            self.machine.free[state].append(leave)
        return entry, leave


_built: list[tuple[_Automaton, int, int]] = []


def _machine() -> tuple[_Automaton, int, int]:
    if not _built:
        machine = _Automaton()
        entry, leave = _Reader(machine, GRAMMAR["trace"]).choice()
        _built.append((machine, entry, leave))
    return _built[0]


class Grammar:
    """Follows one training's events and raises at the first that the grammar does not allow.

    >>> grammar = Grammar()
    >>> grammar.feed("on_train_start")
    >>> grammar.feed("on_val_end")
    Traceback (most recent call last):
    epochal.core.errors.EventOrderError: event 2, 'on_val_end', cannot follow 'on_train_start'; possible here: ...
    """

    def __init__(self, declared: Iterable[str] = ()) -> None:
        self.machine, entry, self.final = _machine()
        self.declared = frozenset(declared) | frozenset(OWN_DECLARED)
        self.states = self.machine.closure([entry])
        self.count = 0
        self.last: str | None = None

    def possible(self) -> list[str]:
        """Return the events that may come next, sorted."""
        return sorted({name for state in self.states for name in self.machine.reads[state]})

    def feed(self, name: str) -> None:
        """Take the next event; EventOrderError where it cannot stand, UnknownEvent where there is none of that name."""
        self.count += 1
        if name in self.declared:
            return
        if name not in EVENT_NAMES:
            raise UnknownEvent(name, [*EVENT_NAMES, *self.declared])
        moved = [self.machine.reads[state][name] for state in self.states if name in self.machine.reads[state]]
        if not moved:
            where = f"cannot follow {self.last!r}" if self.last else "cannot be the first"
            possible = ", ".join(self.possible()) or "nothing, the training is over"
            raise EventOrderError(f"event {self.count}, {name!r}, {where}; possible here: {possible}")
        self.states = self.machine.closure(moved)
        self.last = name

    def finish(self) -> None:
        """Say that no event follows; EventOrderError unless the training is complete."""
        if self.final not in self.states:
            after = f"after {self.last!r}" if self.last else "empty"
            raise EventOrderError(
                f"the trace ends {after}, without teardown; possible here: {', '.join(self.possible())}"
            )


def check_events(names: Iterable[str], declared: Iterable[str] = ()) -> None:
    """Raise at the first event of one training's trace that breaks the grammar, or when the trace is cut off.

    ``declared`` names the user's own events; they may stand anywhere.

    >>> check_events(["on_train_start", "on_train_end", "teardown"])
    """
    grammar = Grammar(declared)
    for name in names:
        grammar.feed(name)
    grammar.finish()
