"""A synthetic DGX stream, for the figures of the history.

5,000 series, every five seconds, ticks a few milliseconds off: 40 % constants, 30 % gauges that
wander in their last one to three digits, 30 % counters with random increments, a third of them
above 10^9 a second. It is seeded and stays as it is, so that figures can be compared.
"""

from __future__ import annotations

import random
from uuid import UUID

from esnode._fast.table import Snapshot, Table
from esnode.metrics import Metric, counter, gauge

METRICS = 500
#: Series of a metric.
EACH = 10
SERIES = METRICS * EACH
#: Milliseconds between two ticks.
INTERVAL = 5000
START = 1763784000000


class Stream:
    """The series, ten to a metric, and their values tick by tick."""

    def __init__(self, start: int = START, metrics: int = METRICS) -> None:
        self.chance = random.Random(1)
        chance = self.chance
        self.now = start
        self.metrics: list[Metric] = []
        kinds = ["constant"] * 4 + ["gauge"] * 3 + ["counter"] * 3
        rows = []
        self.constants: list[tuple[int, float]] = []
        self.gauges: list[tuple[int, float, int]] = []
        self.counters: list[tuple[int, float]] = []
        for number in range(metrics):
            kind = kinds[number % len(kinds)]
            make = counter if kind == "counter" else gauge
            suffix = "_total" if kind == "counter" else ""
            metric = make(f"esnode_gpu_{kind}_{number}{suffix}", "A metric.", ("gpu", "uuid"))
            self.metrics.append(metric)
            for gpu in range(EACH):
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
