"""Interfaces and protocols, from net/dev, net/snmp and net/netstat of the host's namespace."""

from __future__ import annotations

from collections.abc import Sequence

from .._fast.procfs import Pairs, Rows
from ..metrics import Metric, counter, gauge
from .base import Cell, Collector, Filter, label

IFACE = ("iface",)


def _interface(name: str, help: str) -> Metric:
    return counter(f"esnode_network_{name}_total", help, IFACE)


#: Families of net/dev with their columns, counted from the colon.
COLUMNS = (
    (_interface("rx_bytes", "Bytes received."), 1),
    (_interface("tx_bytes", "Bytes sent."), 9),
    (_interface("rx_packets", "Packets received."), 2),
    (_interface("tx_packets", "Packets sent."), 10),
    (_interface("rx_errors", "Packets received with an error."), 3),
    (_interface("tx_errors", "Packets that could not be sent."), 11),
    (_interface("rx_dropped", "Packets received and dropped."), 4),
    (_interface("tx_dropped", "Packets dropped before they were sent."), 12),
    (_interface("rx_fifo_errors", "Packets lost to a full receive buffer."), 5),
    (_interface("tx_fifo_errors", "Packets lost to a full send buffer."), 13),
    (_interface("rx_multicast", "Multicast packets received."), 8),
)


def _protocol(name: str, help: str) -> Metric:
    return counter(f"esnode_network_{name}_total", help)


SNMP = {
    "Tcp:RetransSegs": _protocol("tcp_retrans", "TCP segments sent again."),
    "Tcp:OutSegs": _protocol("tcp_out_segments", "TCP segments sent."),
    "Tcp:InErrs": _protocol("tcp_in_errors", "TCP segments received with an error."),
    "Tcp:ActiveOpens": _protocol("tcp_active_opens", "TCP connections opened from here."),
    "Tcp:PassiveOpens": _protocol("tcp_passive_opens", "TCP connections opened from elsewhere."),
    "Udp:InErrors": _protocol("udp_in_errors", "UDP datagrams that could not be delivered."),
    "Udp:RcvbufErrors": _protocol(
        "udp_rcvbuf_errors", "UDP datagrams lost to a full receive buffer."
    ),
    "Tcp:CurrEstab": gauge("esnode_network_tcp_established", "TCP connections that are open."),
}
NETSTAT = {
    "TcpExt:ListenDrops": _protocol(
        "tcp_listen_drops", "TCP connections that a listening socket dropped."
    ),
    "TcpExt:ListenOverflows": _protocol(
        "tcp_listen_overflows", "TCP connections that met a full accept queue."
    ),
    "TcpExt:TCPTimeouts": _protocol("tcp_timeouts", "TCP retransmission timers that ran out."),
}


class Network(Collector):
    name = "network"
    switch = "enable_network"
    keys = ("network_interface_include", "network_interface_exclude")
    metrics = (*(metric for metric, _ in COLUMNS), *SNMP.values(), *NETSTAT.values())

    def bind(self) -> None:
        self.shown = Filter(
            self.config.network_interface_include, self.config.network_interface_exclude
        )
        self.dev = Rows(self.table, self.host.net("dev"), until=b":", news=b"", shape=range(1, 17))
        self.interfaces: set[bytes] = set()
        self.protocols = [
            Pairs(
                self.table,
                self.host.net(file),
                {name.encode(): self.table.add(metric) for name, metric in families.items()},
            )
            for file, families in (("snmp", SNMP), ("netstat", NETSTAT))
        ]

    def admit(self, key: bytes) -> Sequence[Cell]:
        iface = label(key)
        if not self.shown(iface):
            return ()
        cells = [(column, self.table.add(metric, (iface,))) for metric, column in COLUMNS]
        self.interfaces.add(key)
        return cells

    def drop(self, key: bytes) -> None:
        if key in self.interfaces:
            self.interfaces.remove(key)
            for metric, _ in COLUMNS:
                self.table.remove(metric, (label(key),))

    def sample(self, tick: bool) -> None:
        self.follow(self.dev)
        for protocol in self.protocols:
            self.read(protocol)
