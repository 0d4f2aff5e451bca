"""The screens, each a function of the status document and of what the operator has chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..cli import screen as text
from ..cli.screen import DASH, Line, health, number, part, percent, rate, share, size, span
from ..status import Disk, Failure, Gpu, Interface, Link, MigDevice, Port, Process, Status
from .cells import Column, clean, cut, fit, folded, line_width, plain, table, width
from .page import BLANK, Page, Row, Scene, input_line, labelled, section, spark, yes
from .seen import Profile, gpu_watts, ident, package_watts, sum_of
from .view import MENU

Screen = Callable[[Scene], Page]

OPTIONS = {
    "1": ("ESN01", "Node overview"),
    "2": ("ESN02", "GPU & power"),
    "3": ("ESN03", "Network & disk"),
    "4": ("ESN04", "Efficiency"),
    "5": ("ESN05", "Metric profiles"),
    "6": ("ESN06", "Agent status & logs"),
    "7": ("ESN07", "Connect to ESNODE-Pulse"),
    "8": ("ESN08", "Orchestrator"),
    "9": ("ESN09", "GPU detail"),
}
#: What the way out of managed mode is.
WAY_OUT = "`esnode-core server disconnect` makes the node standalone again"


def silent(scene: Scene, name: str) -> Page:
    """A screen as long as no agent has answered."""
    problem = scene.seen.problem
    says = f"No agent has answered so far: {problem}" if problem else "Asking the agent ..."
    rows = [Row([(f" {line}", "")]) for line in folded(says, scene.width - 2)]
    return Page(*OPTIONS[name], [BLANK], rows)


# ------------------------------------------------------------------------------ the menu


def menu(scene: Scene) -> Page:
    status = scene.status
    rows = []
    for name, (_, title) in OPTIONS.items():
        about = "" if status is None else summary(name, status)
        line = [(f"    {name}. ", "bold"), (fit(title, 44), ""), (about, "dim")]
        rows.append(Row(line, f"screen:{name}"))
    rows += [Row(BLANK), Row([("   90. ", "bold"), ("Leave the console", "")])]
    head = [BLANK, [(" Select one of the following:", "")], BLANK]
    return Page("ESN00", "ESNODE-Core Main Menu", head, rows)


def summary(name: str, status: Status) -> str:
    """A few words beside an option of the menu."""
    gpus = status.gpus or []
    lacking = sum(each.enabled and each.up is False for each in status.agent.collectors)
    words = {
        "1": f"CPU {percent(status.cpu_util_percent)}",
        "2": f"{DASH if status.gpus is None else len(gpus)} GPUs, {gpu_power_text(status)}",
        "3": f"rx {rate(status.net_rx_bytes_per_sec)} tx {rate(status.net_tx_bytes_per_sec)}",
        "4": f"{number(status.app_tokens_per_watt, digits=2)} tokens/s per W",
        "6": f"{lacking} collectors not up" if lacking else "all up",
        "7": status.mode,
        "8": "on" if status.orchestrator.enabled else "off",
        "9": "MIG, links, events, processes",
    }
    return words.get(name, "")


# ------------------------------------------------------------------------------ 1 node


def node(scene: Scene) -> Page:
    status = scene.status
    if status is None:
        return silent(scene, "1")
    wide = scene.width >= 110
    cells = 40 if wide else 10
    loads = (status.load_avg_1m, status.load_avg_5m, status.load_avg_15m)
    load = " ".join(number(each, digits=2) for each in loads)
    hottest = max((each.celsius for each in status.cpu_temperatures or ()), default=None)
    memory = part(status.mem_used_bytes, status.mem_total_bytes)
    disk = part(status.disk_root_used_bytes, status.disk_root_total_bytes)
    swap = share(status.swap_used_bytes, status.swap_total_bytes)
    swap = "none" if status.swap_total_bytes == 0 else swap
    packages = number(package_watts(status), "W")
    busy = [gpu.util_percent for gpu in status.gpus or () if gpu.util_percent is not None]
    lines = [
        labelled("Host", clean(status.hostname or DASH), f"   Linux {status.kernel or DASH}"),
        labelled("Up", f"{span(status.uptime_seconds)}   mode {status.mode}"),
        BLANK,
        labelled(
            "CPU",
            f"{percent(status.cpu_util_percent):>6} ",
            spark(scene, "cpu", cells),
            f"  {number(status.cpu_cores)} cores  load {load}  {number(hottest, '°C')}",
        ),
        labelled(
            "Memory",
            f"{percent(memory):>6} ",
            spark(scene, "memory", cells),
            f"  {share(status.mem_used_bytes, status.mem_total_bytes)}"
            f"   available {size(status.mem_available_bytes)}",
        ),
        labelled("Swap", (f"{swap:>6}", "yellow" if status.swap_degraded else "")),
        labelled(
            "Root disk",
            f"{percent(disk):>6}   ",
            share(status.disk_root_used_bytes, status.disk_root_total_bytes),
        ),
        labelled(
            "Network",
            f"{cut(clean(status.primary_nic or DASH), 9)}",
            f"   rx {rate(status.net_rx_bytes_per_sec):>7} ",
            spark(scene, "rx", cells // 2, None),
            f"  tx {rate(status.net_tx_bytes_per_sec):>7} ",
            spark(scene, "tx", cells // 2, None),
            f"  drops {number(status.net_drops_per_sec, digits=1)}/s",
        ),
        labelled(
            "Power",
            f"node {number(status.node_power_watts, 'W')}   CPUs {packages}"
            f"   GPUs {gpu_power_text(status)} ",
            spark(scene, "node power", cells // 2, None),
        ),
        labelled(
            "GPUs",
            f"{DASH if status.gpus is None else len(status.gpus)}   busy"
            f" {percent(sum(busy) / len(busy) if busy else None)}   troubled "
            + (number(troubled(status, scene.now_ms)) if status.gpus is not None else DASH),
        ),
    ]
    if status.app_tokens_per_sec is not None:
        lines.append(labelled("Tokens", number(status.app_tokens_per_sec, "tokens/s", 1)))
    rows = [Row(line, fixed=True) for line in lines]
    rows += [Row(BLANK, fixed=True), *degradation(scene, status)]
    if scene.view.detail:
        rows += [Row(BLANK, fixed=True), section("Sensors")]
        rows += [
            Row([(f"   package {clean(each.package or DASH)}: {number(each.watts, 'W', 1)}", "")])
            for each in status.cpu_package_power_watts or ()
        ]
        for sensor in status.cpu_temperatures or ():
            where = f"   package {clean(sensor.package or DASH)} {clean(sensor.sensor or DASH)}: "
            rows.append(Row([(where, ""), (number(sensor.celsius, "°C", 1), "")]))
        if not status.cpu_package_power_watts and not status.cpu_temperatures:
            rows.append(Row([(f"   {DASH}", "dim")]))
    return Page(*OPTIONS["1"], [BLANK], rows, details=True)


def gpu_power_text(status: Status) -> str:
    """What the GPUs draw, and of how many of them that is known."""
    gpus = status.gpus or []
    known = [gpu.power_watts for gpu in gpus if gpu.power_watts is not None]
    if not known:
        return DASH
    of = "" if len(known) == len(gpus) else f" ({len(known)} of {len(gpus)})"
    return number(sum(known), "W") + of


def troubled(status: Status, now_ms: int) -> int:
    """How many GPUs have something wrong with them."""
    found = [health(gpu, now_ms) for gpu in status.gpus or ()]
    return sum(any(style in ("red", "yellow") for _, style in each) for each in found)


def degradation(scene: Scene, status: Status) -> list[Row]:
    flags = (
        ("disk", status.disk_degraded),
        ("network", status.network_degraded),
        ("swap", status.swap_degraded),
        ("GPU", status.gpu_degraded),
    )
    pieces: list[tuple[str, str]] = []
    for name, flag in flags:
        word = DASH if flag is None else "DEGRADED" if flag else "well"
        pieces += [(f"{name} ", ""), (f"{word}   ", "red" if flag else "")]
    score = number(status.degradation_score, digits=1).removesuffix(".0")
    rows = [Row(labelled("Degradation", *pieces, f"score {score}"), fixed=True)]
    for reason in status.degradation_reasons:
        rows += [Row([(f"   {line}", "yellow")]) for line in folded(reason, scene.width - 4)]
    return rows


# ------------------------------------------------------------------------------ 2 GPU & power


#: Cells of a terminal from which throttling has a column of its own.
THROTTLE = 90


def gpu_columns(scene: Scene) -> list[Column]:
    """The columns of the table of GPUs."""
    wide = scene.width >= 130

    def trend(gpu: Gpu) -> str:
        return spark(scene, f"util {ident(gpu)}", 24 if wide else 8)[0]

    def well(gpu: Gpu) -> str:
        words = [word for word, _ in health(gpu, scene.now_ms)]
        slow = text.throttle(gpu)
        if scene.width < THROTTLE and slow not in ("no", DASH):  # which has no column then
            words.append(f"throttle {slow}")
        return ", ".join(words)

    return [
        Column("GPU", 4, lambda gpu: gpu.gpu, lambda gpu: "bold"),
        Column("NAME", 16, model, least=150, align="<"),
        Column("UTIL", 5, lambda gpu: percent(gpu.util_percent)),
        Column("TREND", 24 if wide else 8, trend, lambda gpu: "trend"),
        Column("MEMORY", 15, lambda gpu: share(gpu.memory_used_bytes, gpu.memory_total_bytes)),
        Column("TEMP", 6, lambda gpu: number(gpu.temperature_celsius, "°C")),
        Column("MEM", 6, lambda gpu: number(gpu.memory_temperature_celsius, "°C"), least=100),
        Column("POWER", 11, text.watts),
        Column("SM", 9, lambda gpu: number(gpu.clock_sm_mhz, "MHz"), least=110),
        Column("PCIE", 5, text.lanes, least=120),
        Column("FAN", 5, lambda gpu: percent(gpu.fan_percent), least=150),
        Column("THROTTLE", 10, text.throttle, warm, least=THROTTLE, align="<"),
        Column("HEALTH", 0, well, lambda gpu: health(gpu, scene.now_ms)[0][1], align="<"),
    ]  # fmt: skip


def model(gpu: Gpu) -> str:
    return (gpu.name or DASH).removeprefix("NVIDIA ")


def warm(gpu: Gpu) -> str:
    return "yellow" if gpu.thermal_throttle else ""


def gpu_power(scene: Scene) -> Page:
    status = scene.status
    if status is None:
        return silent(scene, "2")
    gpus = ordered(scene, status)
    head, lines = table(gpu_columns(scene), gpus, scene.width)
    packages = number(package_watts(status), "W")
    rows = [Row(line, f"gpu:{ident(gpu)}") for line, gpu in zip(lines, gpus, strict=True)]
    rows = rows or no_gpus(scene, status)
    above = [
        labelled(
            "Power",
            f"node {number(status.node_power_watts, 'W')}   CPUs {packages}"
            f"   GPUs {gpu_power_text(status)} ",
            spark(scene, "gpu power", min(scene.width - 67, 60), None),
        ),
        BLANK,
        head,
    ]
    keys = ("F6=Sort", "F7=Order")
    return Page(*OPTIONS["2"], above, rows, keys, details=bool(gpus))


def no_gpus(scene: Scene, status: Status) -> list[Row]:
    """Why there are none."""
    lines = folded(why_no_gpus(status), scene.width - 2)
    return [Row([(f" {line}", "yellow")], fixed=True) for line in lines]


def why_no_gpus(status: Status) -> str:
    found = next((each for each in status.agent.collectors if each.name == "gpu"), None)
    if found is not None and not found.enabled:
        return "No GPU is collected: enable_gpu is false."
    if found is not None and found.up is False:
        return f"No GPU: {clean(found.reason or 'the driver is not up')}"
    return "No GPU." if status.gpus == [] else f"GPUs: {DASH}"


def ordered(scene: Scene, status: Status) -> list[Gpu]:
    """The GPUs as they are sorted; those of which a value is unknown are last."""
    gpus = list(status.gpus or ())
    view = scene.view
    if view.sort == "gpu":
        return gpus[::-1] if view.descending else gpus
    if view.sort == "health":
        rank = {gpus[at].gpu: -place for place, at in enumerate(text.ranked(gpus))}
        return sorted(gpus, key=lambda gpu: rank[gpu.gpu], reverse=view.descending)
    value = SORTED[view.sort]
    known = [gpu for gpu in gpus if value(gpu) is not None]
    unknown = [gpu for gpu in gpus if value(gpu) is None]
    known.sort(key=lambda gpu: value(gpu) or 0.0, reverse=view.descending)
    return known + unknown


SORTED: dict[str, Callable[[Gpu], float | None]] = {
    "util": lambda gpu: gpu.util_percent,
    "memory": lambda gpu: gpu.memory_used_bytes,
    "temperature": lambda gpu: gpu.temperature_celsius,
    "power": lambda gpu: gpu.power_watts,
}


# ------------------------------------------------------------------------------ 3 network & disk


def network_disk(scene: Scene) -> Page:
    status = scene.status
    if status is None:
        return silent(scene, "3")
    cells = 24 if scene.width >= 130 else 8
    detail = scene.view.detail

    def busy_net(each: Interface) -> str:
        return spark(scene, f"net {each.iface}", cells, None)[0]

    def busy_disk(disk: Disk) -> str:
        return spark(scene, f"disk {disk.device} {disk.mount}", cells)[0]

    nets = sorted(status.interfaces or [], key=lambda each: text.traffic(each, status.primary_nic))
    head, lines = table(
        [
            Column("INTERFACE", 16, lambda each: each.iface, lambda each: "bold", align="<"),
            Column("UP", 4, lambda each: yes(each.up), down),
            Column("SPEED", 9, lambda each: speed(each.speed_bytes)),
            Column("RX", 8, lambda each: rate(each.rx_bytes_per_sec)),
            Column("TX", 8, lambda each: rate(each.tx_bytes_per_sec)),
            Column("DROPS", 7, lambda each: per_second(each.drops_per_sec), dropping),
            Column("TREND", cells, busy_net, lambda each: "trend"),
        ],
        nets,
        scene.width,
    )  # fmt: skip
    rows = [section("Interfaces"), Row(head, fixed=True), *map(Row, lines)]
    rows += [] if nets else [Row([(f" {DASH}", "dim")])]
    if status.infiniband:
        head, lines = table(ports(scene, cells), status.infiniband, scene.width)
        rows += [Row(BLANK, fixed=True), section("InfiniBand"), Row(head, fixed=True)]
        rows += map(Row, lines)
    disks = sorted(status.disks or [], key=text.weight)
    columns = [
        Column("MOUNT, DISK", 16, place, lambda disk: "bold", align="<"),
        Column("DEVICE", 10, lambda disk: disk.device or DASH, least=100, align="<"),
        Column("FULL", 5, lambda disk: percent(used(disk)), full),
        Column("USED/TOTAL", 15, lambda disk: share(disk.used_bytes, disk.total_bytes)),
        Column("READ", 8, lambda disk: rate(disk.read_bytes_per_sec)),
        Column("WRITTEN", 8, lambda disk: rate(disk.written_bytes_per_sec)),
        Column("BUSY", 5, lambda disk: percent(disk.busy_percent)),
        Column("TREND", cells, busy_disk, lambda disk: "trend"),
    ]
    if detail or scene.width >= 130:
        latency = [
            Column("READ IN", 9, lambda disk: delay(disk.read_latency_seconds)),
            Column("WRITTEN IN", 10, lambda disk: delay(disk.write_latency_seconds)),
        ]
        columns = [*columns[:2], *latency, *columns[2 if scene.width >= 130 else 4 :]]
    head, lines = table(columns, disks, scene.width)
    rows += [Row(BLANK, fixed=True), section("Disks"), Row(head, fixed=True), *map(Row, lines)]
    rows += [] if disks else [Row([(f" {DASH}", "dim")])]
    return Page(*OPTIONS["3"], [BLANK], rows, details=True)


def ports(scene: Scene, cells: int) -> list[Column]:
    """The columns of InfiniBand's ports."""

    def busy(each: Port) -> str:
        return spark(scene, f"port {each.device} {each.port}", cells, None)[0]

    return [
        Column("PORT", 16, lambda each: f"{each.device} {each.port}", strong, align="<"),
        Column("UP", 4, lambda each: yes(each.up), down),
        Column("RATE", 9, lambda each: speed(each.rate_bytes)),
        Column("RX", 8, lambda each: rate(each.rx_bytes_per_sec)),
        Column("TX", 8, lambda each: rate(each.tx_bytes_per_sec)),
        Column("ERRORS", 7, lambda each: per_second(each.errors_per_sec), failing),
        Column("TREND", cells, busy, lambda each: "trend"),
        Column("STATE", 0, lambda each: each.state or DASH, least=90, align="<"),
    ]  # fmt: skip


