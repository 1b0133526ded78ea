"""A real server over recorded runs, and raw HTTP to it: nothing between the test and the bytes."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.dashboard.browser import a_browser, chromium


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        assert self.header("content-type") == "application/json"
        return json.loads(self.body)


class Client:
    """Speaks to a dashboard as a browser that was let in would, or not, as ``headers`` say; None leaves one out."""

    def __init__(self, dashboard: Any) -> None:
        self.dashboard, self.port = dashboard, dashboard.port
        self.host = f"127.0.0.1:{self.port}"
        self.cookie = f"{dashboard.access.cookie}={dashboard.access.ticket}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> bytes:
        told: dict[str, str | None] = {"host": self.host, "cookie": self.cookie, "connection": "close"}
        if body:
            told["content-length"] = str(len(body))
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in told.items() if value is not None]
        return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> Answer:
        return self.send(self.raw(method, path, body, **headers))

    def get(self, path: str, **headers: str | None) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, value: Any, **headers: str | None) -> Answer:
        spoken = {"content_type": "application/json", "x_epochal": "1", "origin": f"http://{self.host}", **headers}
        return self.ask("POST", path, value if isinstance(value, bytes) else json.dumps(value).encode(), **spoken)

    def send(self, raw: bytes) -> Answer:
        with self.connect() as connection:
            connection.sendall(raw)
            return read_answer(connection)

    def runs(self) -> dict[str, dict[str, Any]]:
        return {run["path"]: run for run in self.get("/api/runs").json["runs"]}

    def id(self, path: str = "digits") -> str:
        return self.runs()[path]["id"]


def read_answer(connection: socket.socket) -> Answer:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    if dict(headers).get("transfer-encoding") == "chunked":
        body = b"".join(unchunked(body))
    return Answer(int(first.split(" ")[1]), headers, body)


def unchunked(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, rest = body.partition(b"\r\n")
        yield rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]


@pytest.fixture(scope="module", autouse=True)
def no_state_of_mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the secrets of who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's secrets lie."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `digits`, of names and values that need care."""
    torch = pytest.importorskip("torch")
    from epochal import Loop

    folder = tmp_path_factory.mktemp("recorded")
    with Loop(model=torch.nn.Linear(1, 1), dir=folder, name="digits") as run:
        run.log_params({"lr": 0.1, "<b>batch</b>": "<i>8</i>"})
        for epoch in run.epochs(4):
            for x in run.batches(range(25)):
                run.log({"train/loss": 1 / (1 + x + epoch), "<script>alert(1)</script>": float("nan")})
                if x == 3:
                    run.log({"spiky": float("inf") if epoch == 1 else 2.0})
            with run.validation():
                run.log({"val/loss": 0.5 / (epoch + 1)})
    return folder


@pytest.fixture
def runs(recorded: Path, tmp_path: Path) -> Path:
    """A folder of runs of this test's own."""
    return Path(shutil.copytree(recorded, tmp_path / "runs"))


@contextmanager
def servers(static: Path) -> Iterator[Callable[..., Client]]:
    """Give a function that starts a server over a folder; all of them are stopped behind."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    from epochal.dashboard.server import Dashboard, Place

    started: list[tuple[Any, threading.Thread]] = []

    def start(folder: Path, **options: Any) -> Client:
        place = options.pop("place", None) or Place(port=0)
        dashboard = Dashboard(folder, place, static=options.pop("static", static), **options)
        thread = threading.Thread(target=dashboard.serve, daemon=True)
        thread.start()
        until = time.monotonic() + 20
        while not dashboard.server.started and time.monotonic() < until:
            time.sleep(0.005)
        started.append((dashboard, thread))
        return Client(dashboard)

    try:
        yield start
    finally:
        for dashboard, _ in started:
            dashboard.stop()
        for _, thread in started:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Return a function that starts a server over a folder."""
    with servers(tmp_path / "no page") as start:
        yield start


@pytest.fixture(scope="module")
def client(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A browser that was let in by a server that stands for a whole file of tests; they leave no trace on it."""
    place = tmp_path_factory.mktemp("standing")
    with servers(place / "no page") as start:
        yield start(Path(shutil.copytree(recorded, place / "runs")))


@pytest.fixture
def own(serve: Callable[..., Client], runs: Path) -> Client:
    """A browser that was let in by a server of this test's own, over ``runs``."""
    return serve(runs)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the runs that a browser looks at."""
    chromium()
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests of a file."""
    with a_browser() as found:
        yield found
