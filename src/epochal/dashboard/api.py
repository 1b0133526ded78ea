"""The API of the page: what the runs' files hold, as JSON, and what people want of a training."""

import csv
import io
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from epochal.core.errors import EpochalError
from epochal.dashboard import detail
from epochal.dashboard.auth import Access, answer
from epochal.dashboard.changes import change_tags, read_change, send_command, write_note
from epochal.dashboard.plain import Refused, as_json
from epochal.dashboard.served import TROUBLE, Served, rank_of, ranks, reading
from epochal.dashboard.stream import Streams
from epochal.runs.schema import StoreError
from epochal.runs.stored import StoredRun

T = TypeVar("T")
PNG = b"\x89PNG\r\n\x1a\n"
MOST = 20_000  # ranges of a curve that may be asked for
TOGETHER = 64  # curves of one answer


class Api:
    """Answers from the files of a served folder; whether their trainings live does not matter."""

    def __init__(self, streams: Streams, access: Access) -> None:
        self.streams, self.listing, self.access = streams, streams.listing, access

    @property
    def served(self) -> Served:
        """The served folder."""
        return self.listing.served

    def routes(self) -> list[BaseRoute]:
        """Return what can be asked for."""
        reads = {
            "": self.run, "/curve": self.curve, "/curves": self.curves, "/events": self.events, "/audit": self.audit,
            "/console": self.console, "/media": self.media, "/media/{number:int}": self.medium,
            "/export.csv": self.export,
        }  # fmt: skip
        changes = {"/commands": self.command, "/notes": self.note, "/tags": self.tag}
        return [
            Route("/api/runs", self.runs),
            *(Route(f"/api/runs/{{id}}{path}", call) for path, call in reads.items()),
            *(Route(f"/api/runs/{{id}}{path}", call, methods=["POST"]) for path, call in changes.items()),
        ]

    # -- reading ------------------------------------------------------------------------------------------------------

    def runs(self, request: Request) -> Response:
        """The list; ``since``: only what has changed behind that version."""
        since = number(request, "since", None)
        return Response(self.listing.as_json(since), media_type="application/json")

    def run(self, request: Request) -> Response:
        """All of one run but its points, media and console."""

        def about(run: StoredRun, connection: sqlite3.Connection) -> dict[str, Any]:
            given: str = request.path_params["id"]
            found = detail.detail(run, connection, read_only=self.access.read_only)
            own, _ = rank_of(given)
            told = [{"rank": rank, "id": f"{own}.{rank}" if rank else own} for rank in ranks(run)]
            return {"id": given, "path": self.served.path_of(run), "ranks": told, **found}

        return self.read(request, about)

    def curve(self, request: Request) -> Response:
        """A curve as few ranges."""
        name, most = text(request, "name"), number(request, "most", 2000, 1, MOST)
        window = detail.Window(number(request, "begin", 0), number(request, "end", detail.LAST), most)
        attempt = number(request, "attempt", None)
        form = detail.pack if request.query_params.get("packed") == "1" else dict[str, Any]
        return self.read(request, lambda run, connection: form(detail.points(run, connection, name, window, attempt)))

    def curves(self, request: Request) -> Response:
        """What is new of several curves, each between its own two steps, in the order of the question.

        ``most``: as how many ranges the whole of a curve would be answered; what is new of it comes as coarse.
        """
        names, begins, ends = (request.query_params.getlist(one) for one in ("name", "begin", "end"))
        if not 0 < len(names) <= TOGETHER or {len(begins), len(ends)} != {len(names)}:
            raise Refused(400, f"name, begin and end, in turn, for 1 to {TOGETHER} curves")
        most = number(request, "most", 2000, 1, MOST)
        windows = [
            detail.Window(whole("begin", begin), whole("end", end), most, whole=True)
            for begin, end in zip(begins, ends, strict=True)
        ]

        def make() -> bytes:
            found = self.found(request, lambda run, connection: detail.together(run, connection, names, windows))
            return as_json({"curves": found}).encode()

        watch = self.streams.runs.get(request.path_params["id"])
        upto = max(one.end for one in windows)
        body = make() if watch is None else watch.answer(request.url.query, upto, make)
        return Response(body, media_type="application/json")

    def events(self, request: Request) -> Response:
        """What happened."""
        after = number(request, "after", 0)
        return self.read(request, lambda _, connection: {"events": detail.events(connection, after)})

    def audit(self, request: Request) -> Response:
        """What people asked for, and what became of it."""
        return self.read(request, lambda _, connection: {"commands": detail.audit(connection)})

    def console(self, request: Request) -> Response:
        """What the training printed."""
        after = number(request, "after", None)
        return self.read(request, lambda _, connection: {"lines": detail.console(connection, after)})

    def media(self, request: Request) -> Response:
        """Images, histograms or texts, without their data."""
        kind = request.query_params.get("kind", "image")
        return self.read(request, lambda _, connection: {"media": detail.media(connection, kind)})

    def medium(self, request: Request) -> Response:
        """An image as PNG, a histogram or a text as JSON; nothing that a browser would run."""
        number: int = request.path_params["number"]
        kind, data = self.found(request, lambda _, connection: detail.medium(connection, number))
        if kind == "image":
            if not data.startswith(PNG):
                raise Refused(415, f"the image {number} is no PNG")
            return Response(data, media_type="image/png")
        try:
            return answer(json.loads(data))
        except (ValueError, RecursionError):
            return answer({"text": data.decode("utf-8", "replace")})

    def export(self, request: Request) -> Response:
        """The points of curves as CSV, every one of them."""
        names = [name for given in request.query_params.getlist("names") for name in given.split(",") if name]
        run = self.find(request)
        names = self.found(request, lambda run, connection: known(run, connection, names))
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(run.name, safe='')}.csv"}
        return StreamingResponse(as_csv(run, names), headers=headers, media_type="text/csv")

    # -- changing -----------------------------------------------------------------------------------------------------

    async def command(self, request: Request) -> Response:
        """A command for the training."""
        given, run = await read_change(request), self.find(request)
        return answer(await run_in_threadpool(send_command, run, given), 202)

    async def note(self, request: Request) -> Response:
        """A note."""
        given, run = await read_change(request), self.find(request)
        return answer(await run_in_threadpool(write_note, run, given), 201)

    async def tag(self, request: Request) -> Response:
        """Tags."""
        given, run = await read_change(request), self.find(request)
        return answer(await run_in_threadpool(change_tags, run, given))

    # -- a run --------------------------------------------------------------------------------------------------------

    def find(self, request: Request) -> StoredRun:
        """Return the run that is asked for."""
        try:
            return self.served.run(request.path_params["id"])
        except KeyError:
            raise Refused(404, "there is no such run; it may have been deleted") from None

    def found(self, request: Request, call: Callable[[StoredRun, sqlite3.Connection], T]) -> T:
        """Return what ``call`` reads of the run; what is wrong with its file is said."""
        run = self.find(request)
        try:
            with reading(run) as connection:
                return call(run, connection)
        except StoreError as error:
            raise Refused(404, str(error)) from None
        except TROUBLE as error:
            raise Refused(422, f"the run cannot be read: {error or type(error).__name__}") from None

    def read(self, request: Request, call: Callable[[StoredRun, sqlite3.Connection], Any]) -> Response:
        """Answer with what ``call`` reads of the run."""
        return answer(self.found(request, call))


