"""What is new, as server-sent events: one look at a run serves all who watch it, and none is taken without them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import aclosing, contextmanager
from time import monotonic

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from epochal.dashboard.listing import OFTEN, Listing
from epochal.dashboard.overview import BRIEFLY, Head, read_head
from epochal.dashboard.plain import Refused, as_json
from epochal.dashboard.served import TROUBLE, Served, reading, signature
from epochal.dashboard.shared import Shared

LOOK = 0.1  # seconds between looks at a run that is watched
CHECK = 10  # looks after which also a run whose file stays as it is may have died
SLOWEST = 0.5  # seconds between them, where many watch it
HEARTBEAT = 5.0  # seconds after which a line says that the connection lives
TURN = 1.0  # seconds at least between two times that those who watch a run ask for what is new of its curves
EACH = 0.04  # seconds at least for each of them
MOST_RUNS = 64  # runs that one page watches
MOST_STREAMS = 256
COUNTERS = """SELECT (SELECT coalesce(max(id), 0) FROM events),
    (SELECT coalesce(max(coalesce(answered, asked)), 0) FROM commands), (SELECT coalesce(max(id), 0) FROM media),
    (SELECT coalesce(max(id), 0) FROM console), (SELECT coalesce(max(id), 0) FROM notes),
    (SELECT coalesce(max(id), 0) FROM attempts)"""


class Watch:
    """Something that is looked at while somebody watches; ``version`` grows with each change."""

    pause = LOOK
    share = 0.0  # of a second, for each who watches, in which nothing is looked at

    def __init__(self) -> None:
        self.version = 0
        self.bells: set[asyncio.Event] = set()
        self.task: asyncio.Task[None] | None = None
        self.told: tuple[int, int, bytes] = (-1, -1, b"")

    def event(self, since: int) -> bytes:
        """Return ``message``, made once for all who ask for the same."""
        if self.told[:2] != (since, self.version):
            self.told = since, self.version, self.message(since).encode()
        return self.told[2]

    def look(self) -> bool:
        """Look, on another thread, and say whether there is something new."""
        raise NotImplementedError

    def message(self, since: int) -> str:
        """Return the event for somebody who has seen version ``since``."""
        raise NotImplementedError

    def join(self, bell: asyncio.Event) -> None:
        """Ring a bell at each change from now on."""
        self.bells.add(bell)
        if self.task is None:
            self.task = asyncio.create_task(self.poll())

    def leave(self, bell: asyncio.Event) -> None:
        """Ring it no more; without anybody there is no look either."""
        self.bells.discard(bell)
        if not self.bells and self.task is not None:
            self.task.cancel()
            self.task = None

    async def poll(self) -> None:
        """Look again and again."""
        while True:
            if await asyncio.to_thread(self.look):
                self.version += 1
                for bell in self.bells:
                    bell.set()
            await asyncio.sleep(min(max(self.pause, self.share * len(self.bells)), SLOWEST))


class RunWatch(Watch):
    """One run."""

    share = 0.005

    def __init__(self, served: Served, id: str) -> None:  # noqa: A002  # the API's word
        super().__init__()
        self.id, self.run = id, served.run(id)
        self.head: Head | None = None
        self.counters: tuple[int, ...] = (0,) * 6
        self.shared = Shared()  # answers of this turn: a step may get further points, and a later attempt repeats it
        self.state = ""
        self.seen: tuple[int, ...] | None = ()
        self.looks = 0
        self.changed: dict[str, int] = {}  # the version with which a curve's newest value came
        self.behind = False  # there are points that nobody was told to ask for
        self.next_turn = 0.0
        self.turn = 0  # the version with which all were told to ask: at once, so that they ask for the same

    def look(self) -> bool:
        """Read the run if its file has changed, and see whether it has died."""
        self.looks += 1
        now, before = signature(self.run.file), self.state
        is_new = now != self.seen
        is_turn = self.is_turn(is_new)
        if not is_new and self.looks % CHECK:
            return is_turn
        try:
            if is_new:
                with reading(self.run) as connection:
                    self.take(read_head(connection, BRIEFLY), connection.execute(COUNTERS).fetchone())
            self.state = self.head.state if self.head else self.state
        except TROUBLE:
            self.state, self.seen = "unreadable" if now else "gone", ()
            return self.state != before
        self.seen = now
        return is_new or is_turn or self.state != before

    def is_turn(self, is_new: bool) -> bool:
        """Say whether those who watch are to ask now for what is new."""
        now = monotonic()
        self.behind |= is_new
        if not self.behind or now < self.next_turn:
            return False
        self.behind, self.turn, self.shared = False, self.version + 1, Shared()
        self.next_turn = now + max(TURN, EACH * len(self.bells))
        return True

    def answer(self, question: str, upto: int, make: Callable[[], bytes]) -> bytes:
        """Return the answer to a question about steps up to one, made once for all who watch where that is behind."""
        return self.shared.answer(question, make) if self.head and upto <= self.head.step else make()

    def take(self, head: Head, counters: tuple[int, ...]) -> None:
        """Note which curves have something new, and whether an attempt has begun that repeats steps."""
        if counters[-1] != self.counters[-1]:
            self.shared = Shared()
        old = self.head.newest if self.head else {}
        for name, row in head.newest.items():
            if name not in old or old[name]["count"] != row["count"] or old[name]["time"] != row["time"]:
                self.changed[name] = self.version + 1
        self.head, self.counters = head, counters

    def message(self, since: int) -> str:
        """Return how the run is, and the newest values of the curves that have changed."""
        newest = self.head.newest if self.head else {}
        events, audit, media, console, notes, attempt = self.counters
        told = {
            "id": self.id, "state": self.state, "step": self.head.step if self.head else 0,
            "epoch": self.head.epoch if self.head else 0,
            "newest": {
                name: (row["step"], row["time"], row["value"], row["count"])
                for name, row in newest.items() if self.changed.get(name, 0) > since
            },
            "events": events, "audit": audit, "media": media, "console": console, "notes": notes,
            "attempt": attempt, "ask": self.turn > since,
        }  # fmt: skip
        return f"event: run\ndata: {as_json(told)}\n\n"


class ListWatch(Watch):
    """The list of runs."""

    pause = OFTEN

    def __init__(self, listing: Listing) -> None:
        super().__init__()
        self.listing = listing
        self.newest = -1

    def look(self) -> bool:
        """See whether the list has changed."""
        before, self.newest = self.newest, self.listing.refresh()
        return before != self.newest

    def message(self, since: int) -> str:
        """Return the list's version."""
        return f"event: runs\ndata: {as_json({'version': self.newest})}\n\n"


