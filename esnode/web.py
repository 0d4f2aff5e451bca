"""The web configuration: TLS, users and tokens of the HTTP server, in a YAML file.

In the manner of the Prometheus exporters' (https://prometheus.io/docs/prometheus/latest/configuration/https/),
and with ``bearer_token_file``, which those do not know. PyYAML is loaded only where there is such a
file. What cannot be done is refused, never ignored: a restriction that is written down and does not
hold is worse than none. No message shows a value that may be a secret.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from .config import ConfigError, closest

#: Bytes of a file that is read: more than any chain of certificates has.
LARGEST = 1 << 20
#: Letters of a token. It is no password that someone chose and is compared without bcrypt, so it
#: must be beyond guessing.
SHORTEST = 16
#: The costs of bcrypt that are taken: each one more doubles the time, 16 takes some 5 s.
COSTS = range(4, 16)

TLS = (
    *("cert", "cert_file", "key", "key_file", "client_ca", "client_ca_file"),
    *("client_auth_type", "min_version", "max_version"),
)
#: Keys of the exporters that are not served here, and why.
REFUSED = {
    "rate_limit": "requests are not limited; wrong passwords are, always",
    "tls_server_config.client_allowed_sans": (
        "the names in client certificates are not checked; give these clients a CA of their own"
    ),
    "tls_server_config.cipher_suites": "all suites that are offered are sound; raise min_version",
    "tls_server_config.prefer_server_cipher_suites": "all suites that are offered are sound",
    "tls_server_config.curve_preferences": "all curves that are offered are sound",
}
VERSIONS = {"TLS12": "tls1.2", "TLS13": "tls1.3"}
#: Whether a policy asks for certificates, and demands them.
POLICIES = {
    "NoClientCert": (False, False),
    "VerifyClientCertIfGiven": (True, False),
    "RequireAndVerifyClientCert": (True, True),
}
UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert")
#: Headers that may be set, and the values of those that have few.
HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": (),
    "Strict-Transport-Security": (),
}
_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


class Tls(NamedTuple):
    """What the server needs for TLS; PEM as it was read, so that all of it is of one moment."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    #: Whether a client without a certificate is turned away.
    required: bool
    minimum: str


class Web(NamedTuple):
    """A web configuration that was read and checked."""

    tls: Tls | None = None
    #: bcrypt hashes by user.
    users: dict[str, bytes] = {}  # noqa: RUF012  # never changed
    tokens: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


def load(path: str, seen: list[Path] | None = None) -> Web:
    """Reads a web configuration and the files it names. Raises ConfigError, in one line.

    The files that were looked at are added to ``seen``, also when it raises.
    """
    return _Reader(path, [] if seen is None else seen).web()


