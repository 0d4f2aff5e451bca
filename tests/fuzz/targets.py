"""What the fuzzer feeds with bytes: each target has them read, and asks an oracle."""

from __future__ import annotations

import errno
import math
import random
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from esnode._fast import values
from esnode._fast.encode import encode, text_of
from esnode._fast.links import OPERSTATES, Links
from esnode._fast.procfs import CHANGED, MALFORMED, File, Line, Rows
from esnode._fast.table import OWNER, READING, TICK, Table
from esnode.collectors.base import Cell, Collector
from esnode.config import Config
from esnode.dialects import OPENMETRICS, TEXT
from esnode.host import Host
from esnode.metrics import Metric
from tests import bighost, oracle
from tests.fast.netlink import DELLINK, END, ETH, IB, NEWLINK, link, message
from tests.fast.pages import HEAT, LOAD, SEEN, Row, plain
from tests.fast.readers import (
    DISKS,
    FORMATS,
    IFACES,
    Bound,
    Columns,
    Format,
    Packets,
    Reader,
    Single,
    Values,
)
from tests.fast.texts import ODD
from tests.fuzz import history
from tests.fuzz.target import REMOVED, REPLACED, WRITTEN, Target, put, same, series

HOSTS = Path(__file__).parents[1] / "fixtures" / "hosts"

#: After such an answer a reader of messages turns to the real kernel.
AGAIN = (errno.EAGAIN, errno.EMSGSIZE, errno.ENOBUFS)


def found(end: str) -> list[bytes]:
    """What is in the fixtures and on the generated host below such a path; a few, and the first
    lines of a large one."""
    texts = [path.read_bytes() for path in sorted(HOSTS.rglob(f"*{end}")) if path.is_file()]
    for part in bighost.PARTS:
        for name, content in part():
            if name.endswith(end) and content and not isinstance(content, bighost.Link):
                texts.append(content.encode())
    return list(dict.fromkeys(text[:700] for text in texts))[:6]


class Texts(Target):
    """A reader of a format whose values are known for each text.

    ends: of the paths of files in that format; odd: more seeds.
    """

    def __init__(self, form: Format, ends: Sequence[str], odd: Sequence[bytes] = ()) -> None:
        self.form = form
        self.words = (*form.words, *ODD)
        self.ends = ends
        self.odd = odd
        self.longest = max([2000, *map(len, odd)])

    def seeds(self) -> Iterator[bytes]:
        yield from self.odd
        for end in self.ends:
            texts = found(end)
            yield from texts
            yield REPLACED.join(texts)
            yield WRITTEN.join([*texts[:2], REMOVED, *texts[:1]])
        for word in self.form.words:
            yield b"".join(b"%s %s\n" % (word, odd) for odd in ODD if len(odd) < 100)

    def __call__(self, data: bytes, path: Path) -> None:
        compare(self.form.bind(path), self.form.expected(), data, path)


def compare(bound: Bound, expected: Callable[[bytes], Values], data: bytes, path: Path) -> None:
    for how, text in series(data):
        there = put(path, how, text)
        try:
            read = bound.read()
        except FileNotFoundError:
            assert not there
            read = bound.values()
        assert read == (expected(text) if there else dict.fromkeys(bound.slots)), text


