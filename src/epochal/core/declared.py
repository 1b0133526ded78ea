"""A command of the user's own: a function of the run and of arguments whose types and bounds its signature tells."""

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from epochal.core.control import VERBS, Argument, Kind, Verb
from epochal.core.errors import ArgumentError, SignatureError

KINDS: dict[Any, Kind] = {float: "number", int: "integer", str: "text", bool: "choice"}
EXAMPLE = '@run.command("name") def f(run, factor: Annotated[float, Between(0, 1)] = 0.5): ...'


class Between(NamedTuple):
    """The bounds of a command's argument, both allowed, of a ``str`` those of its length.

    >>> Annotated[float, Between(0, 1)].__metadata__
    (Between(low=0, high=1),)
    """

    low: float
    high: float


class Declared(NamedTuple):
    """A command as it was declared."""

    verb: Verb
    function: Callable[..., Any]
    switches: frozenset[str]  # arguments that are bool

    def call(self, run: Any, given: dict[str, Any]) -> str:
        """Call the function and return what it has to say."""
        values = {name: value == "true" if name in self.switches else value for name, value in given.items()}
        said = self.function(run, **values)
        return "" if said is None else str(said)[:1000]


def declared(name: str, function: Callable[..., Any], label: str | None) -> Declared:
    """Return the command that a function makes; what cannot work is said now.

    >>> def drop(run, p: Annotated[float, Between(0, 1)] = 0.5): ...
    >>> declared("dropout", drop, None).verb.arguments[0].wanted()
    'a number of at least 0, at most 1'
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", name):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(
            f"a command's name is a letter, then letters, digits, - or _, at most 40 in all, not {name!r}"
        )
    if name in VERBS:
        raise ArgumentError(f"there is a command {name!r} in every run already; choose another name")
    if not callable(function):  # pyright: ignore[reportUnnecessaryComparison]
        raise SignatureError(f"{function!r} cannot be called; write {EXAMPLE}")
    try:
        hints = get_type_hints(function, include_extras=True)
        parameters = list(inspect.signature(function).parameters.values())
    except (NameError, TypeError, ValueError) as error:
        raise SignatureError(f"the command {name!r}: its signature cannot be read: {error}; write {EXAMPLE}") from None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in positional:
        raise SignatureError(f"the command {name!r} must take the run as its first argument; write {EXAMPLE}")
    arguments = tuple(argument_of(name, one, hints.get(one.name)) for one in parameters[1:])
    switches = frozenset(one.name for one in parameters[1:] if bare(hints.get(one.name)) is bool)
    return Declared(Verb(name, label or name.replace("_", " "), arguments), function, switches)


def argument_of(command: str, parameter: inspect.Parameter, hint: Any) -> Argument:
    """Return the argument that a parameter makes."""
    what = f"the command {command!r}: its argument {parameter.name!r}"
    if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
        raise SignatureError(f"{what} must be a plain one; write {EXAMPLE}")
    kind = bare(hint)
    choices: tuple[str, ...] = ("true", "false") if kind is bool else ()
    if get_origin(kind) is Literal and all(isinstance(one, str) for one in get_args(kind)):
        type_, choices = "choice", get_args(kind)
    elif kind in KINDS:
        type_ = KINDS[kind]
    else:
        raise SignatureError(
            f"{what} must be a float, int, str, bool or Literal of texts, not {hint!r}; write {EXAMPLE}"
        )
    bounds = [one for one in get_args(hint)[1:] if isinstance(one, Between)] if get_origin(hint) is Annotated else []
    low, high = bounds[0] if bounds else (None, None)
    if low is not None and high is not None and not low <= high:
        raise SignatureError(f"{what} has bounds that nothing lies between: Between({low}, {high})")
    required = parameter.default is inspect.Parameter.empty
    argument = Argument(parameter.name, type_, low, high, choices, required)
    if required:
        return argument
    try:
        return argument._replace(default=argument.check(parameter.default))
    except ArgumentError as error:
        raise SignatureError(f"{what} has a default that it would refuse: {error}") from None


def bare(hint: Any) -> Any:
    """Return a type without what is annotated to it."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint
