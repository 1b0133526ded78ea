"""Who is let in: every request passes here first, and what is not clearly meant for us by our own page is refused."""

import asyncio
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from epochal.core.log import log
from epochal.dashboard.plain import Refused, as_json
from epochal.dashboard.token_file import Secrets

METHODS = ("GET", "HEAD", "POST")
HEAD = 16 * 1024  # bytes of what a request asks for and its headers
BODY = 64 * 1024  # bytes of a request's body
PATIENCE = 30.0  # seconds that a reader may take for what it was sent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True)
class Access:
    """The rules of one server: its secrets, the names it answers to (``host:port``), and whether it changes anything.

    >>> access = Access(Secrets("a", b"b"), frozenset({"127.0.0.1:7007"}), cookie="epochal-7007")
    >>> access.is_token("a"), access.is_token("b"), access.origin("127.0.0.1:7007")
    (True, False, 'http://127.0.0.1:7007')
    """

    secrets: Secrets
    hosts: frozenset[str]
    cookie: str
    secure: bool = False
    read_only: bool = False

    @property
    def ticket(self) -> str:
        """The value of the cookie; who has it can make no token of it."""
        return hmac.new(self.secrets.key, b"cookie", sha256).hexdigest()

    def is_token(self, given: str) -> bool:
        """Say whether this is the token of this start, in a time that tells nothing about how far it is right."""
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.secrets.token.encode())

    def is_ticket(self, given: str) -> bool:
        """Say whether this is the cookie's value, likewise."""
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.ticket.encode())

    def origin(self, host: str) -> str:
        """Return the origin of pages that this server gave out under a name."""
        return f"{'https' if self.secure else 'http'}://{host}"


class Guard:
    """Lets requests through to ``app`` that keep every rule, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        sender = Sender(send)
        try:
            if (door := self.check(scope)) is not None:
                await door(scope, receive, sender.send)
            else:
                await self.app({**scope, "app": self}, Body(receive).receive, sender.send)
        except Refused as refused:
            await self.refuse(refused, scope, receive, sender)
        except HTTPException as refused:  # a route has not this method; it raises where there is an "app"
            why, headers = f"{scope['method']} is not done here", refused.headers or {}
            await self.refuse(Refused(refused.status_code, why, **headers), scope, receive, sender)
        except TimeoutError:  # who asked does not take the answer: uvicorn ends the connection
            raise
        except Exception:
            log().exception("the dashboard failed at %s %s", scope["method"], scope["path"])
            if sender.started:
                raise
            await self.refuse(Refused(500, "this failed; the terminal tells why"), scope, receive, sender)

    async def refuse(self, refused: Refused, scope: Scope, receive: Receive, sender: "Sender") -> None:
        """Say no; what else comes through this connection is not read."""
        if sender.started:
            return
        headers = {**refused.headers, "connection": "close"}
        if scope["path"].startswith("/api/"):
            response = answer({"error": refused.why}, refused.status, headers)
        else:
            response = notice("Not here", refused.why, refused.status, headers)
        await response(scope, receive, sender.send)

    def check(self, scope: Scope) -> Response | None:
        """Raise Refused unless every rule is kept; return the answer where a token was handed over."""
        access, headers, method = self.access, Headers(scope=scope), scope["method"]
        told = sum(len(name) + len(value) + 4 for name, value in scope["headers"])  # and ": " and the line's end
        if told + len(scope["raw_path"]) + len(scope["query_string"]) > HEAD:
            raise Refused(431, f"a request's head has at most {HEAD} bytes")
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in access.hosts:
            names = ", ".join(sorted(access.hosts))
            raise Refused(
                421, f"this server answers to {names}; `epochal dashboard --name HOST:PORT` adds another name"
            )
        if method not in METHODS:
            raise Refused(405, f"{method} is not done here", allow=", ".join(METHODS))
        self.check_sender(scope, headers, hosts[0].lower())
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token") if scope["path"] == "/" else None
        if given is not None and method == "GET":
            if len(given) != 1 or not access.is_token(given[0]):
                raise Refused(
                    403, "this token is not, or no more, the right one: the terminal shows the address of now"
                )
            return self.welcome()
        if not any(access.is_ticket(one) for one in tickets(headers.getlist("cookie"), access.cookie)):
            raise Refused(401, "open the address that `epochal dashboard` printed: it lets this browser in")
        if method == "POST":
            self.check_change(headers)
        return None

    def check_sender(self, scope: Scope, headers: Headers, host: str) -> None:
        """Refuse what another page sends: by its Origin, and by what newer browsers say of a request's source."""
        origins = headers.getlist("origin")
        if any(one != self.access.origin(host) for one in origins) or len(origins) > 1:
            raise Refused(403, "this comes from a page that is not ours")
        if scope["method"] == "POST" and not origins:
            raise Refused(403, "a change must say from which page it comes (Origin)")
        if scope["path"] != "/" and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise Refused(403, "this was asked for by a page that is not ours")

    def check_change(self, headers: Headers) -> None:
        """Refuse a change that a form or a script of another page could send."""
        if self.access.read_only:
            raise Refused(403, "this page was started with --read-only")
        kind, _, option = headers.get("content-type", "").lower().partition(";")
        if kind.strip() != "application/json" or option.strip() not in ("", "charset=utf-8"):
            raise Refused(415, "a change is told in JSON: content-type: application/json")
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "a change is not compressed")
        if headers.get("x-epochal") != "1":
            raise Refused(403, "a change has the header X-Epochal: 1")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY:
            raise Refused(413, f"a change is told in at most {BODY} bytes")

    def welcome(self) -> Response:
        """Give the cookie, and go on to the page: from ours, or the browser would keep the strict cookie back."""
        response = notice("Welcome", "One moment.", 200, {"refresh": "0; url=/"})
        response.set_cookie(
            self.access.cookie,
            self.access.ticket,
            path="/",
            httponly=True,
            samesite="strict",
            secure=self.access.secure,
        )
        return response


class Sender:
    """Sends an answer with the headers that all have, to a reader that must not be too slow."""

    def __init__(self, send: Send) -> None:
        self.sending = send
        self.started = False

    async def send(self, message: Message) -> None:
        """Send one part."""
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in HEADERS.items():
                headers[name] = value
        async with asyncio.timeout(PATIENCE):
            await self.sending(message)


class Body:
    """The body of a request, up to a size, and within a time."""

    def __init__(self, receive: Receive) -> None:
        self.receiving = receive
        self.size = 0

    async def receive(self) -> Message:
        """Receive one part; Refused where it is too much."""
        message = await self.receiving()
        self.size += len(message.get("body", b""))
        if self.size > BODY:
            raise Refused(413, f"a change is told in at most {BODY} bytes")
        return message


def tickets(headers: Iterable[str], name: str) -> list[str]:
    """Return the values that a request's cookies give a name.

    >>> tickets(["a=1; b=2", "a=3"], "a")
    ['1', '3']
    """
    return [found[name] for header in headers if name in (found := cookie_parser(header))]


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as an answer in JSON."""
    return Response(as_json(value), status, headers, media_type="application/json")


def notice(title: str, text: str, status: int, headers: dict[str, str]) -> HTMLResponse:
    """Return a small page that says one thing."""
    page = f'<!doctype html><html lang="en"><title>Epochal: {escape(title)}</title><p>{escape(text)}</p></html>'
    return HTMLResponse(page, status, headers)
