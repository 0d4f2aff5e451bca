"""Histories written by hand, and their samples, for the tests of what reads them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import zstandard

from esnode._fast.encode import text_of
from esnode.metrics import counter, gauge
from esnode.tsdb.layout import OPEN, SEALED, WINDOW, name
from esnode.tsdb.reader import Lines, Unwritten, Wanted

#: The start of a window.
START = 1_763_784_000_000

UP = gauge("esnode_gpu_up", "Whether it answers.", ("gpu",))
POWER = gauge("esnode_gpu_power_watts", "Power draw.", ("gpu", "uuid"))
ENERGY = counter("esnode_gpu_energy_joules_total", "Energy used.", ("gpu",))
DECLARED = {metric.name: metric for metric in (UP, POWER, ENERGY)}

#: A metric object → (milliseconds, value) in time order.
History = dict[bytes, list[tuple[int, float]]]


def metric(name: str, **labels: str) -> bytes:
    pairs = {"__name__": name, **labels}
    return json.dumps(pairs, separators=(",", ":"), ensure_ascii=False).encode()


SERIES = [
    metric(ENERGY.name, gpu="0"),
    metric(ENERGY.name, gpu="1"),
    metric(POWER.name, gpu="0", uuid="GPU-a"),
    metric(POWER.name, gpu="1", uuid='odd "\\\n,é'),
    metric(UP.name, gpu="0"),
    metric("esnode_undeclared_ratio"),
    metric("esnode_undeclared_total", who="b"),
]


def made_up(
    windows: int = 3, step: int = 60_000, seed: int = 1, decimals: int | None = None
) -> History:
    """All series over some windows, with holes and odd values; these of any magnitude, or with so
    many decimals at most."""
    rng = random.Random(seed)
    history: History = {}
    for series in SERIES:
        value = 0.0
        samples = history[series] = []
        for moment in range(START, START + windows * WINDOW, step):
            if rng.random() < 0.05:
                continue
            value += rng.choice([0, 1, 0.25, 1e-7, 1e12, rng.random() * 1000])
            if decimals is not None:
                value = round(value % 1e9, decimals)
            odd = rng.random() < 0.01 and b"_total" not in series
            samples.append((moment + rng.randrange(20), math.inf if odd else value))
    return history


def line(series: bytes, samples: Iterable[tuple[int, float]]) -> bytes:
    """A line as the history has it."""
    words = {b"+Inf": b'"Infinity"', b"-Inf": b'"-Infinity"'}
    samples = list(samples)
    texts = [text_of(value) for _, value in samples]
    values = b",".join(words.get(text, text) for text in texts)
    times = b",".join(b"%d" % moment for moment, _ in samples)
    return b'{"metric":' + series + b',"values":[' + values + b'],"timestamps":[' + times + b"]}\n"


def by_window(history: History) -> dict[int, History]:
    found: dict[int, History] = {}
    for series, samples in history.items():
        for moment, value in samples:
            window = found.setdefault(moment - moment % WINDOW, {})
            window.setdefault(series, []).append((moment, value))
    return dict(sorted(found.items()))


def flushes(history: History, step: int = 300_000) -> bytes:
    """A window's lines as they are flushed: a few samples of each series at a time."""
    rows = [
        (samples[0][0] // step, series, samples)
        for series, all_samples in history.items()
        for samples in chunks(all_samples, step)
    ]
    return b"".join(line(series, samples) for _, series, samples in sorted(rows))


def chunks(samples: list[tuple[int, float]], step: int) -> list[list[tuple[int, float]]]:
    found: dict[int, list[tuple[int, float]]] = {}
    for moment, value in samples:
        found.setdefault(moment // step, []).append((moment, value))
    return list(found.values())


def lines(history: History, wanted: Wanted | None) -> Lines:
    """What a recorder has not written, as a reader gets it."""
    for series in sorted(history):
        if wanted is None or wanted(series):
            yield series, line(series, history[series])


def write(path: Path, history: History, unwritten: int = 0) -> Mapping[int, Unwritten]:
    """Writes a history; all windows but the last are sealed. Of the last, so many samples of each
    series are only returned, as what a recorder has not written, with one that it has."""
    windows = by_window(history)
    pending: dict[int, Unwritten] = {}
    for start, window in windows.items():
        folder = path / name(start)
        folder.mkdir(parents=True)
        if start != max(windows):
            frames = [
                zstandard.ZstdCompressor().compress(line(series, window[series]))
                for series in sorted(window)
            ]
            (folder / SEALED).write_bytes(b"".join(frames))
            continue
        written = {
            series: samples[: len(samples) - unwritten] for series, samples in window.items()
        }
        (folder / OPEN).write_bytes(flushes(written))
        if unwritten:
            rest = {series: found[-unwritten - 1 :] for series, found in window.items()}
            pending[start] = partial(lines, rest)
    return pending
