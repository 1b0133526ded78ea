"""How a watched run looks in a terminal, wide or narrow, and as lines."""

from collections.abc import Mapping
from math import isfinite
from time import localtime, monotonic, strftime
from typing import TYPE_CHECKING, Any, Self

from rich.cells import cell_len
from rich.console import Console, Group
from rich.text import Text

from epochal.callbacks.progress import bar
from epochal.callbacks.summary_view import ASCII, BLOCKS, draw
from epochal.dashboard.overview import OVER, Head
from epochal.runs.summary import mode_of

if TYPE_CHECKING:
    from rich.live import Live as RichLive

    from epochal.commands.watch import Seen

METRICS = 8
EVENTS = 5
NAME = 28  # columns that a metric's name takes at most
COLORS = {"running": "green", "paused": "yellow", "finished": "green", "stopped": "yellow"}
QUIET = 60.0  # seconds after which a line tells of a run inside an epoch


class Live:
    """A picture that changes in place; what it showed last stays when the run ends."""

    def __init__(self, console: Console, name: str) -> None:
        self.console, self.name = console, name
        self.events: list[dict[str, Any]] = []
        self.shown: RichLive | None = None

    def __enter__(self) -> Self:
        from rich.live import Live as RichLive

        self.shown = RichLive(console=self.console, auto_refresh=False, vertical_overflow="ellipsis")
        self.shown.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.shown is not None:
            self.shown.stop()

    def show(self, seen: "Seen") -> None:
        """Draw a run as it is now."""
        self.events = [*self.events, *seen.events][-EVENTS:]
        if self.shown is not None:
            self.shown.update(Group(*self.lines(seen)), refresh=True)

    def lines(self, seen: "Seen") -> list[Text]:
        """Return the lines of the picture, none wider than the terminal."""
        width, plain = self.console.width, not self.console.encoding.startswith("utf")
        head = seen.head
        lines = [
            Text.assemble(
                (one_line(self.name), "bold"), "  ", (head.state, COLORS.get(head.state, "red")), f"  {took(head)}"
            )
        ]
        lines.append(Text(progress(seen)))
        lines.extend(metric_line(name, values, head.newest[name], width, plain) for name, values in first(seen).items())
        lines.extend(Text(event_line(one), style="dim") for one in self.events)
        lines.extend(Text(one, style="red" if head.state == "failed" else "") for one in why(head))
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
            line.truncate(width, overflow="ellipsis")
        return lines


class Lines:
    """A line of ``name=value`` pairs for each epoch, event and change of state, without control characters."""

    def __init__(self, console: Console, name: str) -> None:
        self.console, self.name = console, name
        self.state, self.epoch, self.due = "", -1, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def show(self, seen: "Seen") -> None:
        """Write what is new."""
        head = seen.head
        for one in seen.events:
            self.write({"event": one["kind"], "step": one["step"], "by": one["by"], "text": one["text"]})
        ended = max((row["epoch"] for row in head.newest.values() if row["scope"] == "epoch"), default=-1)
        if head.state != self.state or ended > self.epoch or monotonic() >= self.due:
            self.state, self.epoch, self.due = head.state, max(ended, self.epoch), monotonic() + QUIET
            total = f"/{seen.num_epochs}" if seen.num_epochs else ""
            values = {name: f"{number(head.newest[name]['value'])}" for name in first(seen)}
            self.write({"state": head.state, "epoch": f"{head.epoch + 1}{total}", "step": head.step, **values})
        if head.state in OVER:
            for text in why(head):
                self.write({"why": text})

    def write(self, pairs: Mapping[str, Any]) -> None:
        """Write one line, at once."""
        shown = [f"{one_line(name).replace(' ', '_')}={one_line(str(value))}" for name, value in pairs.items()]
        encoding = self.console.encoding
        text = f"run={one_line(self.name)} {' '.join(shown)}".encode(encoding, "replace").decode(encoding)
        self.console.file.write(f"{text}\n")
        self.console.file.flush()


def progress(seen: "Seen") -> str:
    """Return how far a run is: epochs and steps."""
    head = seen.head
    done = head.epoch + (1 if head.state in OVER or complete(head) else 0)
    if not seen.num_epochs:
        return f"epoch {head.epoch + 1}  step {head.step}"
    return f"epoch {bar(min(done, seen.num_epochs), seen.num_epochs)}  step {head.step}"


def complete(head: Head) -> bool:
    """Say whether the newest epoch has ended."""
    return any(row["scope"] == "epoch" and row["epoch"] == head.epoch for row in head.newest.values())


def first(seen: "Seen") -> dict[str, list[float]]:
    """Return the metrics that are shown."""
    return dict(list(seen.curves.items())[:METRICS])


def metric_line(name: str, values: list[float], row: Mapping[str, Any], width: int, plain: bool) -> Text:
    """Return a metric's name, its newest and best value and its curve, as much as there is room for."""
    mode = mode_of(name)
    best = row["low"] if mode == "min" else row["high"] if mode == "max" else None
    taken = min(NAME, max(width // 3, 8))
    text = Text(fitted(name, taken))
    text.append(f" {number(row['value']):>10}", style="bold")
    if best is not None and width >= taken + 30:
        text.append(f"  best {number(best):>10}", style="dim")
    room = width - cell_len(text.plain) - 2
    if room >= 8:
        levels = ASCII if plain else BLOCKS
        text.append(
            f"  {draw([one if isfinite(one) else None for one in values], width=min(room, 60), levels=levels)[0]}"
        )
    return text


def fitted(text: str, width: int) -> str:
    """Return a name in so many columns; of a longer one the end, which tells more.

    >>> fitted("metrics/mAP50-95(B)", 12), fitted("loss", 6)
    ('…mAP50-95(B)', 'loss  ')
    """
    text = one_line(text)
    return f"{text:<{width}}" if len(text) <= width else f"…{text[len(text) - width + 1 :]}"


def number(value: float | None) -> str:
    """Return a number to be read; the store keeps NaN as None.

    >>> number(0.123456), number(None), number(float("inf"))
    ('0.1235', 'nan', 'inf')
    """
    return "nan" if value is None else f"{value:.4g}"


def event_line(event: Mapping[str, Any]) -> str:
    """Return an event in one line."""
    when = strftime("%H:%M:%S", localtime(event["time"]))
    return one_line(f"{when}  step {event['step']}  {event['kind']}  {event['by']}: {event['text']}")


def one_line(text: str) -> str:
    r"""Return a text without line ends and control characters, which a terminal would obey.

    >>> one_line("a\x1b[31m\nb")
    'a [31m b'
    """
    return "".join(one if one.isprintable() else " " for one in text)


def why(head: Head) -> list[str]:
    """Return why a run ended, where somebody said so."""
    session = head.session or {}
    return [one_line(str(session[key])) for key in ("stop_reason", "error") if session.get(key)]


def took(head: Head) -> str:
    """Return how long the newest session has taken, until its last sign of life."""
    from epochal.callbacks.summary_view import duration

    session = head.session or {"started": 0.0, "beat": 0.0}
    return duration(max(session["beat"] - session["started"], 0.0))
