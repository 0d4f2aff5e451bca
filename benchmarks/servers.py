"""The processes that are measured, what they cost, and the client that scrapes servers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

from tests.process import end

ROOT = Path(__file__).parents[1]
GZIP = {"Accept-Encoding": "gzip"}
#: Flags of an agent whose every scrape reads anew.
FRESH = ("--scrape-max-age", "0")
TIMEOUT = 10.0

EXPORTER = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")
WRK = shutil.which("wrk")


class Client:
    """Scrapes through connections that are kept alive, all of them at the same time.

    Plain sockets: http.client takes as long for a page as the agent does.
    """

    def __init__(self, name: str, port: int, connections: int = 1) -> None:
        self.name = name
        self.port = port
        self.connections = connections
        self.sockets: list[socket.socket] = []

    def get(self, headers: Mapping[str, str] = GZIP, path: str = "/metrics") -> None:
        """Fetches an answer on each connection. Raises OSError unless all are whole and 200."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode()
        while len(self.sockets) < self.connections:
            self.sockets.append(socket.create_connection(("127.0.0.1", self.port), TIMEOUT))
        for connection in self.sockets:
            connection.sendall(request)
        for connection in self.sockets:
            try:
                status = receive(connection).partition(b"\r\n")[0].decode()
            except TimeoutError:
                status = f"no answer within {TIMEOUT:.0f} s"
            if " 200 " not in status:
                raise OSError(f"{self.name}: {path}: {status}")

    def close(self) -> None:
        while self.sockets:
            self.sockets.pop().close()


def receive(connection: socket.socket) -> bytes:
    """One answer: as long as its header says, or up to the chunk of no bytes."""
    data = b""
    size = None
    while True:
        got = connection.recv(1 << 18)
        if not got:
            raise ConnectionError("the server has closed the connection")
        data += got
        if size is None:
            head, blank, _ = data.partition(b"\r\n\r\n")
            if not blank:
                continue
            found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            size = len(head) + len(blank) + int(found[1]) if found else 0
        if len(data) >= size if size else data.endswith(b"\r\n0\r\n\r\n"):
            return data


class Server:
    """A process that serves /metrics on a port of its own."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, ready: str) -> None:
        self.name = name
        self.process = process
        self.pid = process.pid
        self.port = port
        self.ready = ready
        self.client = Client(name, port)

    def wait(self) -> None:
        """Waits for the first complete page."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                for path in dict.fromkeys((self.ready, "/metrics")):
                    self.client.get(path=path)
                return
            except OSError as error:
                self.client.close()
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name} does not start: {error}") from error
                time.sleep(0.001)

    def cpu(self) -> float:
        """Seconds of CPU of all its threads, ended ones too; see clock_getcpuclockid(3)."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def memory(self, kind: str) -> float:
        """``Pss`` or ``Rss``, in bytes."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        found = re.search(rf"^{kind}:\s+(\d+) kB", text, re.MULTILINE)
        assert found, text
        return int(found[1]) * 1024.0

    def mapped(self, below: tuple[str, ...]) -> float:
        """The PSS of the mappings of some files, by how their paths begin, in bytes."""
        size, counts = 0, False
        for line in Path(f"/proc/{self.pid}/smaps").read_text().splitlines():
            words = line.split()
            if re.match(r"[0-9a-f]+-[0-9a-f]+$", words[0]):
                counts = len(words) > 5 and words[5].startswith(below)
            elif counts and words[0] == "Pss:":
                size += int(words[1]) * 1024
        return float(size)

    def series(self) -> int:
        """How many its page has."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=TIMEOUT) as page:
            return sum(not line.startswith(b"#") for line in page)

    def latency(self) -> float:
        """Seconds that one scrape takes."""
        start = time.perf_counter()
        self.client.get()
        return time.perf_counter() - start

    def scrape_cpu(self, scrapes: int, headers: Mapping[str, str] = GZIP) -> float:
        """Seconds of CPU for each of some scrapes, one after the other on one connection."""
        self.client.close()  # it may have been idle for longer than the server keeps it
        self.client.get(headers)
        start = self.cpu()
        for _ in range(scrapes):
            self.client.get(headers)
        return (self.cpu() - start) / scrapes

    def parallel_cpu(self, connections: int, seconds: int) -> float:
        """The same with as many scrapes as go through some connections in some seconds."""
        start = self.cpu()
        if WRK:
            scrapes = self._wrk(connections, seconds)
        else:
            scrapes = 0
            client = Client(self.name, self.port, connections)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                client.get()
                scrapes += connections
            client.close()
        return (self.cpu() - start) / scrapes

    def _wrk(self, connections: int, seconds: int) -> int:
        """Runs wrk; how many scrapes it counted."""
        header = next(": ".join(pair) for pair in GZIP.items())
        url = f"http://127.0.0.1:{self.port}/metrics"
        assert WRK
        text = subprocess.run(
            [WRK, "-t1", f"-c{connections}", f"-d{seconds}s", "-H", header, url],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = re.search(r"(\d+) requests in", text)
        if not found or "Non-2xx" in text or "Socket errors" in text:
            raise RuntimeError(f"wrk: {text}")
        return int(found[1])


class Told:
    """A process that answers each line it is told with a line of its own; a context manager."""

    def __init__(self, command: Sequence[str], more: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(more or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *unused: object) -> None:
        self.process.kill()
        self.process.communicate()

    def tell(self, line: object = "") -> str:
        """The answer. Raises RuntimeError when there is none."""
        assert self.process.stdin and self.process.stdout
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.process.args!r} has ended")
        return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def spawn(
    name: str, command: list[str], ready: str, more: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Runs a server's command until the block ends; ADDRESS or PORT in it is where to listen."""
    port = free_port()
    words = [
        word.replace("ADDRESS", f"127.0.0.1:{port}").replace("PORT", str(port)) for word in command
    ]
    # An installed agent has its byte code beside it; one in a checkout must be let write it.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ESNODE_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    environment |= more or {}
    with ExitStack() as stack:
        # Not in the checkout, where a configuration file may lie.
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        process = subprocess.Popen(
            words,
            cwd=directory,
            env={"STATE_DIRECTORY": directory} | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(end, process, 3)
        server = Server(name, process, port, ready)
        stack.callback(server.client.close)
        server.wait()
        yield server


@contextmanager
def agent(*flags: str, more: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Ours, with the defaults but for these flags, and ``more`` in its environment."""
    command = [sys.executable, "-m", "esnode", "--config", os.devnull]
    command += ["--listen-address", "ADDRESS", *flags]
    with spawn("esnode-core", command, "/readyz", more) as server:
        yield server


@contextmanager
def exporter() -> Iterator[Server | None]:
    """node_exporter with its default collectors; None where it is not installed."""
    if not EXPORTER:
        yield None
        return
    flags = ["--web.listen-address=ADDRESS", "--web.disable-exporter-metrics"]
    with spawn("node_exporter", [EXPORTER, *flags], "/metrics") as server:
        yield server


def exporter_version() -> str:
    """The first line of what node_exporter says of itself."""
    if not EXPORTER:
        return "not installed"
    done = subprocess.run([EXPORTER, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition(" (")[0].removeprefix("node_exporter, ")
