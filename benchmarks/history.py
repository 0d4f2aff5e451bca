"""The local history on a synthetic DGX stream: 5,000 series, every five seconds for two hours.

What is said of memory and of what is read is of a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import zstandard

from esnode._fast.jsonl import render
from esnode.tsdb import reader, retention, seal
from esnode.tsdb.export import Export
from esnode.tsdb.layout import INDEX, OPEN, SEALED, WINDOW, metric_object, name, window
from esnode.tsdb.recorder import Recorder
from esnode.tsdb.select import select

from .figures import FULL, Bench, Rounds, Row, compare, megabytes, p99, seconds, within
from .history_work import Cost, forget_peak, status
from .servers import FRESH, Server, agent
from .stream import INTERVAL, METRICS, SERIES, START, Stream

#: Ticks in a flush of 30 seconds.
FLUSH = 6
#: Ticks between those that are given to json.dumps, too.
APART = 48
BUDGET = 2048 << 20
#: The stream of the 48 hours that are really recorded has so many times fewer metrics.
TENTH = 10
HOURS = 48
#: A window that the agent does not take for too old.
RECENT = window(int(time.time() * 1000)) - WINDOW
#: The metric of a filtered export, and seconds between an agent's ticks.
ONE = "esnode_gpu_gauge_104"
TICK = 0.1
#: Seconds in which an agent has sealed a block, and between two scrapes.
PATIENCE = 120.0
PACE = 0.005


class History(NamedTuple):
    """A recorded block that is not sealed."""

    path: Path
    start: int
    samples: int
    recording: Rounds  # seconds of CPU of each flush, and of some ticks' json.dumps

    @property
    def block(self) -> Path:
        return self.path / name(self.start)


@lru_cache
def recorded(bench: Bench, start: int) -> History:
    """A stream as the agent records it."""
    path = bench.directory / f"history-{start}"
    stream = Stream(start)
    recorder = Recorder(path, flush=1e6, clock=lambda: stream.now / 1000)
    recorder.start()
    recorder.flush()
    rounds = Rounds([], [])
    names = None
    for _ in range(WINDOW // INTERVAL // FLUSH if bench.effort is FULL else 60):
        spent = 0.0
        for _ in range(FLUSH):
            snapshot = stream.tick()
            before = time.process_time()
            recorder.add(snapshot)
            spent += time.process_time() - before
        before = time.process_time()
        if not recorder.flush(60):
            raise RuntimeError("a flush has failed")
        rounds.ours.append(spent + time.process_time() - before)
        if len(rounds.ours) % (APART // FLUSH) == 0:
            names = names or [json.loads(metric_object(*row)) for row in snapshot.layout.rows]
            before = time.process_time()
            for labels, (_, _, value) in zip(names, snapshot.items(), strict=True):
                json.dumps({"metric": labels, "values": [value], "timestamps": [snapshot.unix_ms]})
            rounds.peer.append(time.process_time() - before)
    recorder.stop()
    return History(path, start, recorder.samples, rounds)


class Sealed(NamedTuple):
    history: History
    open: int  # bytes
    data: int
    index: int
    cost: Cost


@lru_cache
def sealed(bench: Bench, start: int) -> Sealed:
    """The same, sealed."""
    history = recorded(bench, start)
    length = (history.block / OPEN).stat().st_size
    cost = work("seal", str(history.path), str(start))
    sizes = [(history.block / each).stat().st_size for each in (SEALED, INDEX)]
    return Sealed(history, length, sizes[0], sizes[1], cost)


def work(*words: str) -> Cost:
    command = [sys.executable, "-m", "benchmarks.history_work", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    return Cost(*json.loads(done.stdout))


def least(what: str, size: float, spent: float, limit: float) -> Row:
    """The row of a speed."""
    speed = size / 1e6 / spent
    return Row(what, f"{speed:.0f} MB/s", target=f"≥ {limit:g} MB/s", ok=speed >= limit)


def per_sample(value: float) -> str:
    return f"{value:.2f} B"


def mib(value: float) -> str:
    return f"{value / (1 << 20):.1f} MiB"


def history_record(bench: Bench) -> Iterator[Row]:
    """What the agent spends on a sample until it is synced, and json.dumps of it alone."""
    rounds = recorded(bench, START).recording
    cost = statistics.fmean(rounds.ours) / FLUSH / SERIES
    yield within("CPU per recorded sample, flush included", seconds, cost, 150e-9)
    yield compare(
        "  against rendering alone",
        "json.dumps",
        rounds,
        1 / 20,
        statistics.fmean,
        (FLUSH * SERIES, SERIES),
    )


def history_seal(bench: Bench) -> Iterator[Row]:
    """Sealing in a process of its own, and the ticks of an agent that seals."""
    cost = sealed(bench, START).cost
    yield within(
        f"CPU of sealing {recorded(bench, START).samples:,} samples", seconds, cost.cpu, 10
    )
    yield within("  memory", mib, cost.memory, 32 << 20)
    history = recorded(bench, RECENT)
    rounds = Rounds([], [])
    for number in range(3 if bench.effort is FULL else 1):
        path = bench.directory / f"history-sealing-{number}"
        shutil.copytree(history.path, path, copy_function=os.link)
        rounds.ours.append(jitter(path))
        rounds.peer.append(jitter(None))
    ours, idle = (statistics.median(each) for each in rounds)
    yield within("  the agent's ticks, off at most", seconds, ours, 50e-3, f"{seconds(idle)} idle")


def jitter(path: Path | None) -> float:
    """How far at most two ticks of an agent were from their distance, in seconds: while it seals a
    block of its path, or for some seconds."""
    flags = ["--scrape-interval", str(TICK)]
    if path:
        flags += ["--local-tsdb-path", str(path)]
    with agent("--enable-local-tsdb", *flags) as server:
        since = time.time()
        if path is None:
            time.sleep(6)
        while path and (path / name(RECENT) / OPEN).exists():
            if time.time() - since > PATIENCE:
                raise RuntimeError("the agent does not seal a block")
            time.sleep(TICK)
        query = f"from={since:.3f}&metrics=esnode_memory_total_bytes"
        with urlopen(f"http://127.0.0.1:{server.port}/tsdb/export?{query}") as answer:
            rows = answer.read().decode().splitlines()[:-1]
    stamps = [int(row.split()[-1]) / 1000 for row in rows]
    return max(abs(b - a - TICK) for a, b in pairwise(stamps))


def history_size(bench: Bench) -> Iterator[Row]:
    """Bytes of a sample, beside other ways to keep it."""
    found = sealed(bench, START)
    samples = found.history.samples
    total = found.data + found.index
    yield within("bytes per sample, open block", per_sample, found.open / samples, 50)
    plain, compressed = one_by_one()
    yield Row("  a line for each, plain", per_sample(plain))
    what = "bytes per sample, sealed, index included"
    theirs = prometheus(found.history.path, bench.directory)
    if theirs is None:
        yield Row(what, per_sample(total / samples), "no promtool", "", "≤ 1/2", remark="skipped")
    else:
        ratio = total / theirs
        yield Row(
            what,
            per_sample(total / samples),
            f"{per_sample(theirs / samples)} Prometheus",
            f"{ratio:.3f}",
            "≤ 1/2",
            ok=ratio <= 1 / 2,
        )
    yield Row("  without it", per_sample(found.data / samples))
    yield Row("  a line for each, zstd", per_sample(compressed))
    full = WINDOW // INTERVAL * SERIES / samples  # a quick run has less than a whole block
    days = full * (found.open + HOURS / 2 * total)
    yield within("48 h of 5,000 series, computed of the block", megabytes, days, BUDGET)


def history_48h(bench: Bench) -> Iterator[Row]:
    """48 hours that the recorder writes, seals and keeps within a tenth of the default budget."""
    part = TENTH if bench.effort is FULL else 5 * TENTH
    stream = Stream(START, METRICS // part)
    path = bench.directory / "history-48h"
    recorder = Recorder(
        path, HOURS * 3600, BUDGET // part, flush=1e6, clock=lambda: stream.now / 1000
    )
    recorder.start()
    for number in range(HOURS * 3600_000 // INTERVAL):
        recorder.add(stream.tick())
        if number % FLUSH == FLUSH - 1 and not recorder.flush(60):
            raise RuntimeError("a flush has failed")
    recorder.flush()
    finished = [start for start in retention.sizes(path) if start + WINDOW <= stream.now]
    end = time.monotonic() + PATIENCE
    while any((path / name(start) / OPEN).exists() for start in finished):
        if time.monotonic() > end:
            raise RuntimeError("not all blocks are sealed")
        recorder.flush()
        time.sleep(0.1)
    recorder.stop()
    kept = sum(index.samples for each in reader.blocks(path) if (index := each.index))
    if kept != recorder.samples or recorder.dropped or recorder.errors:
        raise RuntimeError(f"{kept} of {recorder.samples} samples are there")
    size = sum(retention.sizes(path).values())
    what = f"48 h of {SERIES // part:,} series, recorded and sealed"
    yield within(what, megabytes, size, BUDGET / part)


def history_export(bench: Bench) -> Iterator[Row]:
    """A block's Prometheus text, as it is made and as it comes out of an agent."""
    found = sealed(bench, START)
    path = str(found.history.path)
    cost = work("export", path, "")
    yield least("export of a sealed block, Prometheus text", cost.size, cost.wall, 150)
    yield within("  memory", mib, cost.memory, 32 << 20)
    with live(bench) as server:
        before = forget_peak(server.pid)
        cost = work("drain", str(server.port), f"to={RECENT + WINDOW - 1}")
        memory = status(server.pid, "VmHWM") - before
    yield least("  over HTTP", cost.size, cost.wall, 150)
    yield within("  memory of the agent", mib, memory, 32 << 20)
    cost = work("export", path, ONE)
    total = found.data + found.index
    yield within(f"export of one metric of {METRICS}: read", percent, cost.read / total, 0.05)
    yield Row("  of that, the index", percent(found.index / total))


