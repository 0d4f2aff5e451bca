"""The present frequency of each core, from cpufreq in /sys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..metrics import gauge
from .base import Unavailable
from .device import Devices, Row, Value

FREQUENCY = gauge("esnode_cpu_frequency_hertz", "Present frequency of a core.", ("core",))

#: Cores up to which `auto` reads them: the kernel asks each core by an interrupt.
MOST = 64
FILE = "cpufreq/scaling_cur_freq"


class Frequency(Devices):
    name = "cpu"
    switch = "enable_cpu"
    keys = ("cpu_frequency",)
    directory = "devices/system/cpu"
    pattern = re.compile(r"cpu\d+")
    list_file = "online"
    nothing = "no core tells its frequency"
    quick = True
    fresh = False
    period = 15.0
    metrics = (FREQUENCY,)

    def bind(self) -> None:
        wanted = self.config.cpu_frequency
        if wanted == "auto":
            wanted = len(self.names()) <= MOST
        if not wanted:
            raise Unavailable("cpu_frequency is off, or auto with too many cores")
        super().bind()

    def describe(self, name: str, path: str) -> Iterator[Row]:
        if Path(path, FILE).exists():
            yield Value(FREQUENCY, (name[3:],), FILE, 1000)
