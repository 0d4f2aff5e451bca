"""The status: what deriving costs at each tick, and how fast the document is handed out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from esnode.agent import Agent
from esnode.config import Settings
from tests import bighost
from tests.fakenvml import Fake, library
from tests.hosts import config

from .figures import Bench, Row, seconds, within
from .servers import Client
from .servers import agent as server

#: Connections that are kept alive, and documents a second that there should be at least.
CONNECTIONS = 16
RATE = 5000


@contextmanager
def big(bench: Bench, **keys: object) -> Iterator[Agent]:
    """An agent in this process, on a host of 256 cores with 16 GPUs."""
    with TemporaryDirectory() as root:
        bighost.write(Path(root))
        fake = Fake(library(), state=bench.directory / "nvml-big")
        fake.set_gpus(["H100"] * 16)
        keys |= {"enable_gpu": True, "nvml_library": str(fake.path)}
        agent = Agent(Settings(config(Path(root), disk_mount_exclude=".", **keys)))
        yield agent
        agent.stop_collectors()
        if agent.gpus:
            agent.gpus.close()
        fake.reset()


def status_derived(bench: Bench) -> Iterator[Row]:
    """Degradation, and the document while somebody asks, on a host of 256 cores with 16 GPUs."""
    with big(bench) as agent:
        derive, build = [], []
        for _ in range(bench.effort.ticks):
            agent.read()
            derive.append(agent.derived.parts[0].seconds)
            start = time.perf_counter()
            agent.view.build()
            build.append(time.perf_counter() - start)
    what = "degradation of a tick, 256 cores and 16 GPUs"
    yield within(what, seconds, statistics.median(derive), 1e-3)
    yield Row("  the document, while somebody asks", seconds(statistics.median(build)))


def status_served(bench: Bench) -> Iterator[Row]:
    """The time from one document to the next, over connections that are kept alive."""
    fake = Fake(library(), state=bench.directory / "nvml-served")
    fake.set_gpus(["H100"] * 8)
    with server("--nvml-library", str(fake.path), more=fake.environment()) as ours:
        client = Client(ours.name, ours.port, CONNECTIONS)
        client.get(path="/status")
        count, start = 0, time.monotonic()
        while (passed := time.monotonic() - start) < bench.effort.load_seconds:
            client.get(path="/status")
            count += CONNECTIONS
        client.close()
    fake.reset()
    yield within(
        "a /status of 8 GPUs to the next, 16 connections", seconds, passed / count, 1 / RATE
    )


FIGURES = (status_derived, status_served)