class _Reader:
    """One reading of a file; relative paths in it are relative to it."""

    def __init__(self, path: str, seen: list[Path]) -> None:
        self.path = path
        self.seen = seen

    def error(self, text: str) -> ConfigError:
        return ConfigError(f"{self.path}: {text}")

    def read(self, path: Path, name: str = "") -> bytes:
        """The bytes of a file."""
        self.seen.append(path)
        where = f"{name}: {path}: " if name else ""
        try:
            # Not blocking, and looked at before it is read: it may be a pipe that nobody fills.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise self.error(f"{where}is no regular file")
                data = file.read(LARGEST + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise self.error(f"{where}cannot be read: {reason}") from None
        if len(data) > LARGEST:
            raise self.error(f"{where}is larger than {LARGEST >> 20} MiB")
        return data

    def web(self) -> Web:
        document = self.table(self.parse(self.read(Path(self.path))), "")
        known = ("tls_server_config", "http_server_config", "basic_auth_users", "bearer_token_file")
        self.check(document, "", known)
        return Web(
            self.tls(self.table(document.get("tls_server_config"), "tls_server_config")),
            self.users(self.table(document.get("basic_auth_users"), "basic_auth_users")),
            self.tokens(self.text(document, "", "bearer_token_file")),
            self.http(self.table(document.get("http_server_config"), "http_server_config")),
        )

    def parse(self, data: bytes) -> Any:
        """The document; a key that is written twice is an error."""
        import yaml

        class Loader(yaml.SafeLoader):
            def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
                for number, (key, _) in enumerate(node.value):
                    if any(key.value == other.value for other, _ in node.value[:number]):
                        raise yaml.MarkedYAMLError(
                            problem="a key is written twice", problem_mark=key.start_mark
                        )
                return super().construct_mapping(node, deep)

        try:
            return yaml.load(data, Loader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            # Neither what surrounds the error nor what it quotes: it may be half of a password.
            problem = getattr(error, "problem", None) or "it cannot be understood"
            problem = re.sub(r"['\"].*['\"]", "…", problem)
            mark = getattr(error, "problem_mark", None)
            line = f"line {mark.line + 1}: " if mark else ""
            raise self.error(f"invalid YAML: {line}{problem}") from None

    def table(self, value: Any, name: str) -> dict[Any, Any]:
        """A mapping; what is empty is an empty one."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            where = f"{name}: " if name else ""
            raise self.error(f"{where}found {_kind(value)}, allowed is a mapping")
        return value

    def text(self, table: dict[Any, Any], section: str, name: str) -> str | None:
        """A value that is text; None when it is missing or empty."""
        value = table.get(name)
        if value is None or isinstance(value, str):
            return value or None
        raise self.error(f"{_dotted(section, name)}: found {_kind(value)}, allowed is text")

    def check(self, table: dict[Any, Any], section: str, known: Collection[str]) -> None:
        """Refuses what is unknown, and what the exporters know and this agent does not do."""
        for name in table:
            dotted = _dotted(section, str(name))
            if dotted in REFUSED:
                raise self.error(f"{dotted}: not supported: {REFUSED[dotted]}")
            if name not in known:
                raise self.error(
                    f"{dotted}: unknown key; the closest is {closest(str(name), known)},"
                    f" allowed are {', '.join(known)}"
                )

    def choice(
        self, table: dict[Any, Any], section: str, name: str, default: str, allowed: Iterable[str]
    ) -> str:
        """A value that is one of a few words."""
        value = self.text(table, section, name) or default
        if value not in allowed:
            words = ", ".join(allowed)
            raise self.error(
                f"{section}.{name}: found {value[:40]!r}, allowed is"
                f" {'one of ' if ', ' in words else ''}{words}"
            )
        return value

    def pem(self, table: dict[Any, Any], name: str) -> bytes | None:
        """PEM that stands in the file itself, or in the file named by ``name_file``."""
        section = "tls_server_config"
        inline = self.text(table, section, name)
        file = self.text(table, section, f"{name}_file")
        if inline and file:
            raise self.error(f"{section}: {name} and {name}_file exclude each other")
        if file:
            return self.read(self.relative(file), f"{section}.{name}_file")
        return inline.encode() if inline else None

    def relative(self, path: str) -> Path:
        return Path(self.path).parent / path

    def tls(self, table: dict[Any, Any]) -> Tls | None:
        section = "tls_server_config"
        if not table:
            return None
        self.check(table, section, TLS)
        policy = self.text(table, section, "client_auth_type") or "NoClientCert"
        if policy in UNVERIFIED:
            raise self.error(
                f"{section}.client_auth_type: not supported: {policy} takes any certificate,"
                " whoever signed it; allowed is one of " + ", ".join(POLICIES)
            )
        policy = self.choice(table, section, "client_auth_type", "NoClientCert", POLICIES)
        minimum = self.choice(table, section, "min_version", "TLS12", VERSIONS)
        self.choice(table, section, "max_version", "TLS13", ("TLS13",))
        certificate, key, ca = (self.pem(table, name) for name in ("cert", "key", "client_ca"))
        for name, value in (("cert", certificate), ("key", key)):
            if value is None:
                raise self.error(f"{section}: {name}_file is missing")
        assert certificate is not None and key is not None
        asked, required = POLICIES[policy]
        if asked and ca is None:
            raise self.error(f"{section}: client_auth_type {policy} needs a client_ca_file")
        if ca is not None and not asked:
            raise self.error(
                f"{section}: a client CA without client_auth_type verifies nobody; set it to"
                " RequireAndVerifyClientCert"
            )
        self.fit(certificate, key, ca)
        return Tls(certificate, key, ca, required, VERSIONS[minimum])

    def fit(self, certificate: bytes, key: bytes, ca: bytes | None) -> None:
        """Raises ConfigError where the server could not use a certificate."""
        section = "tls_server_config"
        if b"ENCRYPTED" in key:
            raise self.error(f"{section}.key: it is encrypted; allowed is one without a password")
        for name, data, kind in (
            ("cert", certificate, b"CERTIFICATE-----"),
            ("key", key, b"PRIVATE KEY-----"),
        ):
            if kind not in data:
                raise self.error(f"{section}.{name}: it is not in PEM")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with InMemory(certificate) as first, InMemory(key) as second:
            try:
                # Without a password it would ask the terminal for one.
                context.load_cert_chain(first.path, second.path, password="")
            except ssl.SSLError as error:
                reason = {
                    "KEY_VALUES_MISMATCH": "the key is not this certificate's",
                    "EE_KEY_TOO_SMALL": "its key is too short to be safe",
                }.get(error.reason or "", "")
                reason = reason or "certificate or key is damaged"
                raise self.error(f"{section}: cannot be used: {reason}") from None
        if ca is not None:
            try:
                context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
            except (ssl.SSLError, ValueError):
                raise self.error(f"{section}.client_ca: no certificates in PEM") from None

    def users(self, table: dict[Any, Any]) -> dict[str, bytes]:
        users = {}
        for name, value in table.items():
            where = f"basic_auth_users: {str(name)[:60]!r}"
            if not isinstance(name, str) or not name or ":" in name:
                raise self.error(
                    f"{where}: a user's name is text without a colon; put it in quotes"
                )
            match = _HASH.fullmatch(value) if isinstance(value, str) else None
            if match is None:
                raise self.error(
                    f"{where}: found no bcrypt hash, allowed is what `htpasswd -nBC 10 USER` prints"
                    " after the colon"
                )
            if int(match[1]) not in COSTS:
                raise self.error(
                    f"{where}: found a cost of {int(match[1])}, allowed is {COSTS[0]} to"
                    f" {COSTS[-1]}"
                )
            users[name] = value.encode()
        return users

    def tokens(self, file: str | None) -> tuple[str, ...]:
        """The tokens of a file, one a line; # begins a comment."""
        if file is None:
            return ()
        name = "bearer_token_file"
        lines = self.read(self.relative(file), name).decode("utf-8", "replace").splitlines()
        tokens = [line.strip() for line in lines]
        tokens = [token for token in tokens if token and not token.startswith("#")]
        if not tokens:
            raise self.error(f"{name}: {file}: has no token in it")
        for number, token in enumerate(tokens, 1):
            if len(token) < SHORTEST or not _TOKEN.fullmatch(token):
                raise self.error(
                    f"{name}: {file}: token {number}: allowed are {SHORTEST} or more letters,"
                    " digits and -._~+/ such as `openssl rand -hex 32` prints"
                )
        return tuple(tokens)

    def http(self, table: dict[Any, Any]) -> tuple[tuple[str, str], ...]:
        section = "http_server_config"
        self.check(table, section, ("headers", "http2"))
        if table.get("http2"):
            raise self.error(f"{section}.http2: not supported: HTTP/1.1 is served; leave it out")
        headers = self.table(table.get("headers"), f"{section}.headers")
        self.check(headers, f"{section}.headers", HEADERS)
        found = []
        for name, values in HEADERS.items():
            value = self.text(headers, f"{section}.headers", name)
            if value is None:
                continue
            if values and value.lower() not in values:
                raise self.error(
                    f"{section}.headers.{name}: found {value[:40]!r}, allowed is"
                    f" {' or '.join(values)}"
                )
            if not value.isascii() or not value.isprintable():
                raise self.error(f"{section}.headers.{name}: allowed are printable ASCII letters")
            found.append((name.lower(), value))
        return tuple(found)


class InMemory:
    """Bytes as a file that has a path and is on no disk; a context manager that lets go of it."""

    def __init__(self, data: bytes) -> None:
        self.descriptor = os.memfd_create("esnode", os.MFD_CLOEXEC)
        self.path = f"/proc/self/fd/{self.descriptor}"
        with os.fdopen(self.descriptor, "wb", closefd=False) as file:
            file.write(data)

    def __enter__(self) -> InMemory:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.descriptor)


def _dotted(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _kind(value: Any) -> str:
    """What a value is, without the value."""
    names = {"dict": "a mapping", "list": "a list", "str": "text", "bool": "true or false"}
    return names.get(type(value).__name__, "a number or a date")
