"""What the NFS client asks its servers, from net/rpc/nfs of the host's namespace."""

from __future__ import annotations

from .._fast.delta import Totals
from .._fast.procfs import Rows
from ..host import readable
from ..metrics import counter
from .base import Collector, Unavailable

#: Families of the line "rpc CALLS RETRANSMISSIONS REFRESHES", by column.
COLUMNS = {
    1: counter("esnode_nfs_requests_total", "Requests sent to NFS servers."),
    2: counter("esnode_nfs_retransmissions_total", "Requests sent to NFS servers again."),
}
#: The kernel counts with 32 bits.
WRAP = 2**32


class Nfs(Collector):
    name = "disk"
    switch = "enable_disk"
    metrics = tuple(COLUMNS.values())

    def bind(self) -> None:
        path = self.host.net("rpc/nfs")
        if not readable(path):
            raise Unavailable(f"{path}: there is no NFS client")
        slots = {column: self.table.add(metric) for column, metric in COLUMNS.items()}
        self.rpc = Rows(self.table, path)
        self.rpc.bind(b"rpc", *slots.items())
        self.wraps = Totals(self.table, modulus=WRAP)
        for slot in slots.values():
            self.wraps.add(slot)

    def sample(self, tick: bool) -> None:
        self.read(self.rpc, optional=True)  # the module may be unloaded
        self.wraps.update()
