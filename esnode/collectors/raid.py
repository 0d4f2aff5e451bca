"""Disks of software RAID arrays, from md in /sys/block."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..metrics import gauge
from .base import label
from .device import Constant, Devices, Row, Text, listing, text

DISKS = gauge("esnode_md_disks", "Disks of an array by their state.", ("array", "state"))

_COUNT = re.compile(r"\d{1,6}")


class Raid(Devices):
    """The states are words; an array is described anew when one of them changes."""

    name = "disk"
    switch = "enable_disk"
    directory = "block"
    pattern = re.compile("md.+", re.DOTALL)
    metrics = (DISKS,)

    def describe(self, name: str, path: str) -> Iterator[Row]:
        if not Path(path, "md").is_dir():
            return
        array = label(os.fsencode(name))
        counts = dict.fromkeys(("active", "failed", "spare"), 0)
        for disk in listing(f"{path}/md"):
            if disk.startswith("dev-"):
                yield Text(f"md/{disk}/state")
                yield Text(f"md/{disk}/slot")
                state = state_of(text(f"{path}/md/{disk}/state"), text(f"{path}/md/{disk}/slot"))
                if state:
                    counts[state] += 1
        for state, count in counts.items():
            yield Constant(DISKS, (array, state), count)
        yield Text("md/raid_disks")
        # "5 (4)" while the array is given a fifth disk.
        if match := _COUNT.match(text(f"{path}/md/raid_disks") or ""):
            yield Constant(DISKS, (array, "required"), int(match[0]))


def state_of(state: str | None, slot: str | None) -> str | None:
    """What a disk counts as; a spare that is being filled in a slot of its own is neither."""
    words = (state or "").split(",")
    if "faulty" in words:
        return "failed"
    if "in_sync" in words:
        return "active"
    return "spare" if "spare" in words and slot in (None, "none") else None
