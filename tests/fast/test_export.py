"""Lines of the history in the formats of an export, against the same done slowly with json."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esnode._fast.encode import text_of
from esnode._fast.export import FORMS, Writer

PREFIXES = {
    "prometheus": b'a{b="c"} ',
    "openmetrics": b'a{b="c"} ',
    "csv": b'a,"{""b"":""c""}",',
    "jsonl": b'{"metric":{"__name__":"a","b":"c"}',
}
HEAD = PREFIXES["jsonl"]
INFINITIES = {b"+Inf": b'"Infinity"', b"-Inf": b'"-Infinity"'}

Samples = list[tuple[float, int]]


def line_of(samples: Samples) -> bytes:
    """A line as the history has it."""
    texts = [text_of(value) for value, _ in samples]
    values = b",".join(INFINITIES.get(text, text) for text in texts)
    times = b",".join(b"%d" % moment for _, moment in samples)
    return HEAD + b',"values":[' + values + b'],"timestamps":[' + times + b"]}\n"


def oracle(form: str, line: bytes, start: int, end: int) -> bytes:
    """The samples of a line within a range, by way of json."""
    read = json.loads(line, parse_float=str, parse_int=str)
    pairs = zip(read["values"], read["timestamps"], strict=True)
    kept = [(value, time) for value, time in pairs if start <= int(time) <= end]
    if form == "jsonl":
        if not kept:
            return b""
        values = ",".join(value.replace("Infinity", "1e999") for value, _ in kept)
        times = ",".join(time for _, time in kept)
        return HEAD + f',"values":[{values}],"timestamps":[{times}]}}\n'.encode()
    rows = []
    for value, time in kept:
        shown = {"Infinity": "+Inf", "-Infinity": "-Inf"}.get(value, value)
        number = {
            "prometheus": f"{shown} {time}",
            "openmetrics": f"{shown} {time[:-3] or '0'}.{time[-3:].zfill(3)}",
            "csv": f"{time},{shown}",
        }[form]
        rows.append(PREFIXES[form] + number.encode() + b"\n")
    return b"".join(rows)


def convert(form: str, line: bytes, start: int = 0, end: int = 2**62) -> bytes:
    writer = Writer(FORMS[form])
    count = writer.add(PREFIXES[form], line, len(HEAD), start, end)
    text = writer.take()
    rows = json.loads(text)["values"] if form == "jsonl" and text else text.splitlines()
    assert count == len(rows)
    assert writer.take() == b""
    return text


values = st.one_of(
    st.floats(allow_nan=False),
    st.integers(-(2**53), 2**53).map(float),
    st.sampled_from([0.0, math.inf, -math.inf, 5e-324, 1.7e308, 1e22, 1e-7]),
)
times = st.one_of(st.integers(0, 2000), st.integers(1_795_348_800_000, 1_795_348_802_000))
lines = st.lists(st.tuples(values, times), min_size=1, max_size=40).map(line_of)


@pytest.mark.parametrize("form", FORMS)
@given(line=lines, start=times, end=times)
def test_each_format_is_what_json_makes_of_it(form: str, line: bytes, start: int, end: int) -> None:
    assert convert(form, line, start, end) == oracle(form, line, start, end)
    assert convert(form, line) == oracle(form, line, 0, 2**62)


def test_a_line_within_the_range_is_the_same_line() -> None:
    line = line_of([(1.5, 1), (-7, 20), (0.25, 300), (2e300, 4000)])
    assert convert("jsonl", line, 1, 4000) == line


def test_infinities_are_spelled_as_each_format_reads_them() -> None:
    line = line_of([(math.inf, 1), (-math.inf, 2)])
    assert convert("prometheus", line) == b'a{b="c"} +Inf 1\na{b="c"} -Inf 2\n'
    assert convert("jsonl", line) == HEAD + b',"values":[1e999,-1e999],"timestamps":[1,2]}\n'


def test_both_ends_belong_to_the_range() -> None:
    line = line_of([(1, 1000), (2, 2000), (3, 3000), (4, 4000)])
    assert convert("prometheus", line, 2000, 3000) == b'a{b="c"} 2 2000\na{b="c"} 3 3000\n'
    assert convert("openmetrics", line, 2000, 2000) == b'a{b="c"} 2 2.000\n'
    assert convert("jsonl", line, 4001) == b""


@pytest.mark.parametrize("form", FORMS)
def test_the_sum_of_an_open_block_is_left_out(form: str) -> None:
    line = line_of([(1, 1000), (2, 2000)])
    summed = line.replace(b"]}", b'],"crc":4294967295}')
    assert summed != line
    assert convert(form, summed) == convert(form, summed[:-1]) == convert(form, line)


def test_nothing_is_from_before_1970() -> None:
    assert convert("prometheus", line_of([(1, -1), (2, 0)])) == b'a{b="c"} 2 0\n'


def test_the_latest_timestamp_is_told() -> None:
    writer = Writer(FORMS["csv"])
    writer.add(b"", line_of([(1, 5), (2, 7), (3, 6)]), len(HEAD), 0, 6)
    assert writer.last == 6
    writer.add(b"", line_of([(1, 5)]), len(HEAD), 6, 9)
    assert writer.last == 5


def test_lines_are_collected_until_they_are_taken() -> None:
    writer = Writer(FORMS["prometheus"])
    expected = b"# first\n"
    writer.put(expected)
    for i in range(2000):
        line = line_of([(i + k / 7, 1000 * i + k) for k in range(i % 90 + 1)])
        writer.add(PREFIXES["prometheus"], line, len(HEAD), 0, 2**62)
        expected += oracle("prometheus", line, 0, 2**62)
        assert writer.size == len(expected)
    assert writer.take() == expected
    assert writer.size == 0


GOOD = line_of([(1.5, 1000), (-2, 2000), (3e30, 3000)])
BAD = [
    b"",
    HEAD,
    HEAD + b"\n",
    HEAD + b',"values":[],"timestamps":[]}\n',
    GOOD[:-2],
    GOOD.replace(b"]}", b'],"crc":}'),
    GOOD.replace(b"]}", b'],"crc":1,}'),
    GOOD.replace(b"]}", b'],"crd":1}'),
    GOOD + b"\n",
    GOOD.replace(b"1.5", b""),
    GOOD.replace(b"1.5", b"1."),
    GOOD.replace(b"1.5", b".5"),
    GOOD.replace(b"1.5", b"1.5.5"),
    GOOD.replace(b"1.5", b"01.5"),
    GOOD.replace(b"1000", b"01000"),
    GOOD.replace(b"1.5", b"+1"),
    GOOD.replace(b"1.5", b"--1"),
    GOOD.replace(b"1.5", b"1e"),
    GOOD.replace(b"1.5", b"1e+"),
    GOOD.replace(b"1.5", b"1 5"),
    GOOD.replace(b"1.5", b"1\n5"),
    GOOD.replace(b"1.5", b"null"),
    GOOD.replace(b"1.5", b"NaN"),
    GOOD.replace(b"1.5", b'"Infinitx"'),
    GOOD.replace(b"1.5", b'"-Infinit'),
    GOOD.replace(b"1.5", b'"'),
    GOOD.replace(b"1.5", b"1,5"),
    GOOD.replace(b"1000", b"1000,1500"),
    GOOD.replace(b"1000", b"--1000"),
    GOOD.replace(b"1000", b"-"),
    GOOD.replace(b"1000", b"1000.5"),
    GOOD.replace(b"1000", b"1" * 19),
    GOOD.replace(b"1000", b""),
    GOOD.replace(b"values", b"valuez"),
    GOOD.replace(b"timestamps", b"timestampz"),
    GOOD.replace(b"]}", b"]]"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("line", BAD)
def test_a_damaged_line_is_refused_as_a_whole(form: str, line: bytes) -> None:
    writer = Writer(FORMS[form])
    writer.put(b"before")
    with pytest.raises(ValueError, match="history's form"):
        writer.add(PREFIXES[form], line, len(HEAD) if line else 0, 0, 2**62)
    assert writer.take() == b"before"


@pytest.mark.parametrize("at", [-1, len(GOOD) + 1])
def test_a_place_outside_of_the_line(at: int) -> None:
    with pytest.raises(ValueError, match="without its metric"):
        Writer(0).add(b"", GOOD, at, 0, 1)


@pytest.mark.parametrize("form", FORMS)
def test_flipped_and_cut_bytes_never_do_more_than_raise(form: str) -> None:
    rng = random.Random(1)
    writer = Writer(FORMS[form])
    for _ in range(3000):
        line = bytearray(GOOD)
        for _ in range(rng.randint(1, 3)):
            line[rng.randrange(len(HEAD), len(line))] = rng.choice(b'0,]["-.e}:\n\0\xff')
        cut = bytes(line[: rng.randint(len(HEAD), len(line))]) if rng.random() < 0.3 else line
        try:
            writer.add(PREFIXES[form], bytes(cut), len(HEAD), 0, 2**62)
        except ValueError:
            continue
        for row in writer.take().splitlines():
            if form == "jsonl":
                json.loads(row)
            else:
                numbers = row.removeprefix(PREFIXES[form]).replace(b",", b" ").split()
                assert len([float(number) for number in numbers]) == 2


def test_prometheus_reads_the_seconds_of_each_millisecond_as_that_millisecond() -> None:
    """It multiplies a double by 1000 and cuts off what is behind the point."""
    for base in (1_000_000_000_000, 1_795_348_800_000, 2_100_000_000_000):
        line = line_of([(0, base + 7919 * i) for i in range(20000)])
        rows = convert("openmetrics", line).splitlines()
        read = [int(float(row.split()[-1]) * 1000) for row in rows]
        assert read == [base + 7919 * i for i in range(20000)]
