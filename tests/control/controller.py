"""A small reference controller, which can also be away, slow, and a liar.

``python -m tests.control.controller PORT DIRECTORY`` runs one by hand: it writes its authority to
DIRECTORY/ca.pem, admits with the token ``join``, and prints what it hears.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..pki import Authority, authority

JOIN = "join-the-cluster"
CLUSTER = "CLU-1"

#: What a trick does with a request; True: it has answered.
Trick = Callable[["Handler"], object]


class Controller:
    """A context manager that serves on a port of the loopback.

    heard: (method, path, token, message) of each request that was answered as it should.
    nodes: the newest heartbeat of each. tokens: what is valid for each node now.
    trick: what is done instead of an answer.
    """

    def __init__(self, port: int = 0, ca: Authority | None = None, host: str = "127.0.0.1") -> None:
        self.host = host
        self.ca = ca or authority()
        self.join: str | None = JOIN
        self.cluster = CLUSTER
        self.period = 1.0
        self.policy: dict[str, Any] = {"version": 0, "metric_sets": {}}
        #: A token that the next heartbeat of a node gets.
        self.rotation: str | None = None
        self.first_token: str | None = None
        self.tokens: dict[str, set[str]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.heard: list[tuple[str, str, str, Any]] = []
        self.trick: Trick | None = None
        self.requests = 0
        self.port = port
        self.ended = threading.Event()

    def __enter__(self) -> Controller:
        self.ended.clear()
        with tempfile.TemporaryDirectory() as directory:
            self.ca.server("controller").write(Path(directory), "server")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(f"{directory}/server.crt", f"{directory}/server.key")
        self.server = Server((self.host, self.port), self, context)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def write_ca(self, directory: Path) -> str:
        path = directory / "ca.pem"
        path.write_bytes(self.ca.certificate)
        return str(path)

    def beats(self) -> int:
        return sum(method == "POST" for method, *_ in self.heard)

    def answer(self, method: str, path: str, token: str, message: Any) -> tuple[int, Any]:
        """Status and body of an answer, as docs/reference/managed-protocol.md has them."""
        parts = path.strip("/").split("/")
        if parts[:2] != ["v1", "nodes"] or len(parts) not in (3, 4):
            return 404, {}
        node = unquote(parts[2])
        known = self.tokens.get(node, set())
        if method == "PUT":
            if self.join is not None and token != self.join and token not in known:
                return 401, {}
            given = self.first_token
            self.tokens[node] = known | {token} | ({given} if given else set())
            body = {
                "node_id": node,
                "cluster_id": self.cluster,
                "heartbeat_seconds": self.period,
                "policy_version": self.policy["version"],
            }
            return 200, {**body, **({"token": given} if given else {})}
        if node not in self.tokens:
            return 404, {}
        if token not in known:
            return 401, {}
        if method == "DELETE":
            del self.tokens[node]
            return 204, None
        if method == "GET" and parts[3:] == ["policy"]:
            return 200, self.policy
        if method == "POST" and parts[3:] == ["heartbeat"]:
            self.nodes[node] = message
            body = {"node_id": node, "heartbeat_seconds": self.period}
            body["policy_version"] = self.policy["version"]
            if self.rotation and token != self.rotation:
                known.add(self.rotation)
                body["token"] = self.rotation
            elif self.rotation:  # the new one is in use: no other is valid any more
                self.tokens[node] = {self.rotation}
            return 200, body
        return 405, {}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], controller: Controller, context: ssl.SSLContext
    ) -> None:
        super().__init__(address, Handler)
        self.controller = controller
        self.context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        """On the request's own thread: who does not speak TLS holds up nobody else."""
        trick = self.controller.trick
        if trick is silent:
            self.controller.requests += 1
            self.controller.ended.wait(30)
            return
        request.settimeout(10)
        with (
            contextlib.suppress(OSError),
            self.context.wrap_socket(request, server_side=True) as secured,
        ):
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # who is gone, is gone
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do(self) -> None:
        controller = self.server.controller
        controller.requests += 1
        if controller.trick is not None:
            controller.trick(self)
            return
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        message = json.loads(text) if text else None
        status, body = controller.answer(self.command, self.path, token, message)
        if status in (200, 204):
            controller.heard.append((self.command, self.path, token, message))
        self.say(status, b"" if body is None else json.dumps(body).encode())

    do_GET = do_PUT = do_POST = do_DELETE = do  # noqa: N815

    def say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        if __name__ == "__main__":
            super().log_message(format, *args)


