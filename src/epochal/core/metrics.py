"""The metrics of a run: logged unread, read once when somebody asks, and known by when they were measured."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import groupby
from operator import add, itemgetter
from typing import NamedTuple

from epochal.core.errors import ArgumentError, MetricNotFound
from epochal.core.row import Row
from epochal.core.tensors import HostCopy, Scalar, are_plain, is_local, is_remote, read, scalar, scalars

FINAL = "final/"  # before the names of what a validation outside an epoch measures
FOLD = 1024  # batch values of a device kept as they are before they are read in one go and summed
FOLD_HOST = 32  # the same for values known to be on the host: few enough that their memory stays in the cache
MOST = 256  # batches whose values wait before the metrics take them over in one go
USUAL = 64  # sets of names that are remembered
FLOATS = frozenset({float})


class Measured(NamedTuple):
    """A metric's newest value and when it was measured; ``batch`` is None for an epoch's or a validation's."""

    value: float
    epoch: int
    batch: int | None
    step: int


class At(NamedTuple):
    """Where a training stands when a value is logged."""

    epoch: int
    batch: int | None
    step: int


Logged = tuple[tuple[str, ...], tuple[Scalar, ...]]  # names, and a value of each: a fifth of a mapping's memory
Where = tuple[int, int | None, int]  # what At holds; a plain tuple is made in a tenth of the time, once per batch


class Mean:
    """The mean of the values logged in batches; they are read in bulk."""

    __slots__ = ("count", "total", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Scalar] = []
        self.total = 0.0
        self.count = 0

    def add(self, values: Sequence[Scalar]) -> None:
        """Take values of batches, and read them once there are many."""
        waiting = self.waiting
        waiting += values
        if len(waiting) >= FOLD_HOST and (len(waiting) >= FOLD or is_local(waiting[0])):
            self.fold()

    def fold(self) -> None:
        """Read what waits and add it to the sum."""
        waiting = self.waiting
        if waiting:
            # One metric's values come from one place: where the first is on the host, the others need no bulk read.
            values = map(float, waiting) if is_local(waiting[0]) else read(waiting)
            # One after the other, so that the mean does not depend on when somebody looked (sum() compensates).
            self.total = reduce(add, values, self.total)
            self.count += len(waiting)
            waiting.clear()

    def take(self) -> float:
        """Return the mean and begin anew."""
        self.fold()
        mean = self.total / self.count
        self.total, self.count = 0.0, 0
        return mean


