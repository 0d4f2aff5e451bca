"""Sockets, the CPUs' packet processing and tracked connections: net/sockstat, net/softnet_stat and
the sysctl files of conntrack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .._fast.procfs import Line, Rows
from .._fast.softnet import Softnet
from ..host import readable
from ..metrics import counter, gauge
from .base import Collector, Reader, Unavailable

SOCKETS = gauge("esnode_network_sockets", "Sockets by protocol and state.", ("family", "state"))
SOFTNET = (
    counter("esnode_network_softnet_processed_total", "Packets that the CPUs have processed."),
    counter("esnode_network_softnet_dropped_total", "Packets dropped at a CPU's full backlog."),
    counter(
        "esnode_network_softnet_squeezed_total",
        "Rounds of packet processing that ended with packets left.",
    ),
)
#: Families that are a sysctl file, which is there while the module is.
CONNTRACK = {
    "nf_conntrack_count": gauge("esnode_network_conntrack_entries", "Connections being tracked."),
    "nf_conntrack_max": gauge(
        "esnode_network_conntrack_limit", "Connections that can be tracked at once."
    ),
}

#: Column of each state in a line such as "TCP: inuse 5 orphan 0 tw 2 alloc 8 mem 1".
STATES = {"inuse": 2, "tw": 6, "orphan": 4, "alloc": 8}
FAMILIES = {"TCP": tuple(STATES), "UDP": ("inuse",), "UDPLITE": ("inuse",), "RAW": ("inuse",)}
FAMILIES6 = {f"{family}6": ("inuse",) for family in FAMILIES}


class Sockets(Collector):
    name = "network"
    switch = "enable_network"
    metrics = (SOCKETS, *SOFTNET, *CONNTRACK.values())

    def bind(self) -> None:
        sockstat, softnet = self.host.net("sockstat"), self.host.net("softnet_stat")
        if not (readable(sockstat) or readable(softnet)):
            raise Unavailable(f"{sockstat}: there is no such file, nor softnet_stat")
        add = self.table.add
        self.files: tuple[Reader, ...] = (
            self.sockstat(sockstat, FAMILIES),
            Softnet(self.table, softnet, *(add(metric) for metric in SOFTNET)),
        )
        # Without IPv6, or without conntrack, they are not there, and may come.
        self.optional: tuple[Reader, ...] = (
            self.sockstat(sockstat + "6", FAMILIES6),
            *(
                Line(self.table, self.host.proc(f"sys/net/netfilter/{file}"), (0, add(metric)))
                for file, metric in CONNTRACK.items()
            ),
        )

    def sockstat(self, path: str, families: Mapping[str, Sequence[str]]) -> Rows:
        """The reader of a file of families and their states."""
        rows = Rows(self.table, path)
        for family, states in families.items():
            slots = {state: self.table.add(SOCKETS, (family.lower(), state)) for state in states}
            cells = ((STATES[state], slot) for state, slot in slots.items())
            rows.bind(f"{family}:".encode(), *cells)
        return rows

    def sample(self, tick: bool) -> None:
        for file in self.files:
            self.read(file)
        for file in self.optional:
            self.read(file, optional=True)
