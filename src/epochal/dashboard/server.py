"""The server of the page: where it listens, under which rules, and its life."""

import ipaddress
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from anyio.to_thread import current_default_thread_limiter
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config, Server

from epochal.core.errors import ArgumentError
from epochal.dashboard.api import Api
from epochal.dashboard.auth import HEAD, Access, Guard
from epochal.dashboard.listing import Listing
from epochal.dashboard.plain import Refused
from epochal.dashboard.protocol import PatientProtocol
from epochal.dashboard.served import Served
from epochal.dashboard.static_files import Page
from epochal.dashboard.stream import Streams
from epochal.dashboard.token_file import begin

PORT = 7007
TRIES = 50  # ports behind the one that is taken
THREADS = 8  # that read files for answers
CONNECTIONS = 600  # at a time


@dataclass(frozen=True)
class Place:
    """Where the server listens; ``names`` are further ``host:port`` that it answers to.

    >>> Place().hosts(7007) == {"127.0.0.1:7007", "localhost:7007", "[::1]:7007"}
    True

    An address that other machines reach needs ``remote``, which says that this is meant, and a certificate: without
    one everybody on the way could read the token.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    names: Sequence[str] = field(default_factory=tuple[str, ...])
    certfile: Path | None = None
    keyfile: Path | None = None
    remote: bool = False

    def __post_init__(self) -> None:
        if self.keyfile is not None and self.certfile is None:
            raise ArgumentError("a --keyfile without its --certfile encrypts nothing")
        if self.is_loopback:
            return
        if not self.remote:
            raise ArgumentError(
                f"--host {self.host} lets other machines in: say --remote if you mean that, with a --certfile."
                " Safer: ssh -L 7007:127.0.0.1:7007 MACHINE, and no --host"
            )
        if self.certfile is None:
            raise ArgumentError(f"--host {self.host} --remote needs --certfile (and --keyfile): the token is a secret")
        if self.address.is_unspecified and not self.names:
            raise ArgumentError(f"--host {self.host} needs --name HOST:PORT, the name under which browsers reach it")

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The address to listen at."""
        try:
            return ipaddress.ip_address("127.0.0.1" if self.host == "localhost" else self.host.strip("[]"))
        except ValueError:
            raise ArgumentError(f"--host {self.host!r} is no IP address and not localhost") from None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.address.is_loopback

    def hosts(self, port: int) -> frozenset[str]:
        """Return the names that requests may be addressed to, as they stand in their Host."""
        own = ("127.0.0.1", "localhost", "::1") if self.is_loopback else ()
        shown = {shown_host(one) for one in (*own, str(self.address))}
        usual = 443 if self.certfile else 80
        names = {f"{one}:{port}" for one in shown} | (shown if port == usual else set())
        return frozenset({*names, *(name.lower() for name in self.names)})

    def listen(self) -> socket.socket:
        """Return a socket at the port, or at the next one that is free."""
        family = socket.AF_INET6 if self.address.version == 6 else socket.AF_INET
        tries = [*range(self.port, min(self.port + TRIES, 65536)), 0] if self.port else [0]
        error: OSError | None = None
        for port in tries:
            opened = socket.socket(family, socket.SOCK_STREAM)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                opened.bind((str(self.address), port))
                opened.listen()
            except OSError as problem:
                opened.close()
                error = problem
            else:
                return opened
        raise ArgumentError(f"no port at {self.host} can be had: {error}")


def check_certificate(place: Place) -> None:
    """Raise ArgumentError where the files of the certificate cannot be used.

    >>> check_certificate(Place())
    """
    if place.certfile is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(place.certfile, place.keyfile)
    except OSError as error:  # ssl's own errors are among them
        files = " and ".join(str(one) for one in (place.certfile, place.keyfile) if one is not None)
        raise ArgumentError(f"{files} cannot be used as a certificate: {error}") from None


def shown_host(host: str) -> str:
    """Return an address as it stands in a URL.

    >>> shown_host("::1"), shown_host("127.0.0.1")
    ('[::1]', '127.0.0.1')
    """
    return f"[{host}]" if ":" in host else host


class Dashboard:
    """The page of a folder of runs, at a place; ``serve`` until Ctrl-C. Nothing is served before.

    ``forget`` voids the cookies of earlier starts; ``static`` is where the built page lies.
    """

    def __init__(
        self, folder: Path, place: Place | None = None, *, read_only: bool = False, forget: bool = False,
        static: Path | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.place = folder, place or Place()
        check_certificate(self.place)
        self.socket = self.place.listen()
        self.port: int = self.socket.getsockname()[1]
        self.secure = self.place.certfile is not None
        self.access = Access(
            secrets=begin(folder, forget=forget),
            hosts=self.place.hosts(self.port),
            cookie=f"{'__Host-' if self.secure else ''}epochal-{self.port}",
            secure=self.secure,
            read_only=read_only,
        )
        self.streams = Streams(Listing(Served(folder)))
        self.page = Page(static) if static is not None else Page()
        self.server = Stopping(self.config(self.app()), self.streams)

    @property
    def address(self) -> str:
        """The address without the token."""
        host = shown_host(str(self.place.address))
        if self.place.address.is_unspecified:
            return f"https://{self.place.names[0]}/"
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}/"

    @property
    def invitation(self) -> str:
        """The address that lets a browser in."""
        return f"{self.address}?token={self.access.secrets.token}"

    def app(self) -> ASGIApp:
        """Return the application with its guard."""
        routes = [
            *self.page.routes(),
            *Api(self.streams, self.access).routes(),
            Route("/api/stream", self.streams.answer),
        ]
        return Guard(Router(routes, redirect_slashes=False, default=nothing), self.access)

    def config(self, app: ASGIApp) -> Config:
        """Return how uvicorn runs it: its own log, environment and proxies' headers play no part."""
        return Config(
            app, http=PatientProtocol, ws="none", loop="asyncio", lifespan="off", interface="asgi3",
            log_config=None, log_level="critical", access_log=False, server_header=False, proxy_headers=False,
            limit_concurrency=CONNECTIONS, timeout_keep_alive=15, timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=HEAD, workers=1,
            ssl_certfile=self.place.certfile, ssl_keyfile=self.place.keyfile,
        )  # fmt: skip

    def serve(self) -> None:
        """Serve until Ctrl-C or ``stop``."""
        Thread(target=self.read_ahead, daemon=True).start()
        try:
            self.server.run(sockets=[self.socket])
        finally:
            self.socket.close()

    def read_ahead(self) -> None:
        """Read the list before somebody asks: many runs take a while, the first time."""
        self.streams.listing.refresh()

    def stop(self) -> None:
        """End ``serve`` soon; from any thread."""
        self.server.should_exit = True


class Stopping(Server):
    """uvicorn's server, which at its end does not wait for those who watch."""

    def __init__(self, config: Config, streams: Streams) -> None:
        super().__init__(config)
        self.streams = streams

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin, with few threads: more of them would only wait for each other."""
        current_default_thread_limiter().total_tokens = THREADS
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then all else."""
        self.streams.close()
        await super().shutdown(sockets)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for an address that nothing stands at."""
    raise Refused(404, "there is nothing at this address")
