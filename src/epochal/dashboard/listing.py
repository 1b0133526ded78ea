"""The list of runs: each is read again only when its file has changed, and a page asks only for what is new."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic, time, time_ns
from typing import Any, NamedTuple

from epochal.dashboard.overview import OVER, unreadable_row
from epochal.dashboard.plain import as_json
from epochal.dashboard.served import TROUBLE, Served, reading
from epochal.runs.process import state_of
from epochal.runs.stored import StoredRun
from epochal.runs.summary import Signature, load_row, signature, summary_of

OFTEN = 0.4  # seconds between looks at the folder, and at runs that train
SELDOM = 0.8  # seconds between looks at runs that are over
YOUNG = 10**9  # nanoseconds after which a file that cannot be read is not one in the making
THREADS = 4  # that read at the same time, where it is more than
FEW = 16  # runs


class Entry(NamedTuple):
    """What the list says of a run, as JSON, since which version; ``session`` where it may end without a word."""

    text: str
    state: str
    version: int
    signature: Signature
    session: dict[str, Any] | None

    @property
    def holds(self) -> bool:
        """Whether the state is still what it was, though nothing was written."""
        return self.session is None or state_of(self.session) == self.state


class Listing:
    """The runs of a served folder; ``version`` grows with each change of any."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.begun = self.version = int(time() * 1000)  # so that no version of an earlier server means anything here
        self.entries: dict[str, Entry] = {}
        self.gone: dict[str, int] = {}
        self.lock = threading.Lock()
        self.due = self.all_due = 0.0

    def refresh(self) -> int:
        """Look what has changed, if the last look is not of just now, and return the version."""
        with self.lock:
            now = monotonic()
            if now >= self.due:
                every = now >= self.all_due
                changed = self.look(every=every)
                if changed:
                    self.version += 1
                self.due = monotonic() + OFTEN
                self.all_due = monotonic() + SELDOM if every else self.all_due
            return self.version

    def look(self, *, every: bool) -> bool:
        """Read what has changed; ``every``: also of runs that are over. Say whether something had."""
        found, version = self.served.look(), self.version + 1
        gone = self.entries.keys() - found.keys()
        for one in gone:
            del self.entries[one]
            self.gone[one] = version
        due: dict[str, tuple[StoredRun, Signature]] = {}
        for one, path in found.items():
            before = self.entries.get(one)
            if before is not None and not every and before.session is None:
                continue
            run = StoredRun(path)
            now = signature(run.file)
            if now is not None and (before is None or before.signature != now or not before.holds):
                due[one] = run, now
        fresh = [one for one, entry in self.read(due, version) if self.take(one, entry)]
        return bool(gone or fresh)

    def read(self, due: dict[str, tuple[StoredRun, Signature]], version: int) -> list[tuple[str, Entry]]:
        """Read runs; many without a summary on several threads: SQLite lets others work while it does."""
        read: dict[str, Entry | None] = {}
        for one, (run, now) in due.items():  # one after the other: a thousand at a time are a burden on the collector
            known = load_row(run.file, now)
            read[one] = None if known is None else Entry(self.named(one, run, known[0]), known[1], version, now, None)
        unknown = [one for one, entry in read.items() if entry is None]

        def entry(one: str) -> Entry | None:
            return self.entry(one, *due[one], version)

        if len(unknown) < FEW:
            read |= zip(unknown, map(entry, unknown), strict=True)
        else:
            with ThreadPoolExecutor(THREADS) as threads:
                read |= zip(unknown, threads.map(entry, unknown), strict=True)
        return [(one, entry) for one, entry in read.items() if entry is not None]

    def take(self, one: str, entry: Entry) -> bool:
        """Take what was read of a run, and say whether it says something new."""
        before = self.entries.get(one)
        same = before is not None and before.text == entry.text
        self.entries[one] = entry._replace(version=before.version) if before is not None and same else entry
        self.gone.pop(one, None)
        return not same

    def entry(self, id: str, run: StoredRun, now: Signature, version: int) -> Entry | None:  # noqa: A002
        """Read a run for the list; what is wrong with it is said there, and the others are not touched by that.

        None for one that is being made at this moment.
        """
        session: dict[str, Any] | None = None
        is_new = id not in self.entries and time_ns() - now[0] < YOUNG
        try:
            told = summary_of(run.file, partial(reading, run))
            row = told.row()
            if row["state"] not in OVER:
                session = told.session
        except TROUBLE as error:
            if is_new:
                return None
            row, now = unreadable_row(str(error) or type(error).__name__, run.file), ()  # the next look tries again
        return Entry(self.named(id, run, as_json(row)), row["state"], version, now, session)

    def named(self, id: str, run: StoredRun, row: str) -> str:  # noqa: A002
        """Return the JSON of a run's row with its id, name and path."""
        named = as_json({"id": id, "name": run.name, "path": self.served.path_of(run)})
        return f"{named[:-1]},{row[1:]}"

    def as_json(self, since: int | None = None) -> str:
        """Return the list as JSON; ``since``: only what has changed behind that version, and what is gone."""
        self.refresh()
        with self.lock:
            part = since is not None and self.begun <= since <= self.version
            after = since if part and since is not None else -1
            texts = ",".join(one.text for one in self.entries.values() if one.version > after)
            gone = [one for one, version in self.gone.items() if version > after] if part else []
            return f'{{"runs":[{texts}],"gone":{as_json(gone)},"all":{as_json(not part)},"version":{self.version}}}'
