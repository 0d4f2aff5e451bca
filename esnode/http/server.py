"""Granian's embedded server: the only place that knows it."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import socket
import time
from pathlib import Path
from typing import Any

from granian._granian import CallbackScheduler, SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server import embed

from .app import Application
from .response import Response

log = logging.getLogger(__name__)

#: Thousands of clients that connect and say nothing must not keep a scraper out.
CONNECTIONS = 8192
#: Milliseconds in which a request's header must arrive. The time between two requests counts as
#: well, so this is more than a minute, a scraper's longest usual interval.
HEADER_TIMEOUT = 75_000
#: How often a taken address is tried.
ATTEMPTS = 3
#: Seconds that connected clients get at the end.
GRACE = 0.5


class AddressError(Exception):
    """The address cannot be listened on."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address. Raises AddressError.

    It is ours rather than granian's, which sets SO_REUSEPORT: a second instance would share the
    port. With SO_REUSEADDR, or a restart would fail while old connections are in TIME_WAIT.
    """
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _listener(host, port)
        except UnicodeError:
            raise AddressError(f"cannot listen on {shown}: it is no name of a host") from None
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            if not taken or attempt == ATTEMPTS:
                reason = "the address is taken by another process" if taken else error.strerror
                raise AddressError(f"cannot listen on {shown}: {reason}") from None
        # Of two that listen in the same moment the kernel refuses both: not again at once.
        time.sleep(random.uniform(0.01, 0.1))
    raise AssertionError("the last attempt returns or raises")


def _listener(host: str, port: int) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(CONNECTIONS)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class Scheduler(CallbackScheduler):
    """Hands requests to the application on granian's own thread for Python.

    Granian would start an asyncio task for each instead, which costs a wake-up of the loop's
    thread: half of what answering a scrape costs.
    """

    def __init__(self, loop: Any, application: Application, *unused: None) -> None:
        super().__init__()

        def schedule(watcher: Any) -> None:
            request, protocol = watcher.scope, watcher.proto

            def respond(response: Response) -> None:
                status, headers, body = response
                if isinstance(body, Path):
                    if request.method == "HEAD":
                        protocol.response_empty(status, headers)
                    else:
                        protocol.response_file(status, headers, str(body))
                elif request.method == "HEAD":
                    length = ("content-length", str(len(body)))
                    protocol.response_empty(status, [*headers, length])
                else:
                    protocol.response_bytes(status, headers, body)
                watcher.done()

            application(request, respond)

        self._schedule_fn = schedule


async def serve(application: Application, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set."""
    hook: Any = embed  # granian has no public way to choose the scheduler
    hook._new_cbscheduler = lambda loop, *_, **__: Scheduler(loop, application, None, None, None)
    server: Any = embed.Server(
        application,
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

    def take() -> None:
        holder: Any = SocketHolder  # its stub has no arguments
        server._shd = holder(listener.detach(), False, CONNECTIONS)

    server._init_shared_socket = take  # granian has no public way to hand it a socket either
    serving = asyncio.ensure_future(server.serve())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    application.stop()
    if not serving.done():
        server.stop()
    try:
        await asyncio.wait_for(serving, GRACE)
    except asyncio.TimeoutError:
        log.debug("clients were still connected %s s after the end", GRACE)
