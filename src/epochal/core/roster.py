"""The callbacks of a run: their names, their calls, and their states from one training to the next."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from epochal.core.callback import Callback, given_name
from epochal.core.dispatch import ASKED, BATCH_POINT, BEFORE_STEP, SAFE_POINT, Dispatcher, Handle
from epochal.core.errors import ArgumentError, AttachError, CapabilityError, UnknownEvent, nearest
from epochal.core.events import EVENT_NAMES, OWN_DECLARED
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.run import Run

_serving: dict[int, tuple[object, "Run"]] = {}  # id of a callback or condition -> it, and the training it serves
UNPREFIXED = ("optimizer_step", "teardown")  # the events whose name does not begin with on_
FIRST_STATE = "_first_state"


def overridden(callback: Callback, method: str) -> bool:
    """Say whether a callback has a method of its own for an event."""
    return getattr(type(callback), method, None) is not getattr(Callback, method, None) or method in vars(callback)


class Roster:
    """Adds callbacks to a dispatcher, refuses what cannot work, and keeps each object to one training at a time."""

    def __init__(
        self, run: "Run", dispatcher: Dispatcher, provides: frozenset[str], owns: Mapping[str, str] | None = None
    ) -> None:
        self.run, self.dispatcher, self.provides = run, dispatcher, provides
        self.owns = dict(owns or {})  # capabilities that the trainer keeps to itself -> its own option
        self.callbacks: dict[str, Callback] = {}
        self.undeclared: list[tuple[Callback, str]] = []  # on_... methods whose event may still be declared
        self.serving: list[int] = []
        self.saved: Mapping[str, Any] | None = None  # the states of the checkpoint that this training goes on from

    def label(self, callback: Callback) -> str:
        """Return the name under which this run knows a callback."""
        for label, one in self.callbacks.items():
            if one is callback:
                return label
        raise AttachError(f"{callback.name} is not a callback of this run; add it with run.add(...)")

    def unique(self, name: str) -> str:
        """Return the name, with #2, #3 ... when it is taken."""
        taken = {*self.callbacks, *(handle.label for slot in self.dispatcher.slots.values() for handle in slot.wanted)}
        label, number = name, 1
        while label in taken:
            number += 1
            label = f"{name}#{number}"
        return label

    def add(self, callback: Callback) -> None:
        """Add a callback and those it implies."""
        label = self.check(callback)
        self.check_requires(callback, label)
        for method in self.unknown(callback):
            if nearest(method, EVENT_NAMES):
                raise UnknownEvent(method, self.dispatcher.events())
            self.undeclared.append((callback, method))
        self.callbacks[label] = callback
        try:
            for event in (*EVENT_NAMES, *OWN_DECLARED, *ASKED):
                if overridden(callback, event):
                    self.listen(callback, event)
            if overridden(callback, SAFE_POINT) and callback.at_batches:
                self.listen(callback, SAFE_POINT, slot=BATCH_POINT)
        except BaseException:
            self.remove(callback)
            raise
        first_state(callback)
        for implied in callback.implies():
            self.add(implied)

    def check_requires(self, callback: Callback, label: str) -> None:
        """Raise CapabilityError if the trainer cannot deliver what a callback requires, or does it itself."""
        needs = callback.requires | ({"gradients"} if overridden(callback, BEFORE_STEP) else set())
        missing = sorted(needs - self.provides)
        owned = [one for one in missing if one in self.owns]
        if owned:
            raise CapabilityError(f"{label} cannot be used here: {'; '.join(self.owns[one] for one in owned)}")
        if missing:
            raise CapabilityError(
                f"{label} requires {', '.join(missing)}, which {self.run.host} cannot deliver;"
                " leave it out, or use a trainer that can"
            )

    def unknown(self, callback: Callback) -> list[str]:
        """Return the methods that look like those of an event, but there is none of that name."""
        known = (*dir(Callback), *self.dispatcher.slots)
        own = [method for method in dir(type(callback)) if method not in known and not method.startswith("_")]
        return [
            method for method in own
            if (method.startswith("on_") or nearest(method, UNPREFIXED, 0.85)) and callable(getattr(callback, method))
        ]  # fmt: skip

    def listen(self, callback: Callback, event: str, *, slot: str | None = None) -> Handle:
        """Add one method of a callback to an event, or to a slot of another name."""
        return self.dispatcher.listen(
            slot or event, getattr(callback, event), label=self.label(callback), guarded=callback.guarded
        )

    def check(self, callback: Callback) -> str:
        """Return the name of a callback that may be added, or raise."""
        if not isinstance(callback, Callback):  # pyright: ignore[reportUnnecessaryIsInstance]
            cure = (
                "a function goes with run.add_callback(event, fn)"
                if callable(callback)
                else "derive it from epochal.Callback"
            )
            if isinstance(callback, (list, tuple)):
                cure = "that is a list; pass its members one by one, as attach(model, *callbacks)"
            if isinstance(callback, type):
                cure = f"that is the class; pass an object, {callback.__name__}(...)"
            raise AttachError(f"{callback!r} is not a callback: {cure}")
        if any(one is callback for one in self.callbacks.values()):
            raise AttachError(f"{callback.name} is a callback of this run already; one object is added once")
        given = given_name(callback)
        if given is not None and given in self.callbacks:
            raise ArgumentError(f"two callbacks are named {given!r}; give each its own name, states are saved under it")
        return given or self.unique(callback.name)

    def remove(self, callback: Callback) -> None:
        """Take a callback out again."""
        label = self.label(callback)
        self.dispatcher.remove_label(label)
        self.undeclared = [(one, method) for one, method in self.undeclared if one is not callback]
        del self.callbacks[label]

    def begin(self, saved: Mapping[str, Any] | None) -> None:
        """Claim every object for this training and give it its first state, or the saved one."""
        for _, method in self.undeclared:
            if method not in self.dispatcher.slots:
                raise UnknownEvent(method, self.dispatcher.events())
        while self.undeclared:
            self.listen(*self.undeclared.pop(0))
        self.saved = saved
        self.join(())

    def join(self, known: Collection[str]) -> None:
        """Claim the callbacks whose names are not among the known, and give them their state."""
        self.claim_all()
        for label, callback in self.callbacks.items():
            if label not in known:
                callback.load_state_dict(copied((self.saved or {}).get(label, first_state(callback))))

    def go_back(self, states: Mapping[str, Any]) -> None:
        """Give the callbacks the states that a checkpoint of this training holds."""
        for label, callback in self.callbacks.items():
            callback.load_state_dict(copied(states.get(label, first_state(callback))))

    def tell_differences(self) -> None:
        """Say, when the training starts, which callbacks the checkpoint does not know, and the reverse."""
        saved = self.saved
        if saved is None:
            return
        for label in self.callbacks:
            if label not in saved:
                log().warning("resume: %s was not there when the checkpoint was written; it begins anew.", label)
        for label in saved:
            if label not in self.callbacks:
                log().warning(
                    "resume: the checkpoint has a state for %s, which is not there now; it is left out.", label
                )

    def claim_all(self) -> None:
        """Claim every callback and what learns inside it."""
        for callback in self.callbacks.values():
            self.claim(callback, callback.name)
            for part in callback.parts():
                self.claim(part, f"{part!r} of {callback.name}")

    def claim(self, one: object, what: str) -> None:
        """Let an object serve this training, unless it serves another."""
        key = id(one)
        if key in _serving:
            if _serving[key][1] is self.run:
                return
            raise AttachError(
                f"{what} serves another training that is still running; give each training its own object"
            )
        _serving[key] = (one, self.run)
        self.serving.append(key)

    def release(self) -> None:
        """Let every object serve other trainings."""
        for key in self.serving:
            _serving.pop(key, None)
        self.serving.clear()
        self.saved = None

    def states(self) -> dict[str, dict[str, Any]]:
        """Return every callback's state by its name."""
        return {label: callback.state_dict() for label, callback in self.callbacks.items()}


def first_state(callback: Callback) -> dict[str, Any]:
    """Return the state that a callback had when it was first seen; pickling may have dropped it: then its own."""
    if FIRST_STATE not in vars(callback):
        object.__setattr__(callback, FIRST_STATE, copied(callback.state_dict()))
    return vars(callback)[FIRST_STATE]


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy that shares nothing with the object it came from."""
    from copy import deepcopy

    return deepcopy(dict(state))
