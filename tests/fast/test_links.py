"""Interfaces by netlink, against sysfs, and against a kernel that says odd things."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import random
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from esnode._fast.links import OPERSTATES, Links
from esnode._fast.table import Table
from tests.fast.netlink import (
    AF_BRIDGE,
    DELLINK,
    DONE,
    END,
    ERROR,
    ETH,
    IB,
    INTERRUPTED,
    MULTI,
    NEWLINK,
    SEQUENCE,
    attribute,
    link,
    message,
)
from tests.process import descriptors
from tests.running import wait_for

CLONE_NEWNET = 0x40000000
RTMGRP_LINK = 1

Values = dict[bytes, tuple[float, float, float]]
Found = dict[bytes, tuple[str, str | None]]


class Bound:
    """A reader and the slots of some interfaces."""

    def __init__(self, *names: bytes, fd: int = -1) -> None:
        self.table = Table([])
        self.links = Links(self.table, fd)
        self.slots: dict[bytes, list[int]] = {}
        for name in names:
            self.bind(name)

    def bind(self, name: bytes) -> None:
        self.slots[name] = [self.table.hidden() for _ in range(3)]
        self.links.bind(name, *self.slots[name])

    def drop(self, name: bytes) -> None:
        self.links.drop(name)
        for slot in self.slots.pop(name):
            self.table.forget(slot)

    def read(self) -> bool:
        self.table.begin(True)
        return self.links.read()

    def values(self) -> Values:
        """(up, MTU, carrier changes) of the interfaces that have them."""
        found = {}
        for name, slots in self.slots.items():
            up, mtu, carrier_changes = map(self.table.get, slots)
            if not math.isnan(up):
                found[name] = (up, mtu, carrier_changes)
        return found


def sysfs(root: Path = Path("/sys")) -> tuple[Found, Values]:
    """What sysfs says of all interfaces."""
    found, values = {}, {}
    for path in (root / "class/net").iterdir():
        if path.is_dir():  # there may be a file of the bonding driver
            operstate, address, mtu, carrier_changes = (
                (path / name).read_text().strip()
                for name in ("operstate", "address", "mtu", "carrier_changes")
            )
            found[os.fsencode(path.name)] = operstate, address or None
            values[os.fsencode(path.name)] = (
                *(float(operstate == "up"), float(mtu), float(carrier_changes)),
            )
    return found, values


def sockets() -> set[str]:
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return {name for name in map(str, links) if name.startswith("socket:")}


def test_this_machines_interfaces() -> None:
    bound = Bound(*sysfs()[0])

    def agrees() -> bool:
        bound.read()
        found, values = sysfs()
        values = {name: values[name] for name in values.keys() & bound.slots.keys()}
        return bound.links.found() == found and bound.values() == values

    wait_for(agrees)
    assert bound.links.found()[b"lo"] == ("unknown", "00:00:00:00:00:00")


class Namespace:
    """A network namespace of this thread's, with a sysfs that shows it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def ip(self, *commands: str) -> None:
        batch = "".join(f"{command}\n" for command in commands)
        subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)

    def settles(self, bound: Bound) -> None:
        """Waits until a reader, all of whose names are there, says what sysfs says."""

        def agrees() -> bool:
            bound.read()
            found, values = sysfs(self.root)
            return bound.links.found() == found and bound.values() == {
                name: values[name] for name in bound.slots
            }

        wait_for(agrees)


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    libc = ctypes.CDLL(None, use_errno=True)
    if not shutil.which("ip"):
        pytest.skip("ip is not there (Debian package iproute2)")
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET):
        os.close(ours)
        pytest.skip(f"no network namespace can be made: {os.strerror(ctypes.get_errno())}")
    try:
        mount = subprocess.run(["mount", "-t", "sysfs", "sysfs", str(tmp_path)])
        if mount.returncode:
            pytest.skip("sysfs cannot be mounted here")
        yield Namespace(tmp_path)
    finally:
        assert libc.setns(ours, CLONE_NEWNET) == 0
        os.close(ours)
        subprocess.run(["umount", "-l", str(tmp_path)], capture_output=True)


@pytest.fixture
def veth(namespace: Namespace) -> Namespace:
    try:
        namespace.ip("link add one type veth peer name two")
    except subprocess.CalledProcessError:
        pytest.skip("the kernel has no veth")
    return namespace


def test_an_interface_that_comes_and_goes(veth: Namespace) -> None:
    bound = Bound(b"one", b"new")
    assert bound.read()
    assert not bound.read()
    assert set(bound.values()) == {b"one"}
    veth.ip("link add new type veth peer name newer")
    assert bound.read()
    assert not bound.read()
    assert set(bound.values()) == {b"one", b"new"}
    veth.settles(bound)
    veth.ip("link del two")
    assert bound.read()
    assert not bound.read()
    assert set(bound.values()) == {b"new"}
    assert set(bound.links.found()) == {b"lo", b"new", b"newer"}