class AnyRows(Target):
    """Rows in all variants, by the first two bytes."""

    words = (b"a", b"bb", b"c=3", b"d:", b"a b", b":", b"=", b"0.5")
    keys = (b"a", b"bb", b"c", b"d:", b"a b", b"")

    def seeds(self) -> Iterator[bytes]:
        text = b"a 1 2 3 c=4 5\nbb: 6 7\n x=8 d: y=a:9\nc 10 11\n" + b"a" + b" 7" * 70 + b"\n"
        for variant in range(40):
            yield b"%02d" % variant + text + WRITTEN + text[5:]

    def __call__(self, data: bytes, path: Path) -> None:
        choice = random.Random(data[:2])
        until = choice.choice((None, None, b":", b"="))
        key = choice.choice((0, 0, 1, 2, 5, 63))
        after = choice.choice((None, b"=", b":"))
        columns = [at for at in (*range(8), 62, 63) if at != (0 if until else key)]
        cells: dict[str, tuple[bytes, list[int], list[int], int, int]] = {}
        for name in self.keys:
            for n in range(choice.randrange(4)):
                picked = choice.sample(columns, choice.randint(1, 4))
                plus = choice.randint(1, len(picked))
                scale = choice.choice((1, 512)), choice.choice((1, 7, 1000))
                cells[f"{name!r} {n}"] = (name, picked[:plus], picked[plus:], *scale)

        def make(bound: Bound) -> Reader:
            rows = Rows(bound.table, path, key, until, after=after)
            specs: dict[bytes, list[Cell]] = {}
            for cell, (name, plus, less, num, den) in cells.items():
                specs.setdefault(name, []).append((plus, bound.slot(cell), num, den, less))
            for name, spec in specs.items():
                rows.bind(name, *spec)
            return rows

        def expected(text: bytes) -> Values:
            lines = oracle.before_last(text, until) if until else oracle.keyed(text, key)
            lines = oracle.behind(lines, after) if after else lines
            found: Values = {}
            for cell, (name, plus, less, num, den) in cells.items():
                if len(plus) == 1 and not less:
                    value = oracle.column(lines, name, plus[0])
                else:
                    value = oracle.total(lines, name, plus, less)
                found[cell] = None if value is None else value * num / den
            return found

        compare(Bound(make), expected, data[2:], path)


class Keys(Collector):
    """Follows all keys of a file, but for some that it refuses or does not show."""

    def __init__(self, rows: Callable[[Table], Rows], columns: Sequence[int]) -> None:
        super().__init__(Host("", "", ""), Config())
        self.columns = columns
        self.attach(Table([]), lambda text: None)
        self.rows = rows(self.table)
        self.slots: dict[bytes, list[int]] = {}

    def bind(self) -> None: ...

    def admit(self, key: bytes) -> Sequence[Cell]:
        assert key not in self.slots
        self.slots[key] = []
        if key.startswith(b"dm"):
            raise ValueError("as if its rows were there already")
        if not key.startswith(b"loop"):
            self.slots[key] = [self.table.hidden() for _ in self.columns]
        return list(zip(self.columns, self.slots[key], strict=True))

    def drop(self, key: bytes) -> None:
        for slot in self.slots.pop(key):
            self.table.forget(slot)


class Follow(Target):
    """Keys that come and go, as a collector follows them."""

    def __init__(
        self,
        end: str,
        start: bytes,
        shape: Sequence[int],
        key: int = 0,
        until: bytes | None = None,
        lasting: bytes | None = None,
    ) -> None:
        self.words = (
            *FORMATS[end].words,
            *ODD,
            b"".join(b" %d" % i for i in shape),
            b"loop1",
            b"dm-1",
        )
        self.end = end
        self.start, self.shape, self.key, self.until = start, shape, key, until
        self.lasting = lasting

    def seeds(self) -> Iterator[bytes]:
        for text in found("/" + self.end):
            lines = text.splitlines(keepends=True)
            yield text
            yield WRITTEN.join(b"".join(lines[i::3]) for i in (0, 1, 2, 0))
            yield REPLACED.join([text[:500], text[200:], text[:300], REMOVED, text[:400]])

    def lines(self, text: bytes) -> list[tuple[bytes, oracle.Cells]]:
        if self.until:
            return oracle.before_last(text, self.until)
        return oracle.keyed(text, self.key)

    def __call__(self, data: bytes, path: Path) -> None:
        def make(table: Table) -> Rows:
            rows = Rows(table, path, self.key, self.until, self.start, self.shape)
            if self.lasting:
                rows.bind(self.lasting, lasting=True)
            return rows

        keys = Keys(make, self.shape[-2:])
        for how, text in series(data):
            there = put(path, how, text)
            known = list(keys.slots)
            keys.table.begin(True)
            assert keys.follow(keys.rows) == there
            rows = self.lines(text) if there else []
            lines: dict[bytes, list[tuple[bytes, oracle.Cells]]] = {}
            for name, cells in rows:
                lines.setdefault(name, []).append((name, cells))
            if there:
                news = oracle.news(rows, self.start, self.shape)
                fresh = [key for key in news if key not in known and key != self.lasting]
                assert list(keys.slots) == [key for key in known if key in lines] + fresh, text
            for key, slots in keys.slots.items():
                for column, slot in zip(keys.columns, slots, strict=False):
                    value = keys.table.get(slot)
                    expected = oracle.column(lines.get(key, []), key, column)
                    assert expected == (None if math.isnan(value) else value), (key, column, text)
            if there:
                flags = keys.rows.rescan()
                assert not flags & CHANGED, text
                cut = not text.endswith(b"\n")
                assert flags & MALFORMED or not cut, text