def strong(each: Any) -> str:
    return "bold"


def failing(port: Port) -> str:
    return "yellow" if port.errors_per_sec else ""


def down(each: Interface | Port) -> str:
    return "yellow" if each.up is False else ""


def dropping(each: Interface) -> str:
    return "yellow" if each.drops_per_sec else ""


def place(disk: Disk) -> str:
    """Where it is mounted; of one that is not, which it is."""
    return disk.mount or disk.device or DASH


def used(disk: Disk) -> float | None:
    return part(disk.used_bytes, disk.total_bytes)


def full(disk: Disk) -> str:
    return "red" if (used(disk) or 0) >= text.FULL else ""


def speed(value: float | None) -> str:
    """Bytes per second as the bits that interfaces are sold by."""
    if value is None:
        return DASH
    bits = value * 8
    for unit, scale in (("Tb/s", 1e12), ("Gb/s", 1e9), ("Mb/s", 1e6)):
        if bits >= scale:
            return f"{bits / scale:g} {unit}"
    return f"{bits:g} b/s"


def per_second(value: float | None) -> str:
    return DASH if value is None else f"{number(value, digits=1)}/s"


def delay(value: float | None) -> str:
    """A latency."""
    if value is None:
        return DASH
    return f"{value * 1e3:.2f} ms" if value < 1 else f"{value:.1f} s"


