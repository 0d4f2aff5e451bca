"""Neither readings nor opening the driver again leave a descriptor or a thread behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.process import threads

from .lane import Node, descriptors

TICKS, OPENINGS = 10_000, 50


@pytest.fixture
def node(nvml: None) -> Iterator[Node]:
    node = Node(enable_gpu_mig=True, enable_gpu_events=True)
    yield node
    node.close()


def test_ten_thousand_ticks(node: Node) -> None:
    for _ in range(10):
        node.pair()
    before, few = descriptors(), threads()
    for _ in range(TICKS):
        node.tick()
    assert descriptors() == before
    # A GPU that has taken long once has got a thread of its own.
    assert threads() <= few + node.gpus.driver.count


def test_opened_again_and_again(node: Node) -> None:
    def turn() -> None:
        node.tick()
        node.close()

    for _ in range(5):
        turn()
    names = sorted(name.partition(": ")[2] for name in descriptors())
    few = threads()
    for _ in range(OPENINGS):
        turn()
    assert sorted(name.partition(": ")[2] for name in descriptors()) == names
    assert threads() <= few + node.gpus.driver.count
