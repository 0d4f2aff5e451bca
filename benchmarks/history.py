"""The local history on a synthetic DGX stream: ``python -m benchmarks.history``.

5,000 series, every five seconds for two hours, ticks a few milliseconds off: 40 % constants, 30 %
gauges that wander in their last one to three digits, 30 % counters with random increments, a third
of them above 10^9 a second. The generator is seeded and stays as it is.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import zstandard

from esnode._fast.table import Snapshot, Table
from esnode.metrics import Metric, counter, gauge
from esnode.tsdb import reader, seal
from esnode.tsdb.export import Export
from esnode.tsdb.layout import INDEX, OPEN, SEALED, WINDOW, metric_object, name
from esnode.tsdb.recorder import Recorder
from esnode.tsdb.select import select

SERIES = 5000
METRICS = 500
INTERVAL = 5000
START = 1763784000000
#: Ticks in a flush of 30 seconds.
FLUSH = 6


class Stream:
    """The series, ten to a metric, and their values tick by tick."""

    def __init__(self, seed: int = 1) -> None:
        self.chance = random.Random(seed)
        chance = self.chance
        self.now = START
        self.metrics: list[Metric] = []
        kinds = ["constant"] * 4 + ["gauge"] * 3 + ["counter"] * 3
        rows = []
        self.constants: list[tuple[int, float]] = []
        self.gauges: list[tuple[int, float, int]] = []
        self.counters: list[tuple[int, float]] = []
        for number in range(METRICS):
            kind = kinds[number % len(kinds)]
            make = counter if kind == "counter" else gauge
            suffix = "_total" if kind == "counter" else ""
            metric = make(f"esnode_gpu_{kind}_{number}{suffix}", "A metric.", ("gpu", "uuid"))
            self.metrics.append(metric)
            for gpu in range(SERIES // METRICS):
                uuid = UUID(int=random.Random(gpu).getrandbits(128))
                rows.append((metric, (str(gpu), f"GPU-{uuid}")))
                slot = len(rows) - 1
                if kind == "constant":
                    self.constants.append((slot, float(chance.choice([0, 1, 80, 700, 1980000]))))
                elif kind == "gauge":
                    scale = 10 ** chance.choice([0, 1, 2])
                    self.gauges.append((slot, float(chance.randrange(1000, 100000)), scale))
                else:
                    fast = number // len(kinds) % 3 == 0
                    rate = chance.uniform(1e9, 5e10) if fast else chance.uniform(1, 1e6)
                    self.counters.append((slot, rate * INTERVAL / 1000))
        self.table = Table([("stream", self.metrics)])
        self.slots = [self.table.add(metric, labels) for metric, labels in rows]
        self.values = [0.0] * len(rows)
        for slot, value in self.constants:
            self.values[slot] = value
        for slot, value, _ in self.gauges:
            self.values[slot] = value
        for slot, _ in self.counters:
            self.values[slot] = float(chance.getrandbits(40))

    def tick(self) -> Snapshot:
        chance, values = self.chance, self.values
        for slot, middle, scale in self.gauges:
            # The last one to three digits wander; a tenth is left to read.
            values[slot] = middle + chance.randrange(-5 * scale, 5 * scale + 1) / 10
        for slot, step in self.counters:
            values[slot] += int(step * chance.uniform(0.5, 1.5))
        put = self.table.set
        for slot, value in zip(self.slots, values, strict=True):
            put(slot, value)
        stamp = self.now + chance.randrange(0, 4)
        self.now += INTERVAL
        return self.table.freeze(0, stamp)


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def fill(path: Path, ticks: int) -> tuple[int, float, float]:
    """Records a stream; samples, and seconds of CPU of all flushes and of the additions."""
    stream = Stream()
    recorder = Recorder(path, flush=1e6, clock=lambda: stream.now / 1000)
    recorder.start()
    recorder.flush()
    spent = 0.0
    for number in range(ticks):
        snapshot = stream.tick()
        before = time.process_time()
        recorder.add(snapshot)
        if number % FLUSH == FLUSH - 1:
            assert recorder.flush(60)
        spent += time.process_time() - before
    samples = recorder.samples
    recorder.stop()
    return samples, spent


def plainly(ticks: int = 6) -> float:
    """Seconds of CPU per sample of json.dumps of one sample a line."""
    stream = Stream()
    spent = 0.0
    for _ in range(ticks):
        snapshot = stream.tick()
        names = [json.loads(metric_object(*row)) for row in snapshot.layout.rows]
        before = time.process_time()
        for labels, (_, _, value) in zip(names, snapshot.items(), strict=True):
            json.dumps({"metric": labels, "values": [value], "timestamps": [snapshot.unix_ms]})
        spent += time.process_time() - before
    return spent / ticks / SERIES


class Watch:
    """How late a thread that wakes every ten milliseconds is at most, and the memory meanwhile."""

    def __enter__(self) -> Watch:
        self.late = 0.0
        self.before = self.most = resident()
        self.running = True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while self.running:
            due = time.monotonic() + 0.01
            time.sleep(0.01)
            self.late = max(self.late, time.monotonic() - due)
            self.most = max(self.most, resident())

    def __exit__(self, *unused: object) -> None:
        self.running = False
        self.thread.join()


def openmetrics(path: Path) -> Iterator[bytes]:
    """The block as OpenMetrics, family by family."""
    family = b""
    for block in reader.blocks(path):
        for metric, line in reader.lines(block):
            found = json.loads(line)
            labels = found["metric"]
            called = labels.pop("__name__")
            if metric[13:].partition(b'"')[0] != family:
                family = metric[13:].partition(b'"')[0]
                kind = "counter" if called.endswith("_total") else "gauge"
                yield f"# TYPE {called.removesuffix('_total')} {kind}\n".encode()
            pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
            head = f"{called}{{{pairs}}}"
            yield "".join(
                f"{head} {value} {stamp / 1000}\n"
                for value, stamp in zip(found["values"], found["timestamps"], strict=True)
            ).encode()
    yield b"# EOF\n"


def prometheus(path: Path, to: Path) -> int | None:
    """The bytes of Prometheus' own block of the same samples; None without promtool."""
    if not shutil.which("promtool"):
        return None
    text = to / "openmetrics.txt"
    with text.open("wb") as file:
        for part in openmetrics(path):
            file.write(part)
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", text, to / "prometheus"],
        check=True,
        capture_output=True,
    )
    text.unlink()
    return sum(file.stat().st_size for file in (to / "prometheus").rglob("*") if file.is_file())


