"""Degradation: flags, their reasons and the score, from the lanes' snapshots of each tick.

Nothing is read here. Counters are looked at by how much they rose in a window, so that a flag goes
when the window has passed since its cause has; a total since boot says nothing. docs/degradation.md
has every rule with its threshold and weight.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from ._fast.table import Layout, Snapshot
from .collectors.base import Collector
from .config import Config
from .host import Host
from .metrics import Metric, gauge
from .xids import XIDS

Labels = tuple[str | None, ...]
Key = tuple[str, Labels]

GPU = ("gpu", "uuid")

LATENCY = gauge(
    "esnode_disk_degradation_latency", "Whether requests of a disk take too long.", ("device",)
)
BUSY = gauge(
    "esnode_disk_degradation_busy", "Whether a disk has hardly a moment without work.", ("device",)
)
DROPS = gauge(
    "esnode_network_degradation_drops",
    "Whether an interface drops too many of its packets.",
    ("iface",),
)
RETRANS = gauge(
    "esnode_network_degradation_retrans", "Whether too many TCP segments are sent again."
)
SWAP = gauge("esnode_swap_degradation", "Whether too much is swapped in and out.")
THROTTLE = gauge(
    "esnode_gpu_degradation_throttle", "Whether heat or the hardware slows a GPU down.", GPU
)
ECC = gauge(
    "esnode_gpu_degradation_ecc",
    "Whether the memory of a GPU has errors, or waits for repair.",
    GPU,
)
XID = gauge("esnode_gpu_degradation_xid", "Whether a GPU had an Xid that is no application's.", GPU)
PCIE = gauge("esnode_gpu_degradation_pcie", "Whether the PCIe link of a GPU is impaired.", GPU)
NVLINK = gauge(
    "esnode_gpu_degradation_nvlink", "Whether NVLinks of a GPU are down or have errors.", GPU
)
SCORE = gauge("esnode_degradation_score", "Sum of the weights of what is degraded; 0 is well.")

#: What each flag adds to the score. A GPU that does not answer has no flag but esnode_gpu_up.
UP = "esnode_gpu_up"
WEIGHTS = {
    LATENCY.name: 2,
    BUSY.name: 1,
    DROPS.name: 2,
    RETRANS.name: 2,
    SWAP.name: 3,
    THROTTLE.name: 3,
    ECC.name: 5,
    XID.name: 5,
    PCIE.name: 3,
    NVLINK.name: 4,
    UP: 10,
}

#: Requests, packets and segments of a window without which a mean or a share of them says nothing.
REQUESTS, PACKETS, SEGMENTS = 10, 1000, 1000
#: Drops in a second without which they are usual: broadcasts that nobody here listens to count.
DROPS_A_SECOND = 1
#: What slows a GPU down and is neither its load nor a limit that somebody has set.
SLOWDOWNS = (
    "hw_slowdown",
    "hw_thermal_slowdown",
    "sw_thermal_slowdown",
    "hw_power_brake_slowdown",
)
#: Xids of these actions are no trouble of the GPU's.
HARMLESS = ("none", "application", "debug")
#: Errors of NVLinks that are corrected on the way, and usual.
CORRECTED = ("symbol", "effective")
#: Block devices that stand for others, which have flags of their own.
STACKED = ("dm-", "md")

DISK_TIMES = ("esnode_disk_read_time_seconds_total", "esnode_disk_write_time_seconds_total")
DISK_OPS = ("esnode_disk_read_ops_total", "esnode_disk_write_ops_total")
DISK_BUSY = "esnode_disk_io_time_seconds_total"
DROPPED = ("esnode_network_rx_dropped_total", "esnode_network_tx_dropped_total")
MOVED = ("esnode_network_rx_packets_total", "esnode_network_tx_packets_total")
RESENT = "esnode_network_tcp_retrans_total"
SENT = "esnode_network_tcp_out_segments_total"
SWAPPED = ("esnode_swap_in_bytes_total", "esnode_swap_out_bytes_total")
THROTTLED = "esnode_gpu_throttle_seconds_total"
ECC_ERRORS = "esnode_gpu_ecc_errors_total"
XID_ERRORS = "esnode_gpu_xid_errors_total"
PCIE_ERRORS = "esnode_gpu_pcie_errors_total"
NVLINK_ERRORS = "esnode_gpu_nvlink_errors_total"
REASON = "esnode_gpu_throttle_reason"
WIDTH = "esnode_gpu_pcie_link_width"
LINK_UP = "esnode_gpu_nvlink_up"
#: What the memory of a GPU says of itself that is trouble while it is 1.
STATES = {
    "esnode_gpu_remap_pending": "rows wait to be remapped by a reset",
    "esnode_gpu_remap_failure": "a row could not be remapped",
    "esnode_gpu_retired_pages_pending": "pages wait to be retired by a reset",
    "esnode_gpu_ecc_sram_threshold_exceeded": "its SRAM has had too many errors",
}

COUNTERS = frozenset(
    (
        *(*DISK_TIMES, *DISK_OPS, DISK_BUSY, *DROPPED, *MOVED, RESENT, SENT, *SWAPPED),
        *(THROTTLED, ECC_ERRORS, XID_ERRORS, PCIE_ERRORS, NVLINK_ERRORS),
    )
)
#: Gauges of 0 and 1 that are followed as the time that they have been 1.
SAMPLED = frozenset((REASON,))
GAUGES = frozenset((WIDTH, LINK_UP, UP, *STATES))
#: Which rows of a family are looked at, by their labels after those of the GPU; else all.
NEEDED: dict[str, Callable[[Labels], bool]] = {
    REASON: lambda labels: labels[2] in SLOWDOWNS,
    THROTTLED: lambda labels: labels[2] in SLOWDOWNS,
    ECC_ERRORS: lambda labels: labels[2::2] == ("uncorrected", "all"),
    XID_ERRORS: lambda labels: is_grave(labels[2] or ""),
    PCIE_ERRORS: lambda labels: labels[2] in ("non_fatal", "fatal"),
    NVLINK_ERRORS: lambda labels: labels[2] not in CORRECTED,
}
#: Families with several rows for each GPU.
BY_GPU = frozenset((REASON, THROTTLED, XID_ERRORS, NVLINK_ERRORS, LINK_UP))

#: Readings in a window that are kept.
STEPS = 16

#: Says why something is degraded, "" that it is not, None that this is not known.
Judge = Callable[[], str | None]


class Check(NamedTuple):
    """A rule for one thing. ``metric`` is None where another family has the row already."""

    name: str
    metric: Metric | None
    labels: Labels
    judge: Judge


class Flag(NamedTuple):
    """A verdict: ``name`` is the family's; ``reason`` is empty for what is well."""

    name: str
    names: tuple[str, ...]
    labels: Labels
    reason: str