class Entry:
    """What is known of one metric."""

    __slots__ = (
        "arrivals", "fresh", "in_epoch", "mean", "name", "on_way", "raw", "val_mean", "validated", "value", "where"
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.raw: Scalar = None
        self.value: float | None = None
        self.where: Where = At(0, None, 0)
        self.mean: Mean | None = None  # of the epoch's training batches
        self.val_mean: Mean | None = None  # of the batches of the validation that is running
        self.fresh = False  # logged since it last settled
        self.in_epoch = False  # logged in the current epoch
        self.validated = False  # last logged inside a validation
        self.arrivals: list[Scalar] | None = None  # values a condition watches
        self.on_way: list[HostCopy] = []

    @property
    def at(self) -> At:
        """Where the training stood when the newest value was logged."""
        return At(*self.where)

    def number(self) -> float:
        """Return the newest value, reading it from its device the first time."""
        if self.value is None:
            return self.know(read([self.raw])[0])
        return self.value

    def know(self, number: float) -> float:
        """Keep the newest value as the number that was read, so that nobody reads it again."""
        mean, val_mean = self.mean, self.val_mean
        for waiting in (mean and mean.waiting, val_mean and val_mean.waiting, self.arrivals):
            if waiting and waiting[-1] is self.raw:
                waiting[-1] = number
        self.raw = self.value = number
        return number

    def take(self, values: Sequence[Scalar], where: Where, *, batch: bool, validation: bool) -> None:
        """Take new values, the newest last; those of batches have a mean."""
        self.raw, self.value, self.where = values[-1], None, where
        self.fresh = self.in_epoch = True
        self.validated = validation
        if batch and validation:
            self.val_mean = self.val_mean or Mean()
            self.val_mean.add(values)
        elif batch:
            self.mean = self.mean or Mean()
            self.mean.add(values)
        elif validation:
            self.val_mean = None  # what is logged after a validation's batches is its value, not their mean

    def arrived(self, wait: bool) -> tuple[float, ...]:
        """Return the watched values that have reached the host since the last call, in order."""
        numbers: list[float] = []
        while self.on_way and (wait or self.on_way[0].arrived()):
            numbers.append(self.on_way.pop(0).number())
        waiting, self.arrivals = self.arrivals or [], []
        for value in waiting:
            if type(value) is float:
                numbers.append(value)
            elif is_remote(value):
                self.on_way.append(HostCopy(value))
            else:
                numbers.append(self.number() if value is self.raw else float(value))
        if wait:
            numbers.extend(copy.number() for copy in self.on_way)
            self.on_way.clear()
        return tuple(numbers)


class Metrics(Mapping[str, float]):
    """The newest value of every metric, by Epochal's names and by the trainer's own.

    A tensor stays a tensor until somebody reads it. A name that was never measured raises ``MetricNotFound``, a
    ``KeyError`` that lists what was logged.

    >>> metrics = Metrics()
    >>> _ = metrics.log({"train/loss": 0.5}, At(epoch=0, batch=3, step=4), batch=True)
    >>> metrics["train/loss"], metrics.measured("train/loss").batch
    (0.5, 3)
    """

    def __init__(self, aliases: Mapping[str, str] | None = None) -> None:
        self.known: dict[str, Entry] = {}
        self.usual: set[tuple[str, ...]] = set()  # names logged together in a batch, all ours, watched by nobody
        self.last: tuple[str, ...] = ()  # those logged last, if only numbers were; else none
        self.waiting: list[
            tuple[tuple[str, ...], tuple[Scalar, ...], Where]
        ] = []  # of batches with usual names, the oldest first
        self.aliases: dict[str, str] = dict(aliases or {})
        self.watched: dict[str, list[str]] = {}  # canonical name -> the names that conditions gave
        self.on_read: Callable[[Entry], None] | None = None  # set while a stale value must be spoken of
        self.validation_comes = False  # the trainer will validate, and has not yet

    @property
    def entries(self) -> dict[str, Entry]:
        """What is known of each metric, with all that was logged until now."""
        if self.waiting:
            self.take_over()
        return self.known

    def canonical(self, name: str) -> str:
        """Return Epochal's name for a name of the trainer's own."""
        return self.aliases.get(name, name)

    def find(self, name: str) -> Entry | None:
        """Return what was measured under a name, Epochal's or the trainer's own, or None."""
        for known in (name, self.canonical(name)):
            entry = self.entries.get(known)
            if entry is not None and entry.raw is not None:
                return entry
        return None

    def __getitem__(self, name: str) -> float:
        entry = self.find(name)
        if entry is None:
            raise MetricNotFound(name, self)
        if self.on_read is not None:
            self.on_read(entry)
        return entry.number()

    def __iter__(self) -> Iterator[str]:
        return (name for name, entry in list(self.entries.items()) if entry.raw is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def __repr__(self) -> str:
        return f"Metrics({', '.join(self)})"

    def measured(self, name: str) -> Measured:
        """Return a metric's newest value with the epoch, batch and step at which it was measured."""
        entry = self.find(name)
        if entry is None:
            raise MetricNotFound(name, self)
        return Measured(entry.number(), *entry.where)

    def watch(self, name: str) -> None:
        """Bring every value of this metric to the host, for conditions that look at each."""
        canonical = self.canonical(name)
        names = self.watched.setdefault(canonical, [])
        if name not in names:
            names.append(name)
        entry = self.entry(canonical)
        entry.arrivals = entry.arrivals or []
        self.usual.clear()
        self.last = ()

    def entry(self, name: str) -> Entry:
        """Return what is known of a canonical name, begun if it is new."""
        entry = self.entries.get(name)
        if entry is None:
            if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ArgumentError(f"a metric's name is a non-empty str, not {name!r}")
            entry = self.entries[name] = Entry(name)
        return entry

    def log(self, values: Mapping[str, Scalar], at: Where, *, batch: bool = False, validation: bool = False) -> Logged:
        """Take new values and return what is kept of them: our names, and the values in their order.

        ``batch``: they belong to one batch of an epoch or of a validation. What a training logs in every batch only
        waits here until somebody looks, or there is much of it.
        """
        if not batch or validation:
            return self.log_each(values, at, batch, validation)
        names, given, waiting = tuple(values), values.values(), self.waiting
        if names == self.last and are_plain(given):
            names, row = self.last, tuple(given)
        elif names in self.usual:
            row = tuple(scalars(values).values())
            self.last = names if FLOATS.issuperset(map(type, given)) else ()
        else:
            return self.log_each(values, at, batch, validation)
        waiting.append((names, row, at))
        if len(waiting) >= MOST:
            self.take_over()
        return names, row

    def log_each(self, values: Mapping[str, Scalar], at: Where, batch: bool, validation: bool) -> Logged:
        """Take new values one by one; if one of them is none, none is taken."""
        entries, found, usual = self.entries, dict[Entry, Scalar](), batch and not validation
        for name, value in values.items():
            entry = entries.get(name)
            if entry is None:
                name, usual = self.canonical(name), False
                entry = entries.get(name) or self.entry(name)
            usual = usual and entry.arrivals is None
            found[entry] = value if type(value) is float else scalar(value, name, entry.arrivals is not None)
        for entry, raw in found.items():
            if entry.arrivals is not None:
                entry.arrivals.append(raw)
            entry.take((raw,), at, batch=batch, validation=validation)
        names = tuple(entry.name for entry in found)
        if usual and len(self.usual) < USUAL:
            self.usual.add(names)
        return names, tuple(found.values())

    def take_over(self) -> None:
        """Give the metrics what waits, each all of its values in one go."""
        waiting, self.waiting = self.waiting, []
        for names, group in groupby(waiting, key=itemgetter(0)):
            _, rows, places = zip(*group, strict=True)
            for name, column in zip(names, zip(*rows, strict=True), strict=True):
                self.known[name].take(column, places[-1], batch=True, validation=False)

    def begin_epoch(self) -> None:
        """Forget what belonged to the epoch before."""
        for entry in self.entries.values():
            entry.in_epoch = False
            entry.mean = entry.val_mean = None

    def averaged(self, names: Iterable[str]) -> None:
        """Let what was logged last be the epoch's value: the trainer has averaged its batches itself."""
        for name in names:
            self.entry(name).mean = None

    def forget_epoch(self) -> None:
        """Forget what an epoch that was given up has measured and nobody has looked at."""
        self.begin_epoch()
        for entry in self.entries.values():
            entry.fresh = False
            entry.on_way.clear()
            entry.arrivals = None if entry.arrivals is None else []

    def forget_validation(self) -> None:
        """Forget the batch values of a validation that failed."""
        for entry in self.entries.values():
            entry.val_mean = None

    def end_batches(self, at: At) -> None:
        """Give ``train/`` metrics that were logged in batches their mean; others keep it for the history."""
        for entry in self.entries.values():
            if entry.mean is not None and entry.name.startswith("train/"):
                entry.raw = entry.value = entry.mean.take()
                entry.mean = None
                entry.where = at

    def end_validation(self, at: At, *, settles: bool, looked: bool = False) -> None:
        """Give what was logged in a validation's batches its mean; ``settles``: policies look at it.

        ``looked``: it lies inside an epoch, and nobody decides by it.
        """
        self.validation_comes = self.validation_comes and not settles
        for entry in self.entries.values():
            if entry.val_mean is not None:
                entry.raw = entry.value = entry.val_mean.take()
                entry.val_mean = None
                entry.where = at
            if not settles and entry.validated and (looked or entry.name.startswith(FINAL)):
                entry.fresh = False

    def settle(self, *, validation: bool) -> dict[str, float]:
        """Return the values that settle now: what a validation logged, or at an epoch's end all that is left."""
        due = [entry for entry in self.entries.values() if entry.fresh and (entry.validated or not validation)]
        settled = self.epoch_values(due)
        for entry in due:
            entry.fresh = False
        for native, name in self.aliases.items():
            if name in settled:
                settled[native] = settled[name]
        return settled

    def history_row(self) -> Mapping[str, float]:
        """Return what the current epoch measured: a mean for what was logged in batches, else the last value."""
        return Row(self.epoch_values([entry for entry in self.entries.values() if entry.in_epoch]))

    def epoch_values(self, entries: Sequence[Entry]) -> dict[str, float]:
        """Return the values of these metrics for the epoch, brought to the host in one go."""
        unread = [entry for entry in entries if entry.value is None]
        for entry, number in zip(unread, read([entry.raw for entry in unread]), strict=True):
            entry.know(number)
        values: dict[str, float] = {}
        for entry in entries:
            mean = entry.mean
            if mean is not None and not entry.validated:
                mean.fold()
                values[entry.name] = mean.total / mean.count
            else:
                values[entry.name] = entry.number()
        return values

    def arrived(self, *, wait: bool) -> dict[str, tuple[float, ...]]:
        """Return, by the names the conditions gave, the watched values that have newly reached the host."""
        numbers: dict[str, tuple[float, ...]] = {}
        for canonical, names in self.watched.items():
            entry = self.entries[canonical]
            if entry.arrivals or entry.on_way:
                values = entry.arrived(wait)
                for name in names:
                    numbers[name] = values
        return numbers


def final_name(name: str) -> str:
    """Return the name of a value measured by a validation outside an epoch.

    >>> final_name("val/loss")
    'final/loss'
    """
    return f"{FINAL}{name.removeprefix('val/')}"
