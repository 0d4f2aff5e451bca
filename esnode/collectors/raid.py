"""Disks of software RAID arrays, from md in /sys/block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..metrics import gauge
from .base import label
from .device import Constant, Devices, Row, Text, listing, text

DISKS = gauge("esnode_md_disks", "Disks of an array by their state.", ("array", "state"))

_COUNT = re.compile(r"(\d{1,6})(?: \(\d+\))?")


class Raid(Devices):
    """The states are words; an array is described anew when one of them changes."""

    name = "disk"
    switch = "enable_disk"
    directory = "block"
    pattern = re.compile("md.+", re.DOTALL)
    nothing = "no RAID array"
    metrics = (DISKS,)

    def describe(self, name: str, path: str) -> Iterator[Row]:
        state = text(f"{path}/md/array_state")
        if state is None:
            return
        yield Text("md/raid_disks")
        yield Text("md/sync_action")  # a new disk is soon being filled
        if state == "clear":  # it has been stopped
            return
        # "5 (4)" while the array is given a fifth disk; nothing for a container of arrays.
        match = _COUNT.fullmatch(text(f"{path}/md/raid_disks") or "")
        required = int(match[1]) if match else None
        disks: dict[str, set[str]] = {"active": set(), "failed": set(), "spare": set()}
        understood = True
        for disk in listing(f"{path}/md"):
            if disk.startswith("dev-"):
                yield Text(f"md/{disk}/state")
                yield Text(f"md/{disk}/slot")
                words = text(f"{path}/md/{disk}/state")
                slot = text(f"{path}/md/{disk}/slot")
                if words is None and not Path(path, "md", disk).exists():  # it has just gone
                    continue
                kind = kind_of((words or "").split(","), slot, required)
                if kind in disks:
                    # A disk and the one that replaces it have the same slot.
                    disks[kind].add(slot if slot and kind == "active" else disk)
                understood &= kind != "unknown"
        if not understood:
            return
        if state == "inactive":
            disks["active"].clear()
        array = label(name)
        for kind, members in disks.items():
            yield Constant(DISKS, (array, kind), len(members))
        if required is not None:
            yield Constant(DISKS, (array, "required"), required)


def kind_of(words: list[str], slot: str | None, required: int | None) -> str:
    """What a disk counts as. Nobody asks for "other": a journal, a disk that is being filled, one
    that a shrinking array is about to give up."""
    if "faulty" in words:
        return "failed"
    if "journal" in words:
        return "other"
    if "in_sync" in words:
        number = _COUNT.fullmatch(slot or "")
        given_up = number and required is not None and int(number[1]) >= required
        return "other" if given_up else "active"
    if "spare" in words:
        return "spare" if slot in (None, "none") else "other"
    return "unknown"
