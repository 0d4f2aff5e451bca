"""Disk traffic and latency, from /proc/diskstats."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .._fast.delta import Ratios, Totals
from .._fast.procfs import Rows
from .._fast.table import TICK
from ..metrics import Metric, counter, gauge
from .base import Cell, Collector, Filter, label

DEVICE = ("device",)
SECTOR = 512
#: The kernel prints milliseconds as 32-bit numbers.
WRAP_SECONDS = 2**32 / 1000


def _bytes(word: str) -> Metric:
    return counter(f"esnode_disk_{word}_bytes_total", f"Bytes {word}.", DEVICE)


def _ops(word: str) -> Metric:
    return counter(f"esnode_disk_{word}_ops_total", f"Completed {word} requests.", DEVICE)


def _time(word: str) -> Metric:
    return counter(
        f"esnode_disk_{word}_time_seconds_total", f"Time that {word} requests took, summed.", DEVICE
    )


READ_OPS, READ_TIME = _ops("read"), _time("read")
WRITE_OPS, WRITE_TIME = _ops("write"), _time("write")
IO_IN_PROGRESS = gauge(
    "esnode_disk_io_in_progress", "Requests that the device is working on.", DEVICE
)
IO_LATENCY = gauge(
    "esnode_disk_io_latency_seconds",
    "Mean time of the requests completed in the last tick.",
    ("device", "op"),
)
#: Family, column, unit and divisor of https://docs.kernel.org/admin-guide/iostats.html
COLUMNS = (
    (_bytes("read"), 5, SECTOR, 1),
    (_bytes("written"), 9, SECTOR, 1),
    (_bytes("discarded"), 16, SECTOR, 1),
    (READ_OPS, 3, 1, 1),
    (WRITE_OPS, 7, 1, 1),
    (_ops("discard"), 14, 1, 1),
    (_ops("flush"), 18, 1, 1),
    (READ_TIME, 6, 1, 1000),
    (WRITE_TIME, 10, 1, 1000),
    (_time("discard"), 17, 1, 1000),
    (_time("flush"), 19, 1, 1000),
    (
        counter("esnode_disk_io_time_seconds_total", "Time with a request in progress.", DEVICE),
        12,
        1,
        1000,
    ),
    (
        counter(
            "esnode_disk_io_weighted_seconds_total",
            "Time with requests in progress, times their number.",
            DEVICE,
        ),
        13,
        1,
        1000,
    ),
    (IO_IN_PROGRESS, 11, 1, 1),
)
LATENCIES = {"read": (READ_TIME, READ_OPS), "write": (WRITE_TIME, WRITE_OPS)}


class Disk(Collector):
    name = "disk"
    switch = "enable_disk"
    keys = ("disk_device_include", "disk_device_exclude")
    metrics = (*(metric for metric, *_ in COLUMNS), IO_LATENCY)

    def bind(self) -> None:
        self.shown = Filter(self.config.disk_device_include, self.config.disk_device_exclude)
        self.diskstats = Rows(
            self.table, self.host.proc("diskstats"), key=2, news=b"", shape=(0, 1, *range(3, 14))
        )
        self.wraps = Totals(self.table, modulus=WRAP_SECONDS)
        self.latency = Ratios(self.table, scale=1, limit=math.inf)
        self.disks: dict[bytes, dict[Metric, int]] = {}

    def admit(self, key: bytes) -> Sequence[Cell]:
        device = label(key)
        if not self.shown(device):
            return ()
        slots = {metric: self.table.add(metric, (device,)) for metric, *_ in COLUMNS}
        for metric, _, _, divisor in COLUMNS:
            if divisor != 1:
                self.wraps.add(slots[metric])
        for op, (time, ops) in LATENCIES.items():
            out = self.table.add(IO_LATENCY, (device, op), TICK)
            self.latency.add(out, slots[time], slots[ops])
        self.disks[key] = slots
        return [(column, slots[metric], unit, divisor) for metric, column, unit, divisor in COLUMNS]

    def drop(self, key: bytes) -> None:
        slots = self.disks.pop(key, {})
        for metric, slot in slots.items():
            self.wraps.drop(slot)
            self.table.remove(metric, (label(key),))
        for op in LATENCIES if slots else ():
            self.latency.drop(self.table.remove(IO_LATENCY, (label(key), op)))

    def sample(self, tick: bool) -> None:
        self.follow(self.diskstats)
        self.wraps.update()
        if tick:
            self.latency.update()
