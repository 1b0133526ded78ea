"""What a run has logged and its file may still lack: in memory, bounded, and given to the file in one transaction."""

import sqlite3
import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from epochal.runs import newest
from epochal.runs.tail import Change, Tail

MOST_POINTS = 1_000_000  # that wait for a disk, 28 bytes each
MOST_ROWS = 20_000  # of all other tables that wait
MOST_BYTES = 64 << 20  # of images and texts that wait

CHUNK = """INSERT OR REPLACE INTO chunks (series, attempt, first, count, first_step, last_step, first_time, last_time,
    low, high, last, sealed, points, ranges1, ranges2) VALUES (:series, :attempt, :first, :count, :first_step,
    :last_step, :first_time, :last_time, :low, :high, :last, :sealed, :points, :ranges1, :ranges2)"""


class Row(NamedTuple):
    """A row that waits; ``attempt`` in its arguments counts from 0 in this training, ``session`` is always 0."""

    table: str
    arguments: dict[str, Any]
    replaces: bool = False

    @property
    def statement(self) -> str:
        """The SQL that inserts it."""
        names = ", ".join(self.arguments)
        places = ", ".join(f":{name}" for name in self.arguments)
        return f"INSERT {'OR REPLACE ' if self.replaces else ''}INTO {self.table} ({names}) VALUES ({places})"

    def clean(self) -> "Row":
        """Return the row without what a file cannot hold."""
        return self._replace(arguments=clean(self.arguments))

    @property
    def size(self) -> int:
        """Its size in bytes, where it is large."""
        data = self.arguments.get("data", self.arguments.get("text", b""))
        return len(data) if isinstance(data, (bytes, str)) else 0


class Block(NamedTuple):
    """The values of moments that logged the same series, moment by moment."""

    scope: str
    names: tuple[str, ...]
    steps: list[int]
    epochs: list[int]
    times: list[float]
    values: "array[float]"


class Part(NamedTuple):
    """What is being written now."""

    changes: list[tuple[Tail, Change]]
    rows: int


class Book:
    """All that waits for the file; one thread adds to it and writes, another may add when that one hangs.

    What is too much is thinned to its extremes, and ``lost`` counts it by kind.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tails: dict[str, dict[str, Tail]] = {}  # scope -> name -> its tail
        self.old: list[Tail] = []  # of attempts that are over, until the file has them
        self.rows: list[Row] = []
        self.writing = 0  # of the rows, how many are in the transaction that runs
        self.waiting_bytes = 0
        self.attempt = -1
        self.numbers: dict[int, int] = {}  # of this training's attempts, the number that each has in the file
        self.given: dict[int, int] = {}  # the same, with those of the transaction that runs
        self.kept: dict[str, Row] = {}  # what a new file needs again, should this one be gone
        self.lost: dict[str, int] = {}

    @property
    def empty(self) -> bool:
        """Whether the file lacks nothing."""
        return not self.rows and not any(tail.lacking for tail in self.all_tails())

    @property
    def has_news(self) -> bool:
        """Whether there is something for which a file is made: what was logged, not what was printed meanwhile."""
        return bool(self.tails) or any(row.table in ("params", "media") for row in self.rows)

    def all_tails(self) -> list[Tail]:
        """Return every tail that may have what the file lacks."""
        return [*self.old, *(tail for tails in self.tails.values() for tail in tails.values())]

    def begin_attempt(self, *, step: int, epoch: int, time: float) -> None:
        """Begin another attempt: what comes now stands beside what earlier ones measured at the same steps."""
        with self.lock:
            self.attempt += 1
            given = {"id": self.attempt, "session": 0, "started": time, "from_step": step, "from_epoch": epoch}
            self.add(Row("attempts", given))
            for tails in self.tails.values():
                for name, tail in list(tails.items()):
                    if tail.lacking:
                        self.old.append(tail)
                        tails[name] = Tail(tail.name, tail.scope, attempt=self.attempt)
                    else:
                        tail.restart(self.attempt)

    def take_block(self, block: Block) -> None:
        """Take the values of moments that logged the same series."""
        with self.lock:
            tails = self.tails.setdefault(block.scope, {})
            steps, epochs, times = array("q", block.steps), array("i", block.epochs), array("d", block.times)
            width = len(block.names)
            for place, name in enumerate(block.names):
                tail = tails.get(name)
                if tail is None:
                    tail = tails[name] = Tail(whole(name), block.scope, attempt=self.attempt)
                points = tail.open
                points.steps.extend(steps)
                points.times.extend(times)
                points.epochs.extend(epochs)
                points.values.extend(block.values[place::width])

    def add(self, row: Row) -> None:
        """Take a row of another table; beyond the limits it is lost, and counted, but never the begin of an attempt."""
        with self.lock:
            row = row.clean()
            large = row.size >= 1024 and self.waiting_bytes + row.size > MOST_BYTES
            if row.table != "attempts" and (large or len(self.rows) >= MOST_ROWS):
                self.lose(row.arguments.get("kind", row.table), 1)
                return
            self.waiting_bytes += row.size
            self.rows.append(row)
            if row.table in ("attempts", "params"):
                self.kept[f"{row.table} {row.arguments.get('id', row.arguments.get('name'))}"] = row

    def lose(self, what: str, count: int) -> None:
        """Count what is lost."""
        with self.lock:
            self.lost[what] = self.lost.get(what, 0) + count

    def thin(self) -> None:
        """Keep within the limit, by leaving out points that are no extremes."""
        with self.lock:
            while sum(tail.lacking for tail in self.all_tails()) > MOST_POINTS:
                went = sum(tail.thin() for tail in self.all_tails())
                if not went:
                    return
                self.lose("points", went)

    # -- the file ---------------------------------------------------------------------------------------------------

    def part(self) -> Part:
        """Return all that the file lacks now; ``done`` or ``failed`` must follow."""
        with self.lock:
            self.writing = len(self.rows)
            changes = [(tail, change) for tail in self.all_tails() if (change := tail.change()) is not None]
            return Part(changes, self.writing)

    def write(self, connection: sqlite3.Connection, part: Part, *, session: int) -> None:
        """Write a part; ``session`` is the number that this training's session has in the file."""
        rows = self.rows[: part.rows]
        numbers = self.given = dict(self.numbers)
        for row in rows:
            arguments = dict(row.arguments)
            if row.table == "attempts":
                numbers[arguments["id"]] = number = free_number(connection)
                arguments["id"] = number
            elif "attempt" in arguments:
                arguments["attempt"] = numbers.get(arguments["attempt"], 0)
            if "session" in arguments:
                arguments["session"] = session
            connection.execute(row.statement, arguments)
        now = self.attempt_of(rows)
        for tail, change in part.changes:
            if tail.attempt < now:
                write_chunks(connection, tail, change, numbers)
        if now >= 0:
            newest.recount(connection)  # what the attempts before have measured behind its first step counts no more
        current = [(tail, change) for tail, change in part.changes if tail.attempt >= now]
        is_known = all(tail.based for tail, _ in current)
        stretches = [] if is_known else newest.stretches_of(connection)
        for tail, change in current:
            write_chunks(connection, tail, change, numbers)
            write_newest(connection, tail, change, stretches, numbers)

    def attempt_of(self, rows: list[Row]) -> int:
        """Return the last attempt that begins in these rows, -1 if none does."""
        return max((row.arguments["id"] for row in rows if row.table == "attempts"), default=-1)

    def done(self, part: Part) -> None:
        """The part is in the file."""
        with self.lock:
            for tail, change in part.changes:
                tail.written(change)
            self.numbers = self.given
            self.waiting_bytes -= sum(row.size for row in self.rows[: part.rows])
            del self.rows[: part.rows]
            self.writing = 0
            self.old = [tail for tail in self.old if tail.lacking]

    def failed(self, part: Part) -> None:
        """Nothing of the part is in the file."""
        with self.lock:
            self.writing = 0
            for tail, _ in part.changes:
                tail.failed()

    def forget_file(self) -> None:
        """The file is gone, with all that was in it alone."""
        with self.lock:
            self.rows[:0] = [row for row in self.kept.values() if row not in self.rows]
            self.numbers = {}
            for tail in self.all_tails():
                tail.forget_file()