# ------------------------------------------------------------------------------ 4 efficiency


def efficiency(scene: Scene) -> Page:
    status = scene.status
    if status is None:
        return silent(scene, "4")
    watts = gpu_watts(status)
    gpus = ordered(scene, status)
    idle = [gpu.power_watts for gpu in gpus if gpu.util_percent == 0]
    idle_watts = text.total(idle) if idle else (0.0 if gpus and all_known(gpus) else None)
    cells = min(max(scene.width - 76, 8), 40)

    def power_trend(gpu: Gpu) -> str:
        return spark(scene, f"power {ident(gpu)}", cells, gpu.power_limit_watts)[0]

    above = [
        labelled(
            "Tokens",
            f"{number(status.app_tokens_per_sec, 'tokens/s', 1)}"
            f"   {number(status.app_tokens_per_watt, digits=2)} tokens/s per W ",
            spark(scene, "tokens", 16, None),
        ),
        labelled(
            "Power",
            f"node {number(status.node_power_watts, 'W')}   GPUs {gpu_power_text(status)}"
            f"   GPUs' part {percent(part(watts, status.node_power_watts))}",
        ),
        labelled("Idle GPUs", f"{number(idle_watts, 'W')} drawn by GPUs that do nothing"),
        BLANK,
    ]
    columns = [
        Column("GPU", 4, lambda gpu: gpu.gpu, lambda gpu: "bold"),
        Column("UTIL", 6, lambda gpu: percent(gpu.util_percent)),
        Column("MEM BW", 6, lambda gpu: percent(gpu.memory_util_percent)),
        Column("POWER", 8, lambda gpu: number(gpu.power_watts, "W")),
        Column("OF LIMIT", 8, lambda gpu: percent(part(gpu.power_watts, gpu.power_limit_watts))),
        Column("W PER %", 8, lambda gpu: number(per_busy(gpu), digits=1)),
        Column("ENERGY", 10, lambda gpu: number(kilowatt_hours(gpu), "kWh", 1)),
        Column("SM", 9, lambda gpu: number(gpu.clock_sm_mhz, "MHz"), least=96),
        Column("POWER TREND", cells, power_trend, lambda gpu: "trend", least=96),
        Column("THROTTLE", 0, text.throttle, warm, align="<"),
    ]  # fmt: skip
    head, lines = table(columns, gpus, scene.width)
    rows = [Row(line, f"gpu:{ident(gpu)}") for line, gpu in zip(lines, gpus, strict=True)]
    rows = rows or no_gpus(scene, status)
    return Page(*OPTIONS["4"], [*above, head], rows, ("F6=Sort", "F7=Order"), bool(gpus))


