"""How often processors were throttled for heat, from thermal_throttle in /sys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

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
    keys = ("cpu_per_core_detail",)
    directory = "devices/system/cpu"
    pattern = re.compile(r"cpu\d+")
    list_file = "online"
    nothing = "no core counts throttles"
    quick = True
    metrics = (THROTTLES,)

    #: The core that tells of a package, and the package of each core.
    first: dict[str, str]
    packages: dict[str, str]

    def bind(self) -> None:
        self.first = {}
        super().bind()

    def names(self) -> list[str]:
        """A core of each package, which tells of the package; with detail, all cores."""
        self.packages = {}
        for name in sorted(super().names(), key=lambda name: int(name[3:])):
            package = text(f"{self.path(name)}/topology/physical_package_id")
            if package and Path(self.path(name), "thermal_throttle").is_dir():
                self.packages[name] = package
        # Each core counts for itself, so a package stays with its core while that is there.
        self.first = {p: name for p, name in self.first.items() if self.packages.get(name) == p}
        for name, package in self.packages.items():
            self.first.setdefault(package, name)
        return list(self.packages if self.config.cpu_per_core_detail else self.first.values())

    def describe(self, name: str, path: str) -> Iterator[Row]:
        package = self.packages[name]
        if self.first[package] == name:
            yield Value(THROTTLES, (package, None), "thermal_throttle/package_throttle_count")
        if self.config.cpu_per_core_detail:
            yield Value(THROTTLES, (package, name[3:]), "thermal_throttle/core_throttle_count")
