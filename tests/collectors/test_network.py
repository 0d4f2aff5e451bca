"""collectors/network.py: interfaces and protocols."""

import time

import pytest

from esnode.collectors.network import Network
from tests.hosts import Rows, Tree

HEAD = (
    b"Inter-|   Receive                                                |  Transmit\n"
    b" face |bytes    packets errs drop fifo frame compressed multicast"
    b"|bytes    packets errs drop fifo colls carrier compressed\n"
)
SNMP = """\
Ip: Forwarding DefaultTTL InReceives
Ip: 1 64 1000
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens CurrEstab InSegs RetransSegs InErrs
Tcp: 1 200 120000 -1 21 22 23 99 24 25
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors
Udp: 98 97 31 96 32
UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors
UdpLite: 0 0 0 0 0
"""
NETSTAT = """\
TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPTimeouts
TcpExt: 95 41 42 43
IpExt: InNoRoutes
IpExt: 0
"""
PROTOCOLS = {
    "esnode_network_tcp_active_opens_total": 21,
    "esnode_network_tcp_passive_opens_total": 22,
    "esnode_network_tcp_established": 23,
    "esnode_network_tcp_retrans_total": 24,
    "esnode_network_tcp_in_errors_total": 25,
    "esnode_network_udp_in_errors_total": 31,
    "esnode_network_udp_rcvbuf_errors_total": 32,
    "esnode_network_tcp_listen_overflows_total": 41,
    "esnode_network_tcp_listen_drops_total": 42,
    "esnode_network_tcp_timeouts_total": 43,
}


def line(name: str | bytes, start: int = 1) -> bytes:
    raw = name if isinstance(name, bytes) else name.encode()
    return b"%6b: %b\n" % (raw, " ".join(map(str, range(start, start + 16))).encode())


def interfaces(rows: Rows) -> list[str]:
    head = "esnode_network_rx_bytes_total{iface="
    return [name.removeprefix(head)[1:-2] for name in rows if name.startswith(head)]


@pytest.fixture
def network(tree: Tree) -> Tree:
    tree.use(Network)
    tree.write(
        {
            "proc/1/net/dev": HEAD + line("eth0", 101),
            "proc/1/net/snmp": SNMP,
            "proc/1/net/netstat": NETSTAT,
        }
    )
    return tree


def test_values_of_the_files(network: Tree) -> None:
    assert network.read() == {
        'esnode_network_rx_bytes_total{iface="eth0"}': 101,
        'esnode_network_rx_packets_total{iface="eth0"}': 102,
        'esnode_network_rx_errors_total{iface="eth0"}': 103,
        'esnode_network_rx_dropped_total{iface="eth0"}': 104,
        'esnode_network_rx_fifo_errors_total{iface="eth0"}': 105,
        'esnode_network_rx_multicast_total{iface="eth0"}': 108,
        'esnode_network_tx_bytes_total{iface="eth0"}': 109,
        'esnode_network_tx_packets_total{iface="eth0"}': 110,
        'esnode_network_tx_errors_total{iface="eth0"}': 111,
        'esnode_network_tx_dropped_total{iface="eth0"}': 112,
        'esnode_network_tx_fifo_errors_total{iface="eth0"}': 113,
        **PROTOCOLS,
    }
    assert network.errors == 0


@pytest.mark.parametrize("shown_as", ["self/net", "net"])
def test_without_the_first_process_the_next_best_table(network: Tree, shown_as: str) -> None:
    (network.root / "proc" / shown_as).parent.mkdir(exist_ok=True)
    (network.root / "proc/1/net").rename(network.root / "proc" / shown_as)
    assert network.read().items() >= PROTOCOLS.items()


def test_the_hosts_table_comes_before_our_own(network: Tree) -> None:
    network.write({"proc/self/net/dev": HEAD + line("eth7"), "proc/net/dev": HEAD + line("eth8")})
    assert interfaces(network.read()) == ["eth0"]


def test_default_filter(network: Tree) -> None:
    shown = (
        "lo",
        "eth0",
        "eno1",
        "enp3s0f0np0",
        "bond0",
        "br0",
        "ib0",
        "wlan0",
        "eth0.100",
        "tun0",
    )
    hidden = (
        *("veth12ab", "docker0", "br-0a1b2c", "cali12ab", "flannel.1", "cni0", "lxcbr0"),
        *("lxc12ab", "nodelocaldns"),
    )
    network.write({"proc/1/net/dev": HEAD + b"".join(map(line, (*shown, *hidden)))})
    assert interfaces(network.read()) == list(shown)


