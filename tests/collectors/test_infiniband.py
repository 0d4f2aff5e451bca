"""collectors/infiniband.py: ports of every driver, their states, rates and counters."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from esnode.collectors import infiniband
from esnode.collectors.infiniband import KINDS, Infiniband
from tests.hosts import Rows, Tree

TOP = "sys/class/infiniband"
STANDARD = {
    "port_rcv_data": 1000,
    "port_xmit_data": 2000,
    "port_rcv_packets": 30,
    "port_xmit_packets": 40,
    "link_downed": 2,
    "port_xmit_wait": 77,
    **{file: 100 + i for i, file in enumerate(KINDS)},
}


def port(
    device: str,
    number: int = 1,
    counters: dict[str, int] | None = None,
    hw: dict[str, int] | None = None,
    **files: str,
) -> dict[str, str]:
    """The files of a port; ``files``: those of its folder that are not as usual."""
    below = f"{TOP}/{device}/ports/{number}"
    usual = {
        "state": "4: ACTIVE\n",
        "phys_state": "5: LinkUp\n",
        "rate": "400 Gb/sec (4X NDR)\n",
        "link_layer": "InfiniBand\n",
    }
    return {
        **{f"{below}/{name}": text for name, text in {**usual, **files}.items()},
        **{f"{below}/counters/{name}": f"{value}\n" for name, value in (counters or {}).items()},
        **{f"{below}/hw_counters/{name}": f"{value}\n" for name, value in (hw or {}).items()},
    }


def family(rows: Rows, name: str) -> Rows:
    """The rows of a family, by their labels."""
    head = f"esnode_infiniband_{name}{{"
    return {row[len(head) : -1]: value for row, value in rows.items() if row.startswith(head)}


def hw_names(rows: Rows) -> list[str]:
    return [labels.split('counter="')[1][:-1] for labels in family(rows, "hw_total")]


def current(rows: Rows, name: str) -> list[str]:
    """The states that are 1."""
    states = family(rows, name)
    return [labels.split('state="')[1][:-1] for labels, value in states.items() if value == 1]


def lines(names: str, values: Iterable[int] | None = None) -> dict[str, int]:
    """Counters by their names."""
    words = names.split(",")
    return dict(zip(words, values or range(1, len(words) + 1), strict=True))


@pytest.fixture
def fabric(tree: Tree) -> Tree:
    tree.use(Infiniband)
    return tree


def test_values_of_the_files(fabric: Tree) -> None:
    fabric.write({**port("mlx5_0", counters=STANDARD), f"{TOP}/mlx5_0/fw_ver": "28.39.1002\n"})
    one = 'device="mlx5_0",port="1"'
    assert fabric.read() == {
        f"esnode_infiniband_rx_bytes_total{{{one}}}": 4000,
        f"esnode_infiniband_tx_bytes_total{{{one}}}": 8000,
        f"esnode_infiniband_rx_packets_total{{{one}}}": 30,
        f"esnode_infiniband_tx_packets_total{{{one}}}": 40,
        f"esnode_infiniband_link_downed_total{{{one}}}": 2,
        f"esnode_infiniband_tx_wait_total{{{one}}}": 77,
        f'esnode_infiniband_errors_total{{{one},kind="symbol"}}': 100,
        f'esnode_infiniband_errors_total{{{one},kind="link_error_recovery"}}': 101,
        f'esnode_infiniband_errors_total{{{one},kind="rx"}}': 102,
        f'esnode_infiniband_errors_total{{{one},kind="rx_remote_physical"}}': 103,
        f'esnode_infiniband_errors_total{{{one},kind="rx_switch_relay"}}': 104,
        f'esnode_infiniband_errors_total{{{one},kind="rx_constraint"}}': 105,
        f'esnode_infiniband_errors_total{{{one},kind="tx_constraint"}}': 106,
        f'esnode_infiniband_errors_total{{{one},kind="tx_discards"}}': 107,
        f'esnode_infiniband_errors_total{{{one},kind="local_link_integrity"}}': 108,
        f'esnode_infiniband_errors_total{{{one},kind="excessive_buffer_overrun"}}': 109,
        f'esnode_infiniband_errors_total{{{one},kind="vl15_dropped"}}': 110,
        f"esnode_infiniband_rate_bytes{{{one}}}": 50e9,
        **{
            f'esnode_infiniband_state{{{one},state="{state}"}}': state == "active"
            for state in ("down", "init", "armed", "active", "active_defer")
        },
        **{
            f'esnode_infiniband_physical_state{{{one},state="{state}"}}': state == "link_up"
            for state in (
                *("sleep", "polling", "disabled", "port_configuration_training", "link_up"),
                *("link_error_recovery", "phy_test"),
            )
        },
        f'esnode_infiniband_info{{{one},link_layer="InfiniBand",firmware="28.39.1002"}}': 1,
    }
    assert fabric.errors == 0


def test_none_is_unavailable(fabric: Tree) -> None:
    assert fabric.read() == {}
    assert fabric.lane is not None
    assert fabric.lane.parts[0].absent


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("2.5 Gb/sec (1X SDR)", 312.5e6),
        ("25 Gb/sec (1X EDR)", 3.125e9),
        ("800 Gb/sec (4X XDR)", 100e9),
        ("10 Gb/sec (4X)", 1.25e9),
        ("N/A", None),
        ("9" * 400 + " Gb/sec (4X)", None),
        ("", None),
        ("x\n" * 400, None),
    ],
)
def test_rate(fabric: Tree, text: str, rate: float | None) -> None:
    fabric.write(port("mlx5_0", rate=text + "\n"))
    assert list(family(fabric.read(), "rate_bytes").values()) == ([rate] if rate else [])


def test_a_link_that_comes_up_at_another_rate(fabric: Tree) -> None:
    fabric.write(port("mlx5_0", state="1: DOWN\n", phys_state="2: Polling\n", rate="10 Gb/sec\n"))
    rows = fabric.read()
    assert (current(rows, "state"), current(rows, "physical_state")) == (["down"], ["polling"])
    fabric.write(port("mlx5_0"))
    rows = fabric.read(tick=False)
    assert (current(rows, "state"), current(rows, "physical_state")) == (["active"], ["link_up"])
    assert list(family(rows, "rate_bytes").values()) == [50e9]
    assert fabric.errors == 0


@pytest.mark.parametrize("text", ["0: NOP\n", "9: <unknown>\n", "9\n"])
def test_a_state_without_a_word_is_none_of_them(fabric: Tree, text: str) -> None:
    fabric.write(port("mlx5_0", phys_state=text))
    rows = fabric.read()
    assert current(rows, "physical_state") == []
    assert len(family(rows, "physical_state")) == 7


@pytest.mark.parametrize("text", ["", "ACTIVE\n", "-1: x\n", "\0\0"])
def test_a_state_that_is_none_is_absent(fabric: Tree, text: str) -> None:
    fabric.write(port("mlx5_0", phys_state=text))
    assert not family(fabric.read(), "physical_state")


def test_who_a_port_belongs_to(fabric: Tree) -> None:
    """The links and files of a two-port adapter; one port Ethernet, the other not."""
    fabric.write(
        {
            **port("mlx4_0", 1, link_layer="Ethernet\n"),
            **port("mlx4_0", 2),
            f"{TOP}/mlx4_0/ports/1/gid_attrs/ndevs/0": "enp65s0\n",
            "sys/devices/0000:41:00.0/numa_node": "1\n",
            "sys/devices/0000:41:00.0/net/enp65s0/dev_port": "0\n",
            "sys/devices/0000:41:00.0/net/ib0/dev_port": "1\n",
            "sys/devices/0000:41:00.0/net/ib0.8001/dev_port": "1\n",
        }
    )
    (fabric.root / TOP / "mlx4_0/device").symlink_to("../../../devices/0000:41:00.0")
    head = 'device="mlx4_0",port="{}",pci="0000:41:00.0",numa_node="1",netdev="{}",link_layer="{}"'
    assert list(family(fabric.read(), "info")) == [
        head.format(1, "enp65s0", "Ethernet"),
        head.format(2, "ib0", "InfiniBand"),
    ]


def test_unknown_labels_are_left_out(fabric: Tree) -> None:
    """A software device: no PCI device, no firmware; and one on a node that is not known."""
    fabric.write(
        {
            **port("rxe0", link_layer="Ethernet\n"),
            **port("siw0"),
            f"{TOP}/siw0/device/numa_node": "-1\n",
            f"{TOP}/siw0/fw_ver": "\n",
        }
    )
    assert list(family(fabric.read(), "info")) == [
        'device="rxe0",port="1",link_layer="Ethernet"',
        'device="siw0",port="1",link_layer="InfiniBand"',
    ]


def test_counters_of_old_drivers(fabric: Tree) -> None:
    """Those with 64 bits are in a folder of their own; the others stick at their largest value."""
    stuck = dict.fromkeys(STANDARD, 2**32 - 1)
    fabric.write(port("mlx4_0", counters=stuck))
    extended = ("port_rcv_data", "port_xmit_data", "port_rcv_packets", "port_xmit_packets")
    folder = f"{TOP}/mlx4_0/ports/1/counters_ext"
    fabric.write({f"{folder}/{name}_64": f"{2**40 + i}\n" for i, name in enumerate(extended)})
    rows = fabric.read()
    assert list(family(rows, "rx_bytes_total").values()) == [4 * 2**40]
    assert list(family(rows, "tx_bytes_total").values()) == [4 * (2**40 + 1)]
    assert list(family(rows, "rx_packets_total").values()) == [2**40 + 2]
    assert list(family(rows, "tx_packets_total").values()) == [2**40 + 3]
    assert list(family(rows, "tx_wait_total").values()) == [2**32 - 1]


def test_what_a_driver_does_not_know_is_absent(fabric: Tree) -> None:
    """Without a performance management agent the kernel's text says so."""
    fabric.write(port("siw0", counters=STANDARD))
    files = (fabric.root / TOP / "siw0/ports/1/counters").iterdir()
    fabric.write({str(path.relative_to(fabric.root)): "N/A (no PMA)\n" for path in files})
    rows = fabric.read()
    assert {name.split("{")[0].removeprefix("esnode_infiniband_") for name in rows} == {
        *("state", "physical_state", "rate_bytes", "info")
    }
    assert fabric.errors == 0


