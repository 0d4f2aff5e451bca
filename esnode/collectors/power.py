"""Energy and power of processors, from RAPL's zones in /sys/class/powercap."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator

from .._fast.delta import Ratios, Totals
from .._fast.procfs import File
from .._fast.table import TICK
from ..metrics import counter, gauge
from .base import Refused, Unavailable
from .device import Device, Devices, Own, Row, Value, joules_of, text

PACKAGE_ENERGY = counter(
    "esnode_cpu_package_energy_joules_total", "Energy that a processor has used.", ("package",)
)
PACKAGE_POWER = gauge(
    "esnode_cpu_package_power_watts", "Power of a processor over the last tick.", ("package",)
)
DOMAIN_ENERGY = counter(
    "esnode_cpu_domain_energy_joules_total",
    "Energy that a part of a processor has used.",
    ("package", "domain"),
)

_ZONE = re.compile(r"(intel-rapl:[^:]+)(:[^:]+)?")
_PACKAGE = re.compile(r"package-(.+)")

PERMISSION = (
    "give the agent CAP_DAC_READ_SEARCH, or a group of its own read access (see docs/power.md)"
)


class Power(Devices):
    name = "power"
    switch = "enable_power"
    lane = "sensors"
    directory = "class/powercap"
    pattern = _ZONE
    nothing = "no RAPL"
    quick = True
    metrics = (PACKAGE_ENERGY, PACKAGE_POWER, DOMAIN_ENERGY)

    def bind(self) -> None:
        self.totals = Totals(self.table)
        self.power = Ratios(self.table, scale=1, limit=math.inf)
        self.clock = self.table.hidden(PACKAGE_POWER)
        #: What is wrong with the zones that we may not read.
        self.refusals: dict[str, str] = {}
        try:
            super().bind()
        except Unavailable:
            self.table.forget(self.clock)
            if self.refusals:
                raise Refused(self.refusals[min(self.refusals)]) from None
            raise

    def describe(self, name: str, path: str) -> Iterator[Row]:
        self.refusals.pop(name, None)
        if refusal := refusal_of(f"{path}/energy_uj"):
            self.refusals[name] = refusal
            return
        zone = text(f"{path}/name")
        match = _ZONE.fullmatch(name)
        assert match
        above = text(f"{self.path(match[1])}/name") or ""
        package = _PACKAGE.fullmatch(above)
        number = package[1] if package else None
        if zone is None:
            return
        if package and not match[2]:
            yield Value(PACKAGE_ENERGY, (number,), "energy_uj", 1, 1e6)
            yield Own(PACKAGE_POWER, (number,), TICK)
        else:
            yield Value(DOMAIN_ENERGY, (number, zone), "energy_uj", 1, 1e6)

    def joined(self, device: Device) -> None:
        """Unwraps a zone's counter where its hardware starts over; a package has power, too."""
        modulus = joules_of(device.path)
        for (metric, labels), slot in device.slots.items():
            if metric is PACKAGE_POWER:
                self.power.add(slot, device.slots[PACKAGE_ENERGY, labels], self.clock)
            else:
                self.totals.add(slot, modulus)

    def left(self, device: Device) -> None:
        for slot in device.slots.values():
            self.totals.drop(slot)
            self.power.drop(slot)

    def start(self, tick: bool) -> None:
        super().start(tick)
        self.now = time.monotonic()

    def sample(self, tick: bool) -> None:
        super().sample(tick)
        self.totals.update()
        self.table.set(self.clock, self.now)
        if tick:
            self.power.update()
        refused = self.refusals.keys() & self.devices.keys()
        if refused:
            self.report(self.refusals[min(refused)])


def refusal_of(path: str) -> str | None:
    """What to do about a file that we may not read; None for any other."""
    try:
        File(path).read()
    except PermissionError as error:
        return f"{path}: {error.strerror}: {PERMISSION}"
    except OSError:
        pass
    return None
