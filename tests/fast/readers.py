"""Each reader bound as a collector binds it, and the oracle's answer for the same text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from esnode._fast.procfs import Line, Pairs, Rows
from esnode._fast.softnet import Softnet
from esnode._fast.table import Table
from esnode._fast.values import Values as Singles
from tests import oracle

Values = dict[str, float | None]
Reader = Rows | Line | Pairs | Softnet | Singles

MEMINFO = (b"MemTotal:", b"MemFree:", b"Cached:", b"HugePages_Total:", b"Mapped:")
VMSTAT = (b"pgpgin", b"pgfault", b"oom_kill", b"nr_free_pages")
STAT = (b"cpu", b"cpu0", b"cpu1", b"intr", b"ctxt", b"btime", b"procs_blocked")
DISKS = (b"sda", b"vda", b"dm-0", b"loop0")
IFACES = (b"lo", b"eth0", b"eth0:1")
SOCKETS = (b"sockets:", b"TCP:", b"UDP:")
NODE = (b"MemTotal:", b"MemFree:", b"HugePages_Total:")
SNMP = (b"Tcp:RetransSegs", b"Tcp:MaxConn", b"Udp:InErrors", b"TcpExt:ListenDrops", b"Tcp:X")

#: user less guest, busy, everything.
SUMS = {"user": ([1], [9]), "busy": ([1, 2, 3, 6, 7, 8], []), "all": (range(1, 9), [])}


class Bound:
    """A reader with a hidden slot for each value that it is asked for."""

    def __init__(self, make: Callable[[Bound], Reader]) -> None:
        self.table = Table([])
        self.slots: dict[str, int] = {}
        self.reader = make(self)

    def slot(self, name: str) -> int:
        self.slots[name] = self.table.hidden()
        return self.slots[name]

    def read(self) -> Values:
        self.table.begin(True)
        self.reader.read()
        return self.values()

    def values(self) -> Values:
        values = {name: self.table.get(slot) for name, slot in self.slots.items()}
        return {name: None if math.isnan(value) else value for name, value in values.items()}


def scaled(value: float | None, num: float = 1, den: float = 1) -> float | None:
    return None if value is None else value * num / den


class Format:
    """A file's format: its words, how a reader is bound to it, and what the oracle makes of it."""

    words: tuple[bytes, ...]

    def bind(self, path: Path) -> Bound:
        raise NotImplementedError

    def expect(self, text: bytes) -> Values:
        raise NotImplementedError

    def expected(self) -> Callable[[bytes], Values]:
        """The answers of an oracle that is asked of one reading after the other, where it matters
        what was there before."""
        return self.expect


class KeyLines(Format):
    """meminfo and vmstat: a key and its number."""

    def __init__(self, words: tuple[bytes, ...], num: int) -> None:
        self.words = words
        self.num = num

    def bind(self, path: Path) -> Bound:
        def make(bound: Bound) -> Reader:
            rows = Rows(bound.table, path)
            for key in self.words:
                rows.bind(key, (1, bound.slot(key.decode()), self.num))
            return rows

        return Bound(make)

    def expect(self, text: bytes) -> Values:
        rows = oracle.keyed(text)
        return {k.decode(): scaled(oracle.column(rows, k, 1), self.num) for k in self.words}


class Stat(Format):
    """/proc/stat: single numbers, and lines of times of which several columns make a value."""

    words = STAT

    def bind(self, path: Path) -> Bound:
        def make(bound: Bound) -> Reader:
            rows = Rows(bound.table, path, news=b"cpu", shape=range(1, 5))
            for key in STAT[3:]:
                rows.bind(key, (1, bound.slot(key.decode())))
            for key in STAT[:3]:
                idle = (4, bound.slot(f"{key.decode()} idle"), 1, 100)
                sums = [
                    (plus, bound.slot(f"{key.decode()} {name}"), 1, 100, less)
                    for name, (plus, less) in SUMS.items()
                ]
                rows.bind(key, idle, *sums)
            return rows

        return Bound(make)

    def expect(self, text: bytes) -> Values:
        rows = oracle.keyed(text)
        values = {key.decode(): oracle.column(rows, key, 1) for key in STAT[3:]}
        for key in STAT[:3]:
            idle = oracle.column(rows, key, 4)
            values[f"{key.decode()} idle"] = scaled(idle, 1, 100)
            for name, (plus, less) in SUMS.items():
                value = oracle.total(rows, key, plus, less)
                values[f"{key.decode()} {name}"] = scaled(value, 1, 100)
        return values


class Columns(Format):
    """diskstats, net/dev and others: a key and its columns."""

    def __init__(
        self, words: tuple[bytes, ...], columns: Iterable[int], key: int, until: bytes | None
    ) -> None:
        self.words = words
        self.columns = list(columns)
        self.key = key
        self.until = until

    def bind(self, path: Path) -> Bound:
        def make(bound: Bound) -> Reader:
            rows = Rows(bound.table, path, self.key, self.until)
            for key in self.words:
                cells = [(at, bound.slot(f"{key.decode()} {at}"), 512, 7) for at in self.columns]
                rows.bind(key, *cells)
            return rows

        return Bound(make)

    def rows(self, text: bytes) -> list[tuple[bytes, oracle.Cells]]:
        if self.until:
            return oracle.before_last(text, self.until)
        return oracle.keyed(text, self.key)

    def expect(self, text: bytes) -> Values:
        rows = [row for row in self.rows(text) if row[0] in self.words]
        return {
            f"{key.decode()} {at}": scaled(oracle.column(rows, key, at), 512, 7)
            for key in self.words
            for at in self.columns
        }