def test_up_and_down(veth: Namespace) -> None:
    bound = Bound(b"one")
    bound.read()
    assert bound.values()[b"one"][0] == 0
    veth.ip("link set one up", "link set two up")
    veth.settles(bound)
    up, mtu, changes = bound.values()[b"one"]
    assert (up, mtu) == (1, 1500)
    assert bound.links.found()[b"one"][0] == "up"
    veth.ip("link set two down")
    wait_for(bound.read)
    assert bound.links.found()[b"one"][0] == "lowerlayerdown"
    veth.settles(bound)
    assert bound.values()[b"one"] == (0, 1500, changes + 1)
    veth.ip("link set one down")
    assert bound.read()
    assert bound.links.found()[b"one"][0] == "down"


def test_a_new_mtu_is_a_value_and_a_new_address_is_news(veth: Namespace) -> None:
    bound = Bound(b"one")
    bound.read()
    veth.ip("link set one mtu 9000")
    assert not bound.read()
    assert bound.values()[b"one"][1] == 9000
    veth.ip("link set one address 02:00:00:00:00:fe")
    assert bound.read()
    assert bound.links.found()[b"one"][1] == "02:00:00:00:00:fe"
    veth.settles(bound)


def test_a_name_is_bound_and_not_the_interface_that_had_it(veth: Namespace) -> None:
    bound = Bound(b"one", b"fourteen-long")
    bound.read()
    veth.ip("link set one mtu 1400", "link set one name fourteen-long")
    assert bound.read()
    assert not bound.read()
    assert {name: mtu for name, (_, mtu, _) in bound.values().items()} == {b"fourteen-long": 1400}
    veth.ip("link set two name one")
    assert bound.read()
    mtus = {name: mtu for name, (_, mtu, _) in bound.values().items()}
    assert mtus == {b"one": 1500, b"fourteen-long": 1400}
    veth.settles(bound)


def test_a_bridge_that_lets_a_port_go_does_not_end_it(veth: Namespace) -> None:
    try:
        veth.ip("link add bridge type bridge", "link set one master bridge")
    except subprocess.CalledProcessError:
        pytest.skip("the kernel has no bridges")
    bound = Bound(b"one", b"bridge")
    veth.settles(bound)
    veth.ip("link set one nomaster")
    veth.settles(bound)
    assert set(bound.values()) == {b"one", b"bridge"}


def test_an_interface_without_an_address(namespace: Namespace) -> None:
    try:
        namespace.ip("tuntap add tun mode tun")
    except subprocess.CalledProcessError:
        pytest.skip("the kernel has no tun")
    bound = Bound(b"tun")
    namespace.settles(bound)
    assert bound.links.found()[b"tun"] == ("down", None)


def test_two_hundred_interfaces_whose_messages_do_not_all_fit(veth: Namespace) -> None:
    names = [f"{side}{i}".encode() for i in range(100) for side in "ab"]
    small = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    small.bind((0, RTMGRP_LINK))
    bound = Bound(b"one", fd=small.detach())
    bound.read()
    before = sockets()
    veth.ip(*(f"link add a{i} type veth peer name b{i}" for i in range(100)))
    for name in names:
        bound.bind(name)
    assert bound.read()
    assert sockets() != before, "a dump is asked of a new socket"
    assert len(sockets()) == len(before)
    assert len(bound.values()) == 201
    veth.settles(bound)
    assert not bound.read()
    other = Bound(*names)
    veth.settles(other)
    veth.ip(*(f"link del a{i}" for i in range(100)))
    assert bound.read()
    assert set(bound.values()) == {b"one"}
    assert set(bound.links.found()) == {b"lo", b"one", b"two"}


def test_two_instances_tell_the_news_each(veth: Namespace) -> None:
    first, second = Bound(b"one"), Bound(b"one", b"two")
    assert first.read()
    assert second.read()
    veth.ip("link set one address 02:00:00:00:00:fe")
    assert first.read()
    assert second.read()
    assert not first.read()
    assert not second.read()
    assert first.links.found() == second.links.found()
    first.drop(b"one")
    assert (first.read(), second.read()) == (False, False)
    assert first.values() == {}
    assert set(second.values()) == {b"one", b"two"}


