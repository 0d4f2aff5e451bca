"""HTTPS to a controller that may be away, slow or not what it says: one request a connection, and
bounds on all of it. Loaded only where there is a controller.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import select
import socket
import ssl
import time
from typing import Any

from .. import __version__
from ..config import MASK, ConfigError

#: Seconds for a connection and for TLS, each, and for a request and its whole answer.
CONNECT = 5.0
ANSWER = 10.0
#: Bytes of an answer's body, of all of it, and of what of it is shown.
LARGEST = 64 << 10
WHOLE = 256 << 10
SHOWN = 200


class Trouble(OSError):  # noqa: N818  # says what is the case
    """There is no answer, or none that can be used; one line that says why, without secrets."""


class Refused(Trouble):
    """The controller has answered, with a status that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; an IPv6 address stands in brackets. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]") and ":" in host:
        host = host[1:-1]
    elif ":" in host:
        host = ""
    fits = host.isascii() and all(letter.isalnum() or letter in ".-_:%" for letter in host)
    if not (host and colon and fits and port.isascii() and port.isdigit() and len(port) < 6):
        host = ""
    if not host or not 0 < int(port) < 65536:
        raise ConfigError(
            "the controller's address is HOST:PORT, such as esnode-master-01:7443 or"
            " [2001:db8::1]:7443, without https:// and without a path"
        )
    return host, int(port)


class Untrusted(Trouble):
    """The controller's certificate is not accepted."""


class Wire:
    """Asks one server. Raises ConfigError for an address or a file of authorities that cannot be
    used."""

    def __init__(self, server: str, ca_file: str | None = None) -> None:
        self.server = server
        self.host, self.port = address(server)
        try:
            self.context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:  # of ssl, too
            raise ConfigError(
                f"the controller's authorities, {ca_file}, cannot be read: {cause(error)}"
            ) from None
        self._connection: socket.socket | None = None
        self._closed = False

    def close(self) -> None:
        """Ends what is under way, from another thread, as far as that is possible."""
        self._closed = True
        if (connection := self._connection) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def ask(self, method: str, path: str, token: str | None, body: bytes | None = None) -> bytes:
        """The body of an answer that says 200 or 204. Raises Trouble."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.server}",
            f"User-Agent: esnode-core/{__version__}",
            "Accept: application/json",
            "Connection: close",
            *([f"Authorization: Bearer {token}"] if token else []),
            *(["Content-Type: application/json"] if body is not None else []),
            *([f"Content-Length: {len(body or b'')}"] if method != "GET" else []),
        ]
        connection = None
        try:
            connection = self._connected()
            end = time.monotonic() + ANSWER
            connection.settimeout(ANSWER)
            connection.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))
            response = http.client.HTTPResponse(_File(connection, end))  # type: ignore[arg-type]
            response.begin()
            if response.status not in (200, 204):
                self._refuse(response, token)
            text = response.read(LARGEST + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, Trouble):
                raise
            untrusted = isinstance(error, ssl.SSLCertVerificationError)
            raise (Untrusted if untrusted else Trouble)(self._explained(error)) from None
        finally:
            self._connection = None
            if connection is not None:
                connection.close()
        if len(text) > LARGEST:
            raise Trouble(f"{self.server} answers with more than {LARGEST >> 10} KiB")
        if response.length:
            raise Trouble(f"{self.server} broke off its answer")
        return text

    def _connected(self) -> socket.socket:
        if self._closed:
            raise Trouble("given up")
        plain = socket.create_connection((self.host, self.port), CONNECT)
        self._connection = plain
        try:
            plain.settimeout(CONNECT)
            secured = self.context.wrap_socket(
                plain, server_hostname=self.host, do_handshake_on_connect=False
            )
        except BaseException:
            plain.close()
            raise
        self._connection = secured
        try:
            shake(secured, time.monotonic() + CONNECT)
        except BaseException:
            secured.close()
            raise
        return secured

    def _refuse(self, response: http.client.HTTPResponse, token: str | None) -> None:
        """Raises Refused, with what the server says of it."""
        status = response.status
        if 300 <= status < 400:
            raise Refused(status, f"{self.server} answers HTTP {status}: it sends us elsewhere,"
                                  " which is not followed")  # fmt: skip
        text = response.read(4 * SHOWN).decode(errors="replace").partition("\n")[0]
        if token:  # which it may send back
            text = text.replace(token, MASK)
        said = "".join(letter for letter in text if letter.isprintable())[:SHOWN].strip()
        said = said or http.client.responses.get(status, "")
        raise Refused(status, f"{self.server} answers HTTP {status} {said}".rstrip())

    def _explained(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {self.server} is not accepted ({cause(error)}): name its"
                " authority with --ca-file, or with managed_ca_file in the configuration"
            )
        if isinstance(error, TimeoutError):
            return f"{self.server} does not answer in time"
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return f"{self.server} does not speak TLS as we do ({cause(error)})"
        if isinstance(error, socket.gaierror):
            return f"{self.host} cannot be looked up ({cause(error)})"
        if isinstance(error, (http.client.IncompleteRead, http.client.RemoteDisconnected)):
            return f"{self.server} broke off its answer"
        if isinstance(error, (http.client.HTTPException, ValueError)):
            return f"{self.server} does not speak HTTP ({type(error).__name__})"
        return f"{self.server} cannot be reached ({cause(error)})"


def shake(connection: ssl.SSLSocket, end: float) -> None:
    """TLS's handshake, until a point in time: its own limit is for each of its steps."""
    connection.settimeout(0)
    while True:
        try:
            connection.do_handshake()
            return
        except ssl.SSLWantReadError:
            wait(connection, end, "read")
        except ssl.SSLWantWriteError:
            wait(connection, end, "write")


def wait(connection: socket.socket, end: float, way: str) -> None:
    """Waits until a connection can be read or written. Raises TimeoutError."""
    poll = select.poll()
    poll.register(connection, select.POLLIN if way == "read" else select.POLLOUT)
    left = end - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError


def cause(error: Exception) -> str:
    """What has gone wrong, in the words of the system or of OpenSSL."""
    text = getattr(error, "verify_message", "") or getattr(error, "reason", "")
    text = text or getattr(error, "strerror", "") or str(error) or type(error).__name__
    return "".join(letter if letter.isprintable() else " " for letter in str(text))[:SHOWN]


class _Answer(io.RawIOBase):
    """The bytes of a connection, until a point in time however slowly they come."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        self.connection = connection
        self.end = end
        self.left = WHOLE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        size = self.connection.recv_into(buffer)
        self.left -= size
        if self.left < 0:
            raise ValueError
        return size


class _File:
    """What http.client takes for a connection."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        self.answer = _Answer(connection, end)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self.answer)
