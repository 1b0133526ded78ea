"""What people may ask of a running training: the table of commands, their arguments, and who can obey which."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from epochal.core.errors import ArgumentError, nearest

if TYPE_CHECKING:
    from epochal.core.steering import Steering

Kind = Literal["number", "integer", "text", "choice"]
MOST_TEXT = 1000  # characters
MOST_RATE = 1e3


class Argument(NamedTuple):
    """One argument of a command; ``above``: the minimum itself is too little. A text's bounds count its characters.

    >>> Argument("factor", "number", minimum=0, above=True).check(0.5)
    0.5
    """

    name: str
    type: Kind
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    required: bool = True
    default: Any = None
    above: bool = False

    def check(self, value: Any) -> Any:
        """Return the value if it will do, else raise ArgumentError with what would."""
        fits = {"number": self.number, "integer": self.integer, "text": self.text, "choice": self.choice}[self.type]
        found = fits(value)
        if found is None:
            given = repr(value)
            raise ArgumentError(
                f"{self.name} must be {self.wanted()}, not {given if len(given) <= 60 else given[:57] + '...'}"
            )
        return found

    def number(self, value: Any) -> float | None:
        """Return a finite number within the bounds."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if isinstance(value, int) and abs(value) > 2**63:  # which float() may refuse
            return None
        return float(value) if isfinite(value) and self.within(value) else None

    def integer(self, value: Any) -> int | None:
        """Return a whole number within the bounds."""
        found = self.number(value)
        return int(value) if found is not None and found.is_integer() else None

    def text(self, value: Any) -> str | None:
        """Return a text that is not too long, and can be written down."""
        if not isinstance(value, str) or not self.within(len(value)) or len(value) > MOST_TEXT:
            return None
        return value if value.isprintable() else None

    def choice(self, value: Any) -> str | None:
        """Return one of the choices; JSON's true and false are words here."""
        word = {True: "true", False: "false"}[value] if isinstance(value, bool) else value
        return word if isinstance(word, str) and word in self.choices else None

    def within(self, value: float) -> bool:
        """Say whether a number lies between the bounds."""
        low, high = self.minimum, self.maximum
        return (low is None or value > low or (value == low and not self.above)) and (high is None or value <= high)

    def wanted(self) -> str:
        """Say what will do.

        >>> Argument("f", "number", minimum=0, maximum=1, above=True).wanted()
        'a number above 0, at most 1'
        """
        if self.type == "choice":
            return f"one of {', '.join(self.choices)}"
        if self.type == "text":
            return f"a text of at most {int(self.maximum or MOST_TEXT)} characters in one line"
        low = "" if self.minimum is None else f" {'above' if self.above else 'of at least'} {self.minimum:g}"
        high = "" if self.maximum is None else f", at most {self.maximum:g}"
        return f"{'a number' if self.type == 'number' else 'a whole number'}{low}{high}"


class Verb(NamedTuple):
    """One command: its name, what people see, its arguments, and the capability that the trainer must have."""

    name: str
    label: str
    arguments: tuple[Argument, ...] = ()
    needs: str = ""


WHEN = Argument("when", "choice", choices=("batch", "epoch"), required=False, default="batch")
GROUP = Argument("group", "text", minimum=1, maximum=200, required=False)
VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("stop", "Stop", (WHEN,)),
        Verb("save", "Save now", needs="save"),
        Verb(
            "set_lr",
            "Set the learning rate",  # None gives it back to the schedule
            (Argument("value", "number", minimum=0, maximum=MOST_RATE, required=False), GROUP),
            needs="set_lr",
        ),
        Verb(
            "scale_lr",
            "Scale the learning rate",
            (Argument("factor", "number", minimum=0, maximum=MOST_RATE, above=True), GROUP),
            needs="set_lr",
        ),
        Verb("pause", "Pause", needs="pause"),
        Verb("continue", "Continue", needs="pause"),
        Verb("validate", "Validate now", needs="validate"),
    )
}


def check_arguments(arguments: Sequence[Argument], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every argument of a command, those left out at their defaults; ArgumentError says what is wrong.

    >>> check_arguments(VERBS["stop"].arguments, {})
    {'when': 'batch'}
    >>> check_arguments(VERBS["scale_lr"].arguments, {"factor": 0})
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: factor must be a number above 0, at most 1000, not 0
    """
    known = {one.name: one for one in arguments}
    for name in given:
        if name not in known:
            guess = nearest(name, known)
            hint = f"; did you mean {guess}?" if guess else f"; it takes {', '.join(known) or 'none'}"
            raise ArgumentError(f"there is no argument {str(name)[:60]!r}{hint}")
    found: dict[str, Any] = {}
    for name, one in known.items():
        value = given.get(name)
        if value is None and one.required:
            raise ArgumentError(f"{name} is missing: {one.wanted()}")
        found[name] = one.default if value is None else one.check(value)
    return found


def verbs_of(run: "Steering") -> dict[str, Verb]:
    """Return every command of a run, the user's own behind the table's."""
    return {**VERBS, **{name: own.verb for name, own in run.commands.items()}}


def verb_named(name: str, known: Mapping[str, Any]) -> Any:
    """Return what a table holds under a command's name; ArgumentError names the nearest.

    >>> verb_named("stopp", VERBS)
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: there is no command 'stopp'; did you mean stop?
    """
    if name not in known:
        guess = nearest(name, known)
        hint = f"; did you mean {guess}?" if guess else f"; there are {', '.join(known) or 'none'}"
        raise ArgumentError(f"there is no command {str(name)[:60]!r}{hint}")
    return known[name]


def why_not(run: "Steering", verb: Verb) -> str | None:
    """Return why a run cannot obey a command in this training, None where it can."""
    engine = run.engine
    if verb.name in run.commands:
        alone = engine.world_size > 1 and engine.agree is None
        return f"only one of {engine.world_size} processes would obey" if alone else None
    return why_not_capable(run, verb.needs)


def why_not_capable(run: "Steering", needs: str) -> str | None:
    """Return why a training lacks a capability that a command needs, None where it has it."""
    engine, roster = run.engine, run.roster
    if needs and needs not in roster.provides:
        return roster.owns.get(needs) or f"{run.host} cannot do that ({needs})"
    if needs == "save" and engine.saver is None:
        return f"{run.host} has no checkpoints in this training: nothing can be saved"
    if needs == "set_lr" and engine.rate_host is None:
        return f"{run.host} shows no optimizer now: its learning rate cannot be changed"
    if needs in ("pause", "validate") and engine.world_size > 1:
        return f"{engine.world_size} processes train together and wait for each other: one cannot {needs} alone"
    if needs == "validate" and engine.cannot_validate is not None:
        return engine.cannot_validate()
    return None


def described(run: "Steering") -> list[dict[str, Any]]:
    """Return what a run offers, as plain data for its store: every command, and why one is not available."""
    found: list[dict[str, Any]] = []
    for verb in verbs_of(run).values():
        why = why_not(run, verb)
        arguments = [one._asdict() for one in verb.arguments]
        found.append({
            "name": verb.name, "label": verb.label, "arguments": arguments, "available": why is None, "why_not": why
        })  # fmt: skip
    return found


def argument(row: Mapping[str, Any]) -> Argument:
    """Return an argument that ``described`` has made plain data of.

    >>> argument({"name": "n", "type": "integer", "choices": []}).check(3)
    3
    """
    known: dict[str, Any] = {name: value for name, value in row.items() if name in Argument._fields}
    known["choices"] = tuple(row.get("choices") or ())
    return Argument(**known)
