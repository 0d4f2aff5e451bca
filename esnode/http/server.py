"""Granian's embedded server: the only place that knows it."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

log = logging.getLogger(__name__)

#: Thousands of clients that connect and say nothing must not keep a scraper out.
CONNECTIONS = 8192
#: Milliseconds in which a request's header must arrive.
HEADER_TIMEOUT = 3000
#: Seconds that open connections get at the end.
GRACE = 0.5


class AddressError(Exception):
    """The address cannot be listened on."""


def resolve(host: str, port: int) -> str:
    """The numeric address of a host that is free to listen on. Raises AddressError.

    Granian shares a port that another process listens on, so the port is tried first: with
    SO_REUSEADDR, or a restart would fail as long as old connections are in TIME_WAIT.
    """
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise AddressError(f"cannot listen on {shown}: {error.strerror}") from None
    return str(address[0])


async def serve(application: Any, address: str, port: int, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set."""
    server = Server(
        application,
        address,
        port,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        websockets=False,
        blocking_threads=1,
        runtime_threads=1,
        backlog=CONNECTIONS,
        backpressure=CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT),
        log_enabled=False,
    )
    server.workers_kill_timeout = GRACE
    serving = asyncio.ensure_future(server.serve())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        server.stop()
    await serving
