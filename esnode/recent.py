"""The last 15 minutes of what the page at ``/`` charts, in memory: ``GET /recent``.

Its values are those of the status of the same tick, from the same snapshots; nothing is read for
it. It is kept whether somebody looks or not, so that a page that is opened has something to show.
"""

from __future__ import annotations

import logging
import math
import threading
from array import array
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

log = logging.getLogger(__name__)

#: Seconds that are kept, and at least between two points.
SPAN = 900
LEAST = 3.0
#: What is kept of the node and of each GPU, as in the document of /status, and digits after the
#: point: what is not seen on a chart need not be sent.
NODE = {
    "cpu_util_percent": 1,
    "mem_used_bytes": 0,
    "disk_read_bytes_per_sec": 0,
    "disk_written_bytes_per_sec": 0,
    "net_rx_bytes_per_sec": 0,
    "net_tx_bytes_per_sec": 0,
    "infiniband_rx_bytes_per_sec": 0,
    "infiniband_tx_bytes_per_sec": 0,
    "node_power_watts": 1,
}
GPU = {"util_percent": 1, "memory_used_bytes": 0, "power_watts": 1, "temperature_celsius": 1}

Values = Mapping[str, float | None]


class Point(NamedTuple):
    """A tick: when it was, and its values; of the GPUs by index and uuid."""

    unix_ms: int
    node: Values
    gpus: Mapping[tuple[str, str | None], Values]


class Lines:
    """Values over time of a few keys; NaN is what is not known."""

    def __init__(self, digits: Mapping[str, int], length: int) -> None:
        self.digits = digits
        self.values = {key: array("d", [math.nan]) * length for key in digits}

    def add(self, values: Values | None) -> None:
        for key, line in self.values.items():
            value = None if values is None else values[key]
            line.append(math.nan if value is None else round(value, self.digits[key]))

    def drop(self) -> None:
        for line in self.values.values():
            del line[0]

    @property
    def is_empty(self) -> bool:
        return all(value != value for line in self.values.values() for value in line)

    def document(self) -> dict[str, list[float | int | None]]:
        return {
            key: [
                None if value != value else value if self.digits[key] else int(value)
                for value in line
            ]
            for key, line in self.values.items()
        }


class Recent:
    """The points of the last 15 minutes. :meth:`get` may be called from any thread, everything else
    from the one that closes rounds; ``ask`` has :meth:`answer` called there."""

    def __init__(self, interval: float) -> None:
        self.ask: Callable[[], None] = lambda: None
        self._clear()
        self._document: bytes | None = None
        self._waiting: list[Callable[[bytes], None]] = []
        self._lock = threading.Lock()
        self.pace(interval)

    def pace(self, interval: float) -> None:
        """Ticks are so many seconds apart from now on; any thread may call it."""
        self.interval = interval
        #: Seconds between two points: a number of ticks.
        self.step = interval * max(1, math.ceil(round(LEAST / interval, 6)))
        with self._lock:
            self._document = None

    def _clear(self) -> None:
        self._times = array("q")
        self._node = Lines(NODE, 0)
        self._gpus: dict[tuple[str, str | None], Lines] = {}

    def is_due(self, unix_ms: int) -> bool:
        """Whether a tick is one that is kept."""
        if not self._times:
            return True
        since = unix_ms - self._times[-1]
        # Ticks are not exact, and a clock may be put back.
        return since < 0 or since >= 1000 * (self.step - self.interval / 2)

    def add(self, point: Point) -> None:
        """Keeps a tick."""
        if self._times and point.unix_ms <= self._times[-1]:  # the clock was put back
            self._clear()
        every = [self._node, *self._gpus.values()]
        while self._times and point.unix_ms - self._times[0] > 1000 * SPAN:
            del self._times[0]
            for lines in every:
                lines.drop()
        for key in point.gpus.keys() - self._gpus.keys():
            self._gpus[key] = Lines(GPU, len(self._times))
        self._times.append(point.unix_ms)
        self._node.add(point.node)
        for key, lines in list(self._gpus.items()):
            lines.add(point.gpus.get(key))
            if key not in point.gpus and lines.is_empty:
                del self._gpus[key]
        with self._lock:
            self._document = None

    @property
    def size(self) -> int:
        """Bytes of the values."""
        lines = [self._node, *self._gpus.values()]
        count = len(self._times) * (1 + sum(len(each.values) for each in lines))
        return count * self._times.itemsize

    def get(self, answer: Callable[[bytes], None]) -> None:
        """Calls ``answer`` with the document: now, or soon on another thread."""
        with self._lock:
            document = self._document
            if document is None:
                self._waiting.append(answer)
        if document is None:
            self.ask()
        else:
            answer(document)

    def answer(self) -> None:
        """Makes the document for those who wait for it, unless it is made."""
        with self._lock:
            document = self._document
            if document is None and not self._waiting:
                return
        if document is None:
            document = msgspec.json.encode(self.document())
        with self._lock:
            self._document = document
            waiting, self._waiting = self._waiting, []
        for each in waiting:
            try:
                each(document)
            except Exception:  # the others wait, too
                log.exception("a request failed")

    def document(self) -> dict[str, object]:
        """The keys of /status with lists of values, one for each of the times."""
        return {
            "step_seconds": self.step,
            "unix_ms": self._times.tolist(),
            **self._node.document(),
            "gpus": [
                {"gpu": gpu, "uuid": uuid, **lines.document()}
                for (gpu, uuid), lines in sorted(
                    self._gpus.items(), key=lambda item: (len(item[0][0]), item[0][0])
                )
            ],
        }
