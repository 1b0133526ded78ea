"""Where in its data a run stands: the loaders of the epoch, how far each was read, under which random numbers."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.core.log import log
from epochal.data.opening import LeftOut
from epochal.data.order import order_differences, order_of, order_text
from epochal.data.sources import Sources


class Reading:
    """One loader being read, once, in one epoch: ``taken`` of its batches are done, ``over`` when it gives no more."""

    def __init__(self, loader: Any, first: int, sources: Sources) -> None:
        self.loader, self.first, self.sources = loader, first, sources
        self.order = order_of(loader)
        self.taken = 0
        self.over = False
        self.random: dict[str, Any] = {}  # when the loader's iterator was made
        self.before: dict[str, Any] = {}  # the generators inside the loader, then
        self.live_workers = False  # persistent ones ran already, then
        self.anew = False  # it was read before, but in another order
        self.after: dict[str, Any] | None = None  # the random state when it was over
        self.batches: Iterator[tuple[int, Any]] = iter(())

    @property
    def length(self) -> int | None:
        """How many batches the loader has, if it says."""
        return self.order["batches"]

    def end(self) -> None:
        """Note that no more batches are read."""
        if not self.over:
            self.over, self.after = True, random_state()

    def state_dict(self) -> dict[str, Any]:
        """Return how far it was read, and what is needed to come there again."""
        names = ("taken", "over", "order", "random", "before", "live_workers", "after")
        return {name: getattr(self, name) for name in names}


class Position:
    """The place of a run in its data, during an epoch and between epochs.

    ``begin_epoch``, then ``read`` for each loader; ``state_dict`` at any batch's end. In another process
    ``load_state_dict``, then the same calls again come to the same place.

    >>> position = Position()
    >>> position.begin_epoch(0)
    >>> reading = position.read([10, 20, 30])
    >>> next(reading.batches)
    (0, 10)
    >>> reading.taken = 1
    >>> again = Position()
    >>> again.load_state_dict(position.state_dict(), random_state())
    >>> again.begin_epoch(0)
    >>> list(again.read([10, 20, 30]).batches)
    [(1, 20), (2, 30)]
    """

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.random: dict[str, Any] = {}  # when the epoch began
        self.readings: list[Reading] = []  # of this epoch
        self.sources: dict[str, Sources] = {}  # of all loaders so far
        self.saved: Mapping[str, Any] | None = None
        self.saved_sources: dict[str, Any] = {}  # of loaders that were not met yet
        self.saved_random: dict[str, Any] | None = None
        self.left: list[Mapping[str, Any]] = []  # the saved readings of this epoch that come yet
        self.report: list[str] = []  # how places were come to again
        self.doubts: list[str] = []  # and what of it may not be exact

    @property
    def order(self) -> str | None:
        """The fingerprint of the order in which the data comes."""
        return order_text(self.readings[-1].order) if self.readings else None

    def begin_epoch(self, epoch: int) -> None:
        """An epoch begins, or begins again where it was saved: under the random state it began with."""
        saved, after = self.saved, self.saved_random
        again = saved is not None and saved["epoch"] == epoch
        self.left = list(saved["readings"]) if saved is not None and again else []
        if after is not None:
            restore_random_state(saved["random"] if saved is not None and again else after)
        if not self.left:
            self.saved_random = None
        self.saved, self.readings, self.epoch = None, [], epoch
        self.random = random_state()

    def read(self, loader: Any, skips: Callable[[int, int], bool] | None = None) -> Reading:
        """Begin to read a loader, or go on where it was; batches are known by their index in this reading.

        ``skips`` says of an epoch and a batch in it whether that batch is left out.
        """
        saved = self.left.pop(0) if self.left else None
        sources = self.meet(f"train{len(self.readings)}", loader, saved)
        reading = Reading(loader, sum(one.taken for one in self.readings), sources)
        self.readings.append(reading)
        epoch = self.epoch or 0
        left_out = None if skips is None else partial(left_out_of, skips, epoch, reading.first)
        if saved is not None and not saved["over"] and self.differs(saved["order"], reading.order):
            saved, reading.anew = None, True
            self.to_later()
        if saved is None:
            reading.random, reading.before = random_state(), sources.states()
            reading.live_workers = sources.has_live_workers()
            reading.batches = sources.open(epoch=epoch, left_out=left_out).batches
        elif saved["over"]:
            reading.taken, reading.over, reading.after = saved["taken"], True, saved["after"]
            restore_random_state(saved["after"])
        else:
            self.go_on(reading, saved, left_out)
        return reading

    def go_on(self, reading: Reading, saved: Mapping[str, Any], left_out: LeftOut | None) -> None:
        """Come to where a loader was read to before: under the random state of then, and after it that of later."""
        for name in ("taken", "random", "before", "live_workers"):
            setattr(reading, name, saved[name])
        sources, later = reading.sources, reading.sources.states()
        restore_random_state(reading.random)
        sources.set(reading.before)
        opening = sources.open(reading.taken, epoch=self.epoch or 0, left_out=left_out)
        sources.set(later)
        self.to_later()
        reading.batches = opening.batches
        of = "" if reading.length is None else f" of {reading.length}"
        self.report.append(f"batch {reading.taken}{of} of {order_text(reading.order)}, come to {opening.how}")
        if opening.doubt:
            self.doubts.append(f"{type(reading.loader).__name__}: {opening.doubt}")

    def done_of(self, loader: Any) -> int:
        """Return how many batches of the loader that is read next were done before."""
        saved = self.left[0] if self.left else None
        return 0 if saved is None or order_differences(saved["order"], order_of(loader)) else saved["taken"]

    def to_later(self) -> None:
        """Set the global generators to where they were when the checkpoint was written."""
        if self.saved_random is not None:
            restore_random_state(self.saved_random)
            self.saved_random = None

    def differs(self, saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
        """Say whether the order of the data is another one, and warn of it."""
        found = order_differences(saved, now)
        if found:
            log().warning(
                "resume: the data comes in another order than when the checkpoint was written (%s): this epoch's data"
                " begin anew, from their first batch.", "; ".join(found),
            )  # fmt: skip
            self.doubts.append("this epoch's data began anew")
        elif saved.get("workers") != now.get("workers"):
            self.doubts.append(
                f"{now['loader']}: num_workers was {saved.get('workers')}, is {now.get('workers')}: exact if the data"
                " set draws no random numbers"
            )
        return bool(found)

    def meet(self, key: str, loader: Any, reading: Mapping[str, Any] | None = None) -> Sources:
        """Know a loader's random generators, and at its first use set them to what a checkpoint says."""
        sources = self.sources[key] = Sources(loader, self.sources.get(key))
        saved = self.saved_sources.pop(key, None)
        if saved is not None:
            goes_on = reading is not None and not reading["over"]
            if (reading if reading is not None and goes_on else saved)["live_workers"]:
                sources.start_workers()
            sources.load_state_dict(saved, within=goes_on)
        return sources

    def state_dict(self, *, inside: bool = True) -> dict[str, Any]:
        """Return the place: that ``inside`` the epoch, if it is not over, and the generators of all loaders."""
        return {
            "epoch": self.epoch if inside else None,
            "random": self.random if inside else None,
            "readings": [one.state_dict() for one in self.readings] if inside else [],
            "sources": {**self.saved_sources, **{key: one.state_dict() for key, one in self.sources.items()}},
        }

    def load_state_dict(self, state: Mapping[str, Any] | None, random: dict[str, Any]) -> None:
        """Take a place; ``random``: the random state of that moment. None: a checkpoint that knows of none."""
        self.__init__()
        self.saved, self.saved_random = state, random
        self.saved_sources = dict(state["sources"]) if state is not None else {}


def left_out_of(skips: Callable[[int, int], bool], epoch: int, first: int, index: int) -> bool:
    """Say whether a reading's batch is left out of its epoch."""
    return skips(epoch, first + index)
