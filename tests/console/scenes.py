"""The console's screens of some nodes: of the golden documents, and of nodes made from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec

from esnode.console.cells import plain
from esnode.console.frame import frame
from esnode.console.page import Scene
from esnode.console.seen import Entry, Profile, Seen
from esnode.console.view import MENU, SCREENS, View
from esnode.status import LastXid, Status
from tests import golden

#: 2026-11-22T07:00:00Z.
NOW = 1_795_330_800_000
TICK = 5000
SIZES = ((80, 24), (160, 50))
TEXTS = golden.PAGES / "console"
#: Text that must not reach a terminal as it is, and that is wider than its letters are many.
HOSTILE = "a\x1b[2Jb\x1b]0;title\x07c\r\nd\u202ee\u200bf\x9b31mg"
WIDE = "計算ノード計算ノード"


@cache
def status(name: str) -> Status:
    """A node's document."""
    if name in MADE:
        return MADE[name]()
    found = json.loads((golden.PAGES / f"{name}.status.json").read_text())
    found["agent"].update(version="0.1.0", python="3.11.7", uptime_seconds=3600)
    found.update(last_scrape_unix_ms=NOW)
    return msgspec.convert(found, Status)


def replace(status: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(status, **changes)


def uuid(gpu: int) -> str:
    return f"GPU-{gpu:08x}-0000-4000-8000-000000000000"


def busy() -> Status:
    """16 GPUs, each with something else."""
    node = status("gpus")
    assert node.gpus
    first = node.gpus[0]
    gpus = []
    for at in range(16):
        gpu = replace(
            first,
            gpu=str(at),
            uuid=uuid(at),
            util_percent=float(at * 6),
            memory_used_bytes=at * (5 << 30),
            power_watts=100.0 + 35 * at,
            temperature_celsius=30.0 + 3 * at,
            last_success_unix_ms=NOW,
            mig_tree=replace(first.mig_tree, supported=True, enabled=False, devices=None),
        )
        if at == 3:
            xid = LastXid(79, "GPU has fallen off the bus", "reboot", NOW - 60_000)
            gpu = replace(gpu, up=False, util_percent=None, power_watts=None)
            gpu = replace(gpu, health=replace(gpu.health, last_xid=xid))
        if at == 5:
            gpu = replace(gpu, thermal_throttle=True)
            reasons = ["hw_thermal_slowdown"]
            gpu = replace(gpu, health=replace(gpu.health, throttle_reasons=reasons))
        if at == 7:
            gpu = replace(gpu, stuck=True)
        gpus.append(gpu)
    return replace(  # type: ignore[no-any-return]
        node,
        gpus=gpus,
        cpu_util_percent=42.0,
        node_power_watts=8123.0,
        net_rx_bytes_per_sec=1.5e9,
        net_tx_bytes_per_sec=2.5e8,
        net_drops_per_sec=0.0,
        primary_nic="eth0",
        app_tokens_per_sec=1234.5,
        app_tokens_per_watt=0.15,
        gpu_degraded=True,
        degradation_score=30.0,
        degradation_reasons=["GPU 3: Xid 79: GPU has fallen off the bus"],
    )


def managed() -> Status:
    node = status("small-vm")
    about = replace(
        node.managed,
        server="esnode-master-01:7443",
        cluster_id="CLU-0042",
        node_id="gpu-node-01",
        last_contact_unix_ms=NOW - 12_000,
        state="connected",
    )
    return replace(node, mode="managed", managed=about)  # type: ignore[no-any-return]


def hostile() -> Status:
    """Every text of a document with 16 GPUs is one that plays tricks, or a wide one."""
    count = 0

    def spoiled(found: Any) -> Any:
        nonlocal count
        if isinstance(found, dict):
            keep = ("mode", "vendor")
            return {key: each if key in keep else spoiled(each) for key, each in found.items()}
        if isinstance(found, list):
            return [spoiled(each) for each in found]
        if isinstance(found, str):
            count += 1
            return f"{count} {HOSTILE}" if count % 2 else f"{WIDE}{count}"
        return found

    return msgspec.convert(spoiled(msgspec.to_builtins(busy())), Status)


MADE = {"busy": busy, "managed": managed, "hostile": hostile}
NODES = ("empty", "small-vm", "gpus", "bighost", *MADE)


def seen(name: str) -> Seen:
    """What the console knows after some ticks of a node."""
    found = Seen("127.0.0.1:9100")
    last = status(name)
    cpu = last.cpu_util_percent
    for back in range(20, -1, -1):
        part = 1 - back / 25
        gpus = [
            replace(gpu, util_percent=None if gpu.util_percent is None else gpu.util_percent * part)
            for gpu in last.gpus or ()
        ]
        found.take(
            replace(
                last,
                last_scrape_unix_ms=NOW - back * TICK,
                cpu_util_percent=None if cpu is None else cpu * part,
                gpus=gpus if last.gpus else last.gpus,
            )
        )
    keys = ("enable_cpu", "enable_memory", "enable_disk", "enable_network")
    found.profiles = [Profile("host", key, key != "enable_disk", "default") for key in keys]
    found.profiles.append(Profile("gpu", "enable_gpu", True, "/etc/esnode/esnode.toml"))
    found.log = [Entry(NOW - 60_000, uuid(3), [("GPU 3  ", "bold"), ("Xid 79", "red")])]
    return found


def scene(found: Seen, view: View, later: int = 2000) -> Scene:
    """Some milliseconds after the last tick."""
    return Scene(found.status, view, found, NOW + later)


def drawn(found: Seen, view: View, later: int = 2000) -> list[str]:
    """A screen as lines of text."""
    return [plain(line).rstrip() for line in frame(scene(found, view, later)).lines]


def texts() -> Iterator[tuple[str, str]]:
    """The golden texts by name."""
    for name in NODES:
        for width, height in SIZES:
            yield f"{name}.{width}x{height}", text(name, width, height)


def text(name: str, width: int, height: int) -> str:
    """All screens of a node, each below a rule."""
    found = seen(name)
    views = [View(screen=each) for each in (MENU, *SCREENS)]
    if name == "busy":
        views += [
            View(screen="9", gpu=uuid(3), back=("2",)),
            View(screen="2", sort="power", descending=True, at=9, top=1),
            View(screen="2", sort="health", descending=True, filter="x"),
            View(screen="2", ascii=True),
            View(screen="2", help=True),
            View(screen="6", detail=True),
            View(screen="7", field=1, address="esnode-master-01:7443", token="secret"),
        ]
    rule = "-" * width
    shown = [drawn(found, view.to(width=width, height=height)) for view in views]
    if name == "busy":
        found.miss("no agent answers on 127.0.0.1:9100 (Connection refused)", NOW + 4000)
        shown.append(drawn(found, View(screen="2", width=width, height=height), 34_000))
    return "\n".join("\n".join([rule, *lines]) for lines in shown) + f"\n{rule}\n"


def write() -> None:
    TEXTS.mkdir(exist_ok=True)
    for name, found in texts():
        (TEXTS / f"{name}.txt").write_text(found)


if __name__ == "__main__":
    write()
