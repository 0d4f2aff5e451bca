"""One screen of a status document: a node that is understood in ten seconds.

A pure function from a document to lines. What is unknown is a dash; a 0 is a reading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from ..status import Collector, Disk, Gpu, Interface, Status
from ..xids import XIDS

DASH = "-"
#: Of SGR, the codes of a terminal's colours.
STYLES = {"bold": "1", "dim": "2", "red": "1;31", "yellow": "33", "green": "32"}
#: Pieces of a line, each with a style or none.
Line = list[tuple[str, str]]

#: Seconds after which a document counts as old; a tick is 5 s by default.
OLD = 30
#: Per cent from which a file system counts as full.
FULL = 95
KIB = 1024.0
PREFIXES = ("", "K", "M", "G", "T", "P", "E")
#: Words of the catalogue for an Xid's action that mean the GPU is not to be worked with.
SERIOUS = frozenset({"reset", "reboot", "vm", "mechanical", "nvlink", "recovery", "support"})
#: Reasons to run slower that tell nothing, or are told by a word of their own.
PLAIN = {
    "gpu_idle": "",
    "applications_clocks_setting": "clocks set",
    "sw_power_cap": "power",
    "sw_thermal_slowdown": "thermal",
    "hw_thermal_slowdown": "thermal",
    "hw_power_brake_slowdown": "brake",
    "hw_slowdown": "slowdown",
    "sync_boost": "sync",
    "display_clock_setting": "display",
}


# ------------------------------------------------------------------------------ numbers


def number(value: float | None, unit: str = "", digits: int = 0) -> str:
    """A number and its unit; a dash for none."""
    if value is None:
        return DASH
    return f"{value:,.{digits}f} {unit}".rstrip()


def size(value: float | None) -> str:
    """Bytes with three digits and a binary unit."""
    if value is None:
        return DASH
    power = 0
    while abs(value) >= 999.5 and power < len(PREFIXES) - 1:
        value /= KIB
        power += 1
    digits = 0 if power == 0 or value >= 99.95 else 1
    return f"{value:.{digits}f} {PREFIXES[power]}{'iB' if power else 'B'}"


def rate(value: float | None) -> str:
    """Bytes per second in six letters or seven."""
    if value is None:
        return DASH
    return size(value).replace(" ", "").replace("iB", "").replace("B", "") + "/s"


def share(used: float | None, total: float | None) -> str:
    """Used and total bytes in one unit."""
    if total is None:
        return f"{size(used)} used" if used is not None else DASH
    power, scale = 2, KIB**2
    while total / scale >= 9999.5 or (power < 3 and total / scale >= KIB):
        power, scale = power + 1, scale * KIB
    digits = 0 if total / scale >= 99.95 or total == 0 else 1
    shown = DASH if used is None else f"{used / scale:,.{digits}f}"
    return f"{shown}/{total / scale:,.{digits}f} {PREFIXES[power]}iB"


def percent(value: float | None) -> str:
    return number(value, "%")


def part(used: float | None, total: float | None) -> float | None:
    """Per cent that are used; None where that is unknown or there is nothing."""
    return 100 * used / total if used is not None and total else None


def span(seconds: float | None) -> str:
    """A duration in its two largest units."""
    if seconds is None:
        return DASH
    left = max(0, round(seconds))
    found: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= length or (found and len(found) < 2) or unit == "s":
            found.append(f"{left // length}{unit}")
            left %= length
        if len(found) == 2:
            break
    return " ".join(found[:2])


def clock(unix_ms: int | None) -> str:
    """The time of day, in UTC."""
    return DASH if unix_ms is None else f"{moment(unix_ms):%H:%M:%SZ}"


def moment(unix_ms: int) -> datetime:
    """A time; the first or last one that there is for one that is out of range."""
    return datetime.fromtimestamp(min(max(unix_ms, 0), 253_402_300_799_000) / 1000, timezone.utc)


def total(values: Sequence[float | None] | None) -> float | None:
    """A sum; None where there is nothing to sum up, or not all of it is known."""
    known = [value for value in values or () if value is not None]
    return sum(known) if known and len(known) == len(values or ()) else None


def clean(text: str) -> str:
    """Without what would move the cursor or break the line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# ------------------------------------------------------------------------------ the screen


