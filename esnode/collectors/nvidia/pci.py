"""The NVIDIA GPUs on the PCI bus, from /sys/bus/pci/devices: also those that NVML does not have."""

from __future__ import annotations

import os

from ...host import Host
from ..device import text

#: See <linux/pci_ids.h>: the vendor, and the class of display controllers, VGA (0x0300) and 3D
#: (0x0302), to which neither a card's audio nor an NVSwitch (0x0680) belongs.
NVIDIA = 0x10DE
DISPLAY = 0x03


class PciDevices:
    """The bus, looked at again and again: what a device is, is read when it is new."""

    def __init__(self, host: Host) -> None:
        self.path = host.sys("bus/pci/devices")
        #: Whether it is a GPU, by name and inode: a device that is replaced has another inode.
        self._known: dict[tuple[str, int], bool] = {}

    def look(self) -> list[str] | None:
        """The addresses of the GPUs, such as 0000:65:00.0, sorted; None without a PCI bus."""
        try:
            with os.scandir(self.path) as entries:
                found = [(entry.name, entry.inode()) for entry in entries]
        except OSError:
            return None
        known = {}
        for device in found:
            is_gpu = self._known.get(device)
            if is_gpu is None:
                is_gpu = self._is_gpu(device[0])
            if is_gpu is not None:
                known[device] = is_gpu
        self._known = known
        return sorted(name for (name, _), is_gpu in known.items() if is_gpu)

    def _is_gpu(self, name: str) -> bool | None:
        """Whether a device is a GPU; None when that cannot be read now."""
        path = f"{self.path}/{name}"
        try:
            vendor = int(text(f"{path}/vendor") or "", 16)
            if vendor != NVIDIA:
                return False
            kind = int(text(f"{path}/class") or "", 16)  # with subclass and interface, 0x030200
        except (OSError, ValueError):
            return None
        # A function of a GPU that is shared with virtual machines is no GPU of its own.
        return kind >> 16 == DISPLAY and not os.path.lexists(f"{path}/physfn")
