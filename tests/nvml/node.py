"""The agent's GPU lane on a library, and the pages that it gives."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from esnode.collectors.nvidia.gpus import Gpus
from esnode.config import Config
from esnode.host import Host
from esnode.sampler import Lane

#: A family, and its labels in the order of its declaration.
Key = tuple[str, tuple[str | None, ...]]

#: Seconds between two GPM samples at least.
APART = 0.105


class Page:
    """The rows of one reading."""

    def __init__(self, rows: Mapping[Key, float], labels: Mapping[str, tuple[str, ...]]) -> None:
        self.rows = rows
        self.labels = labels

    @property
    def families(self) -> set[str]:
        return {family for family, _ in self.rows}

    def of(self, family: str, **labels: object) -> dict[tuple[str | None, ...], float]:
        """The rows of a family that have these labels, by the others."""
        names = self.labels[family]
        wanted = {names.index(name): str(value) for name, value in labels.items()}
        return {
            tuple(v for i, v in enumerate(key) if i not in wanted): value
            for (name, key), value in self.rows.items()
            if name == family and all(key[i] == value for i, value in wanted.items())
        }

    def get(self, family: str, **labels: object) -> float | None:
        """The value of the one row that has these labels; None where there is none."""
        rows = list(self.of(family, **labels).values())
        assert len(rows) < 2, f"{family}{labels}: {rows}"
        return rows[0] if rows else None


class Node:
    """What reads the GPUs, in this process. ``root`` is for what is no process of this machine: an
    empty log of the kernel, and a bus without devices."""

    def __init__(self, library: Path, root: Path, **keys: Any) -> None:
        (root / "kmsg").touch()
        host = Host(sysfs=str(root), devfs=str(root))
        self.collector = Gpus(host, Config(nvml_library=str(library), **keys))
        self.lane = Lane("gpu", [self.collector], 5)
        self.labels = {metric.name: metric.labels for metric in Gpus.metrics}

    def read(self, tick: bool) -> Page:
        items = self.lane.read(tick).items()
        return Page({(metric.name, labels): value for metric, labels, value in items}, self.labels)

    def tick(self, count: int = 1) -> Page:
        """The page after some ticks, one after the other at once."""
        for _ in range(count - 1):
            self.read(True)
        return self.read(True)

    def pair(self) -> Page:
        """The page after two ticks that lie far enough apart for GPM."""
        self.tick()
        time.sleep(APART)
        return self.tick()

    def scrape(self) -> Page:
        return self.read(False)

    @property
    def errors(self) -> int:
        return self.lane.parts[0].errors

    @property
    def reason(self) -> str | None:
        """The last trouble or its last reason to be absent."""
        return self.lane.parts[0].reason

    def follow(self) -> None:
        """Takes a driver again that was reloaded: one reading says that it went."""
        self.tick(2)

    def close(self) -> None:
        if self.lane.parts[0].bound:
            self.collector.stop()
            self.collector.close()