def test_malformed_counters_cost_their_rows_only(fabric: Tree) -> None:
    fabric.write(port("mlx5_0", counters=STANDARD))
    good = fabric.read()
    folder = f"{TOP}/mlx5_0/ports/1/counters"
    bad = ("port_rcv_data", "link_downed", "symbol_error", "VL15_dropped")
    texts: tuple[str | bytes, ...] = ("", "12 apples\n", f"{2**64}\n", b"\xff" * 9000)
    fabric.write({f"{folder}/{name}": text for name, text in zip(bad, texts, strict=True)})
    rows = fabric.read()
    gone = {name.split("{")[0] for name in good.keys() - rows.keys()}
    assert gone == {
        "esnode_infiniband_rx_bytes_total",
        "esnode_infiniband_link_downed_total",
        "esnode_infiniband_errors_total",
    }
    assert len(good) - len(rows) == 4
    assert fabric.errors == 4
    fabric.write(port("mlx5_0", counters=STANDARD))
    assert fabric.read() == good


MLX5 = lines(
    "duplicate_request,implied_nak_seq_err,lifespan,local_ack_timeout_err,np_cnp_sent,"
    "out_of_buffer,out_of_sequence,packet_seq_err,req_cqe_error,req_cqe_flush_error,"
    "roce_adp_retrans,rx_icrc_encapsulated,rx_read_requests,rx_write_requests"
)