def all_known(gpus: list[Gpu]) -> bool:
    return all(gpu.util_percent is not None for gpu in gpus)


def per_busy(gpu: Gpu) -> float | None:
    """Watts for each per cent that it is busy; None where it is idle."""
    if gpu.power_watts is None or not gpu.util_percent:
        return None
    return gpu.power_watts / gpu.util_percent


def kilowatt_hours(gpu: Gpu) -> float | None:
    return None if gpu.energy_joules is None else gpu.energy_joules / 3.6e6


# ------------------------------------------------------------------------------ 5 profiles


def refusal(scene: Scene) -> str:
    """Why nothing can be changed here, and the way out; empty where it can."""
    status = scene.status
    if status is not None and status.mode == "managed":
        server = clean(status.managed.server or DASH)
        return f"Managed by ESNODE-Pulse ({server}), which decides on profiles: {WAY_OUT}."
    return scene.seen.profiles_problem or ""


def profiles(scene: Scene) -> Page:
    known = scene.seen.profiles
    rows: list[Row] = []
    for name in dict.fromkeys(each.set for each in known):
        keys = [each for each in known if each.set == name]
        all_on = all(each.on for each in keys if each.turned_on)
        word = "on" if all_on else "part" if any(each.on for each in keys) else "off"
        rows.append(
            Row([(f" {name:<10}", "bold"), (f"{word:<6}", state_style(word))], f"set:{name}")
        )
        rows += [Row(profile_line(each), f"key:{each.key}") for each in keys]
    problem = refusal(scene)
    above = [BLANK]
    if problem:
        above = [[(f" {line}", "yellow")] for line in folded(problem, scene.width - 2)]
    head: Line = [(" SET / KEY                      VALUE  FROM", "dim")]
    about = " Enter turns a set or a key on or off, in the configuration's file."
    below = [[(about, "")], BLANK] if not problem else [BLANK]
    if not rows and not problem:
        rows = [Row([(" Reading the configuration ...", "dim")])]
    return Page(*OPTIONS["5"], [*above, *below, head], rows, ("Enter=Turn",), locked=problem)


