"""Delivery of events: per event a tuple of the calls that are really wanted, in the user's order."""

import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from epochal.core.errors import ArgumentError, SignatureError, UnknownEvent
from epochal.core.events import BATCH_EVENTS, EVENT_NAMES, OWN_DECLARED
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.run import Run

SAFE_POINT = "at_safe_point"
BATCH_POINT = "at_safe_point of a batch"  # the same method, of those who decide there too
BEFORE_STEP = "before_step"
ASKED = {  # like events, but with a second argument: it
    SAFE_POINT: "the moment",
    BATCH_POINT: "the moment",
    BEFORE_STEP: "the optimizer",
}
FAILURES_IN_A_ROW = 3


class Handle:
    """One call that is wanted at one event; ``remove()`` takes it back, from the next event on.

    ``every=n`` lets through the n-th, 2n-th ... occurrence, ``once=True`` only the first that is let through.
    """

    def __init__(
        self, slot: "Slot", fn: Callable[..., Any], label: str, guarded: bool, every: int | None, once: bool
    ) -> None:
        self.slot, self.fn, self.label, self.guarded = slot, fn, label, guarded
        self.every, self.once = every, once
        self.occurrences = self.failures_in_a_row = 0
        self.watched = False  # after a failure successes are watched too
        self.call: Callable[..., Any] = fn

    def remove(self) -> None:
        """Take the call back; what is being delivered is still delivered to it."""
        self.slot.remove(self)

    def build(self) -> None:
        """Make the call that the slot holds: the bare function unless it is filtered, watched or timed."""
        call = self.fn
        if self.watched:
            call = partial(self.watch, call)
        if self.slot.dispatcher.timing:
            call = partial(self.timed, call)
        if self.every is not None or self.once:
            call = partial(self.filtered, call)
        self.call = call

    def filtered(self, call: Callable[..., Any], *args: Any) -> None:
        """Let through what ``every`` and ``once`` want."""
        self.occurrences += 1
        if self.every is None or self.occurrences % self.every == 0:
            if self.once:
                self.remove()
            call(*args)

    def watch(self, call: Callable[..., Any], *args: Any) -> None:
        """Forget failures after a success: only failures in a row switch a callback off."""
        call(*args)
        self.failures_in_a_row = 0

    def timed(self, call: Callable[..., Any], *args: Any) -> None:
        """Measure the time the call takes."""
        start = perf_counter_ns()
        try:
            call(*args)
        finally:
            self.slot.dispatcher.charge(self.label, perf_counter_ns() - start)


class Slot:
    """One event: the calls that are wanted, as a tuple, rebuilt when something is added or removed."""

    __slots__ = ("calls", "dispatcher", "event", "handles", "wanted")

    def __init__(self, dispatcher: "Dispatcher", event: str) -> None:
        self.dispatcher, self.event = dispatcher, event
        self.wanted: tuple[Handle, ...] = ()  # all of them
        self.handles: tuple[Handle, ...] = ()  # those not switched off
        self.calls: tuple[Callable[..., Any], ...] = ()

    def set(self, wanted: tuple[Handle, ...]) -> None:
        """Hold these handles; a call that stands twice is told apart by a wrapper."""
        calls: list[Callable[..., Any]] = []
        self.wanted = wanted
        handles = tuple(one for one in wanted if one.label not in self.dispatcher.switched_off)
        for handle in handles:
            handle.build()
            calls.append(partial(handle.call) if handle.call in calls else handle.call)
        self.handles, self.calls = handles, tuple(calls)

    def add(self, handle: Handle) -> None:
        """Add a handle at the end."""
        self.set((*self.wanted, handle))

    def remove(self, handle: Handle) -> None:
        """Remove a handle, if it is still there."""
        self.set(tuple(one for one in self.wanted if one is not handle))

    def fire(self, run: "Run") -> None:
        """Deliver the event to every call; the first unguarded error is raised once all have had it."""
        handles = self.handles
        calls = self.calls
        for call in calls:
            try:
                call(run)
            except BaseException as error:
                self.deliver_rest(handles, calls, calls.index(call), error, (run,))
                return

    def ask(self, run: "Run", about: Any) -> None:
        """Let every callback decide about a moment or an optimizer; like ``fire``."""
        handles = self.handles
        calls = self.calls
        for call in calls:
            try:
                call(run, about)
            except BaseException as error:
                self.deliver_rest(handles, calls, calls.index(call), error, (run, about))
                return

    def deliver_rest(
        self,
        handles: "tuple[Handle, ...]",
        calls: tuple[Callable[..., Any], ...],
        index: int,
        error: BaseException,
        args: tuple[Any, ...],
    ) -> None:
        """Go on behind a call that failed, so that every callback sees each event; then raise the first error."""
        errors = [one for one in [self.dispatcher.failed(handles[index], error)] if one is not None]
        for place in range(index + 1, len(calls)):
            call = calls[place]
            try:
                call(*args)
            except BaseException as further:
                failure = self.dispatcher.failed(handles[place], further)
                errors += [failure] if failure is not None else []
        if errors:
            for further in errors[1:]:
                errors[0].add_note(f"then {further!r}, {' '.join(getattr(further, '__notes__', ()))}")
            raise errors[0]

    def fire_all(self, run: "Run") -> BaseException | None:
        """Deliver the event and return the first error instead of raising it."""
        try:
            self.fire(run)
        except BaseException as error:
            return error
        return None


DELIVERY = {Slot.fire.__code__, Slot.ask.__code__, Slot.deliver_rest.__code__}


