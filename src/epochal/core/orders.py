"""The commands of one training: taken at safe points, on its thread, and answered when they are really applied."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from epochal.core.control import check_arguments, verb_named, verbs_of, why_not
from epochal.core.errors import CapabilityError, EpochalError
from epochal.core.log import log
from epochal.core.pausing import validates_next
from epochal.core.rates import check_group
from epochal.core.requests import Command, RateRequest, SaveRequest, StopRequest, ValidationRequest

if TYPE_CHECKING:
    from epochal.core.engine import Engine
    from epochal.core.moment import Ended

REASON = "asked for by a command"


class Later(NamedTuple):
    """What a command waits for; it is answered then."""

    text: str


class Orders:
    """Serves commands, each id once; one that has to wait is told so, and answered later.

    ``waiting`` holds those without an answer; ``at_epoch`` and ``after_group`` are the stops among them.
    """

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.seen: set[str] = set()
        self.waiting: dict[str, Command] = {}
        self.at_epoch: list[Command] = []
        self.after_group: list[Command] = []
        self.by: str | None = None  # whose command is being done

    def serve(self, ended: "Ended") -> None:
        """Take the commands that wait, in their order; where processes train together, at ends of epochs."""
        engine, requests = self.engine, self.engine.requests
        if ended == "epoch":
            self.stop_at_epoch()
        if self.after_group and (ended == "epoch" or engine.stop_now()):
            while self.after_group:
                self.done(self.after_group.pop(0).id, "the training ends here")
        if engine.world_size == 1 or ended == "epoch":
            while requests.commands:
                self.take(requests.commands.popleft(), ended)
        else:
            for command in list(requests.commands):
                if command.id not in self.waiting:
                    self.later(command, "at the end of the epoch all processes obey together")
        if self.at_epoch or self.after_group or requests.commands:
            requests.waiting = True

    def take(self, command: Command, ended: "Ended") -> None:
        """Do one command and say what became of it; nothing that it asks for ends the training by an error."""
        if command.id in self.seen:
            return
        self.seen.add(command.id)
        run = self.engine.run
        self.by = command.by
        try:
            verb = verb_named(command.name, verbs_of(run))
            given = check_arguments(verb.arguments, command.arguments)
            why = why_not(run, verb)
            if why is not None:
                self.refuse(command.id, why)
                return
            own = run.commands.get(command.name)
            said = own.call(run, given) if own is not None else HANDLERS[command.name](self, command, given, ended)
        except EpochalError as error:
            self.refuse(command.id, str(error))
        except Exception as error:
            log().exception("the command %r of %s failed; the training goes on.", command.name, command.by)
            self.refuse(command.id, f"it failed: {type(error).__name__}: {error}; the training goes on")
        except BaseException as error:  # which is to end the training
            self.refuse(command.id, f"it ended the training: {type(error).__name__}: {error}")
            raise
        else:
            self.later(command, said.text) if isinstance(said, Later) else self.done(command.id, said, command)
        finally:
            self.by = None

    # -- answers ------------------------------------------------------------------------------------------------------

    def later(self, command: Command, text: str) -> None:
        """Say that a command was taken and waits."""
        self.waiting[command.id] = command
        self.answer(command.id, "taken", text)

    def done(self, id: str, text: str, command: Command | None = None) -> None:  # noqa: A002  # the command's
        """Say that a command is applied, and write it down."""
        engine, command = self.engine, self.waiting.pop(id, command)
        self.answer(id, "applied", text)
        if command is not None and engine.note is not None:
            kind = KINDS.get(command.name, "command")
            about = {"command": id, "name": command.name, "arguments": dict(command.arguments)}
            engine.note(kind, f"{command.name}: {text}" if text else command.name, command.by, about)

    def refuse(self, id: str, text: str) -> None:  # noqa: A002
        """Say that a command is not obeyed, and why."""
        self.waiting.pop(id, None)
        self.answer(id, "refused", text)

    def answer(self, id: str, state: str, text: str) -> None:  # noqa: A002
        """Tell who asked."""
        if self.engine.answer is not None:
            self.engine.answer(id, state, text)

    def close(self) -> None:
        """The training is over: what waits is refused."""
        for command in [*self.waiting.values(), *self.engine.requests.commands]:
            if command.id not in self.seen or command.id in self.waiting:
                self.seen.add(command.id)
                self.refuse(command.id, "the training was over before")
        self.engine.requests.commands.clear()
        self.at_epoch.clear()
        self.after_group.clear()

    # -- what is done later -------------------------------------------------------------------------------------------

    def stop_at_epoch(self) -> None:
        """Take the stops that waited for the end of an epoch."""
        while self.at_epoch:
            command = self.at_epoch.pop(0)
            self.engine.requests.stops.append(StopRequest(REASON, command.by))
            self.done(command.id, "the training ends with this epoch")

    def saved(self, asked: list[SaveRequest], error: Exception | None) -> None:
        """A checkpoint was captured, or could not be."""
        for request in asked:
            if request.command:
                if error is None:
                    self.done(request.command, "the state is captured, and written from now on")
                else:
                    self.refuse(request.command, f"the state could not be captured: {error}; the training goes on")

    def validated(self, asked: list[ValidationRequest], error: Exception | None = None) -> None:
        """A validation is done, or has failed."""
        for request in asked:
            if not request.command:
                continue
            if error is not None:
                text = f"the validation failed: {type(error).__name__}: {error}; the training goes on"
                self.refuse(request.command, text)
            else:
                self.done(request.command, in_words(self.engine))


def in_words(engine: "Engine") -> str:
    """Return what the newest validation measured, a few of it."""
    entries = [one for one in engine.metrics.entries.values() if one.validated and one.name.startswith("val/")]
    newest = [one for one in entries if one.where[2] == engine.step]
    return ", ".join(f"{one.name} {one.number():.5g}" for one in newest[:4]) or "the validation is done"


# -- what each command does --------------------------------------------------------------------------------------------


def stop(orders: Orders, command: Command, given: dict[str, Any], ended: "Ended") -> str | Later:
    """End the training, after this batch or with this epoch."""
    engine = orders.engine
    if given["when"] == "epoch" and ended != "epoch":
        orders.at_epoch.append(command)
        return Later(f"it stops at the end of this epoch{', once it continues' if engine.requests.paused else ''}")
    engine.requests.stops.append(StopRequest(REASON, command.by))
    engine.requests.paused = False
    if ended == "epoch" or engine.stop_now():
        return "the training ends here"
    orders.after_group.append(command)
    return Later("it stops after the step of these batches")


def save(orders: Orders, command: Command, given: dict[str, Any], ended: "Ended") -> Later:
    """Keep a checkpoint of this moment for good."""
    orders.engine.requests.add_save(SaveRequest(REASON, command.by, pinned=True, command=command.id))
    return Later("a checkpoint is taken at the next moment at which one can be")


def set_lr(orders: Orders, command: Command, given: dict[str, Any], ended: "Ended") -> str:
    """Set the learning rate, or give it back to the schedule."""
    return change_rate(orders.engine, RateRequest("set", given["value"], given["group"]))


def scale_lr(orders: Orders, command: Command, given: dict[str, Any], ended: "Ended") -> str:
    """Multiply the learning rate, for good."""
    return change_rate(orders.engine, RateRequest("scale", given["factor"], given["group"]))


def change_rate(engine: "Engine", request: RateRequest) -> str:
    """Change the learning rate from the next step on, and say what it is then."""
    assert engine.rate_host is not None
    check_group(request.group, engine.rate_host.groups())
    engine.requests.add_rate(request)
    engine.apply_rates()
    rates = {f"{rate:.6g}" for rate in engine.run.lr.values()}
    if len(rates) == 1:
        return f"the learning rate is {rates.pop()} from the next step on"
    shown = [f"{name} {rate:.6g}" for name, rate in engine.run.lr.items()]
    return f"the learning rates are {', '.join(shown[:6])}{' ...' if len(shown) > 6 else ''} from the next step on"


def pause(orders: Orders, command: Command, given: dict[str, Any], ended: "Ended") -> str:
    """Let the training wait."""
    requests = orders.engine.requests
    if requests.stops:
        return "the training is about to end"
    again = requests.paused
    requests.pause()
    return "it was paused already" if again else "the training waits here"


def proceed(orders: Orders, command: Command, given: dict[str, Any], ended: "Ended") -> str:
    """Go on."""
    requests = orders.engine.requests
    was, requests.paused = requests.paused, False
    return "the training goes on" if was else "it was not paused"


def validate(orders: Orders, command: Command, given: dict[str, Any], ended: "Ended") -> Later:
    """Validate between two batches, for people to look at: policies do not count it."""
    engine = orders.engine
    if engine.requests.paused and not validates_next(engine, ended):  # it would wait as long as the pause lasts
        where = "a validation" if ended == "validation" else "an epoch"
        raise CapabilityError(f"it waits at the end of {where}, where no other can begin; let it continue first")
    engine.requests.add_validation(ValidationRequest(REASON, command.by, counts=False, command=command.id))
    return Later("a validation comes behind this batch")


HANDLERS: dict[str, Callable[[Orders, Command, dict[str, Any], "Ended"], str | Later]] = {
    "stop": stop,
    "save": save,
    "set_lr": set_lr,
    "scale_lr": scale_lr,
    "pause": pause,
    "continue": proceed,
    "validate": validate,
}
KINDS = {  # a command -> the kind of its event, "command" for all others
    "stop": "stop", "save": "save", "set_lr": "rate", "scale_lr": "rate", "validate": "validation",
}  # fmt: skip
