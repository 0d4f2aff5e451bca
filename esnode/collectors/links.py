"""State, speed and identity of interfaces: one netlink message, and /sys/class/net."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .._fast.links import OPERSTATES
from .._fast.links import Links as Netlink
from ..metrics import counter, gauge
from .base import Filter, label
from .device import Constant, Device, Devices, Own, Row, Text, Value, target, text

IFACE = ("iface",)
UP = gauge("esnode_network_up", "Whether an interface is operational.", IFACE)
MTU = gauge("esnode_network_mtu_bytes", "Largest packet that an interface sends whole.", IFACE)
SPEED = gauge("esnode_network_speed_bytes", "Bytes a second that a link can carry.", IFACE)
CHANGES = counter("esnode_network_carrier_changes_total", "Times that a link came or went.", IFACE)
INFO = gauge(
    "esnode_network_info",
    "What an interface is; always 1.",
    ("iface", "driver", "address", "duplex", "operstate"),
)

#: What one netlink message tells, in the order of its reader's slots.
LINK = (UP, MTU, CHANGES)

#: What drivers say when they do not know a speed, in Mbit/s; kernels say -1, or 4294967295.
NO_SPEED = "65535"
MEGABIT = 1e6 / 8

_SPEED = re.compile(r"\d{1,9}")


class Links(Devices):
    """Netlink speaks of our own namespace, so it is asked only where the roots are the defaults."""

    name = "network"
    switch = "enable_network"
    keys = ("network_interface_include", "network_interface_exclude")
    directory = "class/net"
    metrics = (UP, MTU, SPEED, CHANGES, INFO)
    netlink: Netlink | None = None

    def bind(self) -> None:
        config = self.config
        self.shown = Filter(config.network_interface_include, config.network_interface_exclude)
        self.netlink = Netlink(self.table) if self.host.is_ours() else None
        super().bind()

    def describe(self, name: str, path: str) -> Iterator[Row]:
        iface = label(name)
        if not self.shown(iface) or not Path(path).is_dir():
            return
        operstate = text(f"{path}/operstate")
        if operstate not in OPERSTATES:
            operstate = None
        duplex = text(f"{path}/duplex")
        speed = text(f"{path}/speed") or ""
        yield Constant(
            INFO,
            (
                iface,
                target(f"{path}/device/driver"),
                text(f"{path}/address"),
                None if duplex == "unknown" else duplex,
                operstate,
            ),
        )
        if _SPEED.fullmatch(speed) and speed != NO_SPEED:
            yield Constant(SPEED, (iface,), int(speed) * MEGABIT)
        if self.netlink is None:
            if operstate:
                yield Constant(UP, (iface,), operstate == "up")
            yield Value(MTU, (iface,), "mtu")
            yield Value(CHANGES, (iface,), "carrier_changes")
            yield Text("operstate")
        else:
            for metric in LINK:
                yield Own(metric, (iface,))

    def joined(self, device: Device) -> None:
        if self.netlink is not None:
            name = os.fsencode(device.name)
            slots = [device.slots[metric, (label(name),)] for metric in LINK]
            self.netlink.bind(name, *slots)

    def left(self, device: Device) -> None:
        if self.netlink is not None:
            self.netlink.drop(os.fsencode(device.name))

    def wanted(self) -> bool:
        """The kernel tells of what changes, so that there is something to read, or nothing new."""
        return self.netlink is None or self.netlink.pending()

    def sample(self, tick: bool) -> None:
        super().sample(tick)
        if self.netlink is not None:
            try:
                if self.netlink.read():
                    self.look()
                    self.netlink.read()
            except OSError as error:
                self.report(f"netlink: {error.strerror}")
