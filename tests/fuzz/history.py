"""The local history as the fuzzer's targets: its lines, its exports and its blocks on a disk."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from esnode._fast.export import FORMS, Writer
from esnode._fast.jsonl import Scan, merge, render
from esnode._fast.table import Table
from esnode.metrics import Metric
from esnode.tsdb import block, reader, seal
from esnode.tsdb.index import HEAD, HEAD_SIZE
from esnode.tsdb.layout import INDEX, OPEN, SEALED, metric_object, name
from esnode.tsdb.verify import verify
from tests.fuzz.target import REMOVED, WRITTEN, Target, same, series
from tests.tsdb.history import HEAT, LOAD, START

METRICS = (b'{"__name__":"a"}', b'{"__name__":"b","x":"1"}', b'{"__name__":"a","x":"}\\"{"}')
LINE = re.compile(
    rb'\{"metric":(\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\}),"values":\[([^\]]*)\]'
    rb',"timestamps":\[(-?\d{1,18}(?:,-?\d{1,18})*)\](?:,"crc":(\d{1,10}))?\}',
    re.DOTALL,
)
WORDS = (
    *(b'{"metric":', b',"values":[', b'],"timestamps":[', b"]}\n", b',"crc":', b'"Infinity"'),
    *(b'"-Infinity"', b"1763784000000", b"1e-7", b"-0", b",", b"\\", b'"', *METRICS),
)


Row = tuple[Metric, tuple[str | None, ...]]


class Found(NamedTuple):
    """A line as told without the code under test."""

    metric: bytes
    values: list[bytes]
    stamps: list[bytes]

    @property
    def times(self) -> list[int]:
        return [int(stamp) for stamp in self.stamps]


def parse(text: bytes, empty: bool = False) -> Found | None:
    """A line without its newline; None where it is none, or its sum is another. ``empty``: whether
    one value that is no text at all is taken, which a merging may have cut out of more of them."""
    match = LINE.fullmatch(text)
    if not match or not match[1].startswith(b'{"__name__":"') or not (match[2] or empty):
        return None
    found = Found(match[1], match[2].split(b","), match[3].split(b","))
    if len(found.values) != len(found.stamps):
        return None
    if match[4] is not None and int(match[4]) != zlib.crc32(text[: match.start(4) - 7]):
        return None
    return found


def line(metric: bytes, values: bytes, stamps: bytes, summed: bool = True) -> bytes:
    text = b'{"metric":%s,"values":[%s],"timestamps":[%s]' % (metric, values, stamps)
    return text + (b',"crc":%d}\n' % zlib.crc32(text) if summed else b"}\n")


def some_lines(summed: bool = True) -> bytes:
    """Lines of some series, out of order and twice."""
    stamps = [b"%d,%d" % (START + at, START + at + 5) for at in (0, 10, 5, 2, 60_000, 0)]
    return b"".join(
        line(metric, b'%d.5,"Infinity"' % number, stamp, summed)
        for number, stamp in enumerate(stamps)
        for metric in METRICS[: 1 + number % 3]
    )


class Lines(Target):
    """Lines of an open block, scanned in pieces, gathered and merged."""

    words = WORDS

    def seeds(self) -> Iterator[bytes]:
        for number, summed in enumerate((True, False)):
            yield b"%02d" % number + some_lines(summed)
        yield b"02" + line(METRICS[0], b"1,,x", b"-5,-4,007") + b"torn"
        yield b"03" + line(METRICS[2], b"1", b"9" * 18, False) + b"\n\n{}\n"

    def __call__(self, data: bytes, path: Path) -> None:
        choice = random.Random(data[:2])
        text = data[2:]
        every = choice.random() < 0.5

        def wanted(metric: bytes) -> bool:
            return every or len(metric) % 2 == 0

        scan = Scan(wanted, True)
        end = 0
        while end < len(text):
            end = min(len(text), end + choice.randint(1, 300))
            scan.feed(text[scan.end : end])
        whole = text[: text.rfind(b"\n") + 1]
        assert scan.end == len(whole)

        lines: dict[bytes, list[tuple[bytes, Found]]] = {}
        damage = []
        at = 0
        for each in cut(whole):
            found = parse(each[:-1])
            if found is None:
                damage.append((at, len(each)))
            else:
                lines.setdefault(found.metric, []).append((each, found))
            at += len(each)
        assert scan.damage == damage
        assert scan.damaged == len(damage)
        assert scan.metrics == list(lines)
        path.write_bytes(text)
        numbers = [n for n, metric in enumerate(lines) if wanted(metric)]
        choice.shuffle(numbers)
        with path.open("rb") as file:
            texts = scan.gather(file.fileno(), numbers)
        summaries = scan.summary()
        for number, gathered in zip(numbers, texts, strict=True):
            metric = scan.metrics[number]
            own = lines[metric]
            assert gathered == b"".join(each for each, _ in own)
            samples = sum(len(found.times) for _, found in own)
            assert summaries[number] == (metric, samples, len(gathered))
            merges(gathered, own, choice.choice((1, 2, 4096)))
        assert merge(text)[1] >= 0


def cut(text: bytes) -> list[bytes]:
    """Lines that end in a newline and nothing else."""
    return [each + b"\n" for each in text.split(b"\n")[:-1]]


def merges(text: bytes, own: list[tuple[bytes, Found]], limit: int) -> None:
    """That the lines of a series are merged in order, the last of each time."""
    samples: dict[int, tuple[bytes, bytes]] = {}
    for _, found in own:
        for time, value, stamp in zip(found.times, found.values, found.stamps, strict=True):
            samples[time] = value, stamp
    merged, damaged = merge(text, limit)
    assert not damaged
    result = [parse(each[:-1], empty=True) for each in merged]
    assert all(each and each.metric == own[0][1].metric for each in result)
    pairs = [pair for each in result if each for pair in zip(each.values, each.stamps, strict=True)]
    assert pairs == [samples[time] for time in sorted(samples)]


class Rendered(Target):
    """Doubles of some ticks as lines: three bytes of distance before each three of eight bytes."""

    def seeds(self) -> Iterator[bytes]:
        odd = (0.0, -0.0, 1e21, 5e-324, math.nan, math.inf, -math.inf, 0.1, 1763784000000.5)
        for size in (3, 6, 9):
            yield b"".join(
                bytes((1, 2, 3)) + struct.pack("<3d", *odd[at : at + 3]) for at in range(0, size, 3)
            )
        yield bytes(27) * 3

    def __call__(self, data: bytes, path: Path) -> None:
        table = Table([("g", [HEAT, LOAD])])
        rows: list[Row] = [(LOAD, ()), (HEAT, ('odd "\\\n', None)), (HEAT, ("é", "}{"))]
        slots = [table.add(metric, labels) for metric, labels in rows]
        snapshots, stamps = [], []
        stamp = START
        for piece in islice((data[at : at + 27] for at in range(0, len(data) - 26, 27)), 20):
            stamp += 1 + int.from_bytes(piece[:3], "little")
            for slot, value in zip(slots, struct.unpack("<3d", piece[3:]), strict=True):
                table.set(slot, value)
            stamps.append(stamp)
            snapshots.append(table.freeze(0, stamp))
        if not snapshots:
            return
        expected: dict[bytes, list[tuple[float, int]]] = {}
        for row in snapshots[0].layout.rows:
            for snapshot, stamp in zip(snapshots, stamps, strict=True):
                for metric, labels, value in snapshot.items():
                    if (metric, labels) == row:
                        expected.setdefault(metric_object(*row), []).append((value, stamp))
        text, row_number, samples = b"", 0, 0
        while row_number < len(snapshots[0]):
            more, row_number, count = render(snapshots, metric_object, row_number, 1)
            text += more
            samples += count
        assert render(snapshots, metric_object)[0] == text
        lines = cut(text)
        assert samples == sum(map(len, expected.values()))
        assert len(lines) == len(expected)
        words = {"Infinity": math.inf, "-Infinity": -math.inf}
        for each, (metric, cells) in zip(lines, expected.items(), strict=True):
            found = parse(each[:-1])
            assert found
            assert found.metric == metric
            read = json.loads(each)
            values = [float(words.get(value, value)) for value in read["values"]]
            assert all(same(a, b) for a, (b, _) in zip(values, cells, strict=True)), each
            assert read["timestamps"] == [stamp for _, stamp in cells]


NUMBER = rb'(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|"-?Infinity")'
STAMP = rb"-?(?:0|[1-9]\d{0,17})"
REST = re.compile(
    rb',"values":\[(%b(?:,%b)*)\],"timestamps":\[(%b(?:,%b)*)\](?:,"crc":\d+)?\}\n?'
    % (NUMBER, NUMBER, STAMP, STAMP)
)


class Exported(Target):
    """Lines in the formats of an export; two bytes say which, and which range."""

    words = (*WORDS, b"\xff\xff,", b"0.5", b"E+5", b"]", b"}")

    def seeds(self) -> Iterator[bytes]:
        rests = [each.partition(b',"values"') for each in some_lines().splitlines(keepends=True)]
        for number in range(12):
            yield b"%02d" % number + WRITTEN.join(
                middle + end for _, middle, end in rests[number % 3 :: 3]
            )

    def __call__(self, data: bytes, path: Path) -> None:
        choice = random.Random(data[:2])
        form = choice.choice(list(FORMS))
        start = choice.choice((0, START, START + 6, -(1 << 62)))
        end = choice.choice(((1 << 62), START + 5, 7))
        prefix = choice.choice((b"p ", b"", b"long" * 20))
        writer = Writer(FORMS[form])
        expected = b""
        for _, rest in series(data[2:]):
            before = writer.size
            samples = split(rest)
            try:
                added = writer.add(prefix, b"x" * 3 + rest, 3, start, end)
            except ValueError:
                assert samples is None, rest
                assert writer.size == before
                continue
            assert samples is not None, rest
            kept = [
                (value, stamp)
                for value, stamp in samples
                if not stamp.startswith(b"-") and start <= int(stamp) <= end
            ]
            assert added == len(kept)
            assert writer.last == max([int(stamp) for _, stamp in kept], default=start - 1)
            expected += written(form, prefix, kept)
            assert writer.size == len(expected)
        assert writer.take() == expected


def split(rest: bytes) -> list[tuple[bytes, bytes]] | None:
    """The samples of a line behind its metric object; None where it is no such line."""
    match = REST.fullmatch(rest)
    if not match:
        return None
    values, stamps = match[1].split(b","), match[2].split(b",")
    return list(zip(values, stamps, strict=True)) if len(values) == len(stamps) else None


def written(form: str, prefix: bytes, samples: list[tuple[bytes, bytes]]) -> bytes:
    """The samples in a format."""
    if form == "jsonl":
        if not samples:
            return b""
        words = {b'"Infinity"': b"1e999", b'"-Infinity"': b"-1e999"}
        values = b",".join(words.get(value, value) for value, _ in samples)
        stamps = b",".join(stamp for _, stamp in samples)
        return prefix + b',"values":[%b],"timestamps":[%b]}\n' % (values, stamps)
    text = b""
    words = {b'"Infinity"': b"+Inf", b'"-Infinity"': b"-Inf"}
    for value, stamp in samples:
        value = words.get(value, value)
        if form == "csv":
            text += b"%b%b,%b\n" % (prefix, stamp, value)
        elif form == "prometheus":
            text += b"%b%b %b\n" % (prefix, value, stamp)
        else:
            text += b"%b%b %d.%03d\n" % (prefix, value, int(stamp) // 1000, int(stamp) % 1000)
    return text


class Blocks(Target):
    """A block's files: the lines, the sealed ones and the index, of which some may be missing.

    What is read is asked for nothing but order; that whoever reads ends, and raises nothing.
    """

    words = (*WORDS, b'"frames":[[', b'"bytes":', b'"sealed":true', b"\x28\xb5\x2f\xfd", REMOVED)
    longest = 4000

    def seeds(self) -> Iterator[bytes]:
        opened = some_lines()
        yield opened
        yield opened[:-40]
        sealed, index = self.sealed(opened)
        yield WRITTEN.join((opened, sealed, index))
        yield WRITTEN.join((REMOVED, sealed, index))
        yield WRITTEN.join((REMOVED, sealed))

    def sealed(self, opened: bytes) -> tuple[bytes, bytes]:
        """The files that come of a sealing, which has the same id each time."""
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory, name(START))
            folder.mkdir()
            (folder / OPEN).write_bytes(opened)
            for _ in seal.seal(Path(directory), START):
                pass
            sealed, index = (folder / SEALED).read_bytes(), (folder / INDEX).read_bytes()
        id, fixed = sealed[len(HEAD) : HEAD_SIZE], b"the same"
        return sealed.replace(id, fixed), index.replace(id.hex().encode(), fixed.hex().encode())

    def __call__(self, data: bytes, path: Path) -> None:
        home = path.with_name("tsdb")
        folder = home / name(START)
        shutil.rmtree(home, ignore_errors=True)
        folder.mkdir(parents=True)
        texts = re.split(rb"\xff\xff", data)[:3]
        for each, text in zip((OPEN, SEALED, INDEX), texts, strict=False):
            if not text.endswith(REMOVED):
                (folder / each).write_bytes(text)
        before = read(home)
        list(verify(home))
        filtered = read(home, lambda metric: b'"x"' in metric)
        assert times(filtered) == {each for each in times(before) if b'"x"' in each[0]}
        whole = texts[0][: texts[0].rfind(b"\n") + 1]
        cut = block.recover(home, START)
        if not texts[0].endswith(REMOVED):
            assert cut == len(texts[0]) - len(whole)
        assert read(home) == before
        if (folder / OPEN).exists():
            assert (folder / OPEN).read_bytes() == whole
            for _ in seal.seal(home, START):
                pass
        elif (folder / SEALED).exists():
            for _ in seal.rebuild(home, START):
                pass
        assert times(read(home)) == times(before)
        if folder.exists():
            assert seal.matches(folder)


def read(home: Path, wanted: reader.Wanted | None = None) -> list[reader.Line]:
    """The lines of a history, as they are read."""
    return [each for part in reader.blocks(home) for each in reader.lines(part, wanted)]


def times(lines: list[reader.Line]) -> set[tuple[bytes, int]]:
    """The series and time of each sample."""
    return {
        (metric, time)
        for metric, text in lines
        if (found := parse(text[:-1]))
        for time in found.times
    }


TARGETS: dict[str, Target] = {
    "history-lines": Lines(),
    "history-rendered": Rendered(),
    "history-export": Exported(),
    "history-blocks": Blocks(),
}
