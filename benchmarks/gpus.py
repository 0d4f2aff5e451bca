"""The GPU lane against its peers, on the fake of NVIDIA's library.

Ours, the C program and the pynvml loop are processes of their own, whose clocks are put forward
between two ticks (leap.c): every tick is one of a minute at the default interval, with what is due
every 15 and 60 seconds at its share. The peers' script is what the fake counted of ours.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from tests.fakenvml import ROOT, Fake, Mig, library

from .figures import (
    FAULTS,
    Bench,
    Rounds,
    Row,
    alternate,
    compare,
    compiled,
    megabytes,
    p99,
    seconds,
    within,
)
from .gpu_lane import TICKS
from .servers import FRESH, GZIP, Server, Told, agent, spawn

#: Nanoseconds for which each call of the fake is busy.
BUSY = 20_000
#: The functions that are asked for numbers, whose script has these numbers.
BATCHES = ("nvmlDeviceGetFieldValues", "nvmlGpmMetricsGet")
NVITOP = "nvitop-exporter"
#: Between two scrapes, and between two updates of nvitop-exporter, in seconds.
PACE = 1.0


class Loop(Told):
    """A process that makes some minutes of ticks when it is told to, and what they took."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__(command, environment)
        self.walls: list[float] = []
        self.series = 0

    def ask(self, line: object) -> float:
        """The CPU time of a tick; the time it took is added to ``walls``."""
        words = self.tell(line).split()
        self.walls.append(float(words[1]))
        self.series = int(words[2]) if len(words) > 2 else 0
        return float(words[0])


class Node:
    """The fake node of a figure, and the processes that read its GPUs."""

    def __init__(self, bench: Bench, name: str, gpus: int) -> None:
        self.directory = bench.directory / name
        self.directory.mkdir()
        self.library = library()
        self.fake = Fake(self.library, self.directory / "nvml")
        self.fake.set_gpus(["H100"] * gpus)
        self.gpus = gpus
        self.leap = compiled("leap.c", bench.directory, "-shared", "-fPIC", "-ldl")
        self.environment = self.fake.environment() | {"STATE_DIRECTORY": str(self.directory)}
        self.preloaded = self.environment | {"LD_PRELOAD": f"{self.leap} {self.library}"}
        self.script = self.directory / "script"

    def flags(self) -> tuple[str, ...]:
        """The flags of an agent on this node."""
        return ("--nvml-library", str(self.library))

    def ours(self, publish: bool = False, **keys: Any) -> Loop:
        """The GPU lane, with the defaults but for these keys."""
        config = msgspec.json.encode({"nvml_library": str(self.library), **keys}).decode()
        module = [sys.executable, "-m", "benchmarks.gpu_lane", config]
        return Loop([*module, "publish" if publish else "read"], self.preloaded)

    def count(self, ours: Loop, what: object = 1) -> dict[tuple[str, int], int]:
        """The calls of a minute of ours."""
        ours.ask(1)  # it has begun
        self.fake.forget_calls()
        ours.ask(what)
        return self.fake.calls()

    def record(self, ours: Loop) -> dict[tuple[str, int], int]:
        """Writes the script of a minute of ours; its calls by function and GPU."""
        tape = self.directory / "tape"
        counts = self.count(ours, tape)
        lines = Counter(line for line in tape.read_text().splitlines() if line)
        each: Counter[str] = Counter()
        script = []
        for (name, slot), count in counts.items():
            if slot < 0:
                script.append(f"once {count} {name}")
            elif name not in BATCHES:
                each[name] += count
        each.update(lines)
        for line, count in each.items():
            number, rest = divmod(count, self.gpus)
            if rest:
                raise RuntimeError(f"{line}: {count} calls for {self.gpus} GPUs that are alike")
            script.append(f"each {number} {line}")
        self.script.write_text("\n".join(script) + "\n")
        return counts

    def c_loop(self, bench: Bench) -> Loop:
        program = compiled("nvml_loop.c", bench.directory, str(self.leap), str(self.library))
        return Loop([str(program), str(self.script), str(TICKS)], self.preloaded)

    def pynvml_loop(self) -> Loop:
        module = [sys.executable, "-m", "benchmarks.nvml_loop"]
        return Loop([*module, str(self.script), str(TICKS)], self.preloaded)


def in_turns(bench: Bench, ours: Loop, peer: Loop, minutes: int) -> tuple[Rounds, Rounds]:
    """CPU time and time of ticks of both."""
    ours.walls.clear()
    peer.walls.clear()
    cpu = alternate(bench.effort.rounds, lambda side: side.ask(minutes), ours, peer)
    return cpu, Rounds(ours.walls[1:], peer.walls[1:])


def gpu_tick(bench: Bench) -> Iterator[Row]:
    """A tick of 8 GPUs, against the same calls in C and in Python; and what these calls are."""
    node = Node(bench, "tick", 8)
    with ExitStack() as stack:
        ours = stack.enter_context(node.ours())
        counts = node.record(ours)
        plain = stack.enter_context(node.c_loop(bench))
        if node.count(plain) != counts:
            raise RuntimeError("the C loop makes other calls than ours")
        node.fake.option("busy_ns", BUSY)
        cpu, wall = in_turns(bench, ours, plain, 1)
        peer = "C loop"
        yield compare("CPU of a GPU tick, 8 H100, calls of 20 µs", peer, cpu, 1.3)
        yield compare("  time", peer, wall, 1.3)
        node.fake.option("busy_ns", 0)
        python = stack.enter_context(node.pynvml_loop())
        made = node.count(python)  # more: it asks for the number of samples first
        if any(made.get(key, 0) < count for key, count in counts.items()):
            raise RuntimeError("the pynvml loop lacks some of our calls")
        cpu, wall = in_turns(bench, ours, python, 3)
        peer = "pynvml loop"
        yield compare(f"CPU of a GPU tick, no driver time, {ours.series} series", peer, cpu, 1 / 4)
        yield compare("  time", peer, wall)
        cpu, _ = in_turns(bench, ours, plain, 3)
        yield compare("  against the calls alone", "C loop", cpu)
    per = node.gpus * TICKS
    total = sum(counts.values()) / per
    yield within("NVML calls per GPU and tick, of a minute", "{:.2f}".format, total, 16)
    totals: Counter[str] = Counter()
    for (name, _), count in counts.items():
        totals[name] += count
    for name, count in totals.most_common():
        yield Row(f"  {name}", f"{count / per:.2f}")


