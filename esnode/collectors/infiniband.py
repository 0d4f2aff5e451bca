"""InfiniBand, RoCE and Omni-Path ports, from /sys/class/infiniband."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..metrics import counter, gauge
from .base import label
from .device import Constant, Devices, Row, State, Text, Value, listing, target, text

PORT = ("device", "port")

INFO = gauge(
    "esnode_infiniband_info",
    "What a port is; always 1.",
    (*PORT, "pci", "numa_node", "netdev", "link_layer", "firmware"),
)
STATE = gauge(
    "esnode_infiniband_state", "Logical state of a port: 1 on the present one.", (*PORT, "state")
)
PHYSICAL_STATE = gauge(
    "esnode_infiniband_physical_state",
    "Physical state of a port: 1 on the present one.",
    (*PORT, "state"),
)
RATE = gauge("esnode_infiniband_rate_bytes", "Bytes a second that a link can carry.", PORT)
ERRORS = counter(
    "esnode_infiniband_errors_total", "Errors that a port has counted.", (*PORT, "kind")
)
HW = counter("esnode_infiniband_hw_total", "Counters of the adapter's own.", (*PORT, "counter"))

#: Families that are one file of a port's counters, with the bytes or packets that one unit is.
COUNTERS = {
    "port_rcv_data": (counter("esnode_infiniband_rx_bytes_total", "Bytes received.", PORT), 4),
    "port_xmit_data": (counter("esnode_infiniband_tx_bytes_total", "Bytes sent.", PORT), 4),
    "port_rcv_packets": (
        counter("esnode_infiniband_rx_packets_total", "Packets received.", PORT),
        1,
    ),
    "port_xmit_packets": (counter("esnode_infiniband_tx_packets_total", "Packets sent.", PORT), 1),
    "link_downed": (
        counter("esnode_infiniband_link_downed_total", "Times that the link went down.", PORT),
        1,
    ),
    "port_xmit_wait": (
        counter(
            "esnode_infiniband_tx_wait_total",
            "Ticks that data waited for credits to be sent.",
            PORT,
        ),
        1,
    ),
}
#: Older drivers have 64-bit counters in a folder of their own, and 32-bit ones, which stick at
#: their largest value, in the usual one.
EXTENDED = {
    "port_rcv_data": "port_rcv_data_64",
    "port_xmit_data": "port_xmit_data_64",
    "port_rcv_packets": "port_rcv_packets_64",
    "port_xmit_packets": "port_xmit_packets_64",
}
KINDS = {
    "symbol_error": "symbol",
    "link_error_recovery": "link_error_recovery",
    "port_rcv_errors": "rx",
    "port_rcv_remote_physical_errors": "rx_remote_physical",
    "port_rcv_switch_relay_errors": "rx_switch_relay",
    "port_rcv_constraint_errors": "rx_constraint",
    "port_xmit_constraint_errors": "tx_constraint",
    "port_xmit_discards": "tx_discards",
    "local_link_integrity_errors": "local_link_integrity",
    "excessive_buffer_overrun_errors": "excessive_buffer_overrun",
    "VL15_dropped": "vl15_dropped",
}
#: Counters of adapters that mean trouble, or congestion that turns into it.
TROUBLE = frozenset(
    (
        # mlx4, mlx5: RC transport, RoCE congestion and retransmission.
        *("duplicate_request", "implied_nak_seq_err", "local_ack_timeout_err", "out_of_buffer"),
        *("out_of_sequence", "packet_seq_err", "rnr_nak_retry_err", "rx_icrc_encapsulated"),
        *("req_cqe_error", "req_remote_access_errors", "req_remote_invalid_request"),
        *("req_transport_retries_exceeded", "req_rnr_retries_exceeded", "resp_cqe_error"),
        *("resp_local_length_error", "resp_remote_access_errors", "np_cnp_sent", "rp_cnp_handled"),
        *(
            "np_ecn_marked_roce_packets",
            "rp_cnp_ignored",
            "roce_adp_retrans_to",
            "roce_slow_restart",
        ),
        # bnxt_re.
        *("to_retransmits", "seq_err_naks_rcvd", "max_retry_exceeded", "rnr_naks_rcvd"),
        *("missing_resp", "unrecoverable_err", "oos_drop_count", "res_oob_drop_count"),
        *(
            "rx_roce_discard_pkts",
            "rx_roce_error_pkts",
            "tx_roce_discard_pkts",
            "tx_roce_error_pkts",
        ),
        # irdma.
        *(
            "cnpHandled",
            "cnpIgnored",
            "ip4InDiscards",
            "ip6InDiscards",
            "RxECNMrkd",
            "tcpRetransSegs",
        ),
        # efa.
        *("rx_drops", "retrans_timeout_events", "impaired_remote_conn_events"),
        *("unresponsive_remote_events", "rdma_read_wr_err", "rdma_write_wr_err", "submission_err"),
    )
)
STATES = {1: "down", 2: "init", 3: "armed", 4: "active", 5: "active_defer"}
PHYSICAL_STATES = {
    1: "sleep",
    2: "polling",
    3: "disabled",
    4: "port_configuration_training",
    5: "link_up",
    6: "link_error_recovery",
    7: "phy_test",
}
#: Not counters: how often the adapter renews the others, in ms.
SETTINGS = frozenset(("lifespan",))

_RATE = re.compile(r"(\d+(?:\.\d+)?) Gb/sec")


class Infiniband(Devices):
    name = "infiniband"
    switch = "enable_network"
    directory = "class/infiniband"
    metrics = (
        *(metric for metric, _ in COUNTERS.values()),
        ERRORS,
        RATE,
        STATE,
        PHYSICAL_STATE,
        INFO,
        HW,
    )

    def describe(self, name: str, path: str) -> Iterator[Row]:
        device = label(os.fsencode(name))
        pci = target(f"{path}/device")
        numa = text(f"{path}/device/numa_node")
        about = pci, None if numa == "-1" else numa
        firmware = text(f"{path}/fw_ver")
        for number in listing(f"{path}/ports"):
            port = device, label(os.fsencode(number))
            below = f"ports/{number}"
            layer = text(f"{path}/{below}/link_layer")
            netdev = text(f"{path}/{below}/gid_attrs/ndevs/0")
            yield Constant(INFO, (*port, *about, netdev, layer, firmware))
            yield State(STATE, port, f"{below}/state", STATES)
            yield State(PHYSICAL_STATE, port, f"{below}/phys_state", PHYSICAL_STATES)
            yield Text(f"{below}/rate")
            rate = _RATE.match(text(f"{path}/{below}/rate") or "")
            if rate:
                yield Constant(RATE, port, float(rate[1]) * 1e9 / 8)
            yield from self.counters(path, below, port)

    def counters(self, path: str, below: str, port: tuple[str, str]) -> Iterator[Row]:
        """The rows of a port's counters; which there are depends on the driver."""
        extended = set(listing(f"{path}/{below}/counters_ext"))
        there = set(listing(f"{path}/{below}/counters"))
        for file, (metric, unit) in COUNTERS.items():
            if EXTENDED.get(file) in extended:
                yield Value(metric, port, f"{below}/counters_ext/{EXTENDED[file]}", unit)
            elif file in there:
                yield Value(metric, port, f"{below}/counters/{file}", unit)
        for file, kind in KINDS.items():
            if file in there:
                yield Value(ERRORS, (*port, kind), f"{below}/counters/{file}")
        for file in listing(f"{path}/{below}/hw_counters"):
            if file in TROUBLE or (self.config.infiniband_detail and file not in SETTINGS):
                name = label(os.fsencode(file))
                yield Value(HW, (*port, name), f"{below}/hw_counters/{file}")
