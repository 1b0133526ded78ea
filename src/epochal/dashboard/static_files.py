"""The page's files, built with the package: known by name when the server starts, and no others are served."""

import mimetypes
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from epochal.dashboard.plain import Refused

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
INSTEAD = """<!doctype html><html lang="en"><title>Epochal</title><h1>Epochal</h1>
<p>The server runs, but this package was installed without its page: <code>python hatch_build.py</code> builds it.</p>
<p><a href="/api/runs">The runs as JSON</a></p></html>"""


class Page:
    """Serves the page at ``/`` and its files below ``/static/``."""

    def __init__(self, folder: Path = STATIC) -> None:
        found = folder.rglob("*") if folder.is_dir() else ()
        self.files = {path.relative_to(folder).as_posix(): path for path in found if path.is_file()}

    @property
    def is_built(self) -> bool:
        """Whether the page is there."""
        return INDEX in self.files

    def routes(self) -> list[BaseRoute]:
        """Return what can be asked for."""
        return [Route("/", self.index), Route("/static/{name:path}", self.file), Route("/favicon.ico", self.no_icon)]

    def index(self, request: Request) -> Response:
        """The page, or what to do where it was not built."""
        return self.content(INDEX) if self.is_built else HTMLResponse(INSTEAD)

    def file(self, request: Request) -> Response:
        """One of its files."""
        return self.content(request.path_params["name"])

    def no_icon(self, request: Request) -> Response:
        """Nothing: the page names its own, and some browsers ask here all the same."""
        return Response(status_code=204)

    def content(self, name: str) -> Response:
        """Return a file's content, under a type that its name tells."""
        path = self.files.get(name)
        if path is None:
            raise Refused(404, "the page has no such file")
        kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return Response(path.read_bytes(), media_type=kind)