def test_hw_counters_that_mean_trouble(fabric: Tree) -> None:
    fabric.write(port("mlx5_0", link_layer="Ethernet\n", counters=STANDARD, hw=MLX5))
    rows = fabric.read()
    assert hw_names(rows) == [
        *("duplicate_request", "implied_nak_seq_err", "local_ack_timeout_err", "np_cnp_sent"),
        *("out_of_buffer", "out_of_sequence", "packet_seq_err", "req_cqe_error"),
        "rx_icrc_encapsulated",
    ]
    retries = 'device="mlx5_0",port="1",counter="local_ack_timeout_err"'
    assert family(rows, "hw_total")[retries] == 4


def test_detail_is_every_hw_counter(fabric: Tree) -> None:
    fabric.use(Infiniband, infiniband_detail=True)
    fabric.write(port("mlx5_0", counters=STANDARD, hw=MLX5))
    values = family(fabric.read(), "hw_total")
    assert values == {
        f'device="mlx5_0",port="1",counter="{name}"': value
        for name, value in MLX5.items()
        if name != "lifespan"
    }


@pytest.mark.parametrize("detail", [False, True])
def test_counters_of_the_whole_adapter(fabric: Tree, detail: bool) -> None:
    """What a port counts is not counted twice."""
    fabric.use(Infiniband, infiniband_detail=detail)
    fabric.write(
        {
            **port("mlx4_0", 1, hw=lines("lifespan,rq_num_dup,sq_num_bre,sq_num_to")),
            **port("mlx4_0", 2, hw=lines("lifespan,rq_num_dup,sq_num_bre,sq_num_to", [5, 6, 7, 8])),
            **{
                f"{TOP}/mlx4_0/hw_counters/{name}": "99\n"
                for name in ("lifespan", "num_cqovf", "rq_num_dup", "rq_num_udsdprd", "sq_num_to")
            },
        }
    )
    only = {'device="mlx4_0",counter="rq_num_udsdprd"': 99} if detail else {}
    bre = [f'device="mlx4_0",port="{n}",counter="sq_num_bre"' for n in (1, 2)]
    assert family(fabric.read(), "hw_total") == {
        'device="mlx4_0",port="1",counter="rq_num_dup"': 2,
        'device="mlx4_0",port="1",counter="sq_num_to"': 4,
        'device="mlx4_0",port="2",counter="rq_num_dup"': 6,
        'device="mlx4_0",port="2",counter="sq_num_to"': 8,
        'device="mlx4_0",counter="num_cqovf"': 99,
        **only,
        **(dict(zip(bre, (3, 7), strict=True)) if detail else {}),
    }


