"""Each reader bound as a collector binds it, and the oracle's answer for the same text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

from esnode._fast.procfs import Line, Pairs, Rows
from esnode._fast.table import Table
from tests import oracle

Values = dict[str, float | None]
Reader = Rows | Line | Pairs

MEMINFO = (b"MemTotal:", b"MemFree:", b"Cached:", b"HugePages_Total:", b"Mapped:")
VMSTAT = (b"pgpgin", b"pgfault", b"oom_kill", b"nr_free_pages")
STAT = (b"cpu", b"cpu0", b"cpu1", b"intr", b"ctxt", b"btime", b"procs_blocked")
DISKS = (b"sda", b"vda", b"dm-0", b"loop0")
IFACES = (b"lo", b"eth0", b"eth0:1")
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
    """diskstats and net/dev: a device and its columns."""

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
        rows = self.rows(text)
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


class Load(Format):
    """loadavg: the numbers of one line."""

    words = (b"0.25", b"1.00", b"3/102")

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


FORMATS: dict[str, Format] = {
    "meminfo": KeyLines(MEMINFO, 1024),
    "vmstat": KeyLines(VMSTAT, 1),
    "stat": Stat(),
    "diskstats": Columns(DISKS, [0, 1, *range(3, 21), 63], 2, None),
    "net/dev": Columns(IFACES, [*range(1, 18), 63], 0, b":"),
    "net/snmp": Protocols(SNMP),
    "net/netstat": Protocols(SNMP),
    "loadavg": Load(),
    "pressure/io": Stalls(),
}
