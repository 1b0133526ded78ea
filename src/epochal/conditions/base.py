"""A condition: values in, a decision out; and how conditions combine with | & ~ and .after."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast, final

from epochal.conditions.arguments import check_count
from epochal.conditions.state import check_names, dump, load
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from epochal.core.moment import Moment


class Condition(ABC):
    """Something that holds or does not hold at a moment of a training; subclass it and write ``holds``.

    >>> from epochal.core.moment import Moment
    >>> class Late(Condition):
    ...     def holds(self, now):
    ...         return now.epoch >= 3
    >>> (Late() & ~Late()).ask(Moment("epoch", epoch=3))
    False

    A condition is asked at every safe point: the end of each batch, of each validation and of each epoch. It never
    sees the run. State that must survive a restart goes into a dataclass at ``self.state``, or behind an own
    ``state_dict`` and ``load_state_dict``.
    """

    state: Any = None
    """A dataclass of numbers, all with defaults, that must survive a restart, or None; ``state_dict`` returns it."""

    at_batches: bool = True
    """Whether it may hold, or learn something, at the end of a batch; False: it need not be asked there."""

    _memo: list[Any] | None = None  # the moment at which it was last asked, and the answer

    def __getstate__(self) -> Any:
        # A copy must not share the memo, and a moment cannot be pickled.
        state: Any = super().__getstate__()
        inside, slots = cast("tuple[Any, Any]", state) if isinstance(state, tuple) else (state, None)
        inside = {name: value for name, value in (inside or {}).items() if name != "_memo"}
        return inside if slots is None else (inside, slots)

    @abstractmethod
    def holds(self, now: Moment) -> bool:
        """Return whether this holds at ``now``; called once per moment, so counting here is safe."""

    @final
    def ask(self, now: Moment) -> bool:
        """Return the answer for this moment; ``holds`` is called once per moment object, however often this is.

        >>> from epochal.core.moment import Moment
        >>> from epochal.conditions.schedule import Every
        >>> every, now = Every(batches=2), Moment("batch", epoch=0)
        >>> every.ask(now), every.ask(now), every.ask(Moment("batch", epoch=0))
        (False, False, True)
        """
        memo = self._memo
        if memo is None:
            # Made late and past the guard, so that a subclass may be a frozen dataclass or forget super().__init__().
            memo = list[Any]((None, False))
            object.__setattr__(self, "_memo", memo)
        elif memo[0] is now:
            return memo[1]
        answer = bool(self.holds(now))
        memo[0], memo[1] = now, answer
        return answer

    @property
    def asked(self) -> bool:
        """Whether it was asked since it was made or its state was loaded."""
        return self._memo is not None

    @property
    def answer(self) -> bool:
        """The answer at the moment at which it was last asked; False before."""
        return self._memo is not None and self._memo[1]

    @property
    def known(self) -> bool:
        """Whether the last answer rests on a value; while it does not, neither this nor its ``~`` holds."""
        return True

    @property
    def settles(self) -> frozenset[str]:
        """Names of the metrics whose settled values it looks at."""
        return frozenset()

    @property
    def watches(self) -> frozenset[str]:
        """Names of the metrics of which it looks at every value that reaches the host."""
        return frozenset()

    def missing(self) -> frozenset[str]:
        """Return the metrics it was asked about and has never seen a value of.

        >>> from epochal.conditions.level import Target
        >>> from epochal.core.moment import Moment
        >>> target = Target("fitness", 0.9)
        >>> target.ask(Moment("epoch", epoch=0)), sorted(target.missing())
        (False, ['fitness'])
        """
        return self.settles | self.watches if self.asked and not self.known else frozenset()

    def leaves(self) -> Iterator[Condition]:
        """Yield the conditions that are no combinations, from left to right."""
        yield self

    def reason(self, now: Moment) -> str:
        """Return one sentence that says why it holds at ``now``."""
        return f"{self!r} holds"

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a restart, as JSON values."""
        return {} if self.state is None else dump(self.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned; ``ArgumentError`` when it belongs to another condition."""
        if self.state is None:
            check_names(state, [], owner=repr(self))
        else:
            load(self.state, state, owner=repr(self))
        self.forget()

    def forget(self) -> None:
        """Drop the answer of the last moment (internal: after loading a state)."""
        object.__setattr__(self, "_memo", None)

    def after(self, *, epochs: int) -> After:
        """Return a condition that does not ask this one, and so counts nothing, during the first ``epochs`` epochs.

        >>> from epochal.conditions.plateau import Plateau
        >>> Plateau("val/loss", patience=5).after(epochs=10)
        Plateau('val/loss', patience=5).after(epochs=10)
        """
        return After(self, epochs=epochs)

    def __or__(self, other: Condition) -> Or:
        return Or(self, _condition(other, "|"))

    def __ror__(self, other: object) -> Or:
        return Or(_condition(other, "|"), self)

    def __and__(self, other: Condition) -> And:
        return And(self, _condition(other, "&"))

    def __rand__(self, other: object) -> And:
        return And(_condition(other, "&"), self)

    def __invert__(self) -> Condition:
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self!r} is neither true nor false by itself: combine conditions with | & ~ instead of or, and, not "
            "(and compare with None by `is None`)"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(_shown_arguments(self))})"


class Combination(Condition):
    """What ``|`` and ``&`` share: members that are all asked at every moment (internal)."""

    sign: str

    def __init__(self, *members: Condition) -> None:
        flat: list[Condition] = []
        for member in members:
            one = _condition(member, self.sign)
            flat.extend(one.members if isinstance(one, Combination) and type(one) is type(self) else (one,))
        self.members: tuple[Condition, ...] = tuple(flat)
        self.at_batches = any(member.at_batches for member in flat)

    @property
    def settles(self) -> frozenset[str]:
        """The union of its members'."""
        return frozenset[str]().union(*(member.settles for member in self.members))

    @property
    def watches(self) -> frozenset[str]:
        """The union of its members'."""
        return frozenset[str]().union(*(member.watches for member in self.members))

    def missing(self) -> frozenset[str]:
        """Return what any member misses."""
        return frozenset[str]().union(*(member.missing() for member in self.members))

    def leaves(self) -> Iterator[Condition]:
        """Yield the leaves of all members."""
        for member in self.members:
            yield from member.leaves()

    def state_dict(self) -> dict[str, Any]:
        """Return the members' states, by position."""
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the members' states, by position."""
        check_names(state, ["members"], owner=repr(self))
        saved = cast("list[Any]", state["members"])
        if not isinstance(saved, list) or len(saved) != len(self.members):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(
                f"the saved state does not belong to {self!r}: it has members {saved!r}, needed are {len(self.members)}"
            )
        for member, one in zip(self.members, saved, strict=True):
            member.load_state_dict(one)
        self.forget()

    def __repr__(self) -> str:
        shown = (f"({member!r})" if isinstance(member, Combination) else repr(member) for member in self.members)
        return f" {self.sign} ".join(shown)


@final
class Or(Combination):
    """Hold while any member holds; written ``a | b``.

    >>> from epochal.conditions.level import NonFinite
    >>> from epochal.conditions.schedule import Elapsed
    >>> NonFinite("train/loss") | Elapsed(hours=8)
    NonFinite('train/loss') | Elapsed(hours=8)
    """

    sign = "|"

    def holds(self, now: Moment) -> bool:
        """Ask every member, also those behind one that holds."""
        answer = False
        for member in self.members:
            if member.ask(now):
                answer = True
        return answer

    @property
    def known(self) -> bool:
        """True when a member holds, or all are known."""
        return any(member.answer for member in self.members) or all(member.known for member in self.members)

    def reason(self, now: Moment) -> str:
        """Return the reasons of the members that hold."""
        return "; ".join(member.reason(now) for member in self.members if member.ask(now)) or super().reason(now)


@final
class And(Combination):
    """Hold while all members hold; written ``a & b``.

    >>> from epochal.conditions.level import Target
    >>> from epochal.conditions.schedule import Every
    >>> Target("fitness", 0.9) & Every(epochs=2)
    Target('fitness', 0.9) & Every(epochs=2)
    """

    sign = "&"

    def holds(self, now: Moment) -> bool:
        """Ask every member, also those behind one that does not hold."""
        answer = True
        for member in self.members:
            if not member.ask(now):
                answer = False
        return answer

    @property
    def known(self) -> bool:
        """True when a known member does not hold, or all are known."""
        sure = [member.known for member in self.members]
        return all(sure) or any(one and not member.answer for one, member in zip(sure, self.members, strict=True))

    def reason(self, now: Moment) -> str:
        """Return the reasons of all members."""
        return " and ".join(member.reason(now) for member in self.members)


class Wrapper(Condition):
    """What ``~`` and ``.after`` share: one condition inside (internal)."""

    def __init__(self, inner: Condition) -> None:
        self.inner = inner

    @property
    def settles(self) -> frozenset[str]:
        """Those of the condition inside."""
        return self.inner.settles

    @property
    def watches(self) -> frozenset[str]:
        """Those of the condition inside."""
        return self.inner.watches

    def missing(self) -> frozenset[str]:
        """Return what the condition inside misses."""
        return self.inner.missing()

    def leaves(self) -> Iterator[Condition]:
        """Yield the leaves of the condition inside."""
        yield from self.inner.leaves()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the condition inside."""
        return {"inner": self.inner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of the condition inside."""
        check_names(state, ["inner"], owner=repr(self))
        self.inner.load_state_dict(state["inner"])
        self.forget()


@final
class Not(Wrapper):
    """Hold while a condition is known and does not hold; written ``~a``.

    >>> from epochal.conditions.level import Target
    >>> ~Target("fitness", 0.9)
    ~Target('fitness', 0.9)
    """

    def holds(self, now: Moment) -> bool:
        """Return False also while the condition inside has no value yet."""
        return not self.inner.ask(now) and self.inner.known

    @property
    def known(self) -> bool:
        """As the condition inside."""
        return self.inner.known

    def reason(self, now: Moment) -> str:
        """Name the condition that does not hold."""
        return f"{self.inner!r} does not hold"

    def __repr__(self) -> str:
        return f"~({self.inner!r})" if isinstance(self.inner, Combination) else f"~{self.inner!r}"


@final
class After(Wrapper):
    """Leave a condition unasked during the first epochs; written ``a.after(epochs=n)``.

    >>> from epochal.conditions.best import Best
    >>> Best("fitness").after(epochs=3)
    Best('fitness').after(epochs=3)
    """

    def __init__(self, inner: Condition, *, epochs: int) -> None:
        check_count(epochs, owner="after", argument="epochs")
        super().__init__(inner)
        self.epochs = epochs
        self.at_batches = inner.at_batches
        self._open = False

    def holds(self, now: Moment) -> bool:
        """Return False, without asking, before epoch ``epochs`` (0-based)."""
        self._open = now.epoch >= self.epochs
        return self._open and self.inner.ask(now)

    @property
    def known(self) -> bool:
        """False during the first epochs, then as the condition inside."""
        return self._open and self.inner.known

    def missing(self) -> frozenset[str]:
        """Return nothing during the first epochs, then what the condition inside misses."""
        return self.inner.missing() if self._open else frozenset()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of the condition inside; closed until asked again."""
        super().load_state_dict(state)
        self._open = False

    def reason(self, now: Moment) -> str:
        """Return the reason of the condition inside."""
        return self.inner.reason(now)

    def __repr__(self) -> str:
        inner = f"({self.inner!r})" if isinstance(self.inner, (Combination, Not)) else repr(self.inner)
        return f"{inner}.after(epochs={self.epochs})"


def _condition(other: object, sign: str) -> Condition:
    if isinstance(other, Condition):
        return other
    what = f"the class {other.__name__}: write {other.__name__}(...)" if isinstance(other, type) else repr(other)
    raise TypeError(f"{sign} combines conditions, such as Plateau(...) {sign} Elapsed(hours=8); it was given {what}")


def _shown_arguments(condition: Condition) -> Iterator[str]:
    if not is_dataclass(condition):
        return
    for one in fields(condition):
        value = getattr(condition, one.name) if one.init and one.repr else one.default
        if value is not one.default and (one.default is MISSING or value != one.default):
            yield f"{one.name}={value!r}" if one.kw_only else repr(value)
