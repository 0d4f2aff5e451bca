"""The golden pages and documents: what the agent makes of each fixture host, without its mounts,
and of the fake's GPUs.

python -m tests.golden writes them anew; look at the difference before you commit it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import msgspec

from esnode._fast.encode import encode
from esnode.agent import Agent
from esnode.config import Settings
from esnode.dialects import TEXT

from . import fakenvml, hosts
from .fakenvml import Fake, Mig

PAGES = Path(__file__).parent / "golden"

#: Families whose values are this machine's or this moment's.
VOLATILE = (
    *("esnode_node_time_seconds", "esnode_clock_offset_seconds", "esnode_cpu_package_power_watts"),
    *("esnode_clock_max_error_seconds", "esnode_clock_synchronized"),
)

#: What a tree without /proc/sys/kernel/arch is answered with; its other words must not show.
UNAME = os.uname_result(("Linux", "not-this-host", "0.0.0", "#1", "x86_64"))


#: The lanes that a page is made of. The figures of mounts are this machine's.
LANES = ("host", "devices")


def pages(name: str, ticks: int = 1) -> list[str]:
    """The page of a host at each of some ticks on unchanged files."""
    with mock.patch("os.uname", return_value=UNAME), hosts.tree(name) as root:
        lanes = [hosts.lane(root, lane) for lane in LANES]
        return [
            stable("".join(encode(lane.read(True), TEXT).decode() for lane in lanes))
            for _ in range(ticks)
        ]


def stable(page: str) -> str:
    """A page without its volatile families."""
    lines = page.splitlines(keepends=True)
    return "".join(
        line for line in lines if not any(name in line.split("{")[0].split() for name in VOLATILE)
    )


#: GPUs of the fake on the host small-vm, by the name of the document.
NODES: dict[str, Sequence[str]] = {"gpus": ("H100", "T4", "B200")}
DOCUMENTS = (*hosts.HOSTS, *NODES)
#: Keys whose values are this machine's or this moment's.
MOMENTARY = (
    *("version", "python", "uptime_seconds", "cpu_percent", "resident_bytes"),
    *("unix_ms", "last_scrape_unix_ms", "last_success_unix_ms"),
)


def document(name: str) -> str:
    """The document of /status of a host after two ticks on unchanged files."""
    keys: dict[str, Any] = {"disk_mount_exclude": "."}
    host = name
    if name in NODES:
        host = "small-vm"
        keys |= {"enable_gpu": True, "nvml_library": str(fakenvml.library())}
        keys |= {"enable_gpu_mig": True, "gpu_detail": True, "gpu_process_metrics": True}
    patched = mock.patch("esnode.view.NEWEST", 100)  # which ten are newest is a matter of chance
    with (
        TemporaryDirectory() as state,
        mock.patch.dict(os.environ, STATE_DIRECTORY=state),
        mock.patch("os.uname", return_value=UNAME),
        patched,
        hosts.tree(host) as root,
    ):
        fake = script(NODES[name]) if name in NODES else None
        agent = Agent(Settings(hosts.config(root, **keys)))
        agent.read()
        time.sleep(0.11 if fake else 0)  # between two GPM samples
        agent.read()
        found = msgspec.to_builtins(agent.view.build())
        if agent.gpus:
            agent.gpus.stop()
            agent.gpus.close()
        if fake:
            fake.reset()
        text = json.dumps(settled(found), indent=1) + "\n"
        return text.replace(str(root), "")


def script(models: Sequence[str]) -> Fake:
    """GPUs with something to tell: instances, a process, an error, a slowdown."""
    fake = Fake(fakenvml.library())
    fake.set_gpus(models)
    fake.gpu(0).mig([Mig("1g.10gb", gi=7, start=0), Mig("2g.20gb", gi=3, start=2)])
    fake.gpu(1).processes(compute=[(1, 3 << 30)])
    return fake


def settled(found: Any) -> Any:
    """A document with 0 for what is momentary, and its failures in a fixed order."""
    if isinstance(found, dict):
        return {
            key: 0 if key in MOMENTARY and value is not None else settled(value)
            for key, value in found.items()
        }
    if isinstance(found, list):
        items = [settled(each) for each in found]
        is_failures = bool(items) and isinstance(items[0], dict) and "message" in items[0]
        return sorted(items, key=json.dumps) if is_failures else items
    return found


def main() -> int:
    PAGES.mkdir(exist_ok=True)
    for name in hosts.HOSTS:
        (PAGES / f"{name}.prom").write_text(pages(name)[0])
    for name in DOCUMENTS:
        (PAGES / f"{name}.status.json").write_text(document(name))
    from .console import picture, scenes  # of the documents above

    scenes.write()
    picture.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
