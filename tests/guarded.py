"""A running agent with a web configuration, and clients that know its certificate or its socket."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
from pathlib import Path

from .running import PATIENCE, Agent

#: Nothing ticks and nothing gets too old.
STILL = ("--scrape-interval", "1h", "--scrape-max-age", "1h")


def basic(user: str, password: str) -> str:
    """The value of Authorization."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Unix(http.client.HTTPConnection):
    """A client on a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Guarded(Agent):
    """An agent that serves with TLS when there is a ``context``, or on a unix socket, ``path``."""

    def __init__(
        self,
        *flags: str,
        context: ssl.SSLContext | None = None,
        path: Path | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.context = context
        self.path = path
        if path is not None:
            flags = ("--listen-address", f"unix:{path}", *flags)
        super().__init__(*STILL, *flags, host=host)

    def ready(self) -> bool:
        assert self.process.poll() is None, f"it has ended: {self.log}"
        try:
            return self.get("/healthz").status == 200
        except OSError:
            return False

    def connection(self, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        if self.path is not None:
            return Unix(str(self.path), timeout)
        if self.context is not None:
            return http.client.HTTPSConnection(
                self.host, self.port, timeout=timeout, context=self.context
            )
        return super().connection(timeout)

    def tls(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A connection after its handshake."""
        used = context or self.context
        assert used is not None
        return used.wrap_socket(self.connect(), server_hostname=self.host)