def state_style(word: str) -> str:
    return {"on": "bold", "off": "dim"}.get(word, "yellow")


def profile_line(profile: Profile) -> Line:
    word = "true" if profile.on else "false"
    return [
        (f"   {fit(clean(profile.key), 28)} ", ""),
        (f"{word:<6} ", "" if profile.on else "dim"),
        (clean(profile.origin), "dim"),
    ]


# ------------------------------------------------------------------------------ 6 agent


UP = {None: DASH, True: "up", False: "NOT UP"}


def agent(scene: Scene) -> Page:
    status = scene.status
    if status is None:
        return silent(scene, "6")
    about = status.agent
    enabled = [each for each in about.collectors if each.enabled]
    up = sum(each.up is True for each in enabled)
    tsdb = status.tsdb
    oldest = DASH
    if tsdb.oldest_unix_ms is not None:
        oldest = f"{text.moment(tsdb.oldest_unix_ms):%Y-%m-%d %H:%M:%SZ}"
    history = "off"
    if tsdb.enabled:
        history = (
            f"{number(tsdb.blocks)} blocks   {size(tsdb.bytes)}   since {oldest}"
            f"   errors {number(tsdb.errors)}"
        )
    heads = [
        labelled("Agent", f"{about.version}   commit {about.commit or DASH}   {scene.seen.agent}"),
        labelled(
            "Process",
            f"Python {about.python}   up {span(about.uptime_seconds)}"
            f"   CPU {number(about.cpu_percent, '%', 2)}   memory {size(about.resident_bytes)}",
        ),
        labelled("History", history),
        labelled("Collectors", f"{up} of {len(enabled)} up"),
    ]  # fmt: skip
    rows = [Row(line, fixed=True) for line in heads]
    for each in about.collectors:
        if (each.enabled and each.up is not True) or scene.view.detail:
            word = "off" if not each.enabled else UP[each.up]
            style = "yellow" if word == "NOT UP" else "dim" if word == "off" else ""
            line = [(f"   {fit(clean(each.name), 14)} ", ""), (f"{word:<7}", style)]
            reason = clean(each.reason or "")
            lines = folded(reason, scene.width - 27) if scene.view.detail else [reason]
            rows += [Row([*([(" " * 25, "")] if at else line), (f" {said}", "")])
                     for at, said in enumerate(lines)]  # fmt: skip
    rows += [Row(BLANK, fixed=True), section("Newest errors of collectors")]
    rows += errors(scene, status.last_errors) or [Row([("   none", "dim")])]
    rows += [Row(BLANK, fixed=True), section("Events"), *happened(scene)]
    hint = "   The whole log: journalctl -u esnode-core, or the agent's standard error."
    rows += [Row(BLANK, fixed=True), Row([(hint, "dim")], fixed=True)]
    return Page(*OPTIONS["6"], [BLANK], rows, details=True)