def screen(status: Status, now_ms: int, width: int | None, height: int | None) -> list[Line]:
    """The lines for a terminal of that size; all of them where there is no height, and at full
    length where there is no width."""
    gpus = status.gpus or []
    head = [title(status, width or 80), state(status, now_ms)]
    node = [processors(status), memory(status), power(status)]
    if status.app_tokens_per_sec is not None:
        node.append(tokens(status))
    why = labelled("Why", [[(clean(reason), "yellow")] for reason in status.degradation_reasons])
    table = [gpu_total(status, gpus), *gpu_table(gpus, width or 80, now_ms)]
    disks = labelled("Disk", [disk_line(disk) for disk in sorted(status.disks or [], key=weight)])
    interfaces = sorted(status.interfaces or [], key=lambda each: traffic(each, status.primary_nic))
    links = labelled("Net", [link_line(each) for each in interfaces])
    silent = [
        each
        for each in status.agent.collectors
        if each.enabled and each.up is False and (each.name != "gpu" or gpus)  # said above
    ]
    down = labelled("Lack", [down_line(each) for each in silent])
    errors = labelled(
        "Err",
        [
            [(f"{clock(error.unix_ms)} {clean(error.collector)}: {clean(error.message)}", "")]
            for error in status.last_errors
        ],
    )
    blocks = {
        "why": why,
        "disks": disks or labelled("Disk", [[(DASH, "dim")]]),
        "links": links or labelled("Net", [[(DASH, "dim")]]),
        "gpus": table,
        "down": down,
        "errors": errors,
    }
    if height is not None:
        room = height - len(head) - len(node) - 1
        keep = ranked(gpus)
        for name, lines in shared(blocks, room).items():
            blocks[name] = cut(blocks[name], lines, keep if name == "gpus" else None)
    first, *others = blocks.values()
    return [*head, *first, *node, *(line for block in others for line in block), agent_line(status)]


#: Who gets how many lines, in turns, until none is left.
TURNS = (
    ("why", 1),
    ("gpus", 99),
    ("down", 1),
    ("disks", 1),
    ("links", 1),
    ("errors", 1),
    ("why", 2),
    ("disks", 2),
    ("errors", 2),
    ("links", 2),
    ("down", 2),
    ("why", 4),
    ("errors", 4),
    ("disks", 8),
    ("links", 8),
    *((name, 999) for name in ("why", "down", "errors", "disks", "links")),
)


def shared(blocks: dict[str, list[Line]], room: int) -> dict[str, int]:
    """How many lines each block gets."""
    given = dict.fromkeys(blocks, 0)
    for name, wanted in TURNS:
        more = min(min(wanted, len(blocks[name])) - given[name], room)
        if more > 0:
            given[name] += more
            room -= more
    return given


def cut(lines: list[Line], count: int, keep: list[int] | None) -> list[Line]:
    """Some lines; where not all of them fit, the label says how many are missing. ``keep`` are the
    places of lines, after the two of a table's head, in the order of what matters."""
    if count >= len(lines):
        return lines
    if keep is None:
        (label, style), *rest = lines[0]
        more = f" +{len(lines) - count}"
        label = f"{label.rstrip() + more[len(more) > 3 :]:<8}"
        return [[(label, style), *rest], *lines[1:count]] if count else []
    if count <= 2:
        return lines[:count]
    kept = sorted(keep[: count - 3])
    left = len(lines) - 2 - len(kept)
    return [*lines[:2], *(lines[2 + at] for at in kept), [(f"  … {left} more", "dim")]]


def labelled(name: str, lines: Sequence[Line]) -> list[Line]:
    """Lines with a label before the first."""
    return [[(f"{'' if at else name:<8}", "bold"), *line] for at, line in enumerate(lines)]


def title(status: Status, width: int) -> Line:
    name = clean(status.hostname or DASH)
    rest = f"   up {span(status.uptime_seconds)}   Linux {clean(status.kernel or DASH)}"
    if status.mode != "standalone":
        rest += f"   {status.mode}"
    read = status.last_scrape_unix_ms
    when = DASH if read is None else f"{moment(read):%Y-%m-%d %H:%M:%SZ}"
    gap = width - len(name) - len(rest) - len(when)
    return [(name, "bold"), (rest, ""), (" " * max(gap, 3), ""), (when, "")]