class Whole(Target):
    """A file, as bytes."""

    longest = 30_000

    def seeds(self) -> Iterator[bytes]:
        yield from found("/vmstat")
        yield REMOVED.join([b"a", b"", b"b" * 4096, b"c" * 4095, WRITTEN + b"d" * 4097])

    def __call__(self, data: bytes, path: Path) -> None:
        file = File(path)
        for how, text in series(data):
            there = put(path, how, text)
            try:
                assert file.read() == text
            except FileNotFoundError:
                assert not there
            assert file.changed()


class Singles(Texts):
    """Files of one value: what is told of them, and their text, as well."""

    def __call__(self, data: bytes, path: Path) -> None:
        bound = self.form.bind(path)
        reader = bound.reader
        assert isinstance(reader, values.Values)
        for how, text in series(data):
            there = put(path, how, text)
            bound.table.begin(True)
            errors, _ = reader.read()
            assert bound.values() == (
                self.form.expect(text) if there else dict.fromkeys(bound.slots)
            ), text
            is_fine = all(oracle.single(text, state=state)[1] for state in (False, True))
            told = errors.get(bytes(path)) == values.MALFORMED
            assert told == (there and not is_fine), text
            kept = reader.text(bytes(path.parent), path.name.encode()) or b""
            assert kept == (text[:512] if there else b""), text


class Messages(Target):
    """The kernel's messages about links: a series of datagrams. REPLACED: an interface is bound, or
    let go of, before."""

    words = (b"eth0\0", b"ib0\0", bytes(4), b"\1\0\0\0", b"\x10\0\0\0", message(3, bytes(4)))
    names = (b"eth0", b"ib0", b"")

    def seeds(self) -> Iterator[bytes]:
        eth, ib = message(NEWLINK, ETH), message(NEWLINK, IB)
        yield eth + ib + END
        yield eth + WRITTEN + ib + WRITTEN + END
        changes = (
            message(NEWLINK, link(2, b"eth0", 2, b"\2\0\0\0\0\2", 9000, 4), 0, 77),
            message(NEWLINK, link(3, b"eth0"), 0, 77),
            message(NEWLINK, link(4, b"", 9, b"", rest=b"\5\0\7\0x\0\0\0"), 0, 77),
            message(DELLINK, ETH, 0, 77),
        )
        yield eth + ib + END + WRITTEN + REPLACED.join(changes)
        yield b"".join(message(NEWLINK, link(i, b"if%d" % i, i)) for i in range(20)) + END
        yield (
            b"".join(message(NEWLINK, link(1, b"n" * n, address=bytes(n))) for n in (32, 90)) + END
        )
        yield message(2, struct.pack("=i", -1)) + eth
        yield message(NEWLINK, ETH, 0x10) + END

    def __call__(self, data: bytes, path: Path) -> None:
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        table = Table([])
        links = Links(table, theirs.detach())
        slots: dict[bytes, list[int]] = {}
        expected = oracle.Links()
        with ours:
            ours.setblocking(False)
            for n, (how, datagram) in enumerate(series(data)):
                if how == REPLACED:
                    toggle(links, table, slots, self.names[n % len(self.names)])
                if not datagram:
                    continue
                ours.send(datagram)
                try:
                    expected.take(datagram)
                except OSError as error:
                    refused(links, error.errno)
                    return
                if expected.complete:
                    agree(links, table, slots, expected)
            if not expected.complete:
                ours.shutdown(socket.SHUT_WR)
                refused(links, None)


def toggle(links: Links, table: Table, slots: dict[bytes, list[int]], name: bytes) -> None:
    if name in slots:
        links.drop(name)
        for slot in slots.pop(name):
            table.forget(slot)
    else:
        slots[name] = [table.hidden() for _ in range(3)]
        links.bind(name, *slots[name])


