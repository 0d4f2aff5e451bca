"""Requests and responses: what handlers take and give, whatever server stands before them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Headers = list[tuple[str, str]]

TEXT_PLAIN = ("content-type", "text/plain; charset=utf-8")
NO_STORE = ("cache-control", "no-store")
#: Letters of a header that are looked at.
LONGEST = 2000


class Request(Protocol):
    """What we use of RSGI's scope."""

    method: str
    path: str
    query_string: str
    headers: Any
    #: ``HOST:PORT`` of the client, and what we listen on; empty, and a path, on a unix socket.
    client: str
    server: str


class Gone(Exception):  # noqa: N818  # not our fault
    """The client has gone, or takes nothing any more; or the agent ends."""


class Outlet(Protocol):
    """Where a stream is written to; callable from any thread."""

    @property
    def pulse(self) -> float:
        """Seconds in which it is to be sent something, or it is not seen that a client has gone."""
        ...

    def watch(self, gone: Callable[[], None]) -> None:
        """Has a function called, on some other thread, when the client has gone; where that is
        known before something is sent."""

    def ready(self) -> bool:
        """Whether the client takes more: nothing waits for it outside of the kernel."""
        ...

    def send(self, data: bytes) -> None:
        """Sends it, now or later. Only when ready, or what waits has no bound. Raises Gone."""

    def end(self) -> None:
        """Ends the stream after what was sent."""

    def cut(self) -> None:
        """Ends it now, whatever waits."""


class Response(NamedTuple):
    """An answer; its body, or the path of a file that the server is to read it from, or what is to
    write it."""

    status: int
    headers: Headers
    body: bytes | Path | Callable[[Outlet], None]


#: Sends the response to a request; callable from any thread, once.
Respond = Callable[[Response], None]


class Refusal(Exception):  # noqa: N818  # an answer, not a fault
    """An answer in plain text; raised from anywhere in a handler."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.response = Response(status, [TEXT_PLAIN, NO_STORE, *headers], f"{text}\n".encode())
