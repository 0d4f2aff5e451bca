"""Temperatures, fans, power and voltages of the chips of /sys/class/hwmon."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from ..metrics import gauge
from .base import label
from .device import Devices, Row, Value, listing, target, text

SENSOR = ("chip", "sensor", "label")
CPU_TEMPERATURE = gauge(
    "esnode_cpu_temperature_celsius", "Temperature of a processor.", ("package", "sensor")
)
TEMPERATURE = gauge("esnode_hwmon_temperature_celsius", "Temperature.", SENSOR)
FAN = gauge("esnode_hwmon_fan_rpm", "Revolutions of a fan in a minute.", SENSOR)
POWER = gauge("esnode_hwmon_power_watts", "Power.", SENSOR)
VOLTS = gauge("esnode_hwmon_volts", "Voltage.", SENSOR)

#: Family and divisor by kind of sensor, and its files, of which the first that is there counts; see
#: https://docs.kernel.org/hwmon/sysfs-interface.html
KINDS = {
    "temp": (TEMPERATURE, 1000, ("input",)),
    "fan": (FAN, 1, ("input",)),
    "power": (POWER, 1e6, ("input", "average")),
    "in": (VOLTS, 1000, ("input",)),
}
CPU_CHIPS = ("coretemp", "k10temp")

_SENSOR = re.compile(r"(temp|fan|power|in)(\d{1,6})_(input|average)")
_PACKAGE = re.compile(r"Package id (\d+)")
#: coretemp's platform device has the number of its package; k10temp's PCI device that of its node,
#: from 18 on.
_CORETEMP = re.compile(r"coretemp\.(\d+)")
_K10TEMP = re.compile(r".*:([0-9a-f]{2})\.\d")


class Hwmon(Devices):
    name = "hwmon"
    switch = "enable_power"
    directory = "class/hwmon"
    metrics = (CPU_TEMPERATURE, TEMPERATURE, FAN, POWER, VOLTS)
    known: list[str] | None = None

    def names(self) -> list[str]:
        """The chips; their labels are found anew when there are others."""
        names = super().names()
        if names != self.known:
            self.known = names
            self.chips = {name: self.chip(name) for name in names}
            same = Counter(self.chips.values())
            for name, chip in self.chips.items():
                if same[chip] > 1:
                    self.chips[name] = f"{chip}-{label(os.fsencode(name))}"
        return names

    def chip(self, name: str) -> str:
        """A chip's label: what it is and on which device, which stays the same over restarts."""
        path = self.path(name)
        kind = text(f"{path}/name") or text(f"{path}/device/name") or "unknown"
        device = label(os.fsencode(target(f"{path}/device") or ""))
        return device if device.startswith(kind) else f"{kind}-{device}" if device else kind

    def describe(self, name: str, path: str) -> Iterator[Row]:
        below = ""
        files = listing(path)
        if not any(_SENSOR.fullmatch(file) for file in files):  # as kernels before 3.15 have it
            below, files = "device/", listing(f"{path}/device")
        found: dict[tuple[str, str], set[str]] = {}
        for file in files:
            if match := _SENSOR.fullmatch(file):
                found.setdefault((match[1], match[2]), set()).add(match[3])
        labels = {
            (kind, number): text(f"{path}/{below}{kind}{number}_label") for kind, number in found
        }
        package = self.package(path, labels.values())
        for (kind, number), inputs in sorted(
            found.items(), key=lambda at: (at[0][0], int(at[0][1]))
        ):
            metric, divisor, order = KINDS[kind]
            readings = [word for word in order if word in inputs]
            if not readings:
                continue
            sensor, of = f"{kind}{number}", labels[kind, number]
            row = (f"{below}{sensor}_{readings[0]}", 1, divisor, kind in ("temp", "in", "power"))
            if kind == "temp" and package is not None:
                alone = of is not None and [*labels.values()].count(of) == 1
                yield Value(CPU_TEMPERATURE, (package, of if alone else sensor), *row)
            else:
                yield Value(metric, (self.chips[name], sensor, of), *row)

    def package(self, path: str, labels: Iterable[str | None]) -> str | None:
        """The processor that a chip is in; None for one that is none."""
        if (text(f"{path}/name") or text(f"{path}/device/name")) not in CPU_CHIPS:
            return None
        for word in labels:
            if word and (match := _PACKAGE.fullmatch(word)):
                return match[1]
        device = target(f"{path}/device") or ""
        if match := _CORETEMP.fullmatch(device):
            return match[1]
        if match := _K10TEMP.fullmatch(device):
            return str(max(0, int(match[1], 16) - 0x18))
        return "0"