class Change(NamedTuple):
    """A flag that was raised, or has gone; ``reason`` says why it is or was."""

    name: str
    labels: dict[str, str]
    degraded: bool
    reason: str


class Window:
    """What the rules look at in one lane's snapshots.

    ``place`` has the position of each row; by position, ``now`` is its value and ``risen`` how much
    it rose in the window. NaN: not known. A counter that steps back was reset: what it counted
    since its last reading is lost; so is what it counted while it was not read for longer than the
    window. Layouts are shared between snapshots, so each is looked at once.
    """

    def __init__(self) -> None:
        #: How long it is.
        self.seconds = math.inf
        self.snapshot: Snapshot | None = None
        self.place: dict[Key, int] = {}
        self.now: list[float] = []
        self.risen: list[float] = []
        #: Seconds that ``risen`` is of.
        self.elapsed = 0.0
        self._layout: Layout | None = None
        self._keys: list[Key] = []
        self._by_gpu: dict[Key, dict[Labels, int]] = {}
        self._rows: list[int] = []
        #: How many positions are counters; after these are the sampled ones, and the gauges.
        self._counters = 0
        self._followed = 0
        self._last: list[float] = []
        self._total: list[float] = []
        #: Of the counters that are not read at the moment, when they were the last time.
        self._gone: dict[int, float] = {}
        self._kept: deque[tuple[float, list[float]]] = deque()

    def take(self, snapshot: Snapshot) -> bool:
        """Takes the next snapshot; whether it has other rows than the one before it."""
        before, self.snapshot = self.snapshot, snapshot
        is_new = snapshot.layout is not self._layout and self._bind(snapshot.layout)
        time = snapshot.monotonic
        passed = math.nan if before is None else time - before.monotonic
        self.now = now = [snapshot[row] for row in self._rows]
        last, total, unknown = self._last, self._total, []
        gone = self._gone
        for i in [i for i in gone if now[i] == now[i]]:
            if time - gone.pop(i) > self.seconds:
                last[i] = math.nan  # it rose, and nobody knows when
        for i in range(self._counters):
            value, old = now[i], last[i]
            if value > old:
                total[i] += value - old
                last[i] = value
            elif value != old:
                if value != value:
                    unknown.append(i)
                    if old == old:
                        gone.setdefault(i, time - passed)
                    continue
                if old != old:  # the first reading
                    unknown.append(i)
                last[i] = value
        for i in range(self._counters, self._followed):
            value = now[i]
            if value == 1 and last[i] == last[i]:
                total[i] += passed
            if value != value or last[i] != last[i]:
                unknown.append(i)
            last[i] = value
        kept = self._kept
        while len(kept) > 1 and kept[1][0] <= time - self.seconds:
            kept.popleft()
        if kept:
            self.elapsed = time - kept[0][0]
            self.risen = [new - old for new, old in zip(total, kept[0][1], strict=True)]
        else:
            self.elapsed = 0.0
            self.risen = [math.nan] * len(total)
        for i in unknown:
            self.risen[i] = math.nan
        if not kept or time - kept[-1][0] >= self.seconds / STEPS:
            kept.append((time, list(total)))
        return is_new

    def _bind(self, layout: Layout) -> bool:
        """Takes another layout; what was followed before goes on. Whether its rows are others."""
        groups: tuple[list[int], list[int], list[int]] = ([], [], [])
        for metric, _, first, end in layout.families:
            for group, names in zip(groups, (COUNTERS, SAMPLED, GAUGES), strict=True):
                if metric.name in names:
                    needed = NEEDED.get(metric.name)
                    group.extend(
                        row
                        for row in range(first, end)
                        if needed is None or needed(layout.rows[row][1])
                    )
        self._rows = [row for group in groups for row in group]
        self._counters = len(groups[0])
        self._followed = self._counters + len(groups[1])
        self._layout = layout
        keys = [(layout.rows[row][0].name, layout.rows[row][1]) for row in self._rows]
        if keys == self._keys:
            return False
        self._keys = keys
        old, self.place = self.place, {key: i for i, key in enumerate(keys)}
        self._by_gpu = {}
        for (name, labels), i in self.place.items():
            if name in BY_GPU:
                self._by_gpu.setdefault((name, labels[:2]), {})[labels[2:]] = i
        followed = keys[: self._followed]
        # The first error of a code brings its row with it: where the GPU's codes are counted
        # already, it has risen from 0.
        counted = {labels[:2] for name, labels in old if name == XID_ERRORS}
        start = [
            0.0 if name == XID_ERRORS and labels[:2] in counted else math.nan
            for name, labels in followed
        ]
        moved = [(i, old[key]) for i, key in enumerate(followed) if key in old]
        last, total = start, [0.0] * len(followed)
        for i, was in moved:
            last[i] = self._last[was]
            total[i] = self._total[was]
        for position, (time, values) in enumerate(self._kept):
            copy = [0.0] * len(followed)
            for i, was in moved:
                copy[i] = values[was]
            self._kept[position] = time, copy
        self._gone = {i: self._gone[was] for i, was in moved if was in self._gone}
        self._last, self._total = last, total
        return True

    # What rules ask.

    def at(self, name: str, *labels: str | None) -> int | None:
        """The position of a row; None where there is none."""
        return self.place.get((name, labels))

    def places(self, names: Iterable[str], *labels: str | None) -> list[int] | None:
        """The positions of several families' rows; None unless all are there."""
        found = [self.place.get((name, labels)) for name in names]
        places = [i for i in found if i is not None]
        return places if len(places) == len(found) else None

    def rows(self, name: str, gpu: Labels) -> dict[Labels, int]:
        """The positions of a family's rows that are a GPU's, by their other labels."""
        return self._by_gpu.get((name, gpu), {})

    def sum(self, places: Iterable[int]) -> float:
        """How much several rows rose together; NaN where one of them is not known."""
        risen = self.risen
        return sum(risen[i] for i in places)

    def share(self, seconds: float) -> float:
        """Seconds as percent of the window, or of the longer time between two readings."""
        return min(100 * seconds / max(self.elapsed, self.seconds), 100.0)


