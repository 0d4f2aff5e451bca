"""Snapshots as lines: which are rendered together, all at once or a series at a time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from operator import itemgetter

from .._fast.jsonl import render
from .._fast.table import Snapshot
from .layout import metric_object, window
from .reader import Line, Lines, Wanted

Run = list[Snapshot]


def by_window(snapshots: Iterable[Snapshot]) -> dict[int, list[Run]]:
    """Runs of snapshots that can be rendered together, by the start of their window: of one layout,
    each later than the one before it."""
    runs: dict[int, list[Run]] = {}
    last: dict[tuple[int, int], Run] = {}
    for snapshot in snapshots:
        start = window(snapshot.unix_ms)
        key = start, id(snapshot.layout)
        run = last.get(key)
        if run is None or run[-1].unix_ms >= snapshot.unix_ms:
            run = last[key] = []
            runs.setdefault(start, []).append(run)
        run.append(snapshot)
    return runs


def texts(run: Run) -> Iterator[tuple[bytes, int]]:
    """A run's lines, in texts of bounded size, each with how many samples are in it."""
    row = 0
    while row < len(run[0]):
        text, row, samples = render(run, metric_object, row)
        yield text, samples


def lines(runs: list[Run], wanted: Wanted | None) -> Lines:
    """(metric object, line) of the runs of one window, in the order of a reader.

    A line is rendered when it is asked for: all of them may take ten times the snapshots' memory.
    """
    orders: dict[int, list[tuple[bytes, int]]] = {}
    for layout in (run[0].layout for run in runs):
        if id(layout) not in orders:
            rows = ((metric_object(*row), number) for number, row in enumerate(layout.rows))
            orders[id(layout)] = sorted(row for row in rows if wanted is None or wanted(row[0]))

    def rendered(run: Run) -> Iterator[Line]:
        for metric, row in orders[id(run[0].layout)]:
            text, _, _ = render(run, metric_object, row, 1)
            if text:
                yield metric, text

    yield from heapq.merge(*map(rendered, runs), key=itemgetter(0))
