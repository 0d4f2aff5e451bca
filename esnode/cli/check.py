"""``esnode-core check``: whether the node is fit for work, as an exit code and a line.

The codes are those of node-problem-detector's plugins: 0 it is, 1 it is not, 2 it is not known.
The line is on standard output, the gravest reason first, for some readers cut it at 80 letters.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import typer

from .. import config
from ..client import NoAnswer, Refused
from ..config import Arguments
from ..status import Gpu, Status
from ..xids import ACTIONS, XIDS
from . import ask, metrics, screen
from .status import PATH

FIT, UNFIT, UNKNOWN = range(3)
#: Ticks that a document may be old, and at least this many seconds.
TICKS = 6
LEAST = 30.0
#: Seconds in which a driver that knows what is to be done after an Xid may not say so yet.
SETTLES = 600.0
#: What a family's value other than 0 means for a GPU; the labels that count.
TROUBLES = (
    ("esnode_gpu_remap_failure", "", "a row of memory could not be remapped"),
    ("esnode_gpu_remap_pending", "", "a row of memory is to be remapped: it needs a reset"),
    ("esnode_gpu_retired_pages_pending", "", "pages are to be retired: it needs a reset"),
    ("esnode_gpu_ecc_sram_threshold_exceeded", "", "too many errors in its SRAM"),
    (
        "esnode_gpu_ecc_errors_total",
        'type="uncorrected",scope="volatile",location="all"',
        "uncorrected ECC errors since its last reset",
    ),
)
#: Families of the node's, by name, that tell of GPUs which are not there.
GPUS, EXPECTED = "esnode_gpus", "esnode_gpus_expected"
DRIVER_UP, RELEASED = "esnode_gpu_driver_up", "esnode_gpu_driver_released"
ON_BUS = "esnode_gpu_pci_devices"

_ROW = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)$")
_GPU = re.compile(r'gpu="([^"]*)",?(?:uuid="[^"]*",?)?')

#: Values by family, and by the labels that are left when the GPU's are taken out.
Page = dict[str, list[tuple[str, str, float]]]


def add(app: typer.Typer, arguments: Arguments) -> None:
    @app.command("check")
    def check(
        degraded: bool = typer.Option(
            False, "--degraded", help="Count degradation, of the disks and the network as well."
        ),
        hours: float = typer.Option(
            24, "--xid-hours", min=0, help="For how long a grave Xid counts; see the manual."
        ),
        url: str = ask.URL,
    ) -> int:
        """Say whether the node is fit for work: exit code 0 yes, 1 no, 2 not known."""
        try:
            known = config.Config() if url else config.load(arguments, os.environ).config
            client = ask.agent(arguments, url)
            status = ask.status(client.get(PATH), client)
            try:
                page = parsed(metrics.page(client, ("gpu",)).decode(errors="replace"))
            except Refused as refusal:
                if refusal.status != 404:
                    raise
                page = stated(status, known.expected_gpus)  # the metrics are turned off
        except NoAnswer as error:
            ask.write(f"unknown: {error}\n")
            return UNKNOWN
        now_ms = round(time.time() * 1000)
        old = screen.age(status, now_ms)
        if old is None or old > max(TICKS * known.scrape_interval_seconds, LEAST):
            when = "never" if old is None else f"{screen.span(old)} ago"
            ask.write(f"unknown: the agent has read this node {when}; see its log\n")
            return UNKNOWN
        if not status.healthy:
            ask.write("unknown: the agent does not read this node as it should; see its log\n")
            return UNKNOWN
        if known.expected_gpus and not collected(status):
            ask.write("unknown: GPUs are expected, and enable_gpu is false\n")
            return UNKNOWN
        reasons = list(troubles(status, page, now_ms, hours))
        if degraded:
            reasons += status.degradation_reasons
        if reasons:
            ask.write(screen.clean("; ".join(dict.fromkeys(reasons))) + "\n")
            return UNFIT
        ask.write(f"fit for work: {well(status)}\n")
        return FIT


def well(status: Status) -> str:
    count = len(status.gpus or ())
    return f"{count} GPU{'' if count == 1 else 's'} in order" if count else "no GPU is known of"


def collected(status: Status) -> bool:
    """Whether the agent is to read GPUs."""
    return any(each.name == "gpu" and each.enabled for each in status.agent.collectors)


def stated(status: Status, expected: int | None) -> Page:
    """What a document tells of the rows of a page that is not served."""
    if expected is None:
        return {}
    rows = {GPUS: len(status.gpus or ()), EXPECTED: expected}
    return {family: [("", "", value)] for family, value in rows.items()}


def parsed(page: str) -> Page:
    """The rows of a page, by family: (GPU, its other labels, value)."""
    found: Page = {}
    for line in page.split("\n"):
        match = None if line.startswith("#") else _ROW.match(line)
        if match:
            labels = match[2] or ""
            gpu = _GPU.search(labels)
            row = (gpu[1] if gpu else "", _GPU.sub("", labels), float(match[3]))
            found.setdefault(match[1], []).append(row)
    return found


def troubles(status: Status, page: Page, now_ms: int, hours: float) -> Iterator[str]:
    """Why the node is not fit for work, the gravest first."""
    yield from missing(status, page)
    gpus = status.gpus or []
    for gpu in gpus:
        if gpu.stuck:  # which is not up either
            yield f"GPU {gpu.gpu} is stuck: the driver does not answer for it"
        elif gpu.up is False:
            yield f"GPU {gpu.gpu} is lost: it does not answer"
    for gpu in gpus:
        if gpu.health.recovery_action not in (None, "none"):
            action = (gpu.health.recovery_action or "").replace("_", " ")
            yield f"GPU {gpu.gpu}: the driver asks for: {action}"
    for family, labels, text in TROUBLES:
        for number, others, value in page.get(family, ()):
            if value and (not labels or others == labels):
                yield f"GPU {number}: {text}"
    for gpu in gpus:
        yield from grave(gpu, now_ms, hours)


def missing(status: Status, page: Page) -> Iterator[str]:
    """GPUs that should be there."""

    def value(family: str) -> float | None:
        rows = page.get(family)
        return rows[0][2] if rows else None

    count, expected, on_bus = value(GPUS), value(EXPECTED), value(ON_BUS)
    if value(RELEASED):
        yield "the agent has let go of the GPUs: esnode-core gpu attach takes them again"
    elif value(DRIVER_UP) == 0 and (on_bus or expected):
        why = next((each.reason for each in status.agent.collectors if each.name == "gpu"), None)
        there = f"{on_bus:g} GPUs are on the bus" if on_bus else f"{expected:g} GPUs are expected"
        yield f"the NVIDIA driver is down, and {there}{f' ({why})' if why else ''}"
    elif expected is not None and count is not None and count < expected:
        yield f"{count:g} GPUs of {expected:g} that are expected"
    elif on_bus is not None and count is not None and count < on_bus:
        yield f"the driver has {count:g} GPUs of {on_bus:g} on the bus"


def grave(gpu: Gpu, now_ms: int, hours: float) -> Iterator[str]:
    """An Xid after which the GPU is not to be worked with.

    A driver that says what is to be done about the GPU has said it above, soon after the Xid at
    least, and a reset clears that; but not what only the vendor can mend."""
    xid = gpu.health.last_xid
    if xid is None or (action := screen.action(xid.code)) not in screen.SERIOUS:
        return
    seconds = hours * 3600
    asked = gpu.health.recovery_action
    if asked is not None and action not in ("support", "mechanical"):
        seconds = min(seconds, SETTLES if asked == "none" else -1)
    if xid.unix_ms is None or now_ms - xid.unix_ms <= seconds * 1000:
        ago = "" if xid.unix_ms is None else f" {screen.span((now_ms - xid.unix_ms) / 1000)} ago"
        known = XIDS[xid.code]
        yield f"GPU {gpu.gpu}: Xid {xid.code}{ago}: {known.meaning} {ACTIONS[action]}".rstrip(".")
