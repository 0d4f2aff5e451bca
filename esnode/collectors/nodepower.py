"""Power of the whole node, from its BMC, ACPI's power meter, or RAPL's counter of the platform."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable
from errno import ENODEV, ENXIO
from typing import ClassVar, Protocol

from .._fast.delta import Ratios, Totals
from .._fast.ipmi import DEVICES
from .._fast.ipmi import Power as Dcmi
from .._fast.table import READING, TICK
from .._fast.values import Values
from ..host import Host, readable
from ..metrics import counter, gauge
from .base import Collector, Refused, Unavailable, label
from .device import LOOK, PATIENCE, TIMEOUT, joules_of, listing, reason, text

POWER = gauge("esnode_node_power_watts", "Power of the node, from the best source that it has.")
ENERGY = counter("esnode_node_energy_joules_total", "Energy that the node has used.")
SOURCE = gauge(
    "esnode_node_power_source_watts", "Power of the node, as each source has it.", ("source",)
)
EXCEEDED = gauge(
    "esnode_node_power_envelope_exceeded",
    "Whether the power of the node is above node_power_envelope_watts.",
)

#: The best one first, and when a reading of it is gone.
SOURCES = {"bmc": READING, "hwmon": READING, "psys": TICK}
#: What a BMC has said counts for as many seconds, or as many intervals if those are longer.
AGE, INTERVALS = 15.0, 3

#: The zone of the platform; where another package than the first counts it, that one's number is
#: in the name.
_PSYS = re.compile(r"psys(-\d+)?")
#: What a meter says that has all of a superchip of NVIDIA's, beside those that have parts of it.
MODULE = "Module Power Socket"

#: Where a meter has its power, the first that is there; most kernels have the driver's files at the
#: device.
FILES = (
    *("power1_average", "device/power1_average"),
    *("power1_input", "device/power1_input"),
)

#: Folder, and a file in it.
Meter = tuple[str, str]


class Bmc(Protocol):
    """See ``_fast.ipmi``."""

    def ask(self) -> None: ...
    def answer(self) -> float | None: ...


def bmc_of(host: Host, max_age: float) -> Bmc | None:
    """The node's BMC; None where there is no such device. Raises OSError."""
    if host.sysfs != "/sys":  # those are files of another machine, or of none
        return None
    for name in DEVICES:
        try:
            return Dcmi(host.dev(name), max_age=max_age)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno not in (ENODEV, ENXIO):
                raise
    return None


