"""HTTP as uvicorn speaks it, but for clients that send a request slower than any of ours would: those are cut off."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 10.0  # seconds from the first byte of a request, or from the connection, to the request's last byte


class PatientProtocol(H11Protocol):
    """uvicorn's own protocol, with a time limit for each request as a whole; peer: nginx's client_header_timeout."""

    patience = PATIENCE

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client has come: it has to ask for something soon."""
        super().connection_made(transport)
        self.deadline = self.loop.call_later(self.patience, self.cut)

    def data_received(self, data: bytes) -> None:
        """Something came: the time runs until the request is complete, however often something comes."""
        super().data_received(data)
        receiving = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if not receiving:
            self.rest()
        elif self.deadline is None:
            self.deadline = self.loop.call_later(self.patience, self.cut)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self.rest()
        super().connection_lost(exc)

    def rest(self) -> None:
        """No time runs."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def cut(self) -> None:
        """The time is over."""
        self.deadline = None
        self.transport.abort()
