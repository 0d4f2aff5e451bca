"""The GPUs' lane over the fake, tick by tick, and what holds of each of its readings."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from esnode._fast.table import Snapshot
from esnode.collectors.nvidia.gpus import Gpus
from esnode.config import Config
from esnode.host import Host
from esnode.sampler import Lane
from tests import process
from tests.fakenvml import Fake
from tests.running import wait_for

#: Of the lane: a GPU has half of it to answer.
INTERVAL = 0.6
DEADLINE = INTERVAL / 2
#: What a busy machine may add to a time.
SLACK = 1.0
#: What is known of a GPU that does not answer.
STATUS = {
    "esnode_gpu_up",
    "esnode_gpu_stuck",
    "esnode_gpu_info",
    "esnode_gpu_last_success_timestamp_seconds",
}

Labels = tuple[str | None, ...]


class Reading(NamedTuple):
    """The rows of one reading by metric and labels, and how long it took, in seconds."""

    rows: dict[tuple[str, Labels], float]
    took: float

    def of(self, name: str) -> dict[Labels, float]:
        """The rows of a family."""
        return {labels: value for (metric, labels), value in self.rows.items() if metric == name}

    def by_gpu(self, name: str) -> dict[str | None, float]:
        """The value of a family that has one row a GPU, by the label ``gpu``."""
        return {labels[0]: value for labels, value in self.of(name).items()}

    def one(self, name: str) -> float:
        """The only row of a family."""
        (value,) = self.of(name).values()
        return value

    def names(self, uuid: str) -> set[str]:
        """The families that have a row of a GPU or instance."""
        return {metric for metric, labels in self.rows if uuid in labels}

    @property
    def up(self) -> list[str | None]:
        """The GPUs that are up, by the label ``gpu``."""
        return sorted(gpu for gpu, value in self.by_gpu("esnode_gpu_up").items() if value and gpu)

    def uuids(self) -> dict[str | None, str | None]:
        """The UUID by the label ``gpu``."""
        return {labels[0]: labels[1] for labels in self.of("esnode_gpu_up")}


class Node:
    """A machine with the fake's GPUs. Its keys are those of the configuration."""

    def __init__(self, fake: Fake, root: Path, interval: float = INTERVAL, **keys: object) -> None:
        self.fake = fake
        self.config = Config(
            **{"nvml_library": str(fake.path), "scrape_interval_seconds": interval, **keys}  # type: ignore[arg-type]
        )
        self.root = root
        host = Host(f"{root}/proc", f"{root}/sys", devfs=f"{root}/dev")
        self.gpus = Gpus(host, self.config)
        self.lane = Lane("gpu", [self.gpus], interval)

    def tick(self, tick: bool = True) -> Reading:
        """One reading, of which what must always hold is checked."""
        start = time.monotonic()
        snapshot = self.lane.read(tick)
        reading = Reading(rows(snapshot), time.monotonic() - start)
        check(reading)
        return reading

    def until(self, condition: Callable[[Reading], bool], what: str) -> Reading:
        """Ticks until a condition holds, and a little more than 100 ms apart, as GPM wants it."""
        end = time.monotonic() + 15
        while not condition(reading := self.tick()):
            assert time.monotonic() < end, f"{what}, not: {reading.rows}"
            time.sleep(0.02)
        return reading

    def close(self) -> None:
        """Lets go of the library, and of everything else."""
        self.fake.release()
        self.fake.script()
        if hasattr(self.gpus, "driver"):
            driver = self.gpus.driver
            wait_for(lambda: driver is None or driver.detach(), "the library is closed")
            self.gpus.cards.clear()
            self.gpus.driver = driver = None
            self.gpus.stop()


def rows(snapshot: Snapshot) -> dict[tuple[str, Labels], float]:
    found: dict[tuple[str, Labels], float] = {}
    for metric, labels, value in snapshot.items():
        assert (metric.name, labels) not in found
        found[metric.name, labels] = value
    return found


def check(reading: Reading) -> None:
    """What holds of every reading, whatever comes and goes."""
    uuids = reading.uuids()
    pairs = {
        labels[:2]
        for metric, labels in reading.rows
        if metric.startswith(("esnode_gpu_", "esnode_mig_")) and len(labels) > 1
    }
    assert pairs == set(uuids.items()), "every row is of a GPU that is there"
    assert len(set(uuids.values())) == len(uuids), "no GPU is there twice"
    up, stuck = reading.by_gpu("esnode_gpu_up"), reading.by_gpu("esnode_gpu_stuck")
    for gpu, uuid in uuids.items():
        assert not (up[gpu] and stuck[gpu])
        if not up[gpu] and uuid is not None:
            names = {name for name in reading.names(uuid) if not event(name)}
            names -= {"esnode_mig_info", "esnode_mig_multiprocessors"}
            assert names <= STATUS, f"GPU {gpu} is not up, and has {names - STATUS}"


def event(name: str) -> bool:
    """Whether a family is about events, which are counted whether or not the GPU answers."""
    return name in (
        "esnode_gpu_xid_errors_total",
        "esnode_gpu_events_total",
        "esnode_gpu_last_xid",
        "esnode_gpu_last_event_timestamp_seconds",
    )


def threads() -> int:
    """How many threads this process has."""
    gc.collect()
    return process.threads()


def calls(fake: Fake, slot: int | None = None) -> dict[str, int]:
    """The calls since the last look, of a slot or of all."""
    found: dict[str, int] = {}
    for (name, at), count in fake.calls().items():
        if slot is None or at == slot:
            found[name] = found.get(name, 0) + count
    fake.forget_calls()
    return found
