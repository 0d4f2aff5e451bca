"""Where a stream without an end is written to, with no more waiting than one message.

What granian 2.8 is sent for a client goes into a queue without a bound, and the sending is done at
once. So it is given a message only when the kernel has room for it in the client's own socket:
then its queue is empty. Which descriptor that socket is granian does not say: it is found by the
client's address. A client that has none, on a unix socket, is written to through a pipe, which
granian reads no faster than the client does, with a thread for each. Of such an answer granian does
not say that its client has gone: it shows when it is sent something.
"""

from __future__ import annotations

import math
import os
import select as polling
import socket
import threading
import time
from collections.abc import Callable
from fcntl import ioctl
from struct import unpack
from termios import FIONREAD
from typing import Any

from .._fast import peer
from .response import Gone, Headers, Outlet, Request

#: Bytes that the kernel keeps for a client that does not take them; it doubles them for its own
#: needs. Left to itself it would take some megabytes for each.
BUFFER = 1 << 16
#: Milliseconds in which a client's host acknowledges what it was sent, or is gone; see tcp(7).
UNANSWERED = 60_000
#: Seconds in which a pipe is to be written to.
PULSE = 1.0
#: Seconds after which a pipe that nobody reads has no client: it went before granian opened it.
OPENING = 10.0


def opened(protocol: Any, request: Request, status: int, headers: Headers) -> Outlet:
    """Begins an answer that is a stream. Raises OSError where it cannot."""
    address = _peer(request)
    fd = peer.find(*address) if address else -1
    if address is None or fd < 0:
        return Pipe(protocol, status, headers)
    connection = socket.socket(fileno=fd)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED)
    finally:
        connection.detach()
    return Socket(protocol, status, headers, fd, address)


def _peer(request: Request) -> tuple[bytes, int, int] | None:
    """(address, port, our port) of a client; None on a unix socket."""
    host, _, port = request.client.rpartition(":")
    local = request.server.rpartition(":")[2]
    if not (host and local.isdecimal()):
        return None
    if host.startswith("["):
        family, host = socket.AF_INET6, host[1:-1].partition("%")[0]
    else:
        family = socket.AF_INET
    return socket.inet_pton(family, host), int(port), int(local)


class Socket:
    """A client whose socket is known."""

    pulse = math.inf

    def __init__(
        self,
        protocol: Any,
        status: int,
        headers: Headers,
        fd: int,
        address: tuple[bytes, int, int],
    ) -> None:
        self._fd = fd
        self._address = address
        self._poll = polling.poll()
        self._poll.register(fd, polling.POLLOUT)
        self._protocol = protocol
        self._transport = protocol.response_stream(status, headers)

    def watch(self, gone: Callable[[], None]) -> None:
        future = self._protocol.client_disconnect()
        future.add_done_callback(lambda _: gone(), context=None)  # on the event loop's thread
        self._protocol = None

    def ready(self) -> bool:
        # The number of a client that has gone may be another's already: then the transport knows.
        return bool(self._poll.poll(0))

    def send(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            raise Gone
        try:
            next(transport.send_bytes(data), None)  # it has been done; this asks how
        except Exception:  # granian's own is not public
            raise Gone from None

    def end(self) -> None:
        self._transport = None

    def cut(self) -> None:
        self._transport = None
        peer.shut(self._fd, *self._address)


class Pipe:
    """A client that granian reads a pipe for."""

    pulse = PULSE

    def __init__(self, protocol: Any, status: int, headers: Headers) -> None:
        self._lock = threading.Lock()
        self._rest = b""
        #: Bytes written, and since when, in monotonic seconds.
        self._written = 0
        self._since = math.inf
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._poll = polling.poll()
        self._poll.register(self._writing, polling.POLLOUT)
        # Opened by granian, by this name: until then our own end stays open.
        protocol.response_file(status, headers, f"/proc/self/fd/{self._reading}")

    def watch(self, gone: Callable[[], None]) -> None:
        pass

    def ready(self) -> bool:
        with self._lock:
            if self._writing < 0:
                return True  # it turns out when something is sent
            if self._reading >= 0 and self._held() < self._written:
                os.close(self._reading)
                self._reading = -1
            elif self._reading >= 0 and time.monotonic() - self._since > OPENING:
                self._close()
                return True
            try:
                self._write()
            except BrokenPipeError:
                return True
            return not self._rest and bool(self._poll.poll(0))

    def send(self, data: bytes) -> None:
        with self._lock:
            if self._writing < 0:
                raise Gone
            self._rest += data
            try:
                self._write()
            except BrokenPipeError:
                self._close()
                raise Gone from None

    def end(self) -> None:
        with self._lock:
            self._close()

    cut = end  # what granian holds is no more than what a pipe does

    def _close(self) -> None:
        """The lock is held."""
        for fd in (self._reading, self._writing):
            if fd >= 0:
                os.close(fd)
        self._reading = self._writing = -1

    def _held(self) -> int:
        """Bytes in the pipe."""
        size: int = unpack("i", ioctl(self._writing, FIONREAD, bytes(4)))[0]
        return size

    def _write(self) -> None:
        """Writes what there is room for. The lock is held. Raises BrokenPipeError."""
        while self._rest:
            try:
                size = os.write(self._writing, self._rest)
            except BlockingIOError:
                return
            self._written += size
            self._since = min(self._since, time.monotonic())
            self._rest = self._rest[size:]
