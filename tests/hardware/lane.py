"""The GPUs' lane of an agent, read in this process."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from esnode.collectors.nvidia.gpus import Gpus
from esnode.config import Config
from esnode.host import Host
from esnode.sampler import Lane

#: By family and labels; a label that is unknown is None.
Rows = dict[tuple[str, tuple[str | None, ...]], float]


class Node:
    """This machine's GPUs. Its keys are those of the configuration."""

    def __init__(self, **keys: Any) -> None:
        self.config = Config(**keys)
        self.gpus = Gpus(Host(), self.config)
        self.lane = Lane("gpu", [self.gpus], self.config.scrape_interval_seconds)

    def tick(self) -> Rows:
        """One reading of all that is due."""
        snapshot = self.lane.read(True)
        return {(metric.name, labels): value for metric, labels, value in snapshot.items()}

    def pair(self) -> Rows:
        """Two ticks, as far apart as GPM wants its samples: all that there is."""
        self.tick()
        time.sleep(0.15)
        return self.tick()

    def close(self) -> None:
        driver = getattr(self.gpus, "driver", None)  # there is none before the first tick
        assert driver is None or driver.detach()


def descriptors() -> set[str]:
    """What this process has open."""
    names = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            names.add(f"{entry.name}: {entry.readlink()}")
    return names