def errors(scene: Scene, failures: list[Failure]) -> list[Row]:
    rows = []
    for each in failures:
        said = f"{text.clock(each.unix_ms)} {each.collector}: {each.message}"
        lines = folded(said, scene.width - 6) if scene.view.detail else [clean(said)]
        rows += [Row([(f"   {'  ' if at else ''}{line}", "")]) for at, line in enumerate(lines)]
    return rows


def happened(scene: Scene, gpu: str | None = None) -> list[Row]:
    """The newest first: all of it, or what has happened to a GPU."""
    found = [each for each in reversed(scene.seen.log) if gpu in (None, each.gpu)]
    rows = []
    for each in found:
        when = f"   {text.moment(each.unix_ms):%m-%d %H:%M:%SZ}  "
        line = [(when, "dim"), *each.line]
        if scene.view.detail and line_width(line) > scene.width:
            lines = folded(plain(each.line), scene.width - len(when) - 1)
            rows += [Row([(" " * len(when) if at else when, "dim"), (line, "")])
                     for at, line in enumerate(lines)]  # fmt: skip
        else:
            rows.append(Row(line))
    return rows or [Row([("   none that the agent remembers", "dim")])]


# ------------------------------------------------------------------------------ 7 Pulse


def pulse(scene: Scene) -> Page:
    status, view = scene.status, scene.view
    if status is not None and status.mode == "managed":
        return managed(scene, status)
    if locked := scene.seen.elsewhere:
        lines = folded(locked, scene.width - 2)
        rows = [Row([(f" {line}", "yellow")], fixed=True) for line in lines]
        return Page(*OPTIONS["7"], [BLANK], rows, locked=locked)
    cells = max(min(scene.width - 22, 60), 10)
    typed = {"address": view.address, "token": "*" * len(view.token), "ca_file": view.ca_file}
    address, token, ca_file = (
        input_line(text, cells, view.focus == name) for name, text in typed.items()
    )
    head: list[Line] = [
        BLANK,
        [(" This node is standalone: nobody else decides on it.", "")]
        if status is not None
        else [(" The agent does not answer; a connection is kept for when it does.", "yellow")],
        BLANK,
        labelled("Server", address),
        [(" " * (LABEL_END), ""), ("HOST:PORT, such as esnode-master-01:7443", "dim")],
        labelled("Token", token),
        [(" " * (LABEL_END), ""), ("that admits the node; nothing where none is asked for", "dim")],
        labelled("CA file", ca_file),
        [(" " * (LABEL_END), ""), ("of its certificate's authority; else the system's", "dim")],
        BLANK,
        [(" Tab moves between the fields and the selection; Enter after the token connects.", "")],
    ]
    at = None
    if view.focus:
        at = (3 + 2 * view.field, LABEL_END + min(text_cells(typed[view.focus]), cells - 1))
    return Page(*OPTIONS["7"], head, [], ("Tab=Field",), cursor=at)


#: The cell that a labelled value begins in.
LABEL_END = 17


def text_cells(typed: str) -> int:
    return width(clean(typed))


def managed(scene: Scene, status: Status) -> Page:
    """What a node that is managed shows: nothing here can be changed."""
    about = status.managed
    contact = about.last_contact_unix_ms
    last = DASH
    if contact is not None:
        ago = span((scene.now_ms - contact) / 1000)
        last = f"{text.moment(contact):%Y-%m-%d %H:%M:%SZ}, {ago} ago"
    lines = [
        [(" Managed by ESNODE-Pulse", "title")],
        BLANK,
        labelled("Server", about.server or DASH),
        labelled("Cluster ID", about.cluster_id or DASH),
        labelled("Node ID", about.node_id or DASH),
        labelled("Last contact", last),
        labelled("State", about.state or DASH),
        BLANK,
        *([(f" {line}", "")] for line in folded(
            "The controller decides on this node: local tuning and the toggles of screen 5 refuse."
            f" /metrics, /status, /events and the export stay. {WAY_OUT[0].upper()}{WAY_OUT[1:]}.",
            scene.width - 2,
        )),
    ]  # fmt: skip
    locked = f"Managed by ESNODE-Pulse already: {WAY_OUT}."
    return Page(*OPTIONS["7"], [BLANK], [Row(line, fixed=True) for line in lines], locked=locked)


# ------------------------------------------------------------------------------ 8 orchestrator


