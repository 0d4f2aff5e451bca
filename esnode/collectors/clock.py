"""How far the node's clock may be off, from adjtimex(2)."""

from __future__ import annotations

from .._fast.clock import read
from ..metrics import gauge
from .base import Collector, Refused, Unavailable

OFFSET = gauge(
    "esnode_clock_offset_seconds", "What the kernel still corrects of the clock, ahead or behind."
)
MAX_ERROR = gauge("esnode_clock_max_error_seconds", "How far the clock may be off at most.")
SYNCHRONIZED = gauge(
    "esnode_clock_synchronized", "Whether something keeps the clock right, such as NTP."
)


class Clock(Collector):
    name = "node"
    switch = "enable_cpu"
    metrics = (OFFSET, MAX_ERROR, SYNCHRONIZED)

    def bind(self) -> None:
        try:
            read()
        except PermissionError as error:
            raise Refused(
                f"adjtimex: {error.strerror}: a filter of system calls forbids it"
            ) from error
        except OSError as error:
            raise Unavailable(f"adjtimex: {error.strerror}") from error
        self.slots = [self.table.add(metric) for metric in self.metrics]

    def sample(self, tick: bool) -> None:
        try:
            values = read()
        except OSError as error:
            self.report(f"adjtimex: {error.strerror}")
            return
        for slot, value in zip(self.slots, values, strict=True):
            self.table.set(slot, value)
