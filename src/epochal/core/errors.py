"""Every error Epochal raises on purpose, and the search for the nearest right name."""

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """Return the known name that looks most like ``name``, or None when nothing is close.

    >>> nearest("on_train_bacth_end", ["on_train_start", "on_train_batch_end"])
    'on_train_batch_end'
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return None  # the message shows what was given instead of a name
    from difflib import get_close_matches

    by_lower = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=likeness)
    return by_lower[found[0]] if found else None


class EpochalError(Exception):
    """The base of all errors that Epochal raises on purpose.

    >>> issubclass(MetricNotFound, EpochalError), issubclass(MetricNotFound, KeyError)
    (True, True)
    """


class ArgumentError(EpochalError, ValueError):
    """An argument has a value that cannot work; the message names it, the value, and what would do."""


class UnknownEvent(EpochalError, ValueError):
    """An event that is neither in the table nor declared.

    >>> raise UnknownEvent("on_train_bacth_end", ["on_train_batch_end"])
    Traceback (most recent call last):
    epochal.core.errors.UnknownEvent: there is no event 'on_train_bacth_end'; did you mean 'on_train_batch_end'? ...
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        guess = nearest(name, known)
        hint = f"; did you mean {guess!r}?" if guess else "."
        super().__init__(
            f'there is no event {name!r}{hint} (`epochal events` lists all; run.declare("on_...") adds one of your own)'
        )


class SignatureError(EpochalError, TypeError):
    """A function that cannot be called with one argument, the run."""


class MetricNotFound(EpochalError, KeyError):
    """A metric that was never measured; the message lists what was logged, the nearest name first.

    >>> raise MetricNotFound("val/los", ["train/loss", "val/loss"])
    Traceback (most recent call last):
    epochal.core.errors.MetricNotFound: no metric 'val/los' was measured so far; did you mean 'val/loss'? ...
    """

    def __init__(self, name: str, known: Iterable[str], why: str = "") -> None:
        from difflib import SequenceMatcher

        names = sorted(known, key=lambda one: -SequenceMatcher(None, name.lower(), one.lower()).ratio())
        guess = nearest(name, names)
        hint = f"; did you mean {guess!r}?" if guess else "."
        logged = ", ".join(names) if names else "nothing yet"
        self.message = f"no metric {name!r} was measured so far{hint} Logged: {logged}{why}"
        self.name = name
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_metric_not_found, (self.name, self.message))


def _rebuild_metric_not_found(name: str, message: str) -> "MetricNotFound":
    error = MetricNotFound(name, ())
    error.message, error.args = message, (message,)
    return error


class EventOrderError(EpochalError, ValueError):
    """An event came where the grammar does not allow it."""


class CapabilityError(EpochalError, RuntimeError):
    """A callback requires what the trainer it is attached to cannot deliver."""


class AttachError(EpochalError, RuntimeError):
    """Something was attached, added or used at a time or place where it cannot work."""


class CheckpointError(EpochalError, RuntimeError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class Preempted(SystemExit):
    """A training was ended by a signal, SIGTERM or SIGUSR1; unhandled, the process ends with 128 + its number.

    It is no ``Exception``, so that no ``except Exception`` lets a script go on by mistake.

    >>> from signal import SIGTERM
    >>> Preempted(SIGTERM).code, str(Preempted(SIGTERM))
    (143, 'SIGTERM')
    """

    def __init__(self, number: int) -> None:
        from signal import Signals

        super().__init__(number)
        self.signal, self.code = Signals(number), 128 + number

    def __str__(self) -> str:
        return self.signal.name

    def __repr__(self) -> str:
        return f"Preempted({self.signal.name})"


class MissingExtra(EpochalError, ImportError):
    """A package is needed that an extra of Epochal brings."""

    def __init__(self, package: str, extra: str, what: str) -> None:
        super().__init__(f'{what} needs {package}, which is not installed: pip install "epochal[{extra}]"')
