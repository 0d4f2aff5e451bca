"""jsonl: what is rendered against json, what is scanned and merged against plain Python."""

from __future__ import annotations

import json
import math
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esnode._fast.jsonl import Scan, merge, render, series_hash
from esnode.tsdb.layout import metric_object
from tests.tsdb.history import HEAT, LOAD, START, Source, parse, samples

VALUES = st.floats(allow_nan=True, allow_infinity=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def test_a_line_is_what_it_should_be() -> None:
    source = Source([(HEAT, ('a"\\\n', None)), (LOAD, ())])
    run = [source.tick(123, [1, math.inf]), source.tick(5123, [2.5, math.nan])]
    text, row, count = render(run, metric_object)
    first, second = text.splitlines()
    body = (
        rb'{"metric":{"__name__":"heat_celsius","who":"a\"\\\n"},'
        rb'"values":[1,2.5],"timestamps":[123,5123]'
    )
    assert first == body + b',"crc":%d}' % zlib.crc32(body)
    assert second.startswith(
        b'{"metric":{"__name__":"load"},"values":["Infinity"],"timestamps":[123],"crc":'
    )
    assert (row, count) == (2, 3)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(TEXT, st.none() | TEXT), unique=True, min_size=1, max_size=6),
    st.data(),
)
def test_rendering_against_json(labels: list[tuple[str, str | None]], data: st.DataObject) -> None:
    source = Source([(HEAT, pair) for pair in labels])
    stamps = data.draw(
        st.lists(st.integers(-(10**14), 10**14), unique=True, min_size=1, max_size=6).map(sorted)
    )
    run = [
        source.tick(stamp, data.draw(st.lists(VALUES, min_size=len(labels), max_size=len(labels))))
        for stamp in stamps
    ]
    text, row, count = render(run, metric_object)
    assert row == len(labels)
    found = [sample for line in text.splitlines() for sample in parse(line)]
    wanted = [sample for snapshot in run for sample in samples(snapshot)]
    assert sorted(found) == sorted(wanted)
    assert count == len(wanted)
    for line in text.splitlines():
        body, _, crc = line.rpartition(b',"crc":')
        assert int(crc[:-1]) == zlib.crc32(body)
    # Few bytes at a time make the same text.
    pieces, row = [], 0
    while row < len(labels):
        piece, row, _ = render(run, metric_object, row, 300)
        pieces.append(piece)
    assert b"".join(pieces) == text
    scan = Scan()
    assert scan.feed(text) == len(text)
    assert (scan.damaged, scan.samples, scan.lines) == (0, count, text.count(b"\n"))


def test_runs_that_cannot_be_one_line() -> None:
    source, other = Source([(LOAD, ())]), Source([(LOAD, ())])
    assert render([], metric_object) == (b"", 0, 0)
    for run in (
        [source.tick(2, [1]), source.tick(2, [1])],
        [source.tick(2, [1]), source.tick(1, [1])],
        [source.tick(1, [1]), other.tick(2, [1])],
    ):
        with pytest.raises(ValueError, match="in order"):
            render(run, metric_object)


def line(stamps: list[int], values: list[object], who: str = "a") -> bytes:
    found = {"metric": {"__name__": "x", "l": who}, "values": values, "timestamps": stamps}
    return json.dumps(found, separators=(",", ":")).encode() + b"\n"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(-5, 30), min_size=1, max_size=8), min_size=1, max_size=6),
    st.integers(1, 20),
)
def test_merging_against_a_dictionary(stamps: list[list[int]], limit: int) -> None:
    """Later wins; in order; text is moved, not changed."""
    wanted: dict[int, float] = {}
    text = b""
    value = 0
    for group in stamps:
        values: list[object] = []
        for stamp in group:
            value += 1
            values.append(value + 0.5)
            wanted[stamp] = value + 0.5
        text += line(group, values)
    merged, damaged = merge(text, limit)
    assert damaged == 0
    found = [(stamp, value) for each in merged for _, stamp, value in parse(each)]
    assert found == sorted(wanted.items())
    longest = max(limit, *map(len, stamps))
    assert all(len(parse(each)) <= longest for each in merged)


def test_merging_leaves_out_what_is_damaged() -> None:
    good = line([1], [1])
    assert merge(b"") == ([], 0)
    assert merge(good + b"nonsense\n" + line([2], [2], "other") + line([3], [3])) == (
        [line([1, 3], [1, 3])],
        2,
    )


