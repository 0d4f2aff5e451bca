"""collectors/sockets.py: sockets, packet processing, tracked connections."""

from __future__ import annotations

import time

import pytest

from esnode.collectors.sockets import Sockets
from tests.hosts import Tree

NET = "proc/1/net/"
CONNTRACK = "proc/sys/net/netfilter/nf_conntrack_"
SOCKSTAT = """\
sockets: used 290
TCP: inuse 5 orphan 1 tw 2 alloc 8 mem 9
UDP: inuse 3 mem 7
UDPLITE: inuse 0
RAW: inuse 4
FRAG: inuse 6 memory 6
"""
SOCKSTAT6 = """\
TCP6: inuse 11
UDP6: inuse 12
UDPLITE6: inuse 13
RAW6: inuse 14
FRAG6: inuse 0 memory 0
"""


def softnet(*cpus: tuple[int, int, int]) -> str:
    return "".join(
        f"{processed:08x} {dropped:08x} {squeezed:08x} " + "00000000 " * 9 + f"{number:08x}\n"
        for number, (processed, dropped, squeezed) in enumerate(cpus)
    )


def sockets(family: str, state: str = "inuse") -> str:
    return f'esnode_network_sockets{{family="{family}",state="{state}"}}'


VALUES = {
    sockets("tcp"): 5,
    sockets("tcp", "tw"): 2,
    sockets("tcp", "orphan"): 1,
    sockets("tcp", "alloc"): 8,
    sockets("udp"): 3,
    sockets("udplite"): 0,
    sockets("raw"): 4,
    "esnode_network_softnet_processed_total": 0xFFFFFFFE + 7,
    "esnode_network_softnet_dropped_total": 9,
    "esnode_network_softnet_squeezed_total": 2,
}
VALUES6 = {sockets(f): n for n, f in enumerate(("tcp6", "udp6", "udplite6", "raw6"), 11)}
TRACKED = {"esnode_network_conntrack_entries": 104, "esnode_network_conntrack_limit": 262144}


@pytest.fixture
def tree(tree: Tree) -> Tree:
    tree.use(Sockets)
    tree.write(
        {
            NET + "sockstat": SOCKSTAT,
            NET + "softnet_stat": softnet((0xFFFFFFFE, 1, 0), (7, 8, 2)),
        }
    )
    return tree


def test_values_of_the_files(tree: Tree) -> None:
    tree.write(
        {
            NET + "sockstat6": SOCKSTAT6,
            CONNTRACK + "count": "104\n",
            CONNTRACK + "max": "262144\n",
        }
    )
    assert tree.read() == VALUES | VALUES6 | TRACKED
    assert tree.errors == 0
    assert tree.up


def test_what_comes_later_is_found_and_what_goes_is_not_missed(tree: Tree) -> None:
    for _ in range(2):
        assert tree.read() == VALUES
        tree.write({NET + "sockstat6": SOCKSTAT6})
        assert tree.read() == VALUES | VALUES6
        tree.write({CONNTRACK + "count": "104\n", CONNTRACK + "max": "262144\n"})
        assert tree.read(tick=False) == VALUES | VALUES6 | TRACKED
        for name in (NET + "sockstat6", CONNTRACK + "count", CONNTRACK + "max"):
            tree.remove(name)
    assert tree.read() == VALUES
    assert tree.errors == 0
    assert tree.up


def test_looking_for_what_is_not_there_costs_little(tree: Tree) -> None:
    tree.read()
    start = time.thread_time()
    for _ in range(1000):
        tree.read()
    assert time.thread_time() - start < 1


def test_counters_of_32_bits_go_on(tree: Tree) -> None:
    tree.read()
    tree.write({NET + "softnet_stat": softnet((5, 1, 0), (8, 8, 3))})
    rows = tree.read()
    assert rows["esnode_network_softnet_processed_total"] == 2**32 + 5 + 8
    assert rows["esnode_network_softnet_squeezed_total"] == 3


def test_without_the_files_it_is_not_there(tree: Tree) -> None:
    tree.remove(NET + "sockstat")
    tree.remove(NET + "softnet_stat")
    tree.write({NET + "sockstat6": SOCKSTAT6})
    assert tree.read() == {}
    assert tree.lane is not None
    (part,) = tree.lane.parts
    assert (part.absent, part.errors) == (True, 0)


@pytest.mark.parametrize(("name", "word"), [("sockstat", "sockets"), ("softnet_stat", "softnet")])
def test_a_bad_file_costs_its_rows_and_comes_back(tree: Tree, name: str, word: str) -> None:
    good = (tree.root / NET / name).read_text()
    others = {row: value for row, value in VALUES.items() if word not in row}
    assert others.keys() != VALUES.keys()
    assert tree.read() == VALUES
    for text in ("", "\0\xff" * 900, "TCP: inuse x\n", "TCP:"):
        errors = tree.errors
        tree.write({NET + name: text})
        assert tree.read() == others, text
        assert tree.errors == errors + 1
        assert not tree.up
    tree.remove(NET + name)
    assert tree.read() == others
    assert not tree.up
    tree.write({NET + name: good})
    assert tree.read() == VALUES
    assert tree.up


def test_a_bad_sysctl_file_is_an_error(tree: Tree) -> None:
    tree.write({CONNTRACK + "count": "", CONNTRACK + "max": "x\n", NET + "sockstat6": ""})
    assert tree.read() == VALUES
    assert tree.errors == 3