class Streams:
    """All who watch, and what they watch."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.list = ListWatch(listing)
        self.runs: dict[str, RunWatch] = {}
        self.bells: set[asyncio.Event] = set()
        self.closed = False

    async def answer(self, request: Request) -> Response:
        """Answer a request for events."""
        ids = list(dict.fromkeys(request.query_params.getlist("run")))
        with_list = not ids or request.query_params.get("list") != "0"
        if len(ids) > MOST_RUNS:
            raise Refused(400, f"at most {MOST_RUNS} runs can be watched at a time")
        if len(self.bells) >= MOST_STREAMS:
            raise Refused(503, f"{MOST_STREAMS} pages watch already")
        found = [watch for one in ids if (watch := await asyncio.to_thread(self.watch, one)) is not None]
        if ids and not found:
            raise Refused(404, "there is no such run; it may have been deleted")
        watches = [*[self.list] * with_list, *found]
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return EventStream(self.events(watches), media_type="text/event-stream")

    def watch(self, id: str) -> RunWatch | None:  # noqa: A002
        """Return the one watch of a run, None where there is no such run: the others are watched all the same."""
        known = self.runs.get(id)
        try:
            return known if known is not None else RunWatch(self.listing.served, id)
        except KeyError:
            return None

    async def events(self, watches: Iterable[Watch]) -> AsyncGenerator[bytes]:
        """Yield the events, beginning with how things are now."""
        seen: dict[Watch, int] = {}
        with self.watching(watches) as (bell, joined):
            yield b"retry: 1000\n\n"
            while not self.closed:
                bell.clear()
                for watch in joined:
                    if watch.version > seen.get(watch, 0):
                        message, version = watch.event(seen.get(watch, 0)), watch.version
                        yield message
                        seen[watch] = version
                if bell.is_set():
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT):
                        await bell.wait()
                if not bell.is_set():
                    yield b": alive\n\n"

    @contextmanager
    def watching(self, watches: Iterable[Watch]) -> Generator[tuple[asyncio.Event, list[Watch]]]:
        """Join the watches, those of runs under their ids, and leave them behind."""
        bell = asyncio.Event()
        joined = [self.runs.setdefault(one.id, one) if isinstance(one, RunWatch) else one for one in watches]
        self.bells.add(bell)
        for one in joined:
            one.join(bell)
        try:
            yield bell, joined
        finally:
            self.bells.discard(bell)
            for one in joined:
                one.leave(bell)
                if isinstance(one, RunWatch) and not one.bells and self.runs.get(one.id) is one:
                    del self.runs[one.id]

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        for bell in self.bells:
            bell.set()


class EventStream(StreamingResponse):
    """A stream that is left in order when its reader goes."""

    async def stream_response(self, send: Send) -> None:
        """Send the events."""
        assert isinstance(self.body_iterator, AsyncGenerator)
        async with aclosing(self.body_iterator):
            await super().stream_response(send)
