"""The list of runs: each is read again only when its file has changed, and a page asks only for what is new."""

import threading
from time import monotonic, time
from typing import Any, NamedTuple

from epochal.dashboard.overview import OVER, read_head, run_row, unreadable_row
from epochal.dashboard.plain import as_json
from epochal.dashboard.served import TROUBLE, Served, reading, signature
from epochal.runs.stored import StoredRun, state_of

OFTEN = 0.4  # seconds between looks at the folder, and at runs that train
SELDOM = 2.0  # seconds between looks at runs that are over


class Entry(NamedTuple):
    """What the list says of a run, as JSON, since which version; ``session`` where it may end without a word."""

    text: str
    state: str
    version: int
    signature: tuple[int, ...]
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
        changed = bool(gone)
        for one, path in found.items():
            before = self.entries.get(one)
            if before is not None and not every and before.session is None:
                continue
            run = StoredRun(path)
            now = signature(run.file)
            if now is None or (before is not None and before.signature == now and before.holds):
                continue
            entry = self.entry(one, run, now, version)
            if before is not None and before.text == entry.text:
                entry = entry._replace(version=before.version)
            self.entries[one] = entry
            self.gone.pop(one, None)
            changed = changed or entry.version == version
        return changed

    def entry(self, id: str, run: StoredRun, now: tuple[int, ...], version: int) -> Entry:  # noqa: A002
        """Read a run for the list; what is wrong with it is said there, and the others are not touched by that."""
        session: dict[str, Any] | None = None
        try:
            with reading(run) as connection:
                head = read_head(connection)
                row = run_row(connection, head)
            if row["state"] not in OVER or head.session is None:
                session = head.session
        except TROUBLE as error:
            row, now = unreadable_row(str(error) or type(error).__name__, run.file), ()  # the next look tries again
        named = {"id": id, "name": run.name, "path": self.served.path_of(run), **row}
        return Entry(as_json(named), row["state"], version, now, session)

    def as_json(self, since: int | None = None) -> str:
        """Return the list as JSON; ``since``: only what has changed behind that version, and what is gone."""
        self.refresh()
        with self.lock:
            part = since is not None and self.begun <= since <= self.version
            after = since if part and since is not None else -1
            texts = ",".join(one.text for one in self.entries.values() if one.version > after)
            gone = [one for one, version in self.gone.items() if version > after] if part else []
            return f'{{"runs":[{texts}],"gone":{as_json(gone)},"all":{as_json(not part)},"version":{self.version}}}'