TRAFFIC = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")


@pytest.mark.parametrize(
    ("names", "traffic", "trouble"),
    [
        (  # bnxt_re
            "active_qps,rx_bytes,rx_ecn_marked_pkts,rx_pkts,seq_err_naks_rcvd,to_retransmits,"
            "tx_bytes,tx_pkts,tx_send_req",
            (2, 7, 4, 8),
            ["rx_ecn_marked_pkts", "seq_err_naks_rcvd", "to_retransmits"],
        ),
        (  # efa
            "lifespan,rdma_read_bytes,rdma_read_wr_err,retrans_timeout_events,rx_bytes,rx_drops,"
            "rx_pkts,tx_bytes,tx_pkts",
            (5, 8, 7, 9),
            ["rdma_read_wr_err", "retrans_timeout_events", "rx_drops"],
        ),
        (  # irdma: octets of two protocols
            "CRC errors,RxECNMrkd,cnpHandled,ip4InDiscards,ip4InOctets,ip6InOctets",
            (None, None, None, None),
            ["CRC errors", "RxECNMrkd", "cnpHandled", "ip4InDiscards"],
        ),
        (  # hns: packets only
            "rx_cnp_pkt,rx_err_pkt,rx_pkt,rx_rc_pkt,tx_pkt",
            (None, None, 3, 5),
            ["rx_cnp_pkt", "rx_err_pkt"],
        ),
        (  # ionic
            "rx_rdma_cnp_pkts,rx_rdma_ucast_bytes,rx_rdma_ucast_pkts,tx_rdma_ucast_bytes,"
            "tx_rdma_ucast_pkts",
            (2, 4, 3, 5),
            ["rx_rdma_cnp_pkts"],
        ),
    ],
    ids=["bnxt_re", "efa", "irdma", "hns", "ionic"],
)
def test_drivers_without_the_usual_counters(
    fabric: Tree, names: str, traffic: tuple[int | None, ...], trouble: list[str]
) -> None:
    fabric.write(port("rocep1s0", link_layer="Ethernet\n", hw=lines(names)))
    (fabric.root / TOP / "rocep1s0/ports/1/counters").mkdir()
    rows = fabric.read()
    found = [family(rows, f"{name}_total").get('device="rocep1s0",port="1"') for name in TRAFFIC]
    assert tuple(found) == traffic
    assert hw_names(rows) == trouble
    assert fabric.errors == 0


