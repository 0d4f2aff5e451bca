"""A thin HTTP client for a running agent, on the standard library.

A request costs at most 2 s for the connection and 2 s for the whole answer, whatever the other end
does. Credentials come from the environment only: neither output nor process lists show them.
"""

from __future__ import annotations

import base64
import http.client
import io
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from . import __version__
from .config import Config, ConfigError, parse_address, spell_address

#: Seconds for a connection, TLS included, and for an answer.
CONNECT = 2.0
ANSWER = 2.0
#: Seconds without a byte, keep-alive comments included, after which a stream counts as dead.
IDLE = 60.0
#: Bytes of an answer, and of a line of a stream.
LARGEST = 64 << 20
LINE = 4 << 20
PORT = 9100

#: Variables of the environment: where the agent is, and what it asks for.
URL = "ESNODE_CLIENT_URL"
TOKEN = "ESNODE_CLIENT_TOKEN"
USER = "ESNODE_CLIENT_USER"
CA = "ESNODE_CLIENT_CA"
CERT = "ESNODE_CLIENT_CERT"

ELSEWHERE = (
    "name the running agent's address with --listen-address before the command,"
    f" or its URL with --url or {URL}"
)


class NoAnswer(OSError):  # noqa: N818  # says what is the case
    """No agent, or none that answers as it should; one line that says what to do."""


class Absent(NoAnswer):
    """Nobody listens there."""


