"""Micro benches of the compiled parts: ``python -m pytest benchmarks/micro.py``."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esnode import metrics
from esnode._fast.encode import encode, text_of
from esnode._fast.procfs import Rows
from esnode._fast.table import Table
from esnode.dialects import OPENMETRICS, TEXT, Dialect

from . import series

Benchmark = Callable[..., Any]

RANDOM = random.Random(1)
NUMBERS = {
    "small": [float(i) for i in range(1000)],
    "counters": [float(RANDOM.getrandbits(50)) for _ in range(1000)],
    "doubles": [RANDOM.random() * 10 ** RANDOM.randrange(-6, 12) for _ in range(1000)],
}


@pytest.mark.parametrize("write", [text_of, repr], ids=["ours", "repr"])
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers(benchmark: Benchmark, kind: str, write: Callable[[float], object]) -> None:
    """1,000 numbers as text, beside Python's own."""
    numbers = NUMBERS[kind]
    benchmark(lambda: [write(number) for number in numbers])


@pytest.mark.parametrize("dialect", [TEXT, OPENMETRICS], ids=lambda dialect: dialect.name)
def test_encode(benchmark: Benchmark, dialect: Dialect) -> None:
    """4,608 series as a page."""
    snapshot = series.snapshot()
    page = benchmark(encode, snapshot, dialect)
    assert len(series.parse(page)) == len(snapshot)


def test_freeze(benchmark: Benchmark) -> None:
    """4,608 series as a snapshot."""
    table = series.table()
    assert benchmark(table.freeze, 0.0, 0).present == len(series.snapshot())


@pytest.mark.parametrize("name", ["stat", "meminfo"])
def test_rows(benchmark: Benchmark, name: str) -> None:
    """A file of /proc, with a number of each of its keys bound."""
    path = Path("/proc") / name
    keys = dict.fromkeys(re.findall(rb"^(\S+) +\d", path.read_bytes(), re.MULTILINE))
    metric = metrics.gauge("esnode_bench", "A line of the file.", ("key",))
    table = Table([("bench", [metric])])
    rows = Rows(table, path)
    slots = []
    for key in keys:
        slots.append(table.add(metric, (key.decode(),)))
        rows.bind(key, (1, slots[-1]))
    assert benchmark(rows.read) == 0
    assert all(table.get(slot) >= 0 for slot in slots)
