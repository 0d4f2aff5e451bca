"""Temperatures, fans, power and voltages of the chips of /sys/class/hwmon."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..metrics import gauge
from .device import Devices, Labels, Row, Text, Value, listing, target, text

SENSOR = ("chip", "sensor", "label")
CPU_TEMPERATURE = gauge(
    "esnode_cpu_temperature_celsius", "Temperature of a processor.", ("package", "sensor")
)
TEMPERATURE = gauge("esnode_hwmon_temperature_celsius", "Temperature.", SENSOR)
FAN = gauge("esnode_hwmon_fan_rpm", "Revolutions of a fan in a minute.", SENSOR)
POWER = gauge("esnode_hwmon_power_watts", "Power.", SENSOR)
VOLTS = gauge("esnode_hwmon_volts", "Voltage.", SENSOR)

#: Family and divisor by kind of sensor; see https://docs.kernel.org/hwmon/sysfs-interface.html
KINDS = {
    "temp": (TEMPERATURE, 1000),
    "fan": (FAN, 1),
    "power": (POWER, 1e6),
    "in": (VOLTS, 1000),
}
CPU_CHIPS = ("coretemp", "k10temp")

_SENSOR = re.compile(r"(temp|fan|power|in)([0-9]{1,6})_(input|average)")
_NUMBER = re.compile(r"[0-9]{1,9}$")
_PACKAGE = re.compile(r"Package id (\d+)")
#: coretemp's platform device has the number of its package; k10temp's PCI device that of its node,
#: from 18 on.
_CORETEMP = re.compile(r"coretemp\.(\d+)")
_K10TEMP = re.compile(r".*:([0-9a-f]{2})\.\d")


class Hwmon(Devices):
    name = "hwmon"
    switch = "enable_power"
    lane = "sensors"
    directory = "class/hwmon"
    metrics = (CPU_TEMPERATURE, TEMPERATURE, FAN, POWER, VOLTS)

    def bind(self) -> None:
        #: What a chip is, and its label.
        self.chips: dict[str, tuple[str, str]] = {}
        super().bind()

    def names(self) -> list[str]:
        """The chips in the order of their numbers, which is that of chips on one device, too."""
        return sorted(super().names(), key=number_of)

    def remove(self, name: str) -> None:
        del self.chips[name]
        super().remove(name)

    def chip(self, name: str, path: str) -> str:
        """A chip's label: what it is and on which device, which stays the same over restarts; the
        second such chip and those that follow are numbered, and keep that number while they stay.
        """
        kind = text(f"{path}/name") or text(f"{path}/device/name") or "unknown"
        device = target(f"{path}/device") or ""
        what = device if device.startswith(kind) else f"{kind}-{device}" if device else kind
        known, own = self.chips.pop(name, ("", ""))
        if known != what:
            taken = {chip for _, chip in self.chips.values()}
            alike = (f"{what}-{i}" for i in range(2, len(taken) + 3))
            own = next(chip for chip in (what, *alike) if chip not in taken)
        self.chips[name] = what, own
        return own

    def describe(self, name: str, path: str) -> Iterator[Row]:
        chip = self.chip(name, path)
        below = ""
        files = listing(path)
        if not any(_SENSOR.fullmatch(file) for file in files):  # as kernels before 3.15 have it
            below, files = "device/", listing(f"{path}/device")
        found: dict[tuple[str, int], set[str]] = {}
        for file in files:
            if match := _SENSOR.fullmatch(file):
                found.setdefault((match[1], int(match[2])), set()).add(match[3])
        words = {at: self.word(f"{path}/{below}", *at) for at in found}
        package = self.package(path, words.values())
        for (kind, number), inputs in sorted(found.items()):
            metric, divisor = KINDS[kind]
            sensor, word = f"{kind}{number}", words[kind, number]
            labels: Labels = (chip, sensor, word)
            if kind == "temp" and package is not None:
                alone = word is not None and [*words.values()].count(word) == 1
                metric, labels = CPU_TEMPERATURE, (package, word if alone else sensor)
            if f"{sensor}_fault" in files and kind == "temp":
                yield Text(f"{below}{sensor}_fault")
                if self.last(name, f"{below}{sensor}_fault") == b"1":
                    continue  # such as a diode that is not connected
            file = f"{below}{sensor}_{'input' if 'input' in inputs else 'average'}"
            yield Value(metric, labels, file, 1, divisor, kind != "fan")

    def word(self, folder: str, kind: str, number: int) -> str | None:
        """What a sensor is of; ACPI's power meters say it in a file of their own."""
        word = text(f"{folder}{kind}{number}_label")
        if word is None and kind == "power":
            return text(f"{folder}{kind}{number}_oem_info")
        return word

    def last(self, name: str, file: str) -> bytes:
        """What a file of a chip said the last time; reading it here could take long."""
        device = self.devices.get(name)
        if device is None or not device.read:
            return b""
        return (self.values.text(device.folder, file.encode()) or b"").strip()

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


def number_of(name: str) -> tuple[int, str]:
    """A chip's place among the others."""
    match = _NUMBER.search(name)
    return int(match[0]) if match else -1, name