def refused(links: Links, error: int | None) -> None:
    """That a reading fails; not so where a reader is to turn to the real kernel."""
    try:
        links.read()
    except OSError as caught:
        assert error in (caught.errno, None, *AGAIN)
    else:
        assert error in AGAIN


def agree(links: Links, table: Table, slots: dict[bytes, list[int]], kernel: oracle.Links) -> None:
    table.begin(True)
    assert links.read() == kernel.changed
    kernel.changed = False
    known = links.found()
    by_name: dict[bytes, list[oracle.Link]] = {}
    for one in kernel.links.values():
        by_name.setdefault(one.name, []).append(one)
    assert known.keys() == by_name.keys()
    for name, ones in by_name.items():
        if len(ones) > 1:
            continue  # which of them is meant, nobody knows
        (one,) = ones
        state = OPERSTATES[one.operstate] if one.operstate < len(OPERSTATES) else OPERSTATES[0]
        assert known[name] == (state, one.address.hex(":") or None)
    for name, bound in slots.items():
        ones = by_name.get(name, [])
        expected = (math.nan,) * 3
        if len(ones) == 1:
            expected = float(ones[0].operstate == 6), ones[0].mtu, ones[0].carrier_changes
        if len(ones) <= 1:
            read = [table.get(slot) for slot in bound]
            assert all(map(same, read, expected)), (name, read, expected)