class Rules:
    """What is judged, with the thresholds of the configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        #: The most NVLinks of each GPU that were up at once.
        self.most_links: dict[Labels, int] = {}

    @property
    def within(self) -> str:
        return f"in {self.config.degradation_window_seconds:g} s"

    def checks(self, window: Window) -> Iterator[Check]:
        """The checks of what a lane has, after its layout has changed."""
        labels: dict[str, dict[Labels, None]] = {}
        for name, key in window.place:
            labels.setdefault(name, {})[key] = None
        for (device,) in labels.get(DISK_BUSY, ()):
            if device is not None and not device.startswith(STACKED):
                yield from self.disk(window, device)
        for (iface,) in labels.get(DROPPED[0], ()):
            if iface is not None and iface != "lo":
                yield from self.interface(window, iface)
        if RESENT in labels and SENT in labels:
            yield self.retransmissions(window)
        if all(name in labels for name in SWAPPED):
            yield self.swap(window)
        if UP in labels:
            self.most_links = {gpu: self.most_links.get(gpu, 0) for gpu in labels[UP]}
        for gpu in labels.get(UP, ()):
            yield from self.gpu(window, gpu)

    def disk(self, w: Window, device: str) -> Iterator[Check]:
        times, ops = w.places(DISK_TIMES, device), w.places(DISK_OPS, device)

        def latency() -> str | None:
            assert times and ops
            requests, seconds = w.sum(ops), w.sum(times)
            if math.isnan(requests + seconds):
                return None
            limit = self.config.degradation_disk_latency_seconds
            if requests < REQUESTS or seconds / requests <= limit:
                return ""
            return (
                f"disk {device}: {requests:.0f} requests took {number(seconds / requests)} s on"
                f" average {self.within} (threshold {limit:g} s)"
            )

        busy_at = w.at(DISK_BUSY, device)
        assert busy_at is not None

        def busy() -> str | None:
            share = w.share(w.risen[busy_at])
            if math.isnan(share):
                return None
            limit = self.config.degradation_disk_busy_percent
            if share <= limit:
                return ""
            return (
                f"disk {device}: busy for {number(share)} % of the time {self.within}"
                f" (threshold {limit:g} %)"
            )

        if times and ops:
            yield Check(LATENCY.name, LATENCY, (device,), latency)
        yield Check(BUSY.name, BUSY, (device,), busy)

    def interface(self, w: Window, iface: str) -> Iterator[Check]:
        dropped, moved = w.places(DROPPED, iface), w.places(MOVED, iface)
        if dropped is None or moved is None:
            return

        def drops() -> str | None:
            lost, packets = w.sum(dropped), w.sum(moved)
            if math.isnan(lost + packets):
                return None
            packets += lost
            limit = self.config.degradation_network_drops_percent
            if packets < PACKETS or lost < DROPS_A_SECOND * w.seconds:
                return ""
            share = 100 * lost / packets
            if share <= limit:
                return ""
            return (
                f"interface {iface}: {lost:.0f} of {packets:.0f} packets dropped"
                f" {self.within}, {number(share)} % (threshold {limit:g} %)"
            )

        yield Check(DROPS.name, DROPS, (iface,), drops)

    def retransmissions(self, w: Window) -> Check:
        resent, sent = w.place[RESENT, ()], w.place[SENT, ()]

        def judge() -> str | None:
            again, segments = w.risen[resent], w.risen[sent]
            if math.isnan(again + segments):
                return None
            limit = self.config.degradation_network_retrans_percent
            if segments < SEGMENTS or 100 * again / segments <= limit:
                return ""
            return (
                f"network: {again:.0f} of {segments:.0f} TCP segments were sent again"
                f" {self.within}, {number(100 * again / segments)} % (threshold {limit:g} %)"
            )

        return Check(RETRANS.name, RETRANS, (), judge)

    def swap(self, w: Window) -> Check:
        places = w.places(SWAPPED)
        assert places

        def judge() -> str | None:
            rate = w.sum(places) / max(w.elapsed, w.seconds)
            if math.isnan(rate):
                return None
            limit = self.config.degradation_swap_bytes_per_second
            if rate <= limit:
                return ""
            return (
                f"swap: {number(rate)} bytes a second swapped in and out {self.within}"
                f" (threshold {number(limit)})"
            )

        return Check(SWAP.name, SWAP, (), judge)

    def gpu(self, w: Window, gpu: Labels) -> Iterator[Check]:
        name = f"GPU {gpu[0]}"
        yield Check(UP, None, gpu, self.answers(w, gpu, name))
        judges = (
            (THROTTLE, self.throttle(w, gpu, name)),
            (ECC, self.ecc(w, gpu, name)),
            (XID, self.xid(w, gpu, name)),
            (PCIE, self.pcie(w, gpu, name)),
            (NVLINK, self.nvlink(w, gpu, name)),
        )
        for metric, judge in judges:
            if judge is not None:
                yield Check(metric.name, metric, gpu, judge)

    def answers(self, w: Window, gpu: Labels, name: str) -> Judge:
        place = w.place[UP, gpu]

        def judge() -> str | None:
            value = w.now[place]
            return None if value != value else "" if value else f"{name}: does not answer"

        return judge

    def throttle(self, w: Window, gpu: Labels, name: str) -> Judge | None:
        """Each slowdown by what the driver has counted of it, and by how often it was met."""
        places = [
            (labels[0] or "", i)
            for family in (REASON, THROTTLED)
            for labels, i in w.rows(family, gpu).items()
        ]
        if not places:
            return None

        def judge() -> str | None:
            risen = w.risen
            known = [(risen[i], reason) for reason, i in places if risen[i] == risen[i]]
            if not known:
                return None
            seconds, reason = max(known)
            limit = self.config.degradation_gpu_throttle_percent
            share = w.share(seconds)
            if share <= limit:
                return ""
            return (
                f"{name}: {reason} for {number(share)} % of the time {self.within}"
                f" (threshold {limit:g} %)"
            )

        return judge

    def ecc(self, w: Window, gpu: Labels, name: str) -> Judge | None:
        """Of the two scopes the one that rose more: the driver may not keep both."""
        errors = [
            i
            for scope in ("volatile", "aggregate")
            if (i := w.at(ECC_ERRORS, *gpu, "uncorrected", scope, "all")) is not None
        ]
        states = [(i, text) for key, text in STATES.items() if (i := w.at(key, *gpu)) is not None]
        if not errors and not states:
            return None

        def judge() -> str | None:
            risen, now = w.risen, w.now
            known = [risen[i] for i in errors if risen[i] == risen[i]]
            told = [(now[i], text) for i, text in states if now[i] == now[i]]
            if not known and not told:
                return None
            reasons = [text for value, text in told if value]
            limit = self.config.degradation_gpu_ecc_errors
            if known and max(known) >= limit:
                reasons.insert(
                    0,
                    f"{max(known):.0f} uncorrected memory errors {self.within} (threshold {limit})",
                )
            return f"{name}: {'; '.join(reasons)}" if reasons else ""

        return judge

    def xid(self, w: Window, gpu: Labels, name: str) -> Judge | None:
        codes = [(labels[0], i) for labels, i in w.rows(XID_ERRORS, gpu).items()]
        if not codes:
            return None

        def judge() -> str | None:
            risen = w.risen
            if all(risen[i] != risen[i] for _, i in codes):
                return None
            met = [f"{code} ({risen[i]:.0f})" for code, i in codes if risen[i] > 0]
            if not met:
                return ""
            return f"{name}: Xid {', '.join(met)} {self.within} (threshold 1)"

        return judge

    def pcie(self, w: Window, gpu: Labels, name: str) -> Judge | None:
        """The generation is not looked at: it falls when a GPU has nothing to do."""
        widths = w.at(WIDTH, *gpu, "current"), w.at(WIDTH, *gpu, "max")
        errors = [
            (kind, i)
            for kind in ("non_fatal", "fatal")
            if (i := w.at(PCIE_ERRORS, *gpu, kind)) is not None
        ]
        if None in widths and not errors:
            return None

        def judge() -> str | None:
            width, most = (math.nan if i is None else w.now[i] for i in widths)
            known = [(kind, w.risen[i]) for kind, i in errors if w.risen[i] == w.risen[i]]
            if math.isnan(width + most) and not known:
                return None
            reasons = []
            if width < most:
                reasons.append(f"{width:.0f} PCIe lanes (threshold {most:.0f})")
            reasons += [
                f"{count:.0f} PCIe errors ({kind}) {self.within} (threshold 1)"
                for kind, count in known
                if count > 0
            ]
            return f"{name}: {'; '.join(reasons)}" if reasons else ""

        return judge

    def nvlink(self, w: Window, gpu: Labels, name: str) -> Judge | None:
        """A link is down that was up, or that other GPUs of the node have: sockets of bridges may
        be empty, and their links have never been up."""
        links = list(w.rows(LINK_UP, gpu).values())
        errors = list(w.rows(NVLINK_ERRORS, gpu).values())
        if not links and not errors:
            return None
        most_links = self.most_links

        def judge() -> str | None:
            now = w.now
            known = [w.risen[i] for i in errors if w.risen[i] == w.risen[i]]
            if not known and all(now[i] != now[i] for i in links):
                return None
            states = [now[i] for i in links]
            up, down = states.count(1), states.count(0)
            most_links[gpu] = max(most_links[gpu], up)
            reasons = []
            if down:  # where none is up it may have no bridge
                most = max(most_links.values()) if up else most_links[gpu]
                if up < most <= up + down:
                    reasons.append(f"{up} NVLinks are up (threshold {most})")
            limit = self.config.degradation_gpu_nvlink_errors
            if sum(known) >= limit:
                reasons.append(f"{sum(known):.0f} NVLink errors {self.within} (threshold {limit})")
            return f"{name}: {'; '.join(reasons)}" if reasons else ""

        return judge


def number(value: float) -> str:
    """A measured number with three digits."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"