class Refused(NoAnswer):
    """The agent answered, with another status than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Target(NamedTuple):
    """Where an agent is: a host and port, or the path of a unix socket."""

    host: str
    port: int = 0
    unix: str = ""
    secure: bool = False

    @property
    def shown(self) -> str:
        return spell_address(self.unix or self.host, self.port)


def target(text: str) -> Target:
    """What a listen address or a URL names; an address that means all of them is its loopback.
    Raises ConfigError, which does not repeat a URL: it may hold a password."""
    if text.startswith("unix:"):
        if not text[5:].startswith("/") or "\0" in text:
            raise ConfigError("a unix socket is named as unix:/path")
        return Target("localhost", unix=text[5:])
    wanted = "a URL such as https://gpu-node-01:9100, or unix:/path"
    try:
        if "://" not in text:
            host, port = parse_address(text)
            return Target(_reachable(host), port)
        parts = urlsplit(text)
        host, given = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError(f"the agent's address is {wanted}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"the agent's URL has no credentials: set {TOKEN} or {USER}")
    if parts.scheme not in ("http", "https") or parts.path not in ("", "/") or not host:
        raise ConfigError(f"the agent's address is {wanted}")
    if parts.query or parts.fragment or not host.isprintable() or " " in host:
        raise ConfigError(f"the agent's address is {wanted}")
    return Target(_reachable(host), given or PORT, secure=parts.scheme == "https")


def _reachable(host: str) -> str:
    for family, loopback in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            if not any(socket.inet_pton(family, host)):
                return loopback
        except OSError:
            continue
    return host


def authorization(environ: Mapping[str, str]) -> dict[str, str]:
    """The header that carries the environment's credentials. Raises ConfigError."""
    token, user = environ.get(TOKEN, ""), environ.get(USER, "")
    if token and user:
        raise ConfigError(f"{TOKEN} and {USER} exclude each other: unset one")
    for name, secret in ((TOKEN, token), (USER, user)):
        if not secret.isprintable() or (not secret.isascii() and name == TOKEN):
            raise ConfigError(f"{name}: has characters that cannot be sent")
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user:
        if ":" not in user:
            raise ConfigError(f"{USER}: allowed is user:password")
        return {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
    return {}


def tls(environ: Mapping[str, str], known: bytes | None = None) -> ssl.SSLContext:
    """Whom to trust, and who we are: the authorities of a file; else the certificate that is known
    to be the agent's, whatever name it is called by; else the system's authorities. Raises
    ConfigError."""
    authorities, own = environ.get(CA) or None, environ.get(CERT)
    try:
        if authorities is None and known is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.load_verify_locations(cadata=known.decode("ascii", "replace"))
        else:
            context = ssl.create_default_context(cafile=authorities)
    except (OSError, ValueError) as error:  # of ssl, too
        raise ConfigError(f"{CA}: {authorities}: {_cause(error)}") from None
    if own:
        try:
            context.load_cert_chain(own, password="")  # else it would ask the terminal for one
        except OSError as error:
            raise ConfigError(f"{CERT}: {own}: {_cause(error)}; it is a file of PEM with the"
                              " certificate and its key, without a password") from None  # fmt: skip
    return context


def _cause(error: Exception) -> str:
    """What has gone wrong, in the words of the system or of OpenSSL."""
    text = getattr(error, "verify_message", "") or getattr(error, "reason", "")
    text = text or getattr(error, "strerror", "") or str(error) or type(error).__name__
    return "".join(letter if letter.isprintable() else " " for letter in str(text))[:200]


class Message(NamedTuple):
    """One event of a stream: its id, its kind, and its data, a line of JSON."""

    id: str
    kind: str
    data: bytes


def local(config: Config, environ: Mapping[str, str] = os.environ) -> Client:
    """A client of the agent that has a configuration, with what its web configuration tells whoever
    may read that: its certificate, and a token. Raises ConfigError."""
    where = target(config.listen_address)
    path = config.web_config_file
    if not path:
        return Client(where, environ)
    from . import web  # which few need

    try:
        found = web.load(path)
    except ConfigError as error:
        return Client(where, environ, hint=f"its web configuration is not for us to read: {error}")
    credentials = dict(environ)
    if found.tokens and not environ.get(TOKEN) and not environ.get(USER):
        credentials[TOKEN] = found.tokens[0]
    known = found.tls.certificate if found.tls else None
    return Client(where._replace(secure=found.tls is not None), credentials, known)


class Client:
    """Asks one agent. What goes wrong is NoAnswer."""

    def __init__(
        self,
        agent: Target,
        environ: Mapping[str, str] = os.environ,
        known: bytes | None = None,
        hint: str = "",
    ) -> None:
        """Raises ConfigError for credentials or certificates that cannot be used. ``known`` is the
        agent's certificate; ``hint`` is said, too, where the agent does not take us."""
        self.agent = agent
        self.hint = f"; {hint}" if hint else ""
        self.headers = {
            "Host": "localhost" if agent.unix else agent.shown,
            "User-Agent": f"esnode-core/{__version__}",
            "Connection": "close",
            **authorization(environ),
        }
        self.context = tls(environ, known) if agent.secure else None
        #: Milliseconds that a stream asks clients to wait before they come back.
        self.retry = 1000

    def get(self, path: str) -> bytes:
        """The body of a page."""
        with self._asked(path) as (response, _):
            length = response.length
            body = b"" if (length or 0) > LARGEST else response.read(LARGEST + 1)
            if max(len(body), length or 0) > LARGEST:
                raise http.client.HTTPException(f"an answer of more than {LARGEST >> 20} MiB")
            if length is not None and len(body) < length:
                raise http.client.IncompleteRead(b"")
            return body

    def events(
        self, path: str, last: str = "", opened: Callable[[], object] = lambda: None
    ) -> Iterator[Message]:
        """The events of a stream until it ends, after the id ``last``; ``opened`` is called when
        the agent has begun to answer."""
        more = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        with self._asked(path, more) as (response, answer):
            answer.idle = IDLE
            opened()
            kind = "message"
            data: list[bytes] = []
            while line := response.readline(LINE):
                if not line.endswith(b"\n"):
                    raise http.client.HTTPException("a line without an end")
                text = line.rstrip(b"\r\n")
                if not text:
                    if data:
                        yield Message(last, kind, b"\n".join(data))
                    kind, data = "message", []
                    continue
                field, _, value = text.partition(b":")
                value = value.removeprefix(b" ")
                if field == b"data":
                    data.append(value)
                elif field == b"event":
                    kind = value.decode(errors="replace")
                elif field == b"id" and value.isdigit():
                    last = value.decode()
                elif field == b"retry" and value.isdigit():
                    self.retry = int(value[:9])

    @contextmanager
    def _asked(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[tuple[http.client.HTTPResponse, _Answer]]:
        """The response to a request, whose body is still to be read."""
        connection = self._connected()
        try:
            lines = [f"GET {path} HTTP/1.1"]
            lines += [
                f"{key}: {value}" for key, value in {**self.headers, **(headers or {})}.items()
            ]
            answer = _Answer(connection, time.monotonic() + ANSWER)
            connection.settimeout(ANSWER)
            connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            response = http.client.HTTPResponse(_File(answer))  # type: ignore[arg-type]
            response.begin()
            if response.status != 200:
                self._refused(path, response)
            yield response, answer
        except NoAnswer:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(self._explained(error)) from None
        finally:
            connection.close()

    def _explained(self, error: Exception) -> str:
        """What has gone wrong while the agent answered, and what to do."""
        where = self.agent.shown
        if isinstance(error, TimeoutError):
            return (
                f"the agent on {where} did not answer within {ANSWER:g} s: it hangs, or the node"
                " is too busy; see its log"
            )
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return self._untrusted(error)
        if isinstance(error, (OSError, http.client.IncompleteRead, http.client.RemoteDisconnected)):
            asks = f", or it asks for a certificate ({CERT})" if self.agent.secure else ""
            return (
                f"the agent on {where} broke off its answer: it has just ended{asks}, or it is no"
                f" esnode-core: see its log, or {ELSEWHERE}{self.hint}"
            )
        if "\x15\x03" in str(error) and not self.agent.secure:  # a record with an alert
            return (
                f"the agent on {where} speaks TLS: name its URL, https://..., with --url or"
                f" {URL}{self.hint}"
            )
        return (
            f"what answers on {where} does not speak as esnode-core does"
            f" ({_cause(error)[:80]}): {ELSEWHERE}{self.hint}"
        )

    def _refused(self, path: str, response: http.client.HTTPResponse) -> None:
        status = response.status
        if status == 401:
            raise Refused(
                status,
                f"the agent on {self.agent.shown} does not admit us: set {TOKEN} to its token,"
                f" or {USER} to user:password{self.hint}",
            )
        text = response.read(400).decode(errors="replace").partition("\n")[0]
        said = "".join(letter for letter in text if letter.isprintable())[:200]
        page = path.partition("?")[0]
        raise Refused(
            status,
            f"the agent on {self.agent.shown} answers {page} with {status}"
            f" {said or http.client.responses.get(status, '')}".rstrip(),
        )

    def _connected(self) -> socket.socket:
        """A connection. Raises NoAnswer."""
        end = time.monotonic() + CONNECT
        where = self.agent.shown
        cause: OSError | None = None
        for family, address in self._addresses():
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(max(end - time.monotonic(), 0.001))
                connection.connect(address)
                if self.context is None:
                    return connection
                connection.settimeout(max(end - time.monotonic(), 0.001))
                return self.context.wrap_socket(connection, server_hostname=self.agent.host)
            except ssl.SSLError as error:
                connection.close()
                raise NoAnswer(self._untrusted(error)) from None
            except OSError as error:
                connection.close()
                cause = error
        if isinstance(cause, TimeoutError):
            raise NoAnswer(
                f"{where} did not take the connection within {CONNECT:g} s: the agent hangs, or"
                f" another one is meant: {ELSEWHERE}"
            )
        if isinstance(cause, PermissionError):
            raise NoAnswer(
                f"{where}: {cause.strerror}: run this as root, or as a user who may open it"
            )
        said = _cause(cause) if cause else "no address"
        raise Absent(f"no agent answers on {where} ({said}): start one, or {ELSEWHERE}")

    def _addresses(self) -> list[tuple[socket.AddressFamily, Any]]:
        """Where to connect to. A name is looked up on a thread: the resolver has no limit."""
        if self.agent.unix:
            return [(socket.AF_UNIX, self.agent.unix)]
        found: list[Any] = []
        failed: list[str] = []

        def look() -> None:
            try:
                found.extend(
                    socket.getaddrinfo(self.agent.host, self.agent.port, type=socket.SOCK_STREAM)
                )
            except (OSError, UnicodeError) as error:
                failed.append(_cause(error))

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(CONNECT)
        if not found:
            said = failed[0] if failed else f"not within {CONNECT:g} s"
            raise NoAnswer(f"{self.agent.host}: cannot be looked up ({said}): {ELSEWHERE}")
        return [(family, address) for family, _, _, _, address in found]

    def _untrusted(self, error: ssl.SSLError) -> str:
        where, said = self.agent.shown, _cause(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"the certificate of the agent on {where} is not accepted ({said}): name its"
                f" authority with {CA}, and the agent as its certificate does with --url"
            )
        return (
            f"no TLS with the agent on {where} ({said}): use an http:// URL if it has none, and"
            f" {CERT} if it asks for a certificate"
        )


class _Answer(io.RawIOBase):
    """The bytes of a connection, until a point in time or, with ``idle``, while some come."""

    def __init__(self, connection: socket.socket, end: float) -> None:
        self.connection = connection
        self.end = end
        self.idle: float | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.end - time.monotonic() if self.idle is None else self.idle
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class _File(NamedTuple):
    """What http.client takes for a socket."""

    answer: _Answer

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self.answer, 1 << 16)