def test_what_is_let_go_of_is_not_filled_any_more() -> None:
    bound = Bound(b"lo", b"no-such-link")
    for _ in range(3):
        bound.read()
        assert set(bound.values()) == {b"lo"}
        slots = bound.slots[b"lo"]
        bound.drop(b"lo")
        bound.drop(b"no-such-link")
        bound.read()
        assert all(math.isnan(bound.table.get(slot)) for slot in slots)
        bound.bind(b"lo")
        bound.bind(b"no-such-link")


def test_what_cannot_be_bound_is_refused() -> None:
    bound = Bound(b"lo")
    slots = bound.slots[b"lo"]
    with pytest.raises(ValueError, match="b'lo' is bound twice"):
        bound.links.bind(b"lo", *slots)
    for bad in range(3):
        with pytest.raises(IndexError):
            bound.links.bind(b"eth", *(99 if i == bad else slot for i, slot in enumerate(slots)))
    with pytest.raises(KeyError):
        bound.links.drop(b"eth")
    bound.read()
    assert set(bound.values()) == {b"lo"}


def test_descriptors_are_given_back() -> None:
    before = descriptors()
    for _ in range(50):
        bound = Bound(b"lo")
        for _ in range(3):
            bound.read()
        assert descriptors() == before + 1
        del bound
    with pytest.raises(TypeError):
        Links(None)  # type: ignore[arg-type]
    assert descriptors() == before, "one that was never opened must not be closed"


# What a real kernel does not say when asked: the other end of a pair of sockets plays it.


class Kernel:
    """Answers what it was told to, without being asked."""

    def __init__(self, *names: bytes) -> None:
        theirs, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.bound = Bound(*names, fd=theirs.detach())

    def says(self, *datagrams: bytes) -> Bound:
        for datagram in datagrams:
            self.socket.send(datagram)
        return self.bound

    def falls_silent(self) -> Bound:
        """Nothing more will come, which the reader then sees at once."""
        self.socket.shutdown(socket.SHUT_WR)
        return self.bound


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(b"eth0", b"ib0")


def is_real(bound: Bound) -> bool:
    """Whether a reader has turned to the real kernel."""
    return bound.links.found().keys() == sysfs()[0].keys()


def test_a_dump_in_several_datagrams_and_several_messages_of_one(kernel: Kernel) -> None:
    eth, ib = message(NEWLINK, ETH), message(NEWLINK, IB)
    bound = kernel.says(eth + ib, message(NEWLINK, link(4, b"odd", 9, b"")), END)
    assert bound.read()
    assert bound.values() == {b"eth0": (1, 1500, 3), b"ib0": (1, 4092, 3)}
    assert bound.links.found() == {
        b"eth0": ("up", "02:00:00:00:00:01"),
        b"ib0": ("up", ":".join(f"{byte:02x}" for byte in range(20))),
        b"odd": ("unknown", None),
    }
    request = kernel.socket.recv(100)
    assert struct.unpack_from("=IHHI", request) == (40, 18, 0x301, SEQUENCE)
    assert request[-8:] == struct.pack("=HHI", 8, 29, 8)
    assert not bound.read()
    assert bound.values() == {b"eth0": (1, 1500, 3), b"ib0": (1, 4092, 3)}


def test_every_state_has_its_word(kernel: Kernel) -> None:
    states = [message(NEWLINK, link(i + 1, b"if%d" % i, i)) for i in range(7)]
    bound = kernel.says(*states, END)
    bound.bind(b"if6")
    bound.bind(b"if5")
    bound.read()
    assert tuple(state for state, _ in bound.links.found().values()) == OPERSTATES
    assert [bound.values()[name][0] for name in (b"if6", b"if5")] == [1, 0]


def test_changes_after_the_dump(kernel: Kernel) -> None:
    bound = kernel.says(message(NEWLINK, ETH) + END)
    bound.read()
    for body, news in (
        (link(2, b"eth0", mtu=9000, changes=4), False),
        (link(2, b"eth0", 2, mtu=9000, changes=4), True),
        (link(2, b"eth0", 2, b"\2\0\0\0\0\2", 9000, 4), True),
        (link(2, b"eth0", 2, b"\2\0\0\0\0\2", 9000, 5), False),
        (IB, True),
        (struct.pack("=BxHiII", 0, 1, 2, 0, 0), False),  # not a word of what has changed
        (link(2, b"port", family=AF_BRIDGE), False),
    ):
        assert kernel.says(message(NEWLINK, body, 0, 77)).read() == news, body
    assert bound.values() == {b"eth0": (0, 9000, 5), b"ib0": (1, 4092, 3)}
    gone = struct.pack("=BxHiII", AF_BRIDGE, 1, 2, 0, 0)
    assert not kernel.says(message(DELLINK, gone, 0, 77)).read()
    for times in (True, False):
        assert kernel.says(message(DELLINK, ETH, 0, 77)).read() == times
    assert set(bound.values()) == {b"ib0"}