def is_grave(code: str) -> bool:
    """Whether an Xid is the GPU's trouble; one that is not in the catalogue is."""
    known = XIDS.get(int(code)) if code.isdigit() else None
    return known is None or known.action not in HARMLESS


class Degradation(Collector):
    """The rows of the lane "derived". ``inputs`` are the newest snapshots of the lanes that are
    still heard of; what a lane's rows are judged by is gone with it, and begins anew."""

    name = "degradation"
    lane = "derived"
    fresh = False
    metrics = (LATENCY, BUSY, DROPS, RETRANS, SWAP, THROTTLE, ECC, XID, PCIE, NVLINK, SCORE)

    def __init__(self, host: Host, config: Config) -> None:
        super().__init__(host, config)
        self.rules = Rules(config)
        self.inputs: Mapping[str, Snapshot] = {}
        #: Every flag that is known, and the sum of the weights; None: nothing is known.
        self.flags: list[Flag] = []
        self.score: float | None = None
        #: What the last reading has changed.
        self.changes: list[Change] = []

    def configure(self, config: Config) -> None:
        """Takes other thresholds and another window from the next tick on; any thread may call."""
        self.config = self.rules.config = config

    def bind(self) -> None:
        self.windows: dict[str, Window] = {}
        self.checks: dict[str, list[tuple[Check, int | None]]] = {}
        self.slots: dict[tuple[Metric, Labels], int] = {}
        self.raised: dict[Key, tuple[tuple[str, ...], str]] = {}
        self.score_slot = self.table.add(SCORE)

    def advance(self) -> None:
        """Takes the snapshots, and the rows of what has come and gone."""
        changed: dict[str, list[Check]] = {}
        for lane in self.windows.keys() - self.inputs.keys():
            del self.windows[lane]
            changed[lane] = []
        for lane, snapshot in self.inputs.items():
            window = self.windows.get(lane)
            if window is None:
                window = self.windows[lane] = Window()
            window.seconds = self.config.degradation_window_seconds
            if snapshot is not window.snapshot and window.take(snapshot):
                changed[lane] = list(self.rules.checks(window))
        if changed:
            self.arrange(changed)

    def arrange(self, changed: Mapping[str, list[Check]]) -> None:
        """Adds the rows of the checks that are new, and removes those of which there is none."""
        now = {lane: [check for check, _ in checks] for lane, checks in self.checks.items()}
        now |= changed
        wanted = {
            (check.metric, check.labels): None
            for checks in now.values()
            for check in checks
            if check.metric is not None
        }
        for key in self.slots.keys() - wanted.keys():
            self.table.remove(*key)
            del self.slots[key]
        for key in wanted:
            if key not in self.slots:
                self.slots[key] = self.table.add(*key)
        self.checks = {
            lane: [
                (check, None if check.metric is None else self.slots[check.metric, check.labels])
                for check in checks
            ]
            for lane, checks in now.items()
            if checks
        }

    def sample(self, tick: bool) -> None:
        self.advance()
        put = self.table.set
        flags, score = [], 0.0
        for checks in self.checks.values():
            for check, slot in checks:
                reason = check.judge()
                if reason is None:
                    continue
                names = GPU if check.metric is None else check.metric.labels
                flags.append(Flag(check.name, names, check.labels, reason))
                if reason:
                    score += WEIGHTS[check.name]
                if slot is not None:
                    put(slot, reason != "")
        self.flags = flags
        self.score = score if flags else None
        if flags:
            put(self.score_slot, score)
        self.compare()

    def compare(self) -> None:
        """Finds the flags that were raised, and those that have gone."""
        raised = {
            (flag.name, flag.labels): (flag.names, flag.reason)
            for flag in self.flags
            if flag.reason
        }
        self.changes = []
        if raised.keys() != self.raised.keys():
            known = {(flag.name, flag.labels) for flag in self.flags}
            for key in self.raised.keys() - raised.keys():
                names, reason = self.raised[key]
                text = "over" if key in known else "not known any more"
                self.changes.append(change(key, names, False, f"{text}: {reason}"))
            for key in raised.keys() - self.raised.keys():
                self.changes.append(change(key, raised[key][0], True, raised[key][1]))
        self.raised = raised


def change(key: Key, names: tuple[str, ...], degraded: bool, reason: str) -> Change:
    name, labels = key
    present = {n: value for n, value in zip(names, labels, strict=True) if value is not None}
    return Change(name.removeprefix("esnode_"), present, degraded, reason)
