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
    #: The client's address and port; empty on a unix socket.
    client: str
    headers: Any


class Response(NamedTuple):
    """An answer; its body, or the path of a file that the server is to read it from."""

    status: int
    headers: Headers
    body: bytes | Path


#: Sends the response to a request; callable from any thread, once.
Respond = Callable[[Response], None]


class Refusal(Exception):  # noqa: N818  # an answer, not a fault
    """An answer in plain text; raised from anywhere in a handler."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.response = Response(status, [TEXT_PLAIN, NO_STORE, *headers], f"{text}\n".encode())