def caller() -> Handle | None:
    """Return whose call is being delivered on this thread: found on the stack, so that delivery keeps no books."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if frame.f_code in DELIVERY:
            names = frame.f_locals
            if "call" in names:
                return names["handles"][names["calls"].index(names["call"])]
        frame = frame.f_back
    return None


def check_signature(fn: Callable[..., Any], event: str) -> None:
    """Raise SignatureError unless ``fn`` can be called with the arguments of the event."""
    import inspect

    if not callable(fn):  # pyright: ignore[reportUnnecessaryComparison]
        raise SignatureError(f"{fn!r} cannot be called; pass a function of one argument, the run, for {event}")
    try:
        inspect.signature(fn).bind(*range(2 if event in ASKED else 1))
    except TypeError as error:
        what = getattr(fn, "__qualname__", repr(fn))
        wanted = f"two arguments, the run and {ASKED[event]}" if event in ASKED else "one argument, the run"
        raise SignatureError(
            f"{event} calls {what} with {wanted}, but {what}{inspect.signature(fn)} does not take that: {error}"
        ) from None
    except ValueError:
        return  # a builtin without a signature


def is_survivable(error: BaseException) -> bool:
    """Say whether a guarded callback may fail with this: any Exception, and torch's CheckpointException."""
    return isinstance(error, Exception) or type(error).__name__ == "CheckpointException"


class Dispatcher:
    """All slots of a run, what failed in them and, when asked for, what each callback cost."""

    def __init__(self) -> None:
        self.slots = {name: Slot(self, name) for name in (*EVENT_NAMES, *OWN_DECLARED, *ASKED)}
        self.failures: dict[str, int] = {}
        self.switched_off: set[str] = set()
        self.costs: dict[str, tuple[int, int]] = {}  # label -> calls, nanoseconds
        self.timing = False

    def slot(self, event: str) -> Slot:
        """Return the slot of an event; UnknownEvent with the nearest right name where there is none."""
        found = self.slots.get(event)
        if found is None or event in ASKED:
            raise UnknownEvent(event, self.events())
        return found

    def events(self) -> list[str]:
        """Return the names of all events, the declared ones too."""
        return [name for name in self.slots if name not in ASKED]

    def declare(self, event: str) -> None:
        """Add an event of the user's own."""
        if not (event.startswith("on_") and event.isidentifier()):
            raise ArgumentError(f'an event of your own is named "on_...", an identifier, not {event!r}')
        if event in (*EVENT_NAMES, *OWN_DECLARED):
            raise ArgumentError(f"{event!r} is an event of every run already; choose another name")
        self.slots.setdefault(event, Slot(self, event))

    def listen(
        self,
        event: str,
        fn: Callable[..., Any],
        *,
        label: str,
        guarded: bool,
        every: int | None = None,
        once: bool = False,
    ) -> Handle:
        """Add a call at the end of an event."""
        slot = self.slots[event] if event in ASKED else self.slot(event)
        check_signature(fn, event)
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"every must be an int >= 1, not {every!r}")
        handle = Handle(slot, fn, label, guarded, every, once)
        slot.add(handle)
        return handle

    def remove_label(self, label: str) -> None:
        """Remove every call of one callback."""
        for slot in self.slots.values():
            slot.set(tuple(one for one in slot.wanted if one.label != label))

    def charge(self, label: str, nanoseconds: int, calls: int = 1) -> None:
        """Add to what a callback cost."""
        count, spent = self.costs.get(label, (0, 0))
        self.costs[label] = (count + calls, spent + nanoseconds)

    def time_calls(self, on: bool = True) -> None:
        """Measure from now on what each callback costs."""
        self.timing = on
        self.rebuild()

    def rebuild(self) -> None:
        """Make every slot's calls anew."""
        for slot in self.slots.values():
            slot.set(slot.wanted)

    def begin(self) -> None:
        """Begin a training: nothing has failed or cost time yet, and nobody is switched off."""
        self.failures.clear()
        self.costs.clear()
        self.switched_off.clear()
        for slot in self.slots.values():
            for handle in slot.wanted:
                handle.watched, handle.failures_in_a_row, handle.occurrences = False, 0, 0
        self.rebuild()

    def failed(self, handle: Handle, error: BaseException) -> BaseException | None:
        """Report a guarded callback's failure, or return an unguarded one's with a note saying whose it is."""
        if not (handle.guarded and is_survivable(error)):
            note = f"raised by {handle.label} in {handle.slot.event}"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            return error
        count = self.failures[handle.label] = self.failures.get(handle.label, 0) + 1
        if count == 1:
            log().error(
                "%s failed in %s; the training goes on. Further failures of it are counted, not shown.",
                handle.label, handle.slot.event, exc_info=error,
            )  # fmt: skip
        if handle.slot.event in BATCH_EVENTS or handle.slot.event in ASKED:
            self.count_in_a_row(handle)
        return None

    def count_in_a_row(self, handle: Handle) -> None:
        """Switch a guarded callback off after three failures in a row at batch events."""
        handle.failures_in_a_row += 1
        if not handle.watched:
            handle.watched = True
            handle.slot.set(handle.slot.wanted)
        if handle.failures_in_a_row >= FAILURES_IN_A_ROW and handle.label not in self.switched_off:
            self.switched_off.add(handle.label)
            self.rebuild()
            log().error(
                "%s is switched off: it failed %d times in a row in %s.",
                handle.label,
                FAILURES_IN_A_ROW,
                handle.slot.event,
            )
