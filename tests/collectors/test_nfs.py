"""collectors/nfs.py: the client's requests."""

from __future__ import annotations

import pytest

from esnode.collectors.nfs import Nfs
from tests.hosts import Tree

REQUESTS, AGAIN = "esnode_nfs_requests_total", "esnode_nfs_retransmissions_total"
FILE = "proc/1/net/rpc/nfs"


def text(requests: int, again: int) -> str:
    return f"net 70 71 72 73\nrpc {requests} {again} 9\nproc3 22 1 2 3\nproc4 2 5 6\n"


@pytest.fixture
def nfs(tree: Tree) -> Tree:
    tree.use(Nfs)
    tree.write({FILE: text(4329785, 12)})
    return tree


def test_values_of_the_file(nfs: Tree) -> None:
    assert nfs.read() == {REQUESTS: 4329785, AGAIN: 12}
    assert nfs.errors == 0
    assert nfs.up


def test_counters_of_32_bits_go_on(nfs: Tree) -> None:
    nfs.write({FILE: text(2**32 - 1, 12)})
    nfs.read()
    nfs.write({FILE: text(4, 13)})
    assert nfs.read() == {REQUESTS: 2**32 + 4, AGAIN: 13}
    nfs.write({FILE: text(3, 2)})
    assert nfs.read() == {REQUESTS: 3, AGAIN: 2}, "a reset"


def test_it_comes_and_goes_with_the_client(nfs: Tree) -> None:
    nfs.remove(FILE)
    assert nfs.read() == {}
    assert nfs.lane is not None
    (part,) = nfs.lane.parts
    assert (part.absent, part.errors) == (True, 0)
    nfs.write({FILE: text(7, 1)})
    part.due = 0
    assert nfs.read() == {REQUESTS: 7, AGAIN: 1}
    nfs.remove(FILE)
    assert nfs.read() == {}
    nfs.write({FILE: text(2, 0)})
    assert nfs.read() == {REQUESTS: 2, AGAIN: 0}
    assert nfs.errors == 0
    assert nfs.up


@pytest.mark.parametrize("bad", ["", "net 1 2 3 4\n", "rpc", "rpc 1 2 3", "rpc x y z\n", "\xff\0"])
def test_a_bad_file_costs_its_rows_and_comes_back(nfs: Tree, bad: str) -> None:
    good = nfs.read()
    nfs.write({FILE: bad})
    assert nfs.read() == {}
    assert nfs.errors == 1
    assert not nfs.up
    nfs.write({FILE: text(4329785, 12)})
    assert nfs.read() == good
    assert nfs.up
