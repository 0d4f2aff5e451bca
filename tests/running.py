"""The real agent as a process of its own on a free port of the loopback, as an operator runs it."""

from __future__ import annotations

import errno
import http.client
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from . import process

#: What works on a fast machine in a moment may take this long on a busy one.
PATIENCE = 15.0

#: Ports for this process, one after the other; each of the tests' workers has some thousands.
_FIRST = 12_000 + 3_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 6)
_PORTS = (_FIRST + (os.getpid() * 7 + number) % 3_000 for number in itertools.count())


def command(*flags: str) -> list[str]:
    """The command line that runs the agent of this environment."""
    return [sys.executable, "-m", "esnode", *flags]


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without the operator's own settings of the agent, and the size of a terminal
    that is not the command's."""
    left_out = ("ESNODE_", "COLUMNS", "LINES")
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(left_out)}
    return {**inherited, "ESNODE_CONFIG": "/dev/null", **(variables or {})}


def run(
    *flags: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | str = "/",
    timeout: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Runs a command that ends by itself."""
    return subprocess.run(
        command(*flags),
        env=environment(env),
        cwd=cwd,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on, and that neither a client nor a test beside gets."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in _PORTS:
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return port
    raise AssertionError("it has no end")


def wait_for(
    condition: Callable[[], object], what: str = "what is waited for", timeout: float = PATIENCE
) -> None:
    """Waits until a condition holds; an AssertionError says what has not come to pass."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(0.01)


def series(page: bytes | str) -> dict[str, float]:
    """The values of a page by ``name{labels}``."""
    text = page if isinstance(page, str) else page.decode()
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Agent:
    """A running agent; a context manager that waits until it is ready, and ends it."""

    def __init__(
        self,
        *flags: str,
        host: str = "127.0.0.1",
        port: int | None = None,
        start: Callable[[], object] | None = None,
    ) -> None:
        """``start`` is called in the process before it becomes the agent."""
        self.host = host
        self.port = port or free_port(host)
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{self.port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the agent
        self.process = subprocess.Popen(
            command("--listen-address", self.address, *flags),
            env=environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            preexec_fn=start,
        )

    def __enter__(self) -> Agent:
        try:
            wait_for(self.ready, "the agent is ready")
        except BaseException:
            self.__exit__()
            print(self.log)
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        process.end(self.process)

    def ready(self) -> bool:
        assert self.process.poll() is None, f"it has ended: {self.log}"
        try:
            return self.get("/readyz").status == 200
        except OSError:
            return False

    def connect(self, timeout: float = PATIENCE) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout)

    def connection(self, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        """A client that is not connected yet."""
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def get(
        self, path: str = "/metrics", method: str = "GET", timeout: float = PATIENCE, **headers: str
    ) -> Answer:
        """One request on a connection of its own; ``accept_encoding`` is ``Accept-Encoding``."""
        connection = self.connection(timeout)
        try:
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, text in named.items():
                connection.putheader(name, text)
            connection.endheaders()
            response = connection.getresponse()
            found = {name.lower(): text for name, text in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def series(self, path: str = "/metrics") -> dict[str, float]:
        """The values of a fresh page by ``name{labels}``."""
        return series(self.get(path).body)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Sends a signal; the exit code, and how many seconds the end took."""
        start = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        return code, time.monotonic() - start

    @property
    def log(self) -> str:
        """What it has written to its outputs up to now."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode()

    @property
    def memory(self) -> int:
        """Its resident memory in bytes."""
        return process.resident(self.process.pid)

    @property
    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return process.descriptors(self.process.pid)
