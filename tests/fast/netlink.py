"""The kernel's messages about links, as bytes; see rtnetlink(7)."""

from __future__ import annotations

import struct

NEWLINK, DELLINK, DONE, ERROR = 16, 17, 3, 2
MULTI, INTERRUPTED = 0x2, 0x10
SEQUENCE = 1
AF_BRIDGE = 7


def message(kind: int, body: bytes, flags: int = MULTI, sequence: int = SEQUENCE) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def link(
    index: int,
    name: bytes,
    operstate: int = 6,
    address: bytes = b"\2\0\0\0\0\1",
    mtu: int = 1500,
    changes: int = 3,
    family: int = 0,
    rest: bytes = b"",
) -> bytes:
    return (
        struct.pack("=BxHiII", family, 1, index, 0, 0)
        + attribute(3, name + b"\0")
        + attribute(16, bytes([operstate]))
        + attribute(4, struct.pack("=I", mtu))
        + (attribute(1, address) if address else b"")
        + attribute(35, struct.pack("=I", changes))
        + rest
    )


END = message(DONE, struct.pack("=i", 0))
ETH, IB = link(2, b"eth0"), link(3, b"ib0", address=bytes(range(20)), mtu=4092)
