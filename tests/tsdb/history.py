"""What the tests of the history share: snapshots made of plain rows, and what a path holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from esnode._fast.table import Snapshot, Table
from esnode.metrics import Metric, gauge
from esnode.tsdb.reader import Report, Unwritten, blocks, ignore, lines

HEAT = gauge("heat_celsius", "Heat.", ("who", "where"))
LOAD = gauge("load", "Load.")
#: A time at the start of a window.
START = 1763784000000

#: (metric object, milliseconds, value)
Sample = tuple[str, int, float]


class Source:
    """A lane's table; each tick makes a snapshot of some rows' values."""

    def __init__(self, rows: Iterable[tuple[Metric, tuple[str | None, ...]]]) -> None:
        self.table = Table([("g", [HEAT, LOAD])])
        self.slots = [self.table.add(metric, labels) for metric, labels in rows]

    def tick(self, unix_ms: int, values: Iterable[float]) -> Snapshot:
        for slot, value in zip(self.slots, values, strict=True):
            self.table.set(slot, value)
        return self.table.freeze(0, unix_ms)


def many(count: int) -> Source:
    """A source of so many rows."""
    return Source([(LOAD, ())] + [(HEAT, (f"gpu {i}", None)) for i in range(count - 1)])


def samples(snapshot: Snapshot) -> Iterable[Sample]:
    """A snapshot's samples, told without the code under test."""
    for metric, labels, value in snapshot.items():
        pairs = zip(metric.labels, labels, strict=True)
        found = {"__name__": metric.name, **{k: v for k, v in pairs if v is not None}}
        yield compact(found), snapshot.unix_ms, value


def compact(found: Mapping[str, object]) -> str:
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


def parse(line: bytes) -> list[Sample]:
    """The samples of a line as Python's json reads it."""
    found = json.loads(line)
    assert set(found) <= {"metric", "values", "timestamps", "crc"}
    assert len(found["values"]) == len(found["timestamps"]) > 0
    words = {"Infinity": math.inf, "-Infinity": -math.inf}
    return [
        (compact(found["metric"]), stamp, words[value] if isinstance(value, str) else float(value))
        for value, stamp in zip(found["values"], found["timestamps"], strict=True)
    ]


def held(
    path: Path, pending: Mapping[int, Unwritten] | None = None, report: Report = ignore
) -> list[Sample]:
    """All samples of a path as its reader gives them, which is in order and each once."""
    found: list[Sample] = []
    for block in blocks(path, pending):
        series: list[str] = []
        last = None
        for metric, line in lines(block, report=report):
            assert line.endswith(b"\n")
            here = parse(line)
            assert {name for name, _, _ in here} == {metric.decode()}
            if last != metric:
                series.append(metric.decode())
                stamps: list[int] = []
            stamps += [stamp for _, stamp, _ in here]
            assert stamps == sorted(set(stamps)), "in time order, each millisecond once"
            assert all(block.start <= stamp < block.end for stamp in stamps)
            last = metric
            found += here
        assert len(series) == len(set(series)), "the lines of a series stand together"
        encoded = [name.encode() for name in series]
        assert encoded == sorted(encoded)
    return found