def test_include_and_exclude(network: Tree) -> None:
    network.use(Network, network_interface_include="^e", network_interface_exclude="1$")
    network.write({"proc/1/net/dev": HEAD + b"".join(map(line, ("eth0", "eth1", "lo", "ens5")))})
    assert interfaces(network.read()) == ["eth0", "ens5"]


def test_interfaces_appear_and_vanish_at_the_next_tick(network: Tree) -> None:
    network.read()
    network.write({"proc/1/net/dev": HEAD + line("eth0", 101) + line("eth1", 201)})
    assert network.read()['esnode_network_rx_bytes_total{iface="eth1"}'] == 201
    network.write({"proc/1/net/dev": HEAD + line("eth1", 301)})
    rows = network.read()
    assert not [name for name in rows if "eth0" in name]
    assert rows['esnode_network_tx_fifo_errors_total{iface="eth1"}'] == 313
    network.write({"proc/1/net/dev": HEAD})
    assert network.read() == PROTOCOLS
    assert network.errors == 0


def test_slots_of_what_has_vanished_are_used_again(network: Tree) -> None:
    slots = set()
    for number in range(50):
        network.write({"proc/1/net/dev": HEAD + line(f"eth{number}")})
        network.read()
        assert network.lane is not None
        slot = network.lane.table.hidden()
        network.lane.table.forget(slot)
        slots.add(slot)
    assert len(slots) == 1, "the table has not grown"


def test_odd_names_are_valid_and_differ(network: Tree) -> None:
    odd = (b'q"uote', b"back\\slash", b"\xff", b"\xfe", b"al:ias")
    network.write({"proc/1/net/dev": HEAD + b"".join(map(line, odd))})
    assert interfaces(network.read()) == [
        *('q\\"uote', "back\\\\slash", "\\\\xff", "\\\\xfe", "al:ias")
    ]
    assert network.errors == 0


def test_numbers_stuck_to_the_colon(network: Tree) -> None:
    network.write({"proc/1/net/dev": HEAD + line("eth0", 500).replace(b": ", b":")})
    assert network.read()['esnode_network_rx_bytes_total{iface="eth0"}'] == 500


def test_a_line_without_a_name_is_no_interface(network: Tree) -> None:
    network.write({"proc/1/net/dev": HEAD + line("") + line("eth0")})
    assert interfaces(network.read()) == ["eth0"]


def test_bad_lines_cost_their_rows_only(network: Tree) -> None:
    network.write(
        {
            "proc/1/net/dev": HEAD
            + b"short: 1 2 3\n"
            + b"text: a 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
            + b"huge: %d 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n" % 2**64
            + line("eth0")
            + line("cut")[:-1]
        }
    )
    rows = network.read()
    assert interfaces(rows) == ["eth0"]
    assert rows['esnode_network_rx_packets_total{iface="huge"}'] == 2
    assert rows.items() >= PROTOCOLS.items()
    assert network.errors == 1


@pytest.mark.parametrize("file", ["dev", "snmp", "netstat"])
@pytest.mark.parametrize("bad", [None, b"", b"\x00\xff" * 3000])
def test_a_bad_file_costs_its_rows_and_comes_back(
    network: Tree, file: str, bad: bytes | None
) -> None:
    path = f"proc/1/net/{file}"
    text = (network.root / path).read_bytes()
    good = network.read()
    if bad is None:
        network.remove(path)
    else:
        network.write({path: bad})
    others = {
        "dev": PROTOCOLS,
        "snmp": {name: value for name, value in good.items() if value > 40},
        "netstat": {name: value for name, value in good.items() if not 40 < value < 50},
    }
    assert network.read() == others[file]
    assert network.errors == 1
    network.write({path: text})
    assert network.read() == good


def test_protocol_values_that_are_no_numbers(network: Tree) -> None:
    network.write(
        {
            "proc/1/net/snmp": "Tcp: ActiveOpens PassiveOpens CurrEstab RetransSegs InErrs\n"
            f"Tcp: {2**64} -4 x 7\nUdp: InErrors\n"
        }
    )
    rows = network.read()
    protocols = {name: value for name, value in rows.items() if "iface" not in name}
    assert protocols == {
        "esnode_network_tcp_retrans_total": 7,
        **{name: value for name, value in PROTOCOLS.items() if value > 40},
    }
    assert network.errors == 1


def test_thousands_that_vanish_at_once_are_let_go_of_at_once(tree: Tree) -> None:
    tree.use(Network)
    tree.write({"proc/net/dev": HEAD + b"".join(line(f"eth{i}") for i in range(3000))})
    assert len(tree.read()) >= 3000
    tree.write({"proc/net/dev": HEAD + line("eth0")})
    start = time.thread_time()
    assert len(tree.read()) < 100
    assert time.thread_time() - start < 2