def gpu_big(bench: Bench) -> Iterator[Row]:
    """A whole tick of 16 GPUs with 18 links and 7 MIG instances each."""
    node = Node(bench, "big", 16)
    profile = [Mig("1g.10gb", gi=7 + k, start=k) for k in range(7)]
    for slot in range(node.gpus):
        node.fake.gpu(slot).mig(profile)
    for detail in (False, True):
        with node.ours(True, enable_gpu_mig=True, gpu_detail=detail) as ours:
            times = [ours.ask(1) for _ in range(bench.effort.rounds)]
            with_detail = ", gpu_detail" if detail else ""
            what = f"CPU of a whole tick, 16 H100, 18 links and 7 MIG each{with_detail}"
            calls = sum(node.count(ours).values()) / TICKS
        yield within(what, seconds, statistics.median(times), 5e-3)
        yield Row(f"  {ours.series} series, {calls:.0f} calls")


def gpu_hung(bench: Bench) -> Iterator[Row]:
    """Scrapes of an agent of which one GPU hangs, and of one of which none does."""
    well = Node(bench, "well", 8)
    sick = Node(bench, "hung", 8)  # a process scripts the fake that it has made last
    with (
        agent(*FRESH, *sick.flags(), more=sick.environment) as hung,
        agent(*FRESH, *well.flags(), more=well.environment) as healthy,
    ):
        time.sleep(1)
        sick.fake.gpu(3).hang()
        for when in ("begins to hang", "hangs"):
            times = alternate(2 * bench.effort.latencies, Server.latency, hung, healthy)
            what = f"time of {len(times.ours)} fresh scrapes, 1 of 8 GPUs {when}, p99"
            yield compare(what, "none hangs", times, 1.5, p99)
            yield compare("  median", "none hangs", times)
            time.sleep(3)  # longer than a reading may take
    sick.fake.release()


def gpu_nvitop(bench: Bench) -> Iterator[Row]:
    """Both scraped at the pace at which nvitop-exporter reads."""
    node = Node(bench, "nvitop", 8)
    try:
        program = str(nvitop())
    except FAULTS as error:
        yield Row(f"CPU per scrape, {NVITOP}", remark=f"skipped: {error}")
        return
    command = [program, "--bind-address", "127.0.0.1", "--port", "PORT", "--interval", str(PACE)]
    with (
        agent(*node.flags(), more=node.environment) as ours,
        spawn(NVITOP, command, "/metrics", node.environment) as peer,
    ):
        for busy in (0, BUSY):
            node.fake.option("busy_ns", busy)
            rounds = paced((ours, peer), bench.effort.starts * 6)
            calls = f"calls of {busy // 1000} µs" if busy else "no driver time"
            what = f"CPU per scrape, one a second, {calls}"
            # What is done between the scrapes counts, too: the mean.
            yield compare(what, NVITOP, rounds, 1 / 10, statistics.fmean)
        node.fake.option("busy_ns", 0)
        series = ours.series(), peer.series()
        yield Row("  series", str(series[0]), f"{series[1]} {NVITOP}", ok=series[0] > series[1])


def paced(servers: tuple[Server, Server], scrapes: int) -> Rounds:
    """The CPU of each second with one scrape of each."""
    rounds = Rounds([], [])
    for number in range(scrapes + 1):
        before = [server.cpu() for server in servers]
        time.sleep(PACE)
        servers[1].client.close()  # nvitop-exporter has done so
        for server in servers:
            server.client.get(GZIP)
        if number:  # one turn does not count
            for server, times, start in zip(servers, rounds, before, strict=True):
                times.append(server.cpu() - start)
    return rounds


def nvitop() -> Path:
    """nvitop-exporter in an environment of its own. Raises an error of FAULTS."""
    home = ROOT / "build" / "nvitop"
    program = home / "bin" / NVITOP
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True, capture_output=True)
        subprocess.run(
            [home / "bin" / "pip", "install", "--quiet", "--retries", "1", NVITOP],
            check=True,
            capture_output=True,
        )
    return program


def gpu_memory(bench: Bench) -> Iterator[Row]:
    """What the lane adds, both agents running, so that what they share counts half for each."""
    node = Node(bench, "memory", 8)
    scrapes = bench.effort.memory[0]
    with (
        agent(*FRESH, *node.flags(), more=node.environment) as ours,
        agent(*FRESH, "--no-enable-gpu") as other,
    ):
        for server in (ours, other):
            for _ in range(scrapes):
                server.client.get()
        driver = (str(node.library), str(node.directory))
        sizes = [server.memory("Pss") - server.mapped(driver) for server in (ours, other)]
    what = f"memory (PSS) of the GPU lane, 8 H100, after {scrapes:,} scrapes"
    baseline = f"{megabytes(sizes[1])} without it"
    yield within(what, megabytes, sizes[0] - sizes[1], 6e6, baseline)


FIGURES = (gpu_tick, gpu_big, gpu_hung, gpu_nvitop, gpu_memory)