def row(what: str, value: str, limit: str) -> None:
    print(f"| {what:<52} | {value:>20} | {limit:>12} |", flush=True)


def main() -> None:
    ticks = int(sys.argv[1]) if len(sys.argv) > 1 else WINDOW // INTERVAL
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "tsdb")
        samples, spent = fill(path, ticks)
        row("samples", f"{samples:,}", "")
        row("CPU per recorded sample, ns", f"{1e9 * spent / samples:.0f}", "150")
        plain = plainly()
        row("  json.dumps, ns", f"{1e9 * plain:.0f}", "")
        row("  of json.dumps", f"1/{plain * samples / spent:.0f}", "1/20")
        block = path / name(START)
        length = (block / OPEN).stat().st_size
        row("bytes per sample, open", f"{length / samples:.1f}", "50")
        with Watch() as watch:
            before = time.thread_time()
            for _ in seal.seal(path, START):
                pass
            spent = time.thread_time() - before
        row("sealing, s of CPU", f"{spent:.1f}", "10")
        row("sealing, MB of memory", f"{watch.most - watch.before:.1f}", "32")
        row("sealing, tick jitter, ms", f"{1000 * watch.late:.0f}", "50")
        data = (block / SEALED).stat().st_size
        total = data + (block / INDEX).stat().st_size
        row("bytes per sample, sealed", f"{data / samples:.2f}", "")
        row("  with its index", f"{total / samples:.2f}", "half of Prom.")
        row("48 h, MB", f"{(length + 24 * total) / 1e6:,.0f}", "2,048")
        found = reader.Block(path, START).index
        assert found is not None
        wanted = b'"esnode_gpu_gauge_104"'
        frames = reader.needed(found, lambda metric: wanted in metric)
        share = sum(frame.length for frame in frames) / data
        row("one metric of 500 reads", f"{share:.1%}", "5 %")
        started = time.process_time()
        size = sum(len(line) for _, line in reader.lines(reader.Block(path, START)))
        row(
            "reading it, MB of lines a second",
            f"{size / 1e6 / (time.process_time() - started):.0f}",
            "",
        )
        with Watch() as watch:
            started = time.perf_counter()
            size = sum(len(piece) for piece in Export(path, select()))
            spent = time.perf_counter() - started
        row("export, MB of Prometheus text a second", f"{size / 1e6 / spent:.0f}", "150")
        row("export, MB of memory", f"{watch.most - watch.before:.1f}", "32")
        theirs = prometheus(path, Path(directory))
        if theirs is None:
            row("Prometheus' block", "no promtool", "")
        else:
            row("Prometheus' block, bytes per sample", f"{theirs / samples:.2f}", "")
            row("  ours of theirs", f"{total / theirs:.2f}", "0.50")
        one = zstandard.ZstdCompressor(level=9).compressobj()
        size = 0
        for _, line in reader.lines(reader.Block(path, START)):
            found_line = json.loads(line)
            for value, stamp in zip(found_line["values"], found_line["timestamps"], strict=True):
                text = json.dumps(
                    {"metric": found_line["metric"], "values": [value], "timestamps": [stamp]}
                )
                size += len(one.compress(text.encode() + b"\n"))
            if size > 20_000_000:
                break
        row("zstd of one-sample lines, in order of the series", f"{size / samples:.2f}", "")


if __name__ == "__main__":
    main()