class Stalls(Format):
    """/proc/pressure: words that stand before their numbers."""

    words = (b"some", b"full", b"avg10=0.25", b"total=7", b"total=", b"=", b"=5", b"a=b=3")
    keys = words[:2]

    def bind(self, path: Path) -> Bound:
        def make(bound: Bound) -> Reader:
            rows = Rows(bound.table, path, after=b"=")
            for key in self.keys:
                cells = [(at, bound.slot(f"{key.decode()} {at}"), 1, 7) for at in range(1, 6)]
                rows.bind(key, *cells, ((4, 5), bound.slot(f"{key.decode()} sum")))
            return rows

        return Bound(make)

    def expect(self, text: bytes) -> Values:
        rows = oracle.behind(oracle.keyed(text), b"=")
        values: Values = {}
        for key in self.keys:
            for at in range(1, 6):
                values[f"{key.decode()} {at}"] = scaled(oracle.column(rows, key, at), 1, 7)
            values[f"{key.decode()} sum"] = oracle.total(rows, key, (4, 5))
        return values


class Numbers(Format):
    """loadavg and others: the numbers of one line."""

    def __init__(self, words: tuple[bytes, ...]) -> None:
        self.words = words

    def bind(self, path: Path) -> Bound:
        def make(bound: Bound) -> Reader:
            return Line(bound.table, path, *((at, bound.slot(str(at))) for at in range(5)))

        return Bound(make)

    def expect(self, text: bytes) -> Values:
        values = (oracle.loadavg(text) + [None] * 5)[:5]
        return {str(at): value for at, value in enumerate(values)}


class Protocols(Format):
    """net/snmp and net/netstat: names above values."""

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self.names = names
        self.words = (b"Tcp:", b"Udp:", b"TcpExt:", *(n.partition(b":")[2] for n in names))

    def bind(self, path: Path) -> Bound:
        def make(bound: Bound) -> Reader:
            slots = {name: bound.slot(name.decode()) for name in self.names}
            return Pairs(bound.table, path, slots)

        return Bound(make)

    def expect(self, text: bytes) -> Values:
        found = oracle.pairs(text)
        return {name.decode(): found.get(name) for name in self.names}


class Packets(Format):
    """net/softnet_stat: sums of counters that start over."""

    words = (b"0", b"00000001", b"7fffffff", b"80000000", b"ffffffff", b"1fff", b"2000")
    names = ("processed", "dropped", "squeezed")

    def bind(self, path: Path) -> Bound:
        def make(bound: Bound) -> Reader:
            return Softnet(bound.table, path, *map(bound.slot, self.names))

        return Bound(make)

    def expected(self) -> Callable[[bytes], Values]:
        sums = oracle.Softnet()
        return lambda text: dict(zip(self.names, sums.read(text) or [None] * 3, strict=True))


class Single(Format):
    """A file of one value: as a number, as one that may lie below zero, as a state, as a text."""

    words = (b"N/A", b"4: ACTIVE", b"-", b"0.25", b"\0", b" " * 511, b" " * 512)
    states = (0, 1, 4)

    def bind(self, path: Path) -> Bound:
        name = path.name.encode()

        def make(bound: Bound) -> Reader:
            values = Singles(bound.table, 60, 60)
            cells: list[tuple[Any, ...]] = [
                (name, bound.slot("number"), 512, 7),
                (name, bound.slot("signed"), 1, 1000, True),
                (name, {state: bound.slot(f"state {state}") for state in self.states}),
                (name,),
            ]
            values.bind(bytes(path.parent), cells)
            return values

        return Bound(make)

    def expect(self, text: bytes) -> Values:
        state, _ = oracle.single(text, state=True)
        return {
            "number": scaled(oracle.single(text)[0], 512, 7),
            "signed": scaled(oracle.single(text, signed=True)[0], 1, 1000),
            **{
                f"state {number}": None if state is None else float(state == number)
                for number in self.states
            },
        }


#: By the end of their paths.
FORMATS: dict[str, Format] = {
    "meminfo": KeyLines(MEMINFO, 1024),
    "vmstat": KeyLines(VMSTAT, 1),
    "stat": Stat(),
    "diskstats": Columns(DISKS, [0, 1, *range(3, 21), 63], 2, None),
    "net/dev": Columns(IFACES, [*range(1, 18), 63], 0, b":"),
    "net/snmp": Protocols(SNMP),
    "net/netstat": Protocols(SNMP),
    "net/sockstat": Columns(SOCKETS, range(2, 12, 2), 0, None),
    "loadavg": Numbers((b"0.25", b"1.00", b"3/102")),
    "sys/fs/file-nr": Numbers((b"2240", b"0", b"9223372036854775807")),
    "pressure/io": Stalls(),
    "node0/meminfo": Columns(NODE, [3], 2, None),
}
