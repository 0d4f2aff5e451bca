"""Sends the history to a server that takes VictoriaMetrics' ``/api/v1/import``.

One window, at most a block, after another; how far it has come is kept in a file. A server that is
killed may lose what it said it had taken in its last seconds: when it cannot be reached, or fails,
the windows that it took shortly before are sent once more. So nothing is missing in the end, and
some samples may have been sent twice, with the same time and value; VictoriaMetrics leaves such
duplicates out with ``-dedup.minScrapeInterval=1ms``.

https://docs.victoriametrics.com/#how-to-import-data-in-json-line-format
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
from isal import igzip

from .export import Export
from .index import replace
from .reader import Block, Report, blocks, ignore
from .select import EARLIEST, Selection

#: Bytes of a request before it is compressed.
REQUEST = 4 << 20
#: Seconds after which an answer is not waited for any more.
TIMEOUT = 60.0
#: Seconds in which a server has what it took on its disk.
SETTLED = 10.0
#: Milliseconds after which no sample comes late to an open block.
LATE = 10_000
#: Seconds to wait before the first retry and at most; each wait is twice the one before.
PAUSES = 0.5, 30.0
#: Bytes of a server's answer that are shown.
MESSAGE = 1000

IMPORT = "/api/v1/import"


class BackfillError(OSError):
    """It cannot go on; the text says why."""


class Failed(Exception):  # noqa: N818  # tried again
    """The server could not be reached, or said that it cannot at the moment."""


class Cursor(msgspec.Struct):
    """How far a backfill has come: from ``start`` on, everything before ``next`` was taken. Both in
    milliseconds."""

    to: str
    start: int
    next: int


class Target:
    """The server. Raises BackfillError for a URL that is none."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, self.port = parts.hostname or "", parts.port
            host.encode("idna")
        except ValueError:
            host = ""
        # An @ behind the host is the end of a password that was taken for a path.
        plain = url.isascii() and url.isprintable() and " " not in url
        if (
            not (plain and host and parts.scheme in ("http", "https"))
            or "@" in url.partition(parts.netloc)[2]
        ):
            raise BackfillError(
                "--to: this is no URL such as http://victoria:8428; in a password the letters"
                " / ? # @ % are written %2F %3F %23 %40 %25"
            )
        secure = parts.scheme == "https"
        self.kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self.host = host
        self.path = parts.path.rstrip("/")
        if not self.path.endswith(IMPORT):
            self.path += IMPORT
        #: The URL without what may be secret, which may be shown and kept.
        self.shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self.path}"
        if parts.query:
            self.path += f"?{parts.query}"
        self.headers = {"content-type": "application/json", "content-encoding": "gzip"}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            token = base64.b64encode(pair.encode()).decode()
            self.headers["authorization"] = f"Basic {token}"
        self.connection: http.client.HTTPConnection | None = None

    def send(self, lines: bytes) -> None:
        """Sends lines. Raises Failed, or BackfillError where trying again is of no use.

        All requests take one connection: a server that was killed and is back at once is told by
        its being closed.
        """
        try:
            if self.connection is None:
                self.connection = self.kind(self.host, self.port, timeout=TIMEOUT)
            body = igzip.compress(lines, compresslevel=1)
            self.connection.request("POST", self.path, body, self.headers)
            response = self.connection.getresponse()
            text = response.read(MESSAGE).decode(errors="replace").strip()
            if not response.isclosed():
                self.close()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            problem = f"{self.shown}: {error or type(error).__name__}"
            if isinstance(error, ssl.SSLCertVerificationError):
                raise BackfillError(problem) from None
            raise Failed(problem) from None
        if response.status in (200, 204):
            return
        self.close()
        elsewhere = response.headers["location"]
        problem = f"{self.shown}: HTTP {response.status} {elsewhere or text}".rstrip()
        if response.status >= 500 or response.status in (408, 429):
            raise Failed(problem)
        raise BackfillError(problem)

    def close(self) -> None:
        """Closes the connection; the next request makes another one."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Backfill:
    """One run. ``attempts``: failures after which it gives up, where none of them brought it
    further; ``told``: called after each window with how many of how many are done, and how many
    samples were sent."""

    def __init__(
        self,
        path: Path,
        target: Target,
        selection: Selection,
        cursor: Path,
        attempts: int = 10,
        report: Report = ignore,
        told: Callable[[int, int, int], None] = lambda *_: None,
        failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = path
        self.target = target
        self.selection = selection
        self.cursor = cursor
        self.attempts = attempts
        self.report = report
        self.told = told
        self.failed = failed
        self.samples = 0
        self.failures = 0
        #: From here on everything was taken, up to where it has come.
        self.since = selection.start

    def resume(self) -> bool:
        """Goes on where the last run came to; whether there was one that began early enough, where
        a beginning was asked for."""
        try:
            found = msgspec.json.decode(self.cursor.read_bytes(), type=Cursor)
        except FileNotFoundError:
            return False
        except ValueError as error:
            raise BackfillError(f"{self.cursor}: {error}; without it, all is sent again") from None
        wanted = self.selection.start
        if EARLIEST < wanted < found.start:
            return False
        if wanted <= found.next:
            self.since = found.start
            self.selection = msgspec.structs.replace(self.selection, start=found.next)
        return True

    def run(self) -> None:
        """Sends everything. Raises BackfillError."""
        try:
            self._run()
        finally:
            self.target.close()

    def _run(self) -> None:
        first, last = self.selection.start, self.selection.end
        windows = [
            block for block in blocks(self.path) if block.start <= last and block.end > first
        ]
        #: When each of the windows was taken.
        taken: list[float] = []
        nexts: list[int] = []
        furthest = 0
        while len(taken) < len(windows):
            began = time.monotonic()
            try:
                reached = self._window(windows[len(taken)])
            except Failed as failure:
                self._pause(str(failure))
                while taken and taken[-1] > began - SETTLED:
                    taken.pop()
                    nexts.pop()
                continue
            taken.append(time.monotonic())
            nexts.append(reached)
            if len(taken) > furthest:
                furthest = len(taken)
                self.failures = 0
            done = len(taken) == len(windows)
            settled = [
                reached
                for reached, moment in zip(nexts, taken, strict=True)
                if done or moment <= taken[-1] - SETTLED
            ]
            if settled:
                self._keep(settled[-1])
            self.told(len(taken), len(windows), self.samples)

    def _window(self, block: Block) -> int:
        """Sends a window; the time up to which there will be no more of it. Raises Failed."""
        start = max(self.selection.start, block.start)
        end = min(self.selection.end, block.end - 1)
        sealed = block.sealed
        part = msgspec.structs.replace(self.selection, start=start, end=end)
        export = Export(self.path, part, "jsonl", eof=False, report=self.report)
        for lines in gathered(iter(export)):
            self.target.send(lines)
        self.samples += export.samples
        return end + 1 if sealed else max(start, min(end, export.last - LATE) + 1)

    def _pause(self, problem: str) -> None:
        self.failures += 1
        if self.failures >= self.attempts:
            raise BackfillError(f"{problem}; go on later with --resume")
        self.failed(problem)
        time.sleep(min(PAUSES[0] * 2 ** (self.failures - 1), PAUSES[1]))

    def _keep(self, reached: int) -> None:
        replace(self.cursor, msgspec.json.encode(Cursor(self.target.shown, self.since, reached)))


def gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces put together to what a request has."""
    some: list[bytes] = []
    size = 0
    for piece in pieces:
        some.append(piece)
        size += len(piece)
        if size >= REQUEST:
            yield b"".join(some)
            some, size = [], 0
    if size:
        yield b"".join(some)


def cursor_path(state: Path, path: Path, target: Target, *asked: object) -> Path:
    """Where the cursor of a backfill is kept: one file for each history, server and choice."""
    key = repr((os.fspath(path.absolute()), target.shown, target.path, asked))
    return state / f"backfill-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