def age(status: Status, now_ms: int) -> float | None:
    """Seconds since the readings; None where that is unknown. A clock may have been set back."""
    read = status.last_scrape_unix_ms
    return None if read is None else max(0.0, (now_ms - read) / 1000)


def state(status: Status, now_ms: int) -> Line:
    """Whether all is well, in one line."""
    old = age(status, now_ms)
    flags = {
        "disk": status.disk_degraded,
        "network": status.network_degraded,
        "swap": status.swap_degraded,
        "gpu": status.gpu_degraded,
    }
    bad = [name for name, flag in flags.items() if flag]
    pieces: Line = []
    if not status.healthy:
        pieces.append(("UNHEALTHY: the agent does not read this node as it should", "red"))
    if old is not None and old > OLD:
        pieces.append((f"OLD: read {span(old)} ago", "red"))
    if not pieces:
        pieces.append(("agent healthy", "green"))
    if bad or status.degradation_score:
        score = number(status.degradation_score, digits=1).removesuffix(".0")
        pieces.append((f"DEGRADED: {', '.join(bad) or DASH}, score {score}", "red"))
    elif all(flag is None for flag in flags.values()):
        pieces.append((f"degradation {DASH}", "dim"))
    else:
        pieces.append(("not degraded", "green"))
    return [piece for each in pieces for piece in (each, ("   ", ""))][:-1]


def processors(status: Status) -> Line:
    load = " ".join(
        number(each, digits=2)
        for each in (status.load_avg_1m, status.load_avg_5m, status.load_avg_15m)
    )
    hottest = max((each.celsius for each in status.cpu_temperatures or ()), default=None)
    packages = total([each.watts for each in status.cpu_package_power_watts or ()])
    text = (
        f"{percent(status.cpu_util_percent):>5} of {number(status.cpu_cores)} cores"
        f"   load {load}   {number(hottest, '°C')}   {number(packages, 'W')}"
    )
    return [("CPU     ", "bold"), (text, "")]


def memory(status: Status) -> Line:
    used, whole = status.mem_used_bytes, status.mem_total_bytes
    free = number(part(used, whole), "%")
    swap = share(status.swap_used_bytes, status.swap_total_bytes)
    swap = "none" if status.swap_total_bytes == 0 else swap
    return [
        ("Memory  ", "bold"),
        (f"{free:>5}   {share(used, whole)}   available {size(status.mem_available_bytes)}", ""),
        (f"   swap {swap}", "yellow" if status.swap_degraded else ""),
    ]


def power(status: Status) -> Line:
    packages = total([each.watts for each in status.cpu_package_power_watts or ()])
    gpus = total([each.power_watts for each in status.gpus or ()])
    pieces = (("node", status.node_power_watts), ("CPUs", packages), ("GPUs", gpus))
    text = "   ".join(f"{name} {number(watts, 'W')}" for name, watts in pieces)
    return [("Power   ", "bold"), (text, "")]


def tokens(status: Status) -> Line:
    text = f"{number(status.app_tokens_per_sec, 'tokens/s', 1)}"
    each = number(status.app_tokens_per_watt, digits=2)
    return [("App     ", "bold"), (f"{text}   {each} tokens/s per watt", "")]


def weight(disk: Disk) -> tuple[bool, bool, int]:
    """Full ones first, then the root, then the large ones."""
    full = (part(disk.used_bytes, disk.total_bytes) or 0) >= FULL
    return (not full, disk.mount != "/", -(disk.total_bytes or 0))


def disk_line(disk: Disk) -> Line:
    used = part(disk.used_bytes, disk.total_bytes)
    name = short(clean(disk.mount or disk.device or DASH), 15)
    style = "red" if used is not None and used >= FULL else ""
    return [
        (f"{name:<15} ", ""),
        (f"{percent(used):>5} {share(disk.used_bytes, disk.total_bytes):>15}", style),
        (f"  r {rate(disk.read_bytes_per_sec):>7}  w {rate(disk.written_bytes_per_sec):>7}", ""),
        (f"  busy {percent(disk.busy_percent):>5}", ""),
    ]


def traffic(each: Interface, primary: str | None) -> tuple[bool, bool, float]:
    """The primary one first, then those that are up, by their traffic."""
    moved = (each.rx_bytes_per_sec or 0) + (each.tx_bytes_per_sec or 0)
    return (each.iface != primary, each.up is False, -moved)