BAD = [
    b"",
    b"{}",
    b'{"metric":{}}',
    b'{"metric":{"__name__":"x"},"values":[],"timestamps":[]}',
    b'{"metric":{"__name__":"x"},"values":[1],"timestamps":[]}',
    b'{"metric":{"__name__":"x"},"values":[1,2],"timestamps":[1]}',
    b'{"metric":{"__name__":"x"},"values":[1],"timestamps":[1,2]}',
    b'{"metric":{"__name__":"x"},"values":[1],"timestamps":[1.5]}',
    b'{"metric":{"__name__":"x"},"values":[1],"timestamps":[1]',
    b'{"metric":{"__name__":"x"},"values":[1],"timestamps":[1]}}',
    b'{"metric":{"__name__":"x"},"values":[1],"timestamps":[1],"crc":1}',
    b'{"metric":{"__name__":"x"},"values":[1],"timestamps":[1],"crc":}',
    b'{"metric":{"__name__":"x"},"values":[1],"timestamps":[1234567890123456789]}',
    b'{"metric":{"__name__":"x","values":[1],"timestamps":[1]}',
    b'{"metric":{"name":"x"},"values":[1],"timestamps":[1]}',
    b'{"values":[1],"timestamps":[1]}',
]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_line_is_damage(bad: bytes) -> None:
    good = line([1], [1])
    scan = Scan()
    assert scan.feed(good + bad + b"\n" + good) == 2 * len(good) + len(bad) + 1
    assert (scan.lines, scan.damaged, len(scan)) == (2, 1, 1)
    assert scan.damage == [(len(good), len(bad) + 1)]


def test_every_flipped_bit_of_a_line_is_seen() -> None:
    source = Source([(HEAT, ("a", "b"))])
    run = [source.tick(START + 5000 * i, [0.1 * i]) for i in range(3)]
    text = render(run, metric_object)[0]
    for bit in range(8 * len(text)):
        spoilt = bytearray(text)
        spoilt[bit // 8] ^= 1 << bit % 8
        scan = Scan()
        scan.feed(bytes(spoilt) + text)
        assert scan.damaged >= 1
        assert scan.samples <= 3
        assert set(scan.metrics) <= {metric_object(HEAT, ("a", "b"))}


@given(st.binary(max_size=300))
def test_scanning_any_bytes(data: bytes) -> None:
    scan = Scan(keep=True)
    assert scan.feed(data) == data.rfind(b"\n") + 1
    merge(data)


def test_scanning_in_pieces_and_gathering(tmp_path: Path) -> None:
    """Thousands of series, over several reads, wanted and not."""
    texts: dict[bytes, bytes] = {}
    text = b""
    for flush in range(4):
        for number in range(1500):
            metric = b'{"__name__":"x","l":"%d"}' % number
            each = line([flush], [number], str(number))
            texts[metric] = texts.get(metric, b"") + each
            text += each
    huge = line(list(range(20000)), [0.5] * 20000, "huge")
    texts[b'{"__name__":"x","l":"huge"}'] = huge
    text += huge
    path = tmp_path / "lines"
    path.write_bytes(text)
    asked: list[bytes] = []

    def wanted(metric: bytes) -> bool:
        asked.append(metric)
        return b'7"' in metric or b"huge" in metric

    scan = Scan(wanted, keep=True)
    at = 0
    while at < len(text):
        used = scan.feed(text[at : at + 400_000])
        assert used
        at += used
    assert scan.end == len(text)
    assert asked == scan.metrics == list(texts)
    numbers = [number for number, found in enumerate(scan.summary()) if found]
    assert len(numbers) == 151
    descriptor = os.open(path, os.O_RDONLY)
    gathered = scan.gather(descriptor, numbers[::-1])
    assert gathered == [texts[scan.metrics[number]] for number in numbers[::-1]]
    with pytest.raises(IndexError):
        scan.gather(descriptor, [0])
    os.truncate(path, len(text) // 2)
    shorter = scan.gather(descriptor, numbers)
    assert all(texts[scan.metrics[n]].startswith(t) for n, t in zip(numbers, shorter, strict=True))
    os.close(descriptor)
    with pytest.raises(OSError, match="read again"):
        scan.gather(descriptor, numbers)


def test_the_hash_is_fnv_1a() -> None:
    """Values of its authors' test suite."""
    assert series_hash(b"") == 0xCBF29CE484222325
    assert series_hash(b"a") == 0xAF63DC4C8601EC8C
    assert series_hash(b"foobar") == 0x85944171F73967E8
