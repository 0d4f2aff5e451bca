"""``GET /tsdb/export``: parameters in, a stream of any length out.

Granian's own streams queue without bound what a slow client does not take. A file it reads no
faster than the client does, so it is given one: the end of a pipe that a thread of ours fills.
"""

from __future__ import annotations

import logging
import os
import select as polling
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import zstandard
from isal import isal_zlib

from ..dialects import OPENMETRICS, TEXT
from ..tsdb.select import SelectError, Selection, select
from . import negotiate
from .response import NO_STORE, Gone, Headers, Refusal, Request, Respond, Response

log = logging.getLogger(__name__)

PATH = "/tsdb/export"
OFF = "no history is kept: set enable_local_tsdb = true, or start with --enable-local-tsdb"
PARAMETERS = ("from", "to", "metrics", "match", "match[]", "format", "eof")

#: What a format is called in an answer.
CONTENT_TYPES = {
    "prometheus": TEXT.content_type,
    "openmetrics": OPENMETRICS.content_type,
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
}

#: Exports at the same time; each costs a thread and some megabytes.
MOST = 3
#: An answer of up to so many bytes is sent as it is. More than a pipe holds, so that the pipe of a
#: longer one is full before anyone reads it.
SMALL = 1 << 18
#: Seconds after which a client that takes nothing is given up.
STALLED = 60.0
#: Seconds in which the server opens its end of a pipe; it does at once, unless the client has gone.
OPENED = 10.0
#: Seconds after which a thread that waits for its client sees that the agent ends.
GLANCE = 0.2

#: Begins an export: (selection, format, whether its end is marked) → its text in pieces. Called on
#: the export's own thread; may raise SelectError.
Open = Callable[[Selection, str, bool], Iterable[bytes]]


class Exports:
    """The exports that are under way. ``open`` is None where there is no history."""

    def __init__(self, open: Open | None) -> None:
        self.open = open
        self.stopped = False
        self._free = threading.BoundedSemaphore(MOST)

    def stop(self) -> None:
        """Has all exports end soon, wherever they are."""
        self.stopped = True

    def handle(self, request: Request, respond: Respond) -> None:
        """Answers from a thread of the export's own. Raises Refusal."""
        if self.open is None:
            raise Refusal(404, OFF)
        selection, form, eof = parse(request.query_string)
        encoding = negotiate.encoding_of(request)
        headers = negotiate.headers(encoding, ("content-type", CONTENT_TYPES[form]), NO_STORE)
        if request.method == "HEAD":
            respond(Response(200, headers, Path(os.devnull)))
            return
        if not self._free.acquire(blocking=False):
            raise Refusal(429, f"{MOST} exports are under way", ("retry-after", "5"))
        try:
            threading.Thread(
                target=self._run,
                args=(self.open, selection, form, eof, encoding, headers, respond),
                name="export",
                daemon=True,
            ).start()
        except BaseException:
            self._free.release()
            raise

    def _run(
        self,
        open: Open,
        selection: Selection,
        form: str,
        eof: bool,
        encoding: str,
        headers: Headers,
        respond: Respond,
    ) -> None:
        answered = False

        def answer(body: bytes | Path) -> None:
            nonlocal answered
            answered = True
            respond(Response(200, headers, body))

        try:
            self._send(encoded(open(selection, form, eof), encoding), answer)
        except SelectError as error:
            respond(Refusal(400, str(error)).response)
        except Gone as gone:
            log.info("an export was cut: %s", gone)
        except Exception:
            log.exception("an export failed")
            if not answered:
                respond(Response(500, [NO_STORE], b"the export failed; see the log\n"))
        finally:
            self._free.release()

    def _send(self, pieces: Iterator[bytes], answer: Callable[[bytes | Path], None]) -> None:
        """Answers with a short text as it is, with a long one as a pipe. Raises Gone."""
        first: list[bytes] = []
        size = 0
        for piece in pieces:
            first.append(piece)
            size += len(piece)
            if size > SMALL:
                break
        else:
            answer(b"".join(first))
            return
        reading, writing = os.pipe()
        try:
            os.set_blocking(writing, False)
            # Opened anew by the server, by this name: as long as that may not have happened, our
            # own end stays open, or the number could become another file's.
            answer(Path(f"/proc/self/fd/{reading}"))
            for piece in chain(first, pieces):
                rest = memoryview(piece)
                while rest:
                    try:
                        rest = rest[os.write(writing, rest) :]
                    except BlockingIOError:
                        self._wait(writing, OPENED if reading >= 0 else STALLED)
                        if reading >= 0:
                            # It was full and is not any more: the server has opened its end.
                            os.close(reading)
                            reading = -1
                    except BrokenPipeError:
                        raise Gone("the client has gone") from None
        finally:
            os.close(writing)
            if reading >= 0:
                os.close(reading)

    def _wait(self, writing: int, limit: float) -> None:
        """Waits until a full pipe is read from, or has no reader any more. Raises Gone."""
        poll = polling.poll()
        poll.register(writing, polling.POLLOUT)
        # Not by the clock: when the process was stopped, the server has had no time either.
        for _ in range(round(limit / GLANCE)):
            if poll.poll(GLANCE * 1000):
                return
            if self.stopped:
                raise Gone("the agent ends")
        raise Gone(f"the client has taken nothing for {limit:g} s")


def parse(query: str) -> tuple[Selection, str, bool]:
    """(selection, format, whether the end is marked) of a query. Raises Refusal."""
    try:
        given = parse_qs(query, keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise Refusal(400, "more than 1000 parameters") from None
    for name in given:
        if name not in PARAMETERS:
            raise Refusal(400, f"{name[:60]}: unknown parameter; there are {', '.join(PARAMETERS)}")

    def single(name: str) -> str | None:
        values = given.get(name, [None])
        if len(values) > 1:
            raise Refusal(400, f"{name}: given more than once")
        return values[0]

    form = single("format")
    form = "prometheus" if form is None else form
    if form not in CONTENT_TYPES:
        known = ", ".join(CONTENT_TYPES)
        raise Refusal(400, f"format: {form[:60]!r} is unknown; there are {known}")
    eof = single("eof")
    if eof not in (None, "0", "1"):
        raise Refusal(400, f"eof: {eof[:60]!r} is neither 0 nor 1")
    match = [*given.get("match", ()), *given.get("match[]", ())]
    try:
        selection = select(single("from"), single("to"), given.get("metrics", ()), match)
    except SelectError as error:
        raise Refusal(400, str(error)) from None
    # A line that is no series would not be imported; a comment does no harm.
    return selection, form, eof == "1" or form != "jsonl"


def encoded(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Pieces of a text, compressed on the way."""
    if encoding == "identity":
        yield from pieces
        return
    compressor: Any
    if encoding == "gzip":
        compressor = isal_zlib.compressobj(isal_zlib.ISAL_BEST_SPEED, wbits=31)
    else:
        compressor = zstandard.ZstdCompressor(level=1).compressobj()
    for piece in pieces:
        compressed = compressor.compress(piece)
        if compressed:
            yield compressed
    yield compressor.flush()
