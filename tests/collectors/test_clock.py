"""collectors/clock.py: the clock's offset, error and state."""

import pytest

from esnode._fast.clock import read
from esnode.collectors import clock
from esnode.collectors.clock import Clock
from esnode.collectors.node import Node
from tests.hosts import Tree

NAMES = [metric.name for metric in Clock.metrics]


def forbidden() -> tuple[float, float, bool]:
    raise PermissionError(1, "Operation not permitted")


def test_values_are_the_kernels(tree: Tree) -> None:
    tree.use(Clock)
    for _ in range(20):
        before = read()
        rows = tree.read()
        if read() == before:
            break
    assert rows == dict(zip(NAMES, before, strict=True))
    assert tree.errors == 0
    assert tree.up


def test_a_call_that_fails_is_absent_and_comes_back(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.use(Clock)
    assert list(tree.read()) == NAMES
    with monkeypatch.context() as patch:
        patch.setattr(clock, "read", forbidden)
        assert tree.read() == {}
        assert (tree.errors, tree.up) == (1, False)
    assert list(tree.read()) == NAMES
    assert (tree.errors, tree.up) == (1, True)


def test_a_forbidden_call_is_no_error_and_costs_the_clocks_rows_only(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "read", forbidden)
    tree.use(Node, Clock)
    tree.write({"proc/stat": "cpu 1 2 3 4\nbtime 1753081200\n"})
    tree.write({"proc/sys/fs/file-nr": "1024 0 9223372036854775807\n"})
    rows = tree.read()
    assert not tree.up
    assert not rows.keys() & set(NAMES)
    assert rows["esnode_node_boot_time_seconds"] == 1753081200
    assert tree.errors == 0