def link_line(each: Interface) -> Line:
    speed = DASH if each.speed_bytes is None else f"{each.speed_bytes * 8 / 1e9:g} Gbit/s"
    up = {True: "up", False: "down", None: DASH}[each.up]
    drops = number(each.drops_per_sec, digits=1).removesuffix(".0")
    return [
        (f"{short(clean(each.iface), 15):<15} ", ""),
        (f"{up:>5}", "yellow" if each.up is False else ""),
        (f" {speed:>15}", ""),
        (f"  rx {rate(each.rx_bytes_per_sec):>7}  tx {rate(each.tx_bytes_per_sec):>7}", ""),
        (f"  drop {drops}/s", "yellow" if each.drops_per_sec else ""),
    ]


def down_line(collector: Collector) -> Line:
    reason = collector.reason or "it does not say why"
    return [(f"{clean(collector.name)}: {clean(reason)}", "")]


def agent_line(status: Status) -> Line:
    agent = status.agent
    enabled = [each for each in agent.collectors if each.enabled]
    up = sum(each.up is True for each in enabled)
    pieces = [
        clean(agent.version),
        f"cpu {number(agent.cpu_percent, '%', 2)}",
        size(agent.resident_bytes),
        f"up {span(agent.uptime_seconds)}",
        f"collectors {up}/{len(enabled)}",
    ]
    if status.tsdb.enabled:
        pieces.append(f"tsdb {size(status.tsdb.bytes)}")
    return [("Agent   ", "bold"), ("  ".join(pieces), "")]


# ------------------------------------------------------------------------------ GPUs


def gpu_total(status: Status, gpus: Sequence[Gpu]) -> Line:
    """How many GPUs of what kind; why there are none."""
    label = ("GPUs    ", "bold")
    if not gpus:
        collector = next((each for each in status.agent.collectors if each.name == "gpu"), None)
        if collector is not None and not collector.enabled:
            return [label, ("not collected: enable_gpu is false", "dim")]
        if collector is not None and collector.up is False:
            return [label, (f"none: {clean(collector.reason or 'the driver is not up')}", "yellow")]
        return [label, ("none" if status.gpus == [] else DASH, "dim")]
    kinds: dict[str, int] = {}
    for gpu in gpus:
        name = clean(gpu.name or DASH).removeprefix("NVIDIA ")
        kinds[name] = kinds.get(name, 0) + 1
    busy = [gpu.util_percent for gpu in gpus if gpu.util_percent is not None]
    first = gpus[0].identity
    text = ", ".join(f"{count} x {name}" for name, count in kinds.items())
    mean = number(sum(busy) / len(busy) if busy else None, "%")
    text += f"   busy {mean}   driver {clean(first.driver_version or DASH)}"
    return [label, (f"{text}   CUDA {clean(first.cuda_driver_version or DASH)}", "")]


class Column(NamedTuple):
    """A column of the table of GPUs; ``least``: the terminal's width from which it is shown."""

    title: str
    width: int
    text: Callable[[Gpu], str]
    style: Callable[[Gpu], str] = lambda gpu: ""
    least: int = 0
    align: str = ">"


def watts(gpu: Gpu) -> str:
    if gpu.power_limit_watts is None:
        return number(gpu.power_watts, "W")
    return f"{number(gpu.power_watts)}/{number(gpu.power_limit_watts)} W"


def throttle(gpu: Gpu) -> str:
    """What makes the GPU run slower than it could."""
    words = []
    if gpu.thermal_throttle:
        words.append("thermal")
    if gpu.power_throttle:
        words.append("power")
    reasons = gpu.health.throttle_reasons
    for reason in reasons or ():
        word = PLAIN.get(reason, clean(reason))
        if word and word not in words:
            words.append(word)
    known = (gpu.thermal_throttle, gpu.power_throttle, reasons)
    return ",".join(words) or (DASH if all(each is None for each in known) else "no")


def lanes(gpu: Gpu) -> str:
    topo = gpu.topo
    return f"{number(topo.pci_link_gen)}x{number(topo.pci_link_width)}"


