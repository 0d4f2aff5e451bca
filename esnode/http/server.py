"""Granian's embedded server: the only place that knows it, with tls.py."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import resource
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from granian._granian import CallbackScheduler, SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server import embed

from ..config import spell_address
from . import outlet
from .app import Application
from .response import Response

if TYPE_CHECKING:  # loaded only where there is a web configuration
    from ..web import Tls, Web
    from .tls import Files
    from .watch import Watch

log = logging.getLogger(__name__)

#: Thousands of clients that connect and say nothing must not keep a scraper out.
CONNECTIONS = 8192
#: The part of the descriptors that they get: half are for files of devices, some for other files.
#: An agent that clients leave none can read nothing, and granian asks for one in a loop.
SHARE = 3 / 8
#: Milliseconds in which a request's header must arrive. The time between two requests counts as
#: well, so this is more than a minute, a scraper's longest usual interval.
HEADER_TIMEOUT = 75_000
#: How often a taken address is tried.
ATTEMPTS = 3
#: Seconds that connected clients get at the end.
GRACE = 0.5
#: Seconds that a TLS handshake may take, granian's own limit and some more.
HANDSHAKE = 11.0


class AddressError(Exception):
    """The address cannot be listened on."""


def listen(host: str, port: int, mode: int = 0o660) -> socket.socket:
    """A socket that listens on an address. Raises AddressError.

    A host that begins with a slash is the path of a unix socket, and ``mode`` its file's.

    It is ours rather than granian's, which sets SO_REUSEPORT: a second instance would share the
    port. With SO_REUSEADDR, or a restart would fail while old connections are in TIME_WAIT.
    """
    shown = spell_address(host, port)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if host.startswith("/"):
                from .unix import Listener

                return Listener(host, mode, CONNECTIONS)
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


def room() -> int:
    """Connections at once; another one waits until one has ended."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return CONNECTIONS if limit == resource.RLIM_INFINITY else min(CONNECTIONS, int(limit * SHARE))


def exposed(listener: socket.socket) -> bool:
    """Whether others than this machine can reach a listener."""
    if listener.family == socket.AF_UNIX:
        return False
    address: str = listener.getsockname()[0]
    return not address.startswith("127.") and address != "::1"


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
                headers = headers + application.headers
                if isinstance(body, Path):
                    if request.method == "HEAD":
                        protocol.response_empty(status, headers)
                    else:
                        protocol.response_file(status, headers, str(body))
                elif callable(body):
                    body(outlet.opened(protocol, request, status, headers))
                elif request.method == "HEAD":
                    length = ("content-length", str(len(body)))
                    protocol.response_empty(status, [*headers, length])
                else:
                    protocol.response_bytes(status, headers, body)
                watcher.done()

            application(request, respond)

        self._schedule_fn = schedule


class Door:
    """One server of granian's on our listener. It shares the listener with the next one."""

    def __init__(self, application: Application, listener: socket.socket, tls: Tls | None) -> None:
        hook: Any = embed  # granian has no public way to choose the scheduler
        hook._new_cbscheduler = lambda loop, *_, **__: Scheduler(
            loop, application, None, None, None
        )
        server: Any = embed.Server(
            application,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            blocking_threads=1,
            runtime_threads=1,
            backlog=CONNECTIONS,
            backpressure=room(),
            http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT),
            log_enabled=False,
        )
        # Not socket.dup(), which may have both of them block.
        self.descriptor = os.dup(listener.fileno())
        self.identity = os.fstat(self.descriptor).st_ino
        is_unix = listener.family == socket.AF_UNIX

        def take() -> None:
            holder: Any = SocketHolder  # its stub has no arguments
            server._shd = holder(self.descriptor, is_unix, CONNECTIONS)

        server._init_shared_socket = take  # granian has no public way to hand it a socket either
        self.files: Files | None = None
        if tls is not None:
            from .tls import Files

            self.files = Files(tls)
            server.ssl_ctx = self.files.context
        self.server = server
        self.serving = asyncio.ensure_future(server.serve())

    async def open(self) -> None:
        """Waits until it has read what it needs."""
        if self.files is not None:
            for _ in range(self.files.turns):
                await asyncio.sleep(0)
            self.files.close()

    def _is_ours(self) -> bool:
        """Whether the descriptor is still the listener's; granian closes it at its end."""
        try:
            return os.fstat(self.descriptor).st_ino == self.identity
        except OSError:
            return False

    async def leave(self) -> None:
        """Takes no more connections, sees to those it has, and ends.

        It would break off handshakes that are under way if it were told to stop at once. So its
        descriptor becomes that of another listener, to which nobody comes, until they are over.
        """
        if not self.serving.done() and self._is_ours():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
                silent.bind("")  # any free name, which is in no directory
                silent.listen(0)
                silent.setblocking(False)
                os.dup2(silent.fileno(), self.descriptor, inheritable=False)
            await asyncio.wait((self.serving,), timeout=HANDSHAKE)
        self.stop()
        await asyncio.wait((self.serving,))

    def stop(self) -> None:
        if not self.serving.done():
            self.server.stop()


async def serve(
    application: Application,
    listener: socket.socket,
    stop: asyncio.Event,
    watch: Watch | None = None,
) -> None:
    """Serves until ``stop`` is set, and closes the listener."""
    doors: list[Door] = []
    leaving: list[asyncio.Future[None]] = []
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    tls = None

    def renew(found: Web) -> None:
        application.protect(found)
        loop.call_soon_threadsafe(changed.set)

    try:
        if watch is not None:
            tls = watch.web.tls
            application.protect(watch.web)
            watch.start(renew)
            if application.access and tls is None and exposed(listener):
                log.warning(
                    "%s: credentials go over the network unencrypted; set tls_server_config",
                    watch.path,
                )
        doors.append(Door(application, listener, tls))
        await doors[0].open()
        while not (stop.is_set() or doors[-1].serving.done()):
            waits = [asyncio.ensure_future(event.wait()) for event in (stop, changed)]
            await asyncio.wait((*waits, doors[-1].serving), return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            changed.clear()
            if stop.is_set() or watch is None or watch.web.tls == tls:
                continue
            tls = watch.web.tls
            door = Door(application, listener, tls)
            await door.open()
            leaving.append(asyncio.ensure_future(doors[-1].leave()))
            doors = [*(door for door in doors if not door.serving.done()), door]
            log.info("new connections get the new certificate" if tls else "TLS is off now")
    finally:
        if watch is not None:
            watch.stop()
        application.stop()
        for door in doors:
            door.stop()
        if doors:
            await asyncio.wait([door.serving for door in doors], timeout=GRACE)
        for leave in leaving:
            leave.cancel()
        listener.close()
    if doors[-1].serving.done():
        doors[-1].serving.result()
    else:
        log.debug("clients were still connected %s s after the end", GRACE)