def test_there_and_back_between_two_readings_is_news_too(kernel: Kernel) -> None:
    kernel.says(message(NEWLINK, ETH) + END).read()
    down = link(2, b"eth0", 2)
    assert kernel.says(message(NEWLINK, down, 0), message(NEWLINK, ETH, 0)).read()


def test_an_older_kernel_does_not_count_carrier_changes(kernel: Kernel) -> None:
    old = struct.pack("=BxHiII", 0, 1, 2, 0, 0) + attribute(3, b"eth0\0")
    bound = kernel.says(message(NEWLINK, old) + END)
    bound.read()
    up, mtu, changes = bound.values()[b"eth0"]
    assert up == 0
    assert math.isnan(mtu)
    assert math.isnan(changes)


def test_an_end_that_is_not_of_our_dump_is_none(kernel: Kernel) -> None:
    late = message(DONE, struct.pack("=i", 0), sequence=SEQUENCE - 1)
    failed = message(ERROR, struct.pack("=i", -errno.EBUSY), sequence=SEQUENCE + 1)
    bound = kernel.says(late, failed, message(NEWLINK, ETH), END)
    bound.read()
    assert set(bound.values()) == {b"eth0"}


def test_an_interrupted_dump_is_begun_anew(kernel: Kernel) -> None:
    bound = kernel.says(message(NEWLINK, ETH), message(NEWLINK, IB, MULTI | INTERRUPTED), END)
    assert bound.read()
    assert is_real(bound)


def test_a_kernel_that_refuses(kernel: Kernel) -> None:
    bound = kernel.says(message(ERROR, struct.pack("=i", -errno.EPERM)))
    with pytest.raises(PermissionError):
        bound.read()
    assert bound.values() == {}
    assert bound.read()
    assert is_real(bound)


def test_a_kernel_that_does_not_answer_is_not_waited_for_long(kernel: Kernel) -> None:
    bound = kernel.says(message(NEWLINK, ETH))
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        bound.read()
    assert 0.09 < time.monotonic() - start < 0.5
    assert bound.values() == {}
    assert bound.read()
    assert is_real(bound)


def test_a_datagram_that_does_not_fit_is_asked_for_again(kernel: Kernel) -> None:
    large = link(2, b"eth0", rest=b"".join(attribute(99, b"x" * 1000) for _ in range(50)))
    bound = kernel.says(message(NEWLINK, large) + END)
    assert bound.read()
    assert is_real(bound)


def test_what_is_not_a_message_is_refused(kernel: Kernel) -> None:
    good = message(NEWLINK, ETH)
    short = message(NEWLINK, ETH[:12])
    for bad in (
        struct.pack("=I", 15) + good[4:],
        struct.pack("=I", 0) + good[4:],
        struct.pack("=I", len(good) + 1) + good[4:],
        struct.pack("=I", 2**32 - 1) + good[4:],
        short,
        message(NEWLINK, ETH + struct.pack("=HH", 3, 3)),
        message(NEWLINK, ETH + struct.pack("=HH", 5, 3)),
        message(NEWLINK, ETH + struct.pack("=HH", 0xFFFF, 1)),
    ):
        kernel = Kernel(b"eth0")
        bound = kernel.says(bad)
        with pytest.raises(OSError) as refused:
            bound.read()
        assert refused.value.errno == errno.EBADMSG, bad
        assert bound.read()
        assert is_real(bound)


def test_odd_bytes_break_nothing() -> None:
    words = random.Random(7)
    dump = message(NEWLINK, ETH) + message(NEWLINK, IB) + message(DELLINK, ETH) + END
    for _ in range(3000):
        datagrams = []
        for _ in range(3):
            text = bytearray(dump)
            for _ in range(words.choice((0, 1, 1, 2, 5, 50))):
                text[words.randrange(len(text))] = words.choice(
                    (0, 1, 4, 255, words.randrange(256))
                )
            datagrams.append(
                bytes(text[: words.choice((len(text), words.randrange(1, len(text))))])
            )
        kernel = Kernel(b"eth0", b"ib0")
        kernel.says(*datagrams)
        bound = kernel.falls_silent()
        with contextlib.suppress(OSError):
            bound.read()
        bound.links.found()


def test_whether_there_is_anything_to_read(kernel: Kernel) -> None:
    assert Links(Table([])).pending(), "nothing has been read yet"
    bound = kernel.says(message(NEWLINK, ETH), END)
    bound.read()
    assert not bound.links.pending()
    kernel.says(message(NEWLINK, IB))
    assert bound.links.pending()
    bound.read()
    assert not bound.links.pending()
