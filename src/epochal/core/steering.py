"""The verbs of a run that steer its training: what is asked for here is taken at safe points."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from epochal.core.dispatch import caller
from epochal.core.errors import ArgumentError, CapabilityError
from epochal.core.log import log
from epochal.core.rates import check_group, check_rate
from epochal.core.requests import RateRequest, RollbackRequest, SaveRequest, StopRequest, ValidationRequest

if TYPE_CHECKING:
    from epochal.core.declared import Declared
    from epochal.core.engine import Engine
    from epochal.core.roster import Roster


class Steering:
    """What ``Run`` offers to who steers it (internal): all of it from any thread, except ``roll_back``."""

    engine: "Engine"
    roster: "Roster"
    host: str
    commands: "dict[str, Declared]"

    def stop(self, reason: str) -> None:
        """Ask the training to end at the next safe point; requests are added up, never overwritten."""
        if not self.engine.active:
            self.too_late(f"stop({reason!r})")
            return
        request = StopRequest(str(reason), self.who())
        self.engine.requests.stops.append(request)
        self.note("stop", request.reason, request.by)

    def save(self, reason: str) -> None:
        """Ask for a full checkpoint at the next safe point; what a person asked for is kept for good."""
        self.request_save(reason, pinned=True)

    def set_lr(self, value: float | None, group: str | None = None) -> None:
        """Make the learning rate be ``value`` from the next step on; None gives it back to the schedule."""
        self.ask_rate(RateRequest("set", None if value is None else check_rate(value, "a learning rate"), group))

    def scale_lr(self, factor: float, group: str | None = None) -> None:
        """Multiply whatever learning rate is in effect, for good; factors multiply and are saved with the run."""
        self.ask_rate(RateRequest("scale", check_rate(factor, "a factor of the learning rate"), group))

    def pause(self) -> None:
        """Let the training wait at the next safe point, until ``proceed``, a stop, a signal or Ctrl-C.

        While it waits commands are served, ``on_pause`` and ``on_continue`` are its first and last event, and no clock
        of a condition or callback runs. CapabilityError where the trainer cannot wait: in several processes, too.
        """
        self.check_able("pause")
        if not self.engine.active:
            self.too_late("pause()")
            return
        self.engine.requests.pause()

    def proceed(self) -> None:
        """Let a training that waits, or is about to, go on: from another thread, or in a command."""
        self.engine.requests.paused = False

    @property
    def paused(self) -> bool:
        """Whether the training waits, or will at the next safe point."""
        return self.engine.requests.paused

    def validate(self, reason: str = "", *, counts: bool = True) -> None:
        """Ask for a validation between two batches, as soon as the trainer can do one.

        Weights, optimizer and random generators stay as they were, bit for bit. ``counts=False``: it is to be looked at
        only, and policies count no check; so it is when somebody asks from outside. CapabilityError where the trainer
        cannot do it, or has no data for it.
        """
        self.check_able("validate")
        if not self.engine.active:
            self.too_late("validate()")
            return
        self.engine.requests.add_validation(ValidationRequest(str(reason), self.who(), counts))

    def command(self, name: str, *, label: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Offer a command of your own to the page and the command line; the decorated function obeys it.

        >>> from typing import Annotated
        >>> from epochal.core.declared import Between
        >>> from epochal.testing import simulate
        >>> run = simulate([], [{}]).run
        >>> @run.command("dropout", label="Set dropout")
        ... def dropout(run, p: Annotated[float, Between(0, 1)] = 0.5):
        ...     run.model.dropout = p
        >>> run.commands["dropout"].verb.label
        'Set dropout'

        It is called with the run and its arguments, which are float, int, str, bool or Literal, on the training thread,
        at a safe point; what it returns is the answer. An error in it is the answer, too, and the training goes on. In
        a training of several processes each calls it, at the end of the epoch. A wrong signature is a SignatureError.
        """
        from epochal.core.declared import declared

        if callable(name):
            raise ArgumentError('write @run.command("name"): the command is named in the parentheses')

        def offer(function: Callable[..., Any]) -> Callable[..., Any]:
            self.commands[name] = declared(name, function, label)
            if self.engine.offering is not None:
                self.engine.offering()
            return function

        return offer

    # -- for callbacks and integrations -------------------------------------------------------------------------------

    def check_able(self, needs: str) -> None:
        """Raise CapabilityError where this training lacks a capability."""
        from epochal.core.control import why_not_capable

        why = why_not_capable(self, needs)
        if why is not None:
            raise CapabilityError(why)

    def request_save(self, reason: str, *, pinned: bool = False, patient: bool = False) -> None:
        """Ask for a checkpoint on behalf of the callback that is running.

        ``patient``: while the one before is being written, a later moment of the same epoch will do.
        """
        if self.engine.saver is None:
            raise CapabilityError(f"{self.host} has no checkpoints in this training: nothing can be saved")
        if not self.engine.active:
            self.too_late(f"save({reason!r})")
            return
        self.engine.requests.add_save(SaveRequest(str(reason), self.who(), pinned, patient))

    def roll_back(self, reason: str, *, lr_factor: float = 1.0, skip: tuple[int, int] | None = None) -> None:
        """Ask to go back to the newest sound point of this epoch, of those before the batches to skip, if any.

        The epoch goes on from there without its batches ``skip[0]`` to ``skip[1]``, rates times ``lr_factor``. On the
        training thread only; a trainer that cannot do it raises ``CapabilityError``. Where no such point is there it is
        said and the training goes on.
        """
        if self.engine.rewind is None:
            raise CapabilityError(f"{self.host} cannot go back to an earlier point of a training")
        factor = check_rate(lr_factor, "lr_factor")
        if factor == 0:
            raise ArgumentError("lr_factor must be above 0, not 0: nothing would be learnt any more")
        self.engine.requests.rollbacks.append(RollbackRequest(str(reason), self.who(), factor, skip))

    def ask_rate(self, request: RateRequest) -> None:
        """Queue a change of the learning rate, unless it cannot work."""
        host = self.engine.rate_host
        if host is None:
            raise CapabilityError(f"{self.host} shows no optimizer now: its learning rate cannot be changed")
        if not self.engine.active:
            self.too_late(f"{request.kind}_lr({request.value})")
            return
        check_group(request.group, host.groups())
        self.engine.requests.add_rate(request)
        self.note("rate", str(request), self.who())
        if threading.get_ident() == self.engine.thread:
            self.engine.take_over_rates()

    def note(self, kind: str, text: str, by: str) -> None:
        """Have something that was asked for written down in the run's store."""
        if self.engine.note is not None:
            self.engine.note(kind, text, by, {})

    def too_late(self, what: str) -> None:
        """Say that a request came while no training runs."""
        log().warning("%s came while no training runs; the next one does not know of it.", what)

    def who(self) -> str:
        """Return who is calling: the callback whose event is being delivered on this thread, or "user".

        In a command of the user's own it is who sent that.
        """
        by = self.engine.orders.by
        if by is not None and threading.get_ident() == self.engine.thread:
            return by
        handle = caller()
        return handle.label if handle is not None else "user"