def percent(value: float) -> str:
    return f"{value:.1%}"


@contextmanager
def live(bench: Bench) -> Iterator[Server]:
    """An agent with a sealed block, whose scrapes are fresh."""
    history = recorded(bench, RECENT)
    if (history.block / OPEN).exists():
        for _ in seal.seal(history.path, RECENT):
            pass
    flags = ("--enable-local-tsdb", "--local-tsdb-path", str(history.path))
    with agent(*FRESH, *flags) as server:
        server.latency()
        yield server


def history_scrape(bench: Bench) -> Iterator[Row]:
    """Scrapes while one client after the other exports the block."""
    idle: list[float] = []
    busy: list[float] = []
    with live(bench) as server:
        module = [sys.executable, "-m", "benchmarks.history_work", "drain", str(server.port)]
        for _ in range(5):
            idle += scrapes(server, bench.effort.latencies // 5)
            with subprocess.Popen([*module, f"from={RECENT / 1000:.0f}"]) as client:
                time.sleep(0.3)  # it has begun
                while len(busy) < len(idle):
                    if client.poll() is not None:
                        raise RuntimeError("the export was over before the scrapes")
                    busy += scrapes(server, 5)
                client.kill()
    extra = max(0.0, p99(busy) - p99(idle))
    row = within(
        f"time of {len(busy)} fresh scrapes during exports, p99, above idle", seconds, extra, 20e-3
    )
    yield row._replace(baseline=f"{seconds(p99(busy))} and {seconds(p99(idle))}")
    yield Row(
        "  median", seconds(statistics.median(busy)), f"{seconds(statistics.median(idle))} idle"
    )


def scrapes(server: Server, count: int) -> list[float]:
    times = []
    for _ in range(count):
        times.append(server.latency())
        time.sleep(PACE)
    return times


def prometheus(path: Path, to: Path) -> int | None:
    """The bytes of Prometheus' own block of the same samples; None without promtool."""
    if not shutil.which("promtool"):
        return None
    text, made = to / "openmetrics", to / "prometheus"
    with text.open("wb") as file:
        for piece in Export(path, select(), "openmetrics"):
            file.write(piece)
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", text, made]
    subprocess.run(command, check=True, capture_output=True)
    text.unlink()
    return sum(file.stat().st_size for file in made.rglob("*") if file.is_file())


def one_by_one() -> tuple[float, float]:
    """Bytes per sample of lines with one sample, tick by tick, and of all that with zstd."""
    stream, ticks = Stream(), 240
    compressor = zstandard.ZstdCompressor(level=9).compressobj()
    size = compressed = 0
    for _ in range(ticks):
        text, _, _ = render([stream.tick()], metric_object, 0, 1 << 24)
        lines = re.sub(rb',"crc":\d+', b"", text)
        size += len(lines)
        compressed += len(compressor.compress(lines))
    compressed += len(compressor.flush())
    return size / ticks / SERIES, compressed / ticks / SERIES


FIGURES = (
    history_record,
    history_seal,
    history_size,
    history_48h,
    history_export,
    history_scrape,
)
