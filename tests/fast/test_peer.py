"""The descriptor of a connection, found by its peer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from esnode._fast.peer import find, shut
from tests.process import descriptors


class Pair:
    """A connection of which both ends are ours."""

    def __init__(self, family: int, address: str, to: str) -> None:
        dual = family == socket.AF_INET6
        self.listener = socket.create_server((address, 0), family=family, dualstack_ipv6=dual)
        self.local = self.listener.getsockname()[1]
        self.client = socket.create_connection((to, self.local))
        self.server = self.listener.accept()[0]
        host, self.port = self.server.getpeername()[:2]
        self.address = socket.inet_pton(family, host)

    def close(self) -> None:
        for end in (self.client, self.server, self.listener):
            end.close()

    @property
    def key(self) -> tuple[bytes, int, int]:
        return self.address, self.port, self.local


@pytest.fixture(
    params=[
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
    ids=["IPv4", "IPv6", "mapped"],
)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    try:
        pair = Pair(*request.param)
    except OSError as error:
        pytest.skip(f"no such addresses here: {error}")
    yield pair
    pair.close()


def test_the_connection_is_found_among_others(pair: Pair) -> None:
    before = descriptors()
    assert find(*pair.key) == pair.server.fileno()
    assert descriptors() <= before


def test_what_differs_in_one_point_is_not_it(pair: Pair) -> None:
    other = bytes(len(pair.address) - 1) + b"\x02"
    assert find(other, pair.port, pair.local) == -1
    assert find(pair.address, pair.local, pair.local) == -1
    assert find(pair.address, pair.port, pair.port) == -1
    assert find(b"", pair.port, pair.local) == -1
    pair.server.close()
    assert find(*pair.key) == -1


def test_a_high_descriptor_is_found_too(pair: Pair) -> None:
    high = os.dup2(pair.server.fileno(), 900)
    try:
        pair.server.close()
        assert find(*pair.key) == high
    finally:
        os.close(high)


def test_the_end_comes_at_once_with_what_waits(pair: Pair) -> None:
    pair.server.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            pair.server.send(bytes(1 << 16))
    before = descriptors()
    assert shut(pair.server.fileno(), *pair.key)
    assert descriptors() <= before
    with pytest.raises(BrokenPipeError):
        pair.server.send(b"more")


def test_another_connection_of_the_same_number_is_left_alone(pair: Pair) -> None:
    with ExitStack() as stack:
        ends = [stack.enter_context(end) for end in socket.socketpair()]
        assert not shut(ends[0].fileno(), *pair.key)
        assert not shut(pair.client.fileno(), *pair.key)
        ends[0].sendall(b"still there")
        pair.client.sendall(b"still there")
    assert not shut(-1, *pair.key)
