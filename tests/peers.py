"""What may answer in an agent's place: servers that hang, drip, break off, or talk nonsense."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: What is done with a connection; it is closed when that returns, and `stop` is set at the end.
Act = Callable[[socket.socket, threading.Event], None]


@contextmanager
def peer(
    act: Act, host: str = "127.0.0.1", unix: Path | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """A server on a free port, or a path, that treats each connection so; its listen address."""
    family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.bind(str(unix) if unix else (host, 0))
    listener.listen()
    listener.settimeout(0.05)
    stop = threading.Event()

    def one(connection: socket.socket) -> None:
        # What ends is the client, so that no server is to blame for it.
        with contextlib.suppress(OSError):
            if tls:
                connection = tls.wrap_socket(connection, server_side=True)
            act(connection, stop)
        connection.close()

    def serve() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                connection.settimeout(10)
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        if unix:
            yield f"unix:{unix}"
        else:
            port = listener.getsockname()[1]
            yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    finally:
        stop.set()
        thread.join()
        listener.close()


def request(connection: socket.socket) -> bytes:
    """A request up to the end of its header."""
    found = b""
    while b"\r\n\r\n" not in found:
        more = connection.recv(65536)
        if not more:
            break
        found += more
    return found


def says(*pieces: bytes) -> Act:
    """Takes a request and answers with some bytes."""

    def act(connection: socket.socket, stop: threading.Event) -> None:
        request(connection)
        for piece in pieces:
            connection.sendall(piece)

    return act


def page(body: bytes, status: str = "200 OK", header: str = "") -> bytes:
    """A whole response."""
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{header}\r\n"
    return head.encode() + body


def silent(connection: socket.socket, stop: threading.Event) -> None:
    """Takes the connection and says nothing."""
    stop.wait(30)


def mute(connection: socket.socket, stop: threading.Event) -> None:
    """Sends a header, and no body."""
    request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    stop.wait(30)


def drips(connection: socket.socket, stop: threading.Event) -> None:
    """Sends a byte of the body now and then."""
    request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while not stop.wait(0.02):
        connection.sendall(b" ")


def drips_header(connection: socket.socket, stop: threading.Event) -> None:
    """Sends a byte of the header now and then."""
    request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    while not stop.wait(0.02):
        connection.sendall(b"x")


def endless(connection: socket.socket, stop: threading.Event) -> None:
    """Sends a body that does not end, as fast as it can."""
    request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not stop.is_set():
        connection.sendall(b"x" * (1 << 20))


#: Those that cost their client time, and those that break the protocol or promise too much.
HUNG: dict[str, Act] = {
    "silent": silent,
    "mute": mute,
    "drips": drips,
    "drips_header": drips_header,
}
BROKEN: dict[str, Act] = {
    "closes": says(),
    "cut": says(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nab"),
    "cut_chunk": says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e8\r\nab"),
    "no_http": says(b"220 mail.example ESMTP\r\n"),
    "nul": says(b"\0" * 1000),
    "bad_chunk": says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"),
    "headers": says(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000),
    "long_header": says(b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000),
    "huge": says(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"),
    "tls": says(b"\x15\x03\x03\x00\x02\x02\x46"),
    "nonsense": says(page(b"<html>\xff\0")),
    "escape": says(page(b"\x1b[2J\x07evil", "500 Oops")),
}