class NodePower(Collector):
    name = "power"
    switch = "enable_power"
    lane = "sensors"
    metrics = (POWER, ENERGY, SOURCE, EXCEEDED)
    #: Opens the BMC.
    bmc_of: ClassVar[Callable[[Host, float], Bmc | None]] = staticmethod(bmc_of)

    def bind(self) -> None:
        self.bmc: Bmc | None = None
        self.open_bmc()
        zone, meters = self.zone(), self.meters()
        if not (self.bmc or zone or meters):
            if self.refusal:
                raise Refused(self.refusal)
            raise Unavailable(self.trouble or "no BMC, no power meter of ACPI's, no psys of RAPL's")
        add = self.table.add
        self.power = add(POWER)
        self.energy = add(ENERGY)
        self.sources = {word: add(SOURCE, (word,), keep) for word, keep in SOURCES.items()}
        self.exceeded = add(EXCEEDED)
        self.clock = self.table.hidden(POWER)
        self.slots: list[int] = []
        self.follow_zone(zone)
        self.follow_meters(meters)
        self.look_due = time.monotonic() + LOOK

    def open_bmc(self) -> None:
        """Opens the BMC; its device may come later, as when a module is loaded."""
        self.bmc_due = time.monotonic() + LOOK
        #: What is wrong with a BMC that there is.
        self.refusal = self.trouble = ""
        try:
            age = max(AGE, INTERVALS * self.config.scrape_interval_seconds)
            self.bmc = type(self).bmc_of(self.host, age)
        except PermissionError as error:
            self.refusal = (
                f"{error.filename}: {error.strerror}: give the agent's group read and write access"
                " (see docs/power.md)"
            )
        except OSError as error:
            self.trouble = f"{error.filename}: {error.strerror}"

    def zone(self) -> str | None:
        """RAPL's zone of the platform, where we may read it; Power tells of one that we may not."""
        base = self.host.sys("class/powercap")
        zones = [
            f"{base}/{name}"
            for name in listing(base)
            if name.startswith("intel-rapl:") and _PSYS.fullmatch(text(f"{base}/{name}/name") or "")
        ]
        return zones[0] if len(zones) == 1 and readable(f"{zones[0]}/energy_uj") else None

    def meters(self) -> tuple[Meter, ...]:
        """The power meters that have all of the node together. Of several that do not say what they
        are of, none has."""
        found: dict[Meter, str] = {}
        base = self.host.sys("class/hwmon")
        for name in listing(base):
            path = f"{base}/{name}"
            if (text(f"{path}/name") or text(f"{path}/device/name")) != "power_meter":
                continue
            for file in FILES:
                if readable(f"{path}/{file}"):
                    about = f"{path}/{file.rpartition('_')[0]}_oem_info"
                    found[path, file] = text(about) or ""
                    break
        modules = [meter for meter, about in found.items() if about.startswith(MODULE)]
        return tuple(modules or (found if len(found) == 1 else ()))

    def follow_zone(self, zone: str | None) -> None:
        """Reads a zone's counter from now on."""
        self.at_zone = zone
        self.counter = Values(self.table, TIMEOUT, PATIENCE, quick=True)
        self.total = Totals(self.table)
        self.ratio = Ratios(self.table, scale=1, limit=math.inf)
        if zone:
            self.counter.bind(os.fsencode(zone), [(b"energy_uj", self.energy, 1, 1e6)])
            self.total.add(self.energy, joules_of(zone))
            self.ratio.add(self.sources["psys"], self.energy, self.clock)

    def follow_meters(self, meters: tuple[Meter, ...]) -> None:
        """Reads some meters from now on."""
        self.at_meters = meters
        self.gauges = Values(self.table, TIMEOUT, PATIENCE)
        for slot in self.slots:
            self.table.forget(slot)
        self.slots = [self.table.hidden(POWER) for _ in meters]
        for (folder, file), slot in zip(meters, self.slots, strict=True):
            self.gauges.bind(os.fsencode(folder), [(os.fsencode(file), slot, 1, 1e6)])

    def look(self, now: float) -> None:
        """Follows sources that come and go."""
        if now >= self.look_due:
            self.look_due = now + LOOK
            zone, meters = self.zone(), self.meters()
            if zone != self.at_zone:
                self.follow_zone(zone)
            if meters != self.at_meters:
                self.follow_meters(meters)
        if not self.bmc and now >= self.bmc_due:
            self.open_bmc()

    def lose_bmc(self, error: OSError) -> None:
        """Lets go of a BMC that has failed."""
        self.trouble = f"{error.filename}: {error.strerror}"
        self.bmc = None
        self.bmc_due = time.monotonic() + LOOK

    def start(self, tick: bool) -> None:
        if tick:
            self.look(time.monotonic())
            try:
                if self.bmc:
                    self.bmc.ask()
            except OSError as error:
                self.lose_bmc(error)
        self.gauges.start(tick)
        self.counter.start(tick)
        self.now = time.monotonic()

    def sample(self, tick: bool) -> None:
        for values in (self.counter, self.gauges):
            errors, changed = values.read()
            for path, code in errors.items():
                self.report(f"{label(path)}: {reason(code)}")
            if changed:
                self.look_due = 0.0
        self.total.update()
        self.table.set(self.clock, self.now)
        if tick:
            self.ratio.update()
        if self.slots:
            self.table.set(self.sources["hwmon"], sum(map(self.table.get, self.slots)))
        try:
            watts = self.bmc.answer() if self.bmc else None
            self.table.set(self.sources["bmc"], math.nan if watts is None else watts)
        except OSError as error:
            self.lose_bmc(error)
        if self.trouble:
            self.report(self.trouble)
        self.choose()

    def choose(self) -> None:
        """The best source's power is the node's."""
        best = math.nan
        for slot in self.sources.values():
            watts = self.table.get(slot)
            if watts == 0:  # a node that asks draws something: this one has no meter
                self.table.set(slot, math.nan)
            elif math.isnan(best):
                best = watts
        self.table.set(self.power, best)
        envelope = self.config.node_power_envelope_watts
        if envelope is not None and not math.isnan(best):
            self.table.set(self.exceeded, best > envelope)
