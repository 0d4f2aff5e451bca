"""Clients that follow /events: what they cost, and what scrapes notice of them."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from .figures import FULL, Bench, Row, megabytes, p99, seconds, within
from .servers import FRESH, ROOT, Server, Told, spawn

CLIENTS = 1000
#: Seconds in which it is looked at, and between two scrapes.
LOOK, QUICK_LOOK = 40, 10
PACE = 0.02
#: Seconds in which all clients have connected and got their first status.
SETTLED = 3.0


class Look(NamedTuple):
    """The share of a core that the agent takes, scrapes among it, and how long those took."""

    cpu: float
    latencies: list[float]


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
        numbers = str(server.port), str(CLIENTS)
        with Told([sys.executable, "-m", "benchmarks.followers", *numbers]) as clients:
            clients.tell()  # all have connected
            time.sleep(SETTLED)
            clients.tell()
            busy = look(server, duration)
            got = json.loads(clients.tell())
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
