"""Clients that follow /events: what they cost, and what scrapes notice of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .figures import FULL, Bench, Row, megabytes, p99, seconds, within
from .servers import FRESH, Server, spawn

CLIENTS = 1000
#: Seconds in which it is looked at, and between two scrapes.
LOOK, QUICK_LOOK = 40, 10
PACE = 0.02
#: Seconds in which all clients have connected and got their first status.
SETTLED = 3.0
ROOT = Path(__file__).parents[1]


class Look(NamedTuple):
    """The share of a core that the agent takes, scrapes among it, and how long those took."""

    cpu: float
    latencies: list[float]


class Followers:
    """A process with many clients."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self) -> Any:
        """What came since it was asked the last time."""
        assert self.process.stdin and self.process.stdout
        print(file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a client of /events was refused or dropped")
        return json.loads(line)


@contextmanager
def followers(port: int) -> Iterator[Followers]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.followers", str(port), str(CLIENTS)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Followers(process)
    finally:
        process.kill()
        process.communicate()


def look(server: Server, duration: float) -> Look:
    """Scrapes at a steady pace for some seconds."""
    server.latency()
    latencies = []
    cpu, start = server.cpu(), time.monotonic()
    while time.monotonic() - start < duration:
        latencies.append(server.latency())
        time.sleep(PACE)
    return Look((server.cpu() - cpu) / (time.monotonic() - start), latencies)


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def events_clients(bench: Bench) -> Iterator[Row]:
    """1,000 clients at 1 Hz, on real sockets."""
    duration = LOOK if bench.effort is FULL else QUICK_LOOK
    command = [sys.executable, "-m", "benchmarks.events_agent", "--config", os.devnull]
    command += ["--listen-address", "ADDRESS", "--events-max-clients-per-address", str(CLIENTS)]
    with spawn("esnode-core", [*command, *FRESH], "/readyz", {"PYTHONPATH": str(ROOT)}) as server:
        quiet = look(server, duration)
        memory = server.memory("Rss")
        with followers(server.port) as clients:
            clients.ask()  # all have connected
            time.sleep(SETTLED)
            clients.ask()
            busy = look(server, duration)
            got = clients.ask()
            grown = server.memory("Rss") - memory
    fewest, most, ticks = got["fewest"], got["most"], int(duration)
    if fewest < ticks - 1 or most > ticks + 2:
        raise RuntimeError(f"{ticks} statuses were published; clients got {fewest} to {most}")
    what = f"CPU of {CLIENTS:,} clients of /events at 1 Hz, of a core"
    alone = f"{percent(quiet.cpu)} the scrapes alone"
    yield within(what, percent, busy.cpu - quiet.cpu, 0.1, alone)
    alone = f"{seconds(p99(quiet.latencies))} without clients"
    yield within("  p99 of fresh scrapes meanwhile", seconds, p99(busy.latencies), 0.02, alone)
    yield Row("  the slowest", seconds(max(busy.latencies)), seconds(max(quiet.latencies)))
    yield Row("  a status of 20 kB is with 99 % of them after", seconds(p99(got["status"])))
    yield within("  a GPU event of the same moment", seconds, p99(got["gpu"]), 0.1)
    yield Row(f"  memory of {CLIENTS:,} clients", megabytes(grown))


FIGURES = (events_clients,)
