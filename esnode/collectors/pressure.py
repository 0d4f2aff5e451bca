"""Time that tasks were held up for want of a resource, from /proc/pressure."""

from __future__ import annotations

import errno

from .._fast.procfs import File, Rows
from ..metrics import counter
from .base import Collector, Unavailable

STALLED = counter(
    "esnode_pressure_stalled_seconds_total",
    "Time that some tasks, or all that could run, waited for a resource.",
    ("resource", "kind"),
)
#: Interrupts hold up all tasks or none, so they have no ``some``.
RESOURCES = {
    "cpu": ("some", "full"),
    "memory": ("some", "full"),
    "io": ("some", "full"),
    "irq": ("full",),
}
#: Of "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", in microseconds.
TOTAL = 4
#: What a kernel says that does not know a resource, or was started with psi=0.
UNKNOWN = (errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP)


class Pressure(Collector):
    name = "cpu"
    switch = "enable_cpu"
    metrics = (STALLED,)

    def bind(self) -> None:
        self.files = [self.stalls(resource) for resource in RESOURCES if self.is_known(resource)]
        if not self.files:
            raise Unavailable(f"{self.host.proc('pressure')}: the kernel does not count stalls")

    def path(self, resource: str) -> str:
        return self.host.proc(f"pressure/{resource}")

    def is_known(self, resource: str) -> bool:
        """Whether the kernel counts a resource; of one that cannot be read each reading reports."""
        try:
            File(self.path(resource)).read()
        except OSError as error:
            return error.errno not in UNKNOWN
        return True

    def stalls(self, resource: str) -> Rows:
        """The reader of a resource's file."""
        rows = Rows(self.table, self.path(resource), after=b"=")
        for kind in RESOURCES[resource]:
            slot = self.table.add(STALLED, (resource, kind))
            rows.bind(kind.encode(), (TOTAL, slot, 1, 1_000_000))
        return rows

    def sample(self, tick: bool) -> None:
        for rows in self.files:
            self.read(rows)
