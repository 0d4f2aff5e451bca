"""The whole agent against its peers: what it costs, the baseline beside it, in one run.

Ours and the peer take turns in many short rounds, so that a noisy machine hits both. A cost is the
median over the rounds. The baselines are generous: the C program only reads, prometheus_client gets
families that are made already.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import prometheus_client

from esnode import __version__, config
from esnode._fast.encode import encode
from esnode.agent import Agent
from esnode.dialects import TEXT
from esnode.sampler import Lane
from tests import bighost

from . import console, events, gpus, history, page, plain, series, status
from .figures import (
    CC,
    FAULTS,
    FULL,
    NOISE,
    QUICK,
    Bench,
    Measure,
    Rounds,
    Row,
    alternate,
    call,
    compare,
    compiled,
    megabytes,
    p99,
    render,
    seconds,
    within,
)
from .servers import FRESH, GZIP, WRK, Server, agent, exporter, exporter_version

EXPORTER = "node_exporter"
#: What a series of a fresh scrape cost when the agent had no more than eight files to read.
PER_SERIES = 2.8e-6
#: What the client of the memory figure asks for, in turn.
ASKS: tuple[dict[str, str], ...] = (
    GZIP,
    {},
    {"Accept-Encoding": "zstd"},
    {"Accept": "application/openmetrics-text; version=1.0.0"} | GZIP,
)


def thread_cpu(times: int, work: Callable[[], Any]) -> float:
    """Seconds of this thread's CPU that some work takes."""
    start = time.thread_time()
    for _ in range(times):
        work()
    return (time.thread_time() - start) / times


def process_cpu(times: int, work: Callable[[], Any]) -> float:
    """The same of all threads."""
    start = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


def opened(below: Sequence[str]) -> set[str]:
    """The files below some directories that this process has open: what a tick reads."""
    paths = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            path = link.readlink()
            if str(path).startswith(tuple(below)) and path.is_file():
                paths.add(str(path))
    return paths


def lanes(**keys: Any) -> list[Lane]:
    """The lanes of an agent, read once."""
    settings = config.load(config.parse_arguments(["--config", os.devnull]), {})
    settings = msgspec.structs.replace(
        settings, config=msgspec.structs.replace(settings.config, **keys)
    )
    result = [lane for sampler in Agent(settings).samplers for lane in sampler.lanes]
    for lane in result:
        lane.read(True)
    return result


def preads(bench: Bench, paths: Sequence[str]) -> Measure | None:
    """The CPU of only reading some files, in C; None without a compiler."""
    if not CC:
        return None
    command = [str(compiled("preads.c", bench.directory)), str(bench.effort.ticks), *paths]

    def measure() -> float:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout) / 1e9

    return measure


def tick(bench: Bench) -> Iterator[Row]:
    """Read, parse and freeze, against reading alone."""
    lane = lanes()[0]
    paths = sorted(opened(("/proc/", "/sys/")))
    ticks = bench.effort.ticks
    rounds = alternate(
        bench.effort.rounds,
        call,
        lambda: thread_cpu(ticks, lambda: lane.read(True)),
        preads(bench, paths),
    )
    yield compare(f"CPU of a tick, {len(paths)} files", "C preads", rounds, 1.5)


def big(bench: Bench) -> Iterator[Row]:
    """A tick on a host of 256 cores whose files are regular ones: our cost, not the kernel's."""
    root = bench.directory / "host"
    bighost.write(root)
    before = opened((str(root),))
    here = lanes(path_procfs=f"{root}/proc", path_sysfs=f"{root}/sys", path_rootfs=str(root))
    files = sorted(opened((str(root),)) - before)
    paths = [Path(path) for path in files]
    mounts = sorted(
        {
            Path(f"{root}{labels[0]}")
            for lane in here
            for metric, labels, _ in lane.read(True).items()
            if metric.name == "esnode_disk_total_bytes"
        }
    )
    series_of = sum(lane.read(True).present for lane in here)

    def ours() -> None:
        for lane in here:
            lane.read(True)

    rounds = alternate(
        bench.effort.rounds,
        call,
        lambda: process_cpu(20, ours),
        lambda: process_cpu(1, lambda: plain.read(paths, mounts)),
    )
    what = f"CPU of a tick, 256 cores: {len(paths)} files, {series_of} series"
    yield within(what, seconds, statistics.median(rounds.ours), 2e-3)
    yield compare("  against the same files", "plain Python", rounds, 1 / 20)
    alone = preads(bench, files)
    if alone:
        times = [alone() for _ in range(len(rounds.ours))]
        yield compare("  against reading them alone", "C preads", Rounds(rounds.ours, times))


def encoding(bench: Bench) -> Iterator[Row]:
    """The same series, by us and by the official client."""
    snapshot, registry = series.snapshot(), series.registry()
    latest = prometheus_client.generate_latest
    size = len(snapshot)
    if series.parse(encode(snapshot, TEXT)) != series.parse(latest(registry)):
        raise RuntimeError("the two pages differ")
    rounds = alternate(
        bench.effort.rounds,
        call,
        lambda: thread_cpu(20, lambda: encode(snapshot, TEXT)),
        lambda: thread_cpu(1, lambda: latest(registry)),
    )
    peer = "prometheus_client"
    yield compare(f"encoding {size:,} series", peer, rounds, 1 / 40)
    yield compare("  per series", peer, rounds, per=(size, size))