class Numbers(Target):
    """Doubles of eight bytes each, written and read."""

    def seeds(self) -> Iterator[bytes]:
        values = (0.0, 0.1, -1.5, 5e-324, 1.7e308, 1e21, 1e22, 2.0**53, 1e-5, 123.456, math.inf)
        # A shorter decimal lies on the border to the next double above, or below.
        border = (float(2**54 + 4), float(2**54 + 28))
        for value in values + border:
            yield struct.pack("<d", value)
        yield struct.pack("<13d", *values, *border)

    def __call__(self, data: bytes, path: Path) -> None:
        texts = []
        for (value,) in islice(struct.iter_unpack("<d", data[: len(data) // 8 * 8]), 60):
            text = text_of(value)
            texts.append(text)
            assert same(float(text), value), text
            if math.isfinite(value):
                assert oracle.digits(text.decode()) == oracle.digits(repr(value)), text
            else:
                assert text in (b"NaN", b"+Inf", b"-Inf")
        path.write_bytes(b" ".join(texts) + b"\n")
        table = Table([])
        slots = [table.hidden() for _ in texts]
        Line(table, path, *enumerate(slots)).read()
        for text, slot in zip(texts, slots, strict=True):
            number = oracle.number(text)
            assert same(math.nan if number is None else number, table.get(slot)), text


class Pages(Target):
    """A table's rows that come and go, what is put in them, and pages of all that."""

    words = (
        b"a\0\0",
        b"a\1\1x\0y",
        b"a\2\2x",
        b"s\0",
        b"b\0",
        b"b\1",
        b"h",
        b"f",
        b"r\0",
        b"e",
        b'"',
    )

    def seeds(self) -> Iterator[bytes]:
        yield WRITTEN.join(
            (
                *(b"a\0\0", b"a\1\1x\0y", b"a\1\2x", b"s\0" + struct.pack("<d", 1.5), b"e", b"h"),
                *(b"s\1" + struct.pack("<d", 7), b"b\0", b"e", b"r\1", b"a\2\0z", b"f", b"e"),
            )
        )
        yield WRITTEN.join((b'a\1\0\xc3\xa9"\\\n\0\xed\xa0', b"s\0" + b"\x3f" * 8, b"e"))

    def __call__(self, data: bytes, path: Path) -> None:
        table = Table([("first", [HEAT, SEEN]), ("second", [LOAD])])
        model = Model()
        for _, step in series(data):
            model.do(table, step)
        model.do(table, b"e")


class Model:
    """What a table should hold."""

    metrics = (HEAT, SEEN, LOAD)

    def __init__(self) -> None:
        self.slots: dict[tuple[Metric, tuple[str | None, ...]], int] = {}
        self.values: dict[int, float] = {}
        self.keep: dict[int, int] = {}
        self.hidden: list[int] = []

    def do(self, table: Table, step: bytes) -> None:
        act, which, rest = step[:1], step[1:2], step[2:]
        number = which[0] if which else 0
        if act == b"a":
            self.add(table, self.metrics[number % 3], rest[:1], rest[1:])
        elif act == b"r" and self.slots:
            key = list(self.slots)[number % len(self.slots)]
            slot = self.slots.pop(key)
            assert table.remove(*key) == slot
            self.forget(slot)
        elif act == b"h":
            self.hidden.append(self.held(table.hidden(), READING))
        elif act == b"f" and self.hidden:
            slot = self.hidden.pop(number % len(self.hidden))
            table.forget(slot)
            self.forget(slot)
        elif act == b"s" and self.values:
            slot = list(self.values)[number % len(self.values)]
            (self.values[slot],) = struct.unpack("<d", rest[:8].ljust(8, b"\0"))
            table.set(slot, self.values[slot])
        elif act == b"b":
            table.begin(bool(number))
            for slot, keep in self.keep.items():
                if keep == READING or (keep == TICK and number):
                    self.values[slot] = math.nan
        elif act == b"e":
            self.check(table)

    def held(self, slot: int, keep: int) -> int:
        assert slot not in self.values
        self.values[slot] = math.nan
        self.keep[slot] = keep
        return slot

    def forget(self, slot: int) -> None:
        del self.values[slot], self.keep[slot]

    def add(self, table: Table, metric: Metric, keep: bytes, text: bytes) -> None:
        words = [word.decode("utf-8", "backslashreplace") or None for word in text.split(b"\0")]
        labels = tuple((words + [None] * 2)[: len(metric.labels)])
        kept = (READING, TICK, OWNER)[keep[0] % 3 if keep else 0]
        try:
            slot = table.add(metric, labels, kept)
        except ValueError:
            assert (metric, labels) in self.slots
        else:
            assert (metric, labels) not in self.slots
            self.slots[metric, labels] = self.held(slot, kept)

    def check(self, table: Table) -> None:
        rows: list[Row] = [(*key, self.values[slot]) for key, slot in self.slots.items()]
        for slot, value in self.values.items():
            assert same(table.get(slot), value)
        snapshot = table.freeze(1, 2)
        assert len(snapshot) == len(rows)
        assert snapshot.present == sum(not math.isnan(value) for *_, value in rows)
        for dialect in (TEXT, OPENMETRICS):
            page = encode(snapshot, dialect)
            assert page.decode() == plain(rows, dialect is OPENMETRICS)
            parts = [encode(snapshot, dialect, {group}) for group in ("first", "second")]
            assert b"".join(parts) == page


#: A name that is too long, and as long as one that is bound but for a multiple of 64.
LONG = b"Tcp: RetransSegs %s\nTcp: 1 2\n" % (b"n" * (4096 + 75))
#: The most CPUs, and one more.
CPUS = [b"0 0 0" + b" 0" * 9 + b" %x\n" % number for number in (8191, 8192)]
#: As long as a value may be, and longer.
PADDED = [b"5".ljust(size) for size in (511, 512, 513)]

#: Where most columns are alike, a few are enough; vmstat is as meminfo, netstat as snmp.
PLAIN: dict[str, Format] = {
    **{name: form for name, form in FORMATS.items() if name not in ("vmstat", "net/netstat")},
    "diskstats": Columns(DISKS, [0, 3, 20, 63], 2, None),
    "net/dev": Columns(IFACES, [1, 16, 63], 0, b":"),
}

TARGETS: dict[str, Target] = {
    **{
        name.replace("/", "-"): Texts(form, ["/" + name], [LONG] if name == "net/snmp" else [])
        for name, form in PLAIN.items()
    },
    "rows": AnyRows(),
    "follow-diskstats": Follow("diskstats", b"", (0, 1, *range(3, 14)), key=2),
    "follow-net-dev": Follow("net/dev", b"", range(1, 17), until=b":"),
    "follow-stat": Follow("stat", b"cpu", range(1, 5), lasting=b"cpu"),
    "softnet": Texts(Packets(), ["net/softnet_stat"], CPUS),
    "values": Singles(Single(), ["ports/1/state", "_input", "energy_uj"], PADDED),
    "file": Whole(),
    "links": Messages(),
    "numbers": Numbers(),
    "pages": Pages(),
    **history.TARGETS,
}
