"""InfiniBand, RoCE and Omni-Path ports, from /sys/class/infiniband."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ..metrics import Metric, counter, gauge
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
HW = counter(
    "esnode_infiniband_hw_total",
    "Counters of the adapter's own; without a port's label, of all of it.",
    (*PORT, "counter"),
)


def _port(name: str, help: str) -> Metric:
    return counter(f"esnode_infiniband_{name}_total", help, PORT)


#: Families that are one file of a port's counters; see the kernel's
#: Documentation/ABI/stable/sysfs-class-infiniband
COUNTERS = {
    "port_rcv_data": _port("rx_bytes", "Bytes received."),
    "port_xmit_data": _port("tx_bytes", "Bytes sent."),
    "port_rcv_packets": _port("rx_packets", "Packets received."),
    "port_xmit_packets": _port("tx_packets", "Packets sent."),
    "link_downed": _port("link_downed", "Times that the link went down."),
    "port_xmit_wait": _port("tx_wait", "Ticks that data waited for credits to be sent."),
}
#: Those that count words, and the bytes of one; see ABI/stable/sysfs-class-infiniband.
WORDS = ("port_rcv_data", "port_xmit_data")
WORD = 4
#: Older drivers have 64-bit counters in a folder of their own, and 32-bit ones, which stick at
#: their largest value, in the usual one.
EXTENDED = {
    "port_rcv_data": "port_rcv_data_64",
    "port_xmit_data": "port_xmit_data_64",
    "port_rcv_packets": "port_rcv_packets_64",
    "port_xmit_packets": "port_xmit_packets_64",
}
#: Drivers without the usual counters have these among their own, of bytes and packets: bnxt_re and
#: efa, hns, ionic.
OWN = {
    "port_rcv_data": ("rx_bytes", "rx_rdma_ucast_bytes"),
    "port_xmit_data": ("tx_bytes", "tx_rdma_ucast_bytes"),
    "port_rcv_packets": ("rx_pkts", "rx_pkt", "rx_rdma_ucast_pkts"),
    "port_xmit_packets": ("tx_pkts", "tx_pkt", "tx_rdma_ucast_pkts"),
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
#: Counters of adapters that mean trouble, or congestion that turns into it, by driver.
TROUBLE = frozenset(
    name
    for names in (
        # mlx5
        "duplicate_request,implied_nak_seq_err,local_ack_timeout_err,out_of_buffer",
        "out_of_sequence,packet_seq_err,rnr_nak_retry_err,rx_icrc_encapsulated",
        "req_cqe_error,req_remote_access_errors,req_remote_invalid_request",
        "req_rnr_retries_exceeded,req_transport_retries_exceeded,resp_cqe_error",
        "resp_local_length_error,resp_remote_access_errors",
        "np_cnp_sent,np_ecn_marked_roce_packets,rp_cnp_handled,rp_cnp_ignored",
        "roce_adp_retrans_to,roce_slow_restart",
        # mlx4
        "num_cqovf,rq_num_dup,rq_num_oos,rq_num_rae,rq_num_rnr,sq_num_oos,sq_num_rae,sq_num_rire",
        "sq_num_rnr,sq_num_roe,sq_num_rree,sq_num_to,sq_num_tree",
        # bnxt_re
        "bad_resp_err,dup_req,local_qp_op_err,max_retry_exceeded,missing_resp,oos_drop_count",
        "remote_access_err,remote_invalid_req_err,remote_op_err,rnr_naks_rcvd,seq_err_naks_rcvd",
        "to_retransmits,unrecoverable_err,rx_out_of_buffer,rx_roce_discards,rx_roce_errors",
        "rx_cnp_pkts,rx_ecn_marked_pkts,tx_cnp_pkts,pacing_alerts",
        # irdma
        "cnpHandled,cnpIgnored,cnpSent,ip4InDiscards,ip6InDiscards,RxECNMrkd,rxVlanErrors",
        "tcpInProtoErrors,tcpRetransSegs,InProtoErrors,RetransSegs",
        "CRC errors,Nak Sequence Error,Rcvd Out of order packets,RNR received,RTO",
        # efa
        "cmds_err,no_completion_cmds,rx_drops,rdma_read_wr_err,rdma_write_wr_err",
        "impaired_remote_conn_events,retrans_timeout_events,unresponsive_remote_events",
        # hfi1
        "OtherNak,PktDrop,RcResend,RcSeqNak,RcTimeOut,RdmaSeq,RnrNak",
        # hns
        "ecn_doorbell,rx_cnp_pkt,rx_err_pkt,tx_cnp_pkt,tx_err_pkt",
        # ionic
        "req_rx_pkt_seq_err,req_rx_rnr_retry_err,req_tx_retry_excd_err,resp_rx_outof_buf",
        "rx_rdma_cnp_pkts,rx_rdma_ecn_pkts,tx_rdma_ack_timeout,tx_rdma_cnp_pkts",
    )
    for name in names.split(",")
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
#: Omni-Path's, beyond those of InfiniBand.
OFFLINE = {9: "offline"}
#: Not counters: how often the adapter renews the others, in ms.
SETTINGS = frozenset(("lifespan",))

_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) Gb/sec")


class Infiniband(Devices):
    name = "infiniband"
    switch = "enable_network"
    keys = ("infiniband_detail",)
    lane = "infiniband"
    directory = "class/infiniband"
    metrics = (*COUNTERS.values(), ERRORS, RATE, STATE, PHYSICAL_STATE, INFO, HW)

    def describe(self, name: str, path: str) -> Iterator[Row]:
        device = label(name)
        pci = target(f"{path}/device")
        numa = text(f"{path}/device/numa_node")
        about = pci, None if numa == "-1" else numa
        firmware = text(f"{path}/fw_ver")
        # Ports are often renamed after where they are, as opap1s0.
        is_omnipath = name.startswith("hfi1") or target(f"{path}/device/driver") == "hfi1"
        ports = listing(f"{path}/ports")
        for number in ports:
            port = device, label(number)
            below = f"ports/{number}"
            layer = text(f"{path}/{below}/link_layer")
            netdev = text(f"{path}/{below}/gid_attrs/ndevs/0")
            if netdev is None and layer == "InfiniBand":
                netdev = ipoib(path, number)
            yield Constant(INFO, (*port, *about, netdev, layer, firmware))
            yield State(STATE, port, f"{below}/state", STATES)
            physical = PHYSICAL_STATES | (OFFLINE if is_omnipath else {})
            yield State(PHYSICAL_STATE, port, f"{below}/phys_state", physical)
            yield Text(f"{below}/rate")
            rate = _RATE.match(text(f"{path}/{below}/rate") or "")
            if rate:
                yield Constant(RATE, port, float(rate[1]) * 1e9 / 8)
            yield from self.counters(path, below, port)
            yield from self.own(path, f"{below}/hw_counters", port)
        # mlx4 and mlx5 have the sums of the ports' own here as well.
        counted = {file for n in ports for file in listing(f"{path}/ports/{n}/hw_counters")}
        yield from self.own(path, "hw_counters", (device, None), counted)

    def counters(self, path: str, below: str, port: tuple[str, str]) -> Iterator[Row]:
        """The rows of a port's counters; which there are depends on the driver."""
        extended = listing(f"{path}/{below}/counters_ext")
        there = listing(f"{path}/{below}/counters")
        own = listing(f"{path}/{below}/hw_counters")
        for file, metric in COUNTERS.items():
            unit = WORD if file in WORDS else 1
            if EXTENDED.get(file) in extended:
                yield Value(metric, port, f"{below}/counters_ext/{EXTENDED[file]}", unit)
            elif file in there:
                yield Value(metric, port, f"{below}/counters/{file}", unit)
            elif names := [name for name in OWN.get(file, ()) if name in own]:
                yield Value(metric, port, f"{below}/hw_counters/{names[0]}")
        for file, kind in KINDS.items():
            if file in there:
                yield Value(ERRORS, (*port, kind), f"{below}/counters/{file}")

    def own(
        self, path: str, folder: str, port: tuple[str, str | None], less: Collection[str] = ()
    ) -> Iterator[Row]:
        """The rows of a folder of the adapter's own counters."""
        for file in listing(f"{path}/{folder}"):
            wanted = file in TROUBLE or (self.config.infiniband_detail and file not in SETTINGS)
            if wanted and file not in less:
                yield Value(HW, (*port, label(file)), f"{folder}/{file}")


def ipoib(path: str, port: str) -> str | None:
    """The interface over a port: the first with its number; others are children of it."""
    for interface in listing(f"{path}/device/net"):
        index = text(f"{path}/device/net/{interface}/dev_port")
        if port.isdecimal() and index == str(int(port) - 1):
            return label(interface)
    return None