def orchestrator(scene: Scene) -> Page:
    status = scene.status
    if status is None:
        return silent(scene, "8")
    about = status.orchestrator
    safe = about.loopback_only or about.token_required
    lines = [
        labelled("Orchestrator", "on" if about.enabled else "off"),
        labelled(
            "Loopback only",
            ("enforced", "") if about.loopback_only else ("NOT enforced", "" if safe else "red"),
            ": its API answers "
            + ("on this node alone" if about.loopback_only else "on other addresses, too"),
        ),
        labelled(
            "Bearer token",
            ("required", "") if about.token_required else ("NOT required", "" if safe else "red"),
        ),
        BLANK,
    ]
    if not safe:
        warning = "Whoever reaches its API may use it: set orchestrator.token."
        lines += [[(f" {warning}", "red")], BLANK]
    about_keys = (
        "Its keys are those of the table [orchestrator]: enabled, allow_public, token. They count"
        " from the start of the agent on."
    )
    lines += [[(f" {line}", "dim")] for line in folded(about_keys, scene.width - 2)]
    return Page(*OPTIONS["8"], [BLANK], [Row(line, fixed=True) for line in lines])


# ------------------------------------------------------------------------------ 9 GPU detail


def gpu_detail(scene: Scene) -> Page:
    status = scene.status
    if status is None:
        return silent(scene, "9")
    gpus = status.gpus or []
    if not gpus:
        return Page(*OPTIONS["9"], [BLANK], no_gpus(scene, status))
    at = next((i for i, gpu in enumerate(gpus) if ident(gpu) == scene.view.gpu), None)
    if at is None and scene.view.gpu is not None:
        gone = f" GPU {clean(scene.view.gpu)} is not there any more; Left and Right show others."
        return Page(*OPTIONS["9"], [BLANK], [Row([(gone, "yellow")], fixed=True)])
    gpu = gpus[at or 0]
    name = f" GPU {clean(gpu.gpu)} of {len(gpus)}   {clean(gpu.name or DASH)}   "
    head: Line = [(name, "bold")]
    for i, piece in enumerate(health(gpu, scene.now_ms)):
        head += [(", " if i else "", ""), piece]
    rows = [
        *(Row(line, fixed=True) for line in readings(scene, gpu)),
        Row(BLANK, fixed=True),
        *faults(scene, gpu),
        *instances(scene, gpu),
        *links(scene, gpu),
        Row(BLANK, fixed=True),
        section("Events"),
        *happened(scene, ident(gpu)),
        *processes(scene, gpu),
    ]
    return Page(*OPTIONS["9"], [head, BLANK], rows, ("Left/Right=GPU",), details=True)


def readings(scene: Scene, gpu: Gpu) -> list[Line]:
    about, topo, health = gpu.identity, gpu.topo, gpu.health
    cells = 40 if scene.width >= 110 else 16
    memory = part(gpu.memory_used_bytes, gpu.memory_total_bytes)
    name = ident(gpu)
    lines = [
        labelled(
            "Busy",
            f"{percent(gpu.util_percent):>6} ",
            spark(scene, f"util {name}", cells),
            f"  memory bus {percent(gpu.memory_util_percent)}"
            f"   enc {percent(health.encoder_util_percent)}"
            f"   dec {percent(health.decoder_util_percent)}",
        ),
        labelled(
            "Memory",
            f"{percent(memory):>6} ",
            spark(scene, f"memory {name}", cells),
            f"  {share(gpu.memory_used_bytes, gpu.memory_total_bytes)}"
            f"   BAR1 {share(health.bar1_used_bytes, health.bar1_total_bytes)}",
        ),
        labelled(
            "Temperature",
            f"{number(gpu.temperature_celsius, '°C'):>6} ",
            spark(scene, f"celsius {name}", cells),
            f"  memory {number(gpu.memory_temperature_celsius, '°C')}"
            f"   fan {percent(gpu.fan_percent)}",
        ),
        labelled(
            "Power",
            f"{number(gpu.power_watts, 'W'):>6} ",
            spark(scene, f"power {name}", cells, gpu.power_limit_watts),
            f"  limit {number(gpu.power_limit_watts, 'W')}"
            f"   {number(kilowatt_hours(gpu), 'kWh', 1)}",
        ),
        labelled(
            "Clocks",
            f"SM {number(gpu.clock_sm_mhz, 'MHz')}   memory {number(gpu.clock_mem_mhz, 'MHz')}"
            f"   P{number(health.pstate)}   throttle {text.throttle(gpu)}",
        ),
        labelled(
            "PCIe",
            f"{about.pci_bus_id or DASH}   gen {number(topo.pci_link_gen)}"
            f" of {number(topo.pci_link_gen_max)}   width {number(topo.pci_link_width)}"
            f" of {number(topo.pci_link_width_max)}   NUMA {number(about.numa_node)}",
        ),
        labelled("UUID", gpu.uuid or DASH),
    ]
    if scene.view.detail or scene.view.height >= 40:
        able = gpu.capabilities
        lines += [
            labelled("Serial", f"{about.serial or DASH}   VBIOS {about.vbios or DASH}"),
            labelled(
                "Driver",
                f"{about.driver_version or DASH}   NVML {about.nvml_version or DASH}"
                f"   CUDA {about.cuda_driver_version or DASH}"
                f"   compute {about.compute_capability or DASH}",
            ),
            labelled(
                "Capable of",
                f"MIG {yes(able.mig)}   NVLink {yes(able.nvlink)}   GPM {yes(able.gpm)}",
            ),
            labelled("Last read", text.clock(gpu.last_success_unix_ms)),
        ]
    return lines