def silent(handler: Handler) -> None:
    """Takes the connection, and says nothing, not even of TLS."""


def hanging(handler: Handler) -> None:
    """Takes the request, and does not answer."""
    handler.server.controller.ended.wait(30)


def dripping(handler: Handler) -> None:
    """Answers, one byte now and then."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not handler.server.controller.ended.wait(0.05):
        handler.wfile.write(b"x")


def failing(handler: Handler) -> None:
    handler.say(500, b"out of order\r\nX-Split: 1\x1b[31m")


def redirecting(handler: Handler) -> None:
    port = handler.server.controller.port
    handler.say(307, b"", Location=f"https://127.0.0.1:{port}/elsewhere")


def huge(handler: Handler) -> None:
    """A body without an end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not handler.server.controller.ended.is_set():
        handler.wfile.write(b" " * 65536)


def headers(handler: Handler) -> None:
    """Headers without an end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.server.controller.ended.is_set():
        handler.wfile.write(b"X: " + b"x" * 60000 + b"\r\n")


def promising(handler: Handler) -> None:
    """Promises more than it sends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")


def closing(handler: Handler) -> None:
    """Goes away without a word."""


def gibberish(handler: Handler) -> None:
    handler.wfile.write(b"\x00\xff" * 100)


def body(text: bytes) -> Trick:
    """Says 200 with this body."""

    def say(handler: Handler) -> None:
        handler.say(200, text)

    return say


def echoing(handler: Handler) -> None:
    """Says the token, which must not be repeated."""
    handler.say(401, (handler.headers.get("Authorization") or "").encode())


TRICKS: dict[str, Trick] = {
    "failing": failing,
    "redirecting": redirecting,
    "huge": huge,
    "headers": headers,
    "promising": promising,
    "closing": closing,
    "gibberish": gibberish,
    "no JSON": body(b"<html>It works!</html>"),
    "empty": body(b""),
    "no UTF-8": body(b'{"node_id": "\xff\xfe"}'),
    "other JSON": body(b'["node_id", "cluster_id"]'),
    "deep": body(b"[" * 50_000),
    "types": body(b'{"node_id": 1, "cluster_id": {}, "heartbeat_seconds": "often"}'),
    "another node": body(b'{"node_id": "another", "cluster_id": "CLU-1"}'),
    "no time": body(b'{"node_id": "n", "cluster_id": "CLU-1", "heartbeat_seconds": 0}'),
    "ages": body(b'{"node_id": "n", "cluster_id": "CLU-1", "heartbeat_seconds": 1e308}'),
    "token": body(b'{"node_id": "n", "cluster_id": "CLU-1", "token": "a\\r\\nX-Evil: 1"}'),
    "line": body(b'{"node_id": "n", "cluster_id": "CLU-1", "token": "a\\n"}'),
    "version": body(b'{"node_id": "n", "cluster_id": "CLU-1", "policy_version": -1}'),
    "cluster": body(b'{"node_id": "n", "cluster_id": "\\u001b[31m"}'),
}


def main(port: str, directory: str) -> None:
    with Controller(int(port)) as controller:
        controller.join = "join"
        print(f"https://{controller.address}, authority {controller.write_ca(Path(directory))}")
        while True:
            time.sleep(10)
            for node, beat in controller.nodes.items():
                print(f"{socket.gethostname()} hears {node}: {json.dumps(beat)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