def clean(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's values without what a file cannot hold: halves of characters in its texts."""
    return {name: whole(value) if isinstance(value, str) else value for name, value in values.items()}


def is_whole(text: str) -> bool:
    """Say whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole(text: str) -> str:
    r"""Return a text that can be written as UTF-8; halves of characters become their numbers.

    >>> whole("loss \ud800")
    'loss \\ud800'
    """
    return text if is_whole(text) else text.encode("utf-8", "backslashreplace").decode()


def free_number(connection: sqlite3.Connection) -> int:
    """Return the number of the next attempt: another process may have begun some in the same file."""
    return int(connection.execute("SELECT coalesce(max(id), 0) + 1 FROM attempts").fetchone()[0])


def write_chunks(connection: sqlite3.Connection, tail: Tail, change: Change, numbers: Mapping[int, int]) -> None:
    """Write the points of a change."""
    if tail.series is None:
        tail.series = number_of(connection, tail)
    place = {"series": tail.series, "attempt": numbers.get(tail.attempt, 0)}
    if change.drops is not None:
        connection.execute(
            "DELETE FROM chunks WHERE series = :series AND attempt = :attempt AND first >= :first",
            {**place, "first": tail.first + change.drops},
        )
    connection.executemany(CHUNK, [{**place, **chunk} for chunk in change.chunks])


def write_newest(
    connection: sqlite3.Connection,
    tail: Tail,
    change: Change,
    stretches: Sequence[newest.Stretch],
    numbers: Mapping[int, int],
) -> None:
    """Write what a series has come to: what the attempts before left of it, and this one's points."""
    assert tail.series is not None
    if not tail.based:  # nobody wrote it since this attempt began
        tail.base, tail.based = newest.before(connection, tail.series, stretches, numbers.get(tail.attempt, 0)), True
    newest.store(connection, tail.series, newest.joined(tail.base, change.newest))


def number_of(connection: sqlite3.Connection, tail: Tail) -> int:
    """Return a series' number in the file, made if it is new; one that an earlier training left goes on from there."""
    found = connection.execute(
        "SELECT id FROM series WHERE name = ? AND scope = ?", (tail.name, tail.scope)
    ).fetchone()  # fmt: skip
    if found is None:
        made = connection.execute("INSERT INTO series (name, scope) VALUES (?, ?)", (tail.name, tail.scope))
        return int(made.lastrowid or 0)
    return int(found[0])
