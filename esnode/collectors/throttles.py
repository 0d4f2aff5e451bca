"""How often processors were throttled for heat, from thermal_throttle in /sys."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..metrics import counter
from .device import Devices, Row, Value, text

THROTTLES = counter(
    "esnode_cpu_throttles_total",
    "Times that a package was throttled for heat; with a core's label, that this core was.",
    ("package", "core"),
)


class Throttles(Devices):
    name = "cpu"
    switch = "enable_cpu"
    directory = "devices/system/cpu"
    pattern = re.compile(r"cpu\d+")
    list_file = "online"
    quick = True
    metrics = (THROTTLES,)

    def names(self) -> list[str]:
        """The first core of each package, which tells of the package; with detail, all cores."""
        names = sorted(super().names(), key=lambda name: int(name[3:]))
        #: The core that tells of a package.
        self.first: dict[str, str] = {}
        for name in names:
            package = text(f"{self.path(name)}/topology/physical_package_id")
            if package and text(f"{self.path(name)}/thermal_throttle/package_throttle_count"):
                self.first.setdefault(package, name)
        return names if self.config.cpu_per_core_detail else list(self.first.values())

    def describe(self, name: str, path: str) -> Iterator[Row]:
        package = text(f"{path}/topology/physical_package_id")
        if package and self.first.get(package) == name:
            yield Value(THROTTLES, (package, None), "thermal_throttle/package_throttle_count")
        if package and self.config.cpu_per_core_detail:
            yield Value(THROTTLES, (package, name[3:]), "thermal_throttle/core_throttle_count")