#: More of them on a wider terminal.
COLUMNS = (
    Column("GPU", 3, lambda gpu: clean(gpu.gpu), lambda gpu: "bold"),
    Column("UTIL", 5, lambda gpu: percent(gpu.util_percent)),
    Column("MEMORY", 15, lambda gpu: share(gpu.memory_used_bytes, gpu.memory_total_bytes)),
    Column("TEMP", 6, lambda gpu: number(gpu.temperature_celsius, "°C")),
    Column("MEM", 6, lambda gpu: number(gpu.memory_temperature_celsius, "°C"), least=92),
    Column("POWER", 11, watts),
    Column("SM", 9, lambda gpu: number(gpu.clock_sm_mhz, "MHz"), least=102),
    Column("PCIE", 5, lanes, least=110),
    Column(
        *("THROTTLE", 10, throttle, lambda gpu: "yellow" if gpu.thermal_throttle else ""), align="<"
    ),
)


def action(code: int | None) -> str:
    """The catalogue's word for what is to be done after an Xid, for a document has a sentence;
    nothing for an unknown one."""
    known = XIDS.get(code) if code is not None else None
    return known.action if known else ""


def health(gpu: Gpu, now_ms: int) -> list[tuple[str, str]]:
    """What is wrong with a GPU, the worst first; "ok", or a dash where nothing is known."""
    about = gpu.health
    found = []
    if gpu.stuck:  # which is not up either
        found.append(("STUCK", "red"))
    elif gpu.up is False:
        found.append(("LOST", "red"))
    if about.recovery_action not in (None, "none"):
        found.append((clean(about.recovery_action or "").replace("_", " "), "red"))
    if about.last_xid is not None:
        when = about.last_xid.unix_ms
        ago = "" if when is None else f" {span((now_ms - when) / 1000).split()[0]} ago"
        style = "red" if action(about.last_xid.code) in SERIOUS else "yellow"
        found.append((f"Xid {about.last_xid.code}{ago}", style))
    if about.ecc_uncorrected_aggregate:
        found.append((f"ECC {about.ecc_uncorrected_aggregate}", "yellow"))
    if about.remapped_rows:
        found.append((f"remapped {about.remapped_rows}", ""))
    if about.retired_pages:
        found.append((f"retired {about.retired_pages}", ""))
    if not found:
        known = (gpu.up, gpu.stuck, about.recovery_action, about.ecc_uncorrected_aggregate)
        found.append((DASH, "") if all(each is None for each in known) else ("ok", "green"))
    if gpu.mig_tree.enabled:
        count = len(gpu.mig_tree.devices) if gpu.mig_tree.devices is not None else DASH
        found.append((f"MIG {count}", ""))
    return found


def gpu_table(gpus: Sequence[Gpu], width: int, now_ms: int) -> list[Line]:
    """A line for each GPU, below a line of titles."""
    if not gpus:
        return []
    columns = [column for column in COLUMNS if column.least <= width]
    titles = " ".join(f"{column.title:{column.align}{column.width}}" for column in columns)
    lines: list[Line] = [[(f"{titles} HEALTH", "dim")]]
    for gpu in gpus:
        line: Line = []
        for column in columns:
            shown = short(column.text(gpu), column.width)
            line.append((f"{shown:{column.align}{column.width}}", column.style(gpu)))
            line.append((" ", ""))
        for at, piece in enumerate(health(gpu, now_ms)):
            line += [(", " if at else "", ""), piece]
        lines.append(line)
    return lines


def ranked(gpus: Sequence[Gpu]) -> list[int]:
    """The places of GPUs, those with a trouble first."""
    order = {"red": 0, "yellow": 1}
    worst = [min(order.get(style, 2) for _, style in health(gpu, 0)) for gpu in gpus]
    return sorted(range(len(gpus)), key=lambda at: (worst[at], at))


# ------------------------------------------------------------------------------ writing


def short(text: str, width: int) -> str:
    """A text that is no longer than that; its end is what tells paths apart."""
    return text if len(text) <= width else "…" + text[1 - width :]


def text(line: Line, width: int | None = None, color: bool = False) -> str:
    """A line as it is written; one that is too long is cut."""
    pieces = []
    left = width
    for piece, style in line:
        if left is not None:
            if len(piece) > left:
                piece = piece[: max(left - 1, 0)] + "…"
                left = 0
            left -= len(piece)
        pieces.append(f"\x1b[{STYLES[style]}m{piece}\x1b[m" if color and style and piece else piece)
        if left is not None and left <= 0:
            break
    return "".join(pieces).rstrip()