def faults(scene: Scene, gpu: Gpu) -> list[Row]:
    about = gpu.health
    lines = [
        labelled(
            "ECC",
            f"{ {None: DASH, True: 'on', False: 'off'}[about.ecc_mode] }"
            f"   corrected {number(about.ecc_corrected_aggregate)}"
            f"   uncorrected {number(about.ecc_uncorrected_aggregate)}"
            f"   retired {number(about.retired_pages)}   remapped {number(about.remapped_rows)}",
        ),
        labelled(
            "Recovery",
            f"{about.recovery_action or DASH}   up {yes(gpu.up)}   stuck {yes(gpu.stuck)}",
        ),
    ]
    rows = [Row(line, fixed=True) for line in lines]
    xid = about.last_xid
    if xid is None:
        return [*rows, Row(labelled("Last Xid", DASH), fixed=True)]
    when = text.clock(xid.unix_ms)
    said = f"{xid.code} at {when}: {xid.meaning or 'no known code'}; to do: {xid.action or DASH}"
    style = "red" if xid.action in text.SERIOUS else "yellow"
    for at, line in enumerate(folded(said, scene.width - LABEL_END - 1)):
        label = "" if at else "Last Xid"
        shown = labelled(label, (line, style)) if not at else [(" " * LABEL_END, ""), (line, style)]
        rows.append(Row(shown, fixed=True))
    return rows


def instances(scene: Scene, gpu: Gpu) -> list[Row]:
    tree = gpu.mig_tree
    if tree.supported is False:
        return []
    word = {None: DASH, True: "on", False: "off"}[tree.enabled]
    rows = [Row(BLANK, fixed=True), section(f"MIG: {word}")]
    if tree.devices is None:
        if tree.enabled:
            rows.append(Row([("   instances are collected with enable_gpu_mig = true", "dim")]))
        return rows
    columns: list[Column] = [
        Column("GI", 4, lambda each: each.gi, lambda each: "bold"),
        Column("CI", 4, lambda each: each.ci),
        Column("PROFILE", 12, lambda each: each.profile or DASH, align="<"),
        Column("PLACE", 7, lambda each: each.placement or DASH),
        Column("SM", 4, lambda each: number(each.sm_count)),
        Column("UTIL", 5, lambda each: percent(each.util_percent)),
        Column("MEMORY", 15, memory_of),
        Column("UUID", 0, lambda each: each.uuid or DASH, align="<"),
    ]
    if not tree.devices:
        return [*rows, Row([("   no instances", "dim")])] if tree.enabled else rows
    head, lines = table(columns, tree.devices, scene.width)
    return [*rows, Row(head, fixed=True), *map(Row, lines)]


def memory_of(device: MigDevice) -> str:
    return share(device.memory_used_bytes, device.memory_total_bytes)


def links(scene: Scene, gpu: Gpu) -> list[Row]:
    found = gpu.nvlink.links
    if not found:
        return []
    up = sum(link.up is True for link in found)
    known = all(link.up is not None for link in found)
    rows = [Row(BLANK, fixed=True)]
    rows.append(section(f"NVLink: {up if known else DASH} of {len(found)} up"))
    columns: list[Column] = [
        Column("LINK", 5, lambda link: str(link.link), lambda link: "bold"),
        Column("UP", 4, lambda link: yes(link.up), dead),
        Column("RECEIVED", 12, lambda link: size(link.rx_bytes)),
        Column("SENT", 12, lambda link: size(link.tx_bytes)),
        Column("BOTH", 12, lambda link: size(sum_of(link.rx_bytes, link.tx_bytes))),
        Column("ERRORS", 8, lambda link: number(link.errors), faulty),
    ]
    head, lines = table(columns, found, scene.width)
    return [*rows, Row(head, fixed=True), *map(Row, lines)]


def dead(link: Link) -> str:
    return "red" if link.up is False else ""


def faulty(link: Link) -> str:
    return "yellow" if link.errors else ""


def processes(scene: Scene, gpu: Gpu) -> list[Row]:
    rows = [Row(BLANK, fixed=True), section("Processes")]
    found = gpu.processes
    if found is None:
        return [*rows, Row([("   not listed: gpu_process_metrics = true lists them", "dim")])]
    if not found:
        return [*rows, Row([("   none", "dim")])]
    columns: list[Column] = [
        Column("PID", 9, lambda each: str(each.pid), lambda each: "bold"),
        Column("MEMORY", 10, lambda each: size(each.memory_bytes)),
        Column("NAME", 0, lambda each: each.name or DASH, align="<"),
    ]
    head, lines = table(columns, sorted(found, key=greed), scene.width)
    return [*rows, Row(head, fixed=True), *map(Row, lines)]


def greed(process: Process) -> int:
    return -(process.memory_bytes or 0)


SCREENS: dict[str, Screen] = {
    MENU: menu,
    "1": node,
    "2": gpu_power,
    "3": network_disk,
    "4": efficiency,
    "5": profiles,
    "6": agent,
    "7": pulse,
    "8": orchestrator,
    "9": gpu_detail,
}