def fresh(bench: Bench) -> Iterator[Row]:
    """Every scrape reads anew."""
    peer, effort = bench.exporter, bench.effort

    def rounds(headers: dict[str, str]) -> Rounds:
        return alternate(
            effort.rounds, lambda server: server.scrape_cpu(effort.scrapes, headers), ours, peer
        )

    with agent(*FRESH) as ours:
        zipped = rounds(GZIP)
        per = ours.series(), peer.series() if peer else 1
        yield compare("CPU per fresh scrape, gzip", EXPORTER, zipped, 1 / 8)
        what = f"  per series ({per[0]}{f', theirs {per[1]}' if peer else ''})"
        row = compare(what, EXPORTER, zipped, per=per)
        cost = statistics.median(zipped.ours) / per[0]
        yield row._replace(target=f"≤ {seconds(PER_SERIES)}", ok=cost <= PER_SERIES)
        yield compare("  without gzip", EXPORTER, rounds({}))

        times = alternate(effort.latencies, Server.latency, ours, peer)
        what = f"time of {effort.latencies} fresh scrapes"
        yield compare(f"{what}, median", EXPORTER, times, 1 / 5)
        yield compare(f"{what}, p99", EXPORTER, times, 1 / 2, p99)


def cached(bench: Bench) -> Iterator[Row]:
    """Scrapes within the maximum age."""
    peer, effort = bench.exporter, bench.effort
    with agent() as ours:
        rounds = alternate(
            effort.loads,
            lambda server: server.parallel_cpu(16, effort.load_seconds),
            ours,
            peer,
        )
        what = f"CPU per scrape within the maximum age, 16 connections{'' if WRK else ' (no wrk)'}"
        yield compare(what, EXPORTER, rounds, 1 / 50)
        rounds = alternate(
            effort.rounds, lambda server: server.scrape_cpu(effort.scrapes), ours, peer
        )
        yield compare("  1 connection", EXPORTER, rounds)


def memory(bench: Bench) -> Iterator[Row]:
    """What stays after many fresh scrapes of every kind."""
    peer = bench.exporter
    looks = []
    with agent(*FRESH) as ours:
        for scrape in range(1, bench.effort.memory[-1] + 1):
            ours.client.get(ASKS[scrape % len(ASKS)])
            if scrape in bench.effort.memory:
                looks.append(ours.memory("Pss"))
        resident = ours.memory("Rss")

    def beside(kind: str) -> str:
        return f"{megabytes(peer.memory(kind))} {EXPORTER}" if peer else f"no {EXPORTER}"

    first, last = bench.effort.memory
    yield within(f"memory (PSS) after {last:,} scrapes", megabytes, looks[1], 40e6, beside("Pss"))
    yield within(f"  growth since {first:,} scrapes", megabytes, looks[1] - looks[0], 1e6)
    # What PSS would be on a machine without another Python to share pages with.
    yield Row("  RSS", megabytes(resident), beside("Rss"))


def start(bench: Bench) -> Iterator[Row]:
    """From the start of the process to its first complete page."""

    def taken(server: Callable[[], AbstractContextManager[Any]]) -> float:
        began = time.perf_counter()
        with server():
            return time.perf_counter() - began

    rounds = alternate(bench.effort.starts, taken, agent, exporter if bench.exporter else None)
    row = compare("start to the first complete page", EXPORTER, rounds)
    result = statistics.median(rounds.ours)
    yield row._replace(target="≤ 1 s", ok=result <= 1.0, remark="")


FIGURES = (
    tick,
    big,
    encoding,
    fresh,
    cached,
    memory,
    start,
    *gpus.FIGURES,
    *history.FIGURES,
    *status.FIGURES,
    *events.FIGURES,
    *console.FIGURES,
    *page.FIGURES,
)


def machine() -> str:
    """What the figures were measured on, and with."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    facts = (
        ("machine", f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, load {load}"),
        ("kernel", platform.release()),
        ("Python", platform.python_version()),
        ("ours", f"esnode-core {__version__}"),
        ("peer", f"node_exporter {exporter_version()}, its default collectors"),
        ("tools", f"cc {'found' if CC else 'missing'}, wrk {'found' if WRK else 'missing'}"),
    )
    return "\n".join(f"{name:8} {fact}" for name, fact in facts)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scenario", description=__doc__)
    names = [figure.__name__ for figure in FIGURES]
    parser.add_argument(
        "figures", nargs="*", help=f"names, or how they begin, of {', '.join(names)}; all"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: a look, not a measurement"
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 when a target is missed")
    options = parser.parse_args()
    chosen = [f for f in FIGURES if f.__name__.startswith(tuple(options.figures or [""]))]
    if not chosen:
        parser.error(f"no figure is called {' or '.join(options.figures)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the servers, too
    print(machine(), flush=True)
    rows: list[Row] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            peer = stack.enter_context(exporter())
        except FAULTS as error:  # one mount that hangs is enough
            print(f"\ngoing on without the peer: {error}", flush=True)
            peer = None
        bench = Bench(QUICK if options.quick else FULL, peer, directory)
        for figure in chosen:
            print(f"measuring: {figure.__name__} …", file=sys.stderr, flush=True)
            try:
                rows += figure(bench)
            except FAULTS as error:
                rows.append(Row(figure.__name__, ok=False, remark=f"failed: {error}"))
    print(f"\n{render(rows)}\n\n{NOISE}")
    return 1 if options.strict and any(row.ok is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