def test_the_usual_counters_come_first(fabric: Tree) -> None:
    fabric.write(port("mlx5_0", counters=STANDARD, hw=lines("rx_bytes,tx_pkts")))
    rows = fabric.read()
    assert list(family(rows, "rx_bytes_total").values()) == [4000]
    assert list(family(rows, "tx_packets_total").values()) == [40]


@pytest.mark.parametrize("name", ["hfi1_0", "opap1s0"])
def test_omni_path_has_states_and_counters_of_its_own(fabric: Tree, name: str) -> None:
    fabric.write(
        {
            **port(name, counters=STANDARD, hw=lines("RcTimeOut,RxPkt"), phys_state="9: x\n"),
            f"{TOP}/{name}/hw_counters/RxRbufDescPart2CorErr": "0\n",
        }
    )
    if name == "opap1s0":  # renamed; the driver knows
        device = fabric.root / TOP / name / "device"
        device.mkdir()
        (device / "driver").symlink_to("../../../../bus/pci/drivers/hfi1")
    rows = fabric.read()
    assert list(family(rows, "rx_bytes_total").values()) == [4000]
    assert list(family(rows, "tx_bytes_total").values()) == [8000]
    assert list(family(rows, "tx_packets_total").values()) == [40]
    assert current(rows, "physical_state") == ["offline"]
    assert hw_names(rows) == ["RcTimeOut"]


REFUSED = Path("/sys/class/net/lo/speed")


@pytest.fixture
def refusing() -> Path:
    """A file that answers EINVAL, as those of a function that may not read its port's do."""
    try:
        REFUSED.read_text()
    except OSError:
        return REFUSED
    pytest.skip(f"{REFUSED} can be read, or is not there")


def test_files_that_are_refused_are_asked_once(fabric: Tree, refusing: Path) -> None:
    fabric.write(port("mlx5_4", counters=STANDARD, hw=MLX5))
    below = f"{TOP}/mlx5_4/ports/1"
    files = (f"{below}/counters/symbol_error", f"{below}/hw_counters/out_of_buffer")
    for file in files:
        fabric.remove(file)
        (fabric.root / file).symlink_to(refusing)
    rows = fabric.read()
    assert 'esnode_infiniband_errors_total{device="mlx5_4",port="1",kind="rx"}' in rows
    gone = ('kind="symbol"', 'counter="out_of_buffer"')
    assert not [name for name in rows if any(label in name for label in gone)]
    assert fabric.errors == 0 and fabric.up
    for file in files:
        fabric.remove(file)
    fabric.write(dict.fromkeys(files, "5\n"))
    assert fabric.read() == rows
    # Another adapter may come back under the name.
    (fabric.root / TOP / "mlx5_4").rename(fabric.root / "away")
    assert fabric.read() == {}
    (fabric.root / "away").rename(fabric.root / TOP / "mlx5_4")
    more = fabric.read()
    assert len(more) == len(rows) + 2
    assert more.items() >= rows.items()
    assert fabric.errors == 0


def test_adapters_come_and_go(fabric: Tree) -> None:
    fabric.write({**port("mlx5_0", counters=STANDARD), **port("mlx5_1", counters=STANDARD)})
    both = fabric.read()
    shutil.rmtree(fabric.root / TOP / "mlx5_1")
    rows = fabric.read()
    assert rows == {name: value for name, value in both.items() if "mlx5_0" in name}
    fabric.write(port("mlx5_1", counters=STANDARD))
    assert fabric.read() == both
    assert fabric.errors == 0


def test_odd_trees_are_no_ports(fabric: Tree) -> None:
    fabric.write({f"{TOP}/abi_version": "1\n", f"{TOP}/mlx5_9/node_type": "1: CA\n"})
    fabric.write(port("mlx5_0"))
    (fabric.root / TOP / "gone").symlink_to("../../devices/gone")
    assert list(family(fabric.read(), "info")) == [
        'device="mlx5_0",port="1",link_layer="InfiniBand"'
    ]
    assert fabric.errors == 0


def test_names_of_counters_are_spelled_once() -> None:
    assert all(name == name.strip() and name for name in infiniband.TROUBLE)
    assert not infiniband.TROUBLE & infiniband.SETTINGS