def text(request: Request, name: str) -> str:
    """Return a parameter that has to be there."""
    given = request.query_params.get(name)
    if given is None:
        raise Refused(400, f"the parameter {name} is missing")
    return given


def number(request: Request, name: str, default: Any, low: int = 0, high: int = detail.LAST) -> Any:
    """Return a parameter that is a whole number in bounds, or its default."""
    given = request.query_params.get(name)
    return default if given in (None, "") else whole(name, str(given), low, high)


def whole(name: str, given: str, low: int = 0, high: int = detail.LAST) -> int:
    """Return a whole number in bounds."""
    if not re.fullmatch(r"[0-9]{1,19}", given) or not low <= int(given) <= high:
        raise Refused(400, f"{name}={given!r} is no whole number from {low} to {high}")
    return int(given)


def known(run: StoredRun, connection: sqlite3.Connection, names: list[str]) -> list[str]:
    """Return the names, all of the run's if there are none; StoreError for one that the run does not have."""
    for name in names:
        run.series(connection, name)
    return names or sorted(run.named(connection))


def as_csv(run: StoredRun, names: list[str]) -> Iterator[str]:
    """Yield the points of curves as lines of CSV; no name is taken for a formula by a spreadsheet."""
    yield "curve,step,epoch,time,value\n"
    for name in names:
        shown = f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
        try:
            for points in run.parts(name):
                rows = zip(points.steps, points.epochs, points.times, points.values, strict=True)
                part = io.StringIO()
                csv.writer(part, lineterminator="\n").writerows((shown, *row) for row in rows)
                yield part.getvalue()
        except EpochalError:  # the run was deleted meanwhile
            return
