"""What disks are, from /sys/block."""

from __future__ import annotations

from collections.abc import Iterator

from ..metrics import gauge
from .base import Filter, label
from .device import Constant, Devices, Row, text

INFO = gauge(
    "esnode_disk_info", "What a disk is; always 1.", ("device", "model", "firmware", "rotational")
)


class Models(Devices):
    name = "disk"
    switch = "enable_disk"
    keys = ("disk_device_include", "disk_device_exclude")
    directory = "block"
    fresh = False
    metrics = (INFO,)

    def bind(self) -> None:
        self.shown = Filter(self.config.disk_device_include, self.config.disk_device_exclude)
        super().bind()

    def describe(self, name: str, path: str) -> Iterator[Row]:
        device = label(name)
        if self.shown(device):
            model = text(f"{path}/device/model")
            firmware = text(f"{path}/device/firmware_rev") or text(f"{path}/device/rev")
            rotational = text(f"{path}/queue/rotational")
            yield Constant(INFO, (device, model, firmware, rotational))
