"""Documents of /status of a made-up node, as they change from tick to tick."""

from __future__ import annotations

import copy
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from esnode.recent import GPU, NODE, Point

PAGES = Path(__file__).parent / "golden"
Document = dict[str, Any]

#: What a node could be called by who wants to have the page run something.
HOSTILE = (
    "<img src=x onerror=\"document.title='run'\"></span><script>document.title='run'</script>"
    "\"'><svg onload=alert(1)>&lt;b&gt;{{7*7}}"
)


@cache
def base() -> tuple[Document, Document]:
    """A document without GPUs, and a GPU."""
    node, cards = (
        json.loads((PAGES / f"{name}.status.json").read_text()) for name in ("bighost", "gpus")
    )
    return node, cards["gpus"][0]


def wave(tick: float, phase: float, low: float, high: float) -> float:
    """A value that goes up and down between two."""
    swing = 0.6 * math.sin(tick / 17 + phase) + 0.4 * math.sin(tick / 5 + 3 * phase)
    return round(low + (high - low) * (0.5 + swing / 2), 1)


def document(
    tick: int, unix_ms: int, gpus: int = 0, mig: int = 0, hostile: bool = False
) -> Document:
    """The status of a node with GPUs of so many MIG instances each."""
    node, card = copy.deepcopy(base())
    node["agent"].update(version="0.1.0", python="3.12")
    node["last_scrape_unix_ms"] = unix_ms
    node["degradation_score"] = 0
    node["degradation_reasons"] = []
    node["cpu_util_percent"] = wave(tick, 0, 20, 95)
    node["mem_used_bytes"] = int(wave(tick, 1, 0.3, 0.7) * node["mem_total_bytes"])
    for number, name in enumerate(NODE):
        if name.endswith("_bytes_per_sec"):
            node[name] = wave(tick, number, 1e6, 4e9)
    node["gpus"] = [gpu(card, tick, number, mig) for number in range(gpus)]
    if hostile:
        poison(node)
    return node


def gpu(card: Document, tick: int, number: int, mig: int) -> Document:
    """One of the GPUs."""
    found = copy.deepcopy(card)
    found.update(
        gpu=str(number),
        uuid=f"GPU-{number:08x}-0000-4000-8000-000000000000",
        util_percent=wave(tick, number, 0, 100),
        memory_used_bytes=int(wave(tick, number + 1, 10, 79)) << 30,
        memory_total_bytes=80 << 30,
        power_watts=wave(tick, number + 2, 120, 690),
        power_limit_watts=700.0,
        temperature_celsius=wave(tick, number, 35, 82),
    )
    found["mig_tree"] = {
        "supported": True,
        "enabled": mig > 0,
        "devices": [
            {
                "gi": str(7 + i),
                "ci": "0",
                "uuid": f"MIG-{number}-{i}",
                "profile": "1g.10gb",
                "placement": f"{i}:1",
                "sm_count": 16,
                "memory_total_bytes": 10 << 30,
                "memory_used_bytes": int(wave(tick, number + i, 1, 9.9) * (1 << 30)),
                "util_percent": wave(tick, i, 0, 100),
            }
            for i in range(mig)
        ],
    }
    return found


def poison(part: Any) -> None:
    """Has every text be a hostile one."""
    pairs = part.items() if isinstance(part, dict) else enumerate(part)
    for key, value in list(pairs):
        if isinstance(value, dict | list):
            poison(value)
        elif isinstance(value, str) and key not in ("gpu", "mode", "vendor"):
            part[key] = f"{HOSTILE}{key}"
        elif value is None and isinstance(part, list):
            part[key] = HOSTILE


def point(found: Document) -> Point:
    """What is kept of a document for the charts."""
    gpus = {
        (each["gpu"], each["uuid"]): {key: each[key] for key in GPU} for each in found["gpus"] or ()
    }
    return Point(found["last_scrape_unix_ms"], {key: found[key] for key in NODE}, gpus)
