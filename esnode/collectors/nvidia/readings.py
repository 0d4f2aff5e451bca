"""What is read of an NVIDIA GPU and of a MIG instance: the families, and the table of queries.

A query is one line: how often it is made, and the row that each of its values is. The numbers of
fields and metrics are those of NVML, see its nvmlFieldValueEnums and nvmlGpmMetricId_t. Where a
second query gives a row, too, it is for the devices and drivers that do not have the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from ...metrics import Metric, counter, gauge

#: How often a query is made: with every reading, at every tick, once, or every so many seconds.
EACH, TICK, ONCE = 0.0, -1.0, -2.0
SOON, LATER = 15.0, 60.0

GPU = ("gpu", "uuid")
#: In a batch of fields: over all links, or each of them.
TOTAL = 0xFFFF_FFFF
#: NVLinks that a GPU can have.
LINKS = 36
FANS = 8


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return gauge(f"esnode_gpu_{name}", help, (*GPU, *labels))


def _counter(name: str, help: str, *labels: str) -> Metric:
    return counter(f"esnode_gpu_{name}_total", help, (*GPU, *labels))


UTILIZATION = _gauge("utilization_percent", "Time in which a kernel was running.")
MEMORY_UTILIZATION = _gauge("memory_utilization_percent", "Time in which memory was accessed.")
ENGINES = {
    name: _gauge(f"{name}_utilization_percent", f"Utilization of the {text}.")
    for name, text in (
        ("encoder", "video encoder"),
        ("decoder", "video decoder"),
        ("jpeg", "JPEG engine"),
        ("ofa", "optical flow accelerator"),
    )
}
MEMORY = {
    name: _gauge(f"memory_{name}_bytes", text)
    for name, text in (
        ("total", "Size of the GPU's memory."),
        ("used", "Memory in use; with drivers before R510, what is reserved is counted as used."),
        ("free", "Memory that is free."),
        ("reserved", "Memory that the driver and the firmware keep."),
    )
}
BAR1_TOTAL = _gauge("bar1_total_bytes", "Size of the window through which the bus sees memory.")
BAR1_USED = _gauge("bar1_used_bytes", "Part of that window in use.")
TEMPERATURE = _gauge("temperature_celsius", "Temperature of the GPU.")
MEMORY_TEMPERATURE = _gauge("memory_temperature_celsius", "Temperature of the memory.")
MARGIN = _gauge("temperature_margin_celsius", "Degrees left before the GPU slows down.")
THRESHOLD = _gauge(
    "temperature_threshold_celsius",
    "Where the GPU reacts: a temperature, or for a name that ends in margin, a margin.",
    "threshold",
)
POWER = _gauge("power_watts", "Power at this moment.")
POWER_AVERAGE = _gauge("power_average_watts", "Mean power of the last second.")
POWER_LIMIT = _gauge("power_limit_watts", "Limits of the power.", "limit")
ENERGY = _counter("energy_joules", "Energy since the driver was loaded.")
POWER_PEAKS = tuple(
    _gauge(f"power_{name}_watts", f"{text} power in the window.")
    for name, text in (("min", "Lowest"), ("mean", "Mean"), ("max", "Highest"))
)
UTILIZATION_PEAKS = tuple(
    _gauge(f"utilization_{name}_percent", f"{text} utilization in the window.")
    for name, text in (("min", "Lowest"), ("mean", "Mean"), ("max", "Highest"))
)
CLOCK = _gauge("clock_hertz", "Frequency of a clock.", "clock")
CLOCK_MAX = _gauge("clock_max_hertz", "Highest frequency of a clock.", "clock")
PSTATE = _gauge("pstate", "Performance state: 0 is the fastest.")
FAN = _gauge("fan_speed_percent", "Speed that a fan is meant to have.", "fan")
REASON = _gauge("throttle_reason", "Whether a reason holds the clocks down.", "reason")
THROTTLED = _counter("throttle_seconds", "Time that a reason has held the clocks down.", "reason")
ECC_MODE = _gauge("ecc_mode", "Whether error correction is on.")
ECC_ERRORS = _counter(
    "ecc_errors", "Memory errors since the driver was loaded, or ever.", "type", "scope", "location"
)
SRAM_EXCEEDED = _gauge(
    "ecc_sram_threshold_exceeded", "Whether the GPU should be replaced for its SRAM errors."
)
REMAPPED = _counter("remapped_rows", "Rows of memory that were replaced by spare ones.", "cause")
REMAP_PENDING = _gauge("remap_pending", "Whether rows wait to be replaced by a reset.")
REMAP_FAILURE = _gauge("remap_failure", "Whether replacing a row has failed.")
REMAP_BANKS = _gauge("remap_banks", "Banks by how many spare rows they have left.", "available")
RETIRED = _counter("retired_pages", "Pages of memory that are no longer used.", "cause")
RETIRED_PENDING = _gauge("retired_pages_pending", "Whether pages wait to be retired by a reset.")
RECOVERY = _gauge("recovery_action", "What the GPU needs to work again; 1 on it.", "action")
PCIE_GENERATION = _gauge("pcie_link_generation", "Generation of the PCIe link.", "bound")
PCIE_WIDTH = _gauge("pcie_link_width", "Lanes of the PCIe link.", "bound")
PCIE_TX = _counter("pcie_tx_bytes", "Bytes sent over PCIe.")
PCIE_RX = _counter("pcie_rx_bytes", "Bytes received over PCIe.")
PCIE_REPLAYS = _counter("pcie_replays", "Packets that were sent again over PCIe.")
PCIE_ERRORS = _counter("pcie_errors", "Errors of the PCIe link.", "kind")
NVLINK_UP = _gauge("nvlink_up", "Whether an NVLink is up.", "link")
NVLINK_RX = _counter("nvlink_rx_bytes", "Bytes received over all NVLinks.")
NVLINK_TX = _counter("nvlink_tx_bytes", "Bytes sent over all NVLinks.")
NVLINK_ERRORS = _counter("nvlink_errors", "Errors of all NVLinks.", "kind")
NVLINK_SPEED = _gauge("nvlink_speed_bytes", "Bytes a second that one NVLink carries.")
LINK_RX = _counter("nvlink_link_rx_bytes", "Bytes received over an NVLink.", "link")
LINK_TX = _counter("nvlink_link_tx_bytes", "Bytes sent over an NVLink.", "link")
LINK_ERRORS = _counter("nvlink_link_errors", "Errors of an NVLink.", "link", "kind")
LINK_BER = _gauge("nvlink_effective_ber", "Bit error rate of an NVLink after correction.", "link")
FABRIC_STATE = _gauge("fabric_state", "How far the GPU is part of its fabric; 1 on it.", "state")
FABRIC_HEALTH = _gauge("fabric_health", "Whether something is wrong with the fabric.", "check")
PROCESSES = _gauge("processes", "Processes that use the GPU.")
PROCESS_MEMORY = _gauge(
    "process_memory_bytes", "Memory of the GPU that a process uses.", "pid", "name", "type"
)
MODE = _gauge(
    "mode", "Modes: persistence, mig and cc are 0 or 1, compute is NVML's number.", "mode"
)
SM_ACTIVE = _gauge("sm_active_ratio", "Part of the multiprocessors' time with work.")
SM_OCCUPANCY = _gauge("sm_occupancy_ratio", "Warps that were active, of those that fit.")
TENSOR_ACTIVE = _gauge("tensor_active_ratio", "Part of the time that the tensor cores worked.")
DRAM_ACTIVE = _gauge("dram_active_ratio", "Part of the memory's bandwidth that was used.")
GRAPHICS_ACTIVE = _gauge("graphics_active_ratio", "Part of the time with any work.")
PIPE_ACTIVE = _gauge("pipe_active_ratio", "Part of the time that a kind of core worked.", "pipe")
GPM_RATES = {
    f"{bus}_{way}": _gauge(f"gpm_{bus}_{way}_bytes_per_second", f"{what} since the last tick.")
    for bus, way, what in (
        ("pcie", "tx", "Bytes a second sent over PCIe"),
        ("pcie", "rx", "Bytes a second received over PCIe"),
        ("nvlink", "tx", "Bytes a second sent over NVLinks"),
        ("nvlink", "rx", "Bytes a second received over NVLinks"),
    )
}
GPM_CYCLES = _counter("gpm_cycles", "Cycles of the multiprocessors, by what they did.", "activity")

MIG = ("gpu", "uuid", "gi", "ci", "mig_uuid")


def _mig(name: str, help: str, *labels: str) -> Metric:
    return gauge(f"esnode_mig_{name}", help, (*MIG, *labels))


MIG_MEMORY = {
    name: _mig(f"memory_{name}_bytes", text)
    for name, text in (
        ("total", "Size of the instance's memory."),
        ("used", "Memory of the instance in use."),
        ("free", "Memory of the instance that is free."),
    )
}
MIG_BAR1_TOTAL = _mig("bar1_total_bytes", "The instance's part of the window into memory.")
MIG_BAR1_USED = _mig("bar1_used_bytes", "What of that part is in use.")
MIG_ECC_ERRORS = counter(
    "esnode_mig_ecc_errors_total",
    "Memory errors of the instance since the driver was loaded, or ever.",
    (*MIG, "type", "scope"),
)
MIG_UTILIZATION = _mig("utilization_percent", "Time in which the instance had any work.")
MIG_SM_ACTIVE = _mig("sm_active_ratio", "Part of its multiprocessors' time with work.")
MIG_SM_OCCUPANCY = _mig("sm_occupancy_ratio", "Warps that were active, of those that fit.")
MIG_TENSOR_ACTIVE = _mig("tensor_active_ratio", "Part of the time that its tensor cores worked.")
MIG_DRAM_ACTIVE = _mig("dram_active_ratio", "Part of its memory's bandwidth that was used.")


class Row(NamedTuple):
    """A value times ``num`` over ``den``. With ``words``, a row for each: 1 on the one whose number
    was read."""

    metric: Metric
    labels: tuple[str, ...] = ()
    num: float = 1
    den: float = 1
    words: tuple[str, ...] = ()
    #: Whether the number is NVLink's form of a bit error rate.
    error_rate: bool = False
    #: Whether any other number than 0 is a 1.
    flag: bool = False


class Call(NamedTuple):
    """One call of csrc/nvml_calls.h by its name there; None for what is not wanted of it."""

    name: str
    period: float
    rows: tuple[Row | None, ...]
    argument: tuple[int, ...] = ()
    #: Whether it has no meaning for a GPU in MIG mode.
    whole: bool = False
    #: Whether the argument is an NVLink, or a fan.
    link: bool = False
    fan: bool = False


class Field(NamedTuple):
    """A field, of one link where ``link`` is set; ``total`` is a row that it is added to."""

    number: int
    row: Row | None
    scope: int = 0
    link: bool = False
    total: Row | None = None


class Fields(NamedTuple):
    """Fields of one family, in one call."""

    period: float
    fields: tuple[Field, ...]
    whole: bool = False


class Gpm(NamedTuple):
    """Metrics over the time since the last tick, by NVML's number."""

    rows: dict[int, Row]
    period: float = TICK


class Ring(NamedTuple):
    """Lowest, mean and highest of the driver's samples of a kind, nvmlSamplingType_t."""

    kind: int
    period: float
    rows: tuple[Row, ...]
    whole: bool = False


class Processes(NamedTuple):
    """The processes with compute contexts (0) or graphics contexts (1)."""

    kind: int
    period: float = TICK


Query = Call | Fields | Gpm | Ring | Processes

#: In the order of the outputs of `reasons` in csrc/nvml_calls.h.
REASONS = (
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
    "board_limit",
    "reliability",
)
#: By the fields that count nanoseconds.
THROTTLES = {
    74: "sw_power_cap",
    75: "thermal",
    76: "sync_boost",
    77: "board_limit",
    78: "low_utilization",
    79: "reliability",
    80: "total_app_clocks",
    81: "total_base_clocks",
    269: "sw_thermal_slowdown",
    270: "hw_thermal_slowdown",
    271: "hw_power_brake_slowdown",
}
ACTIONS = (
    "none",
    "gpu_reset",
    "node_reboot",
    "drain_p2p",
    "drain_and_reset",
    "recover_imex_domain",
    "bus_reset",
    "system_reboot",
)
CLOCKS = ("graphics", "sm", "memory", "video")
ERROR_TYPES = ("corrected", "uncorrected")
ERROR_SCOPES = ("volatile", "aggregate")
#: By nvmlMemoryLocation_t.
LOCATIONS = {
    0: "l1_cache",
    1: "l2_cache",
    3: "register_file",
    4: "texture_memory",
    5: "texture_shm",
    6: "cbu",
}
DRAM, SRAM = 2, 7
THRESHOLDS = ("shutdown", "slowdown", "memory_max", "gpu_max")
#: The field of a margin, of the GPUs that have margins instead of temperatures.
MARGINS = {193: "shutdown", 194: "slowdown", 195: "memory_max", 196: "gpu_max"}
FABRIC_STATES = ("not_started", "in_progress", "completed")
FABRIC_CHECKS = (
    "degraded_bandwidth",
    "route_recovery",
    "route_unhealthy",
    "access_timeout_recovery",
    "incorrect_configuration",
)
PCIE_KINDS = {173: "correctable", 179: "non_fatal", 180: "fatal"}
PCIE_DETAIL = {
    174: "naks_received",
    175: "receiver",
    176: "bad_tlp",
    177: "naks_sent",
    178: "bad_dllp",
    181: "unsupported_request",
    182: "lcrc",
    183: "lane",
}
#: Of each link before NVLink 5, of all its links together, and of each link since.
LINK_KINDS = {161: "replay", 162: "recovery", 163: "crc"}
LINKS_KINDS = {52: "replay", 59: "recovery", 38: "crc_flit", 45: "crc_data", 160: "ecc_data"}
LINK5_KINDS = {
    206: "malformed_packet",
    207: "buffer_overrun",
    208: "rx",
    209: "rx_remote",
    210: "rx_general",
    211: "local_link_integrity",
    212: "tx_discards",
    214: "recovery_failed",
    215: "recovery",
    219: "effective",
    221: "symbol",
}
PIPES = {
    4: "integer",
    6: "tensor_dfma",
    7: "tensor_hmma",
    8: "tensor_dmma",
    9: "tensor_imma",
    11: "fp64",
    12: "fp32",
    13: "fp16",
}
CYCLES = {
    248: "sm_elapsed",
    249: "sm_active",
    250: "mma",
    251: "dmma",
    252: "hmma",
    253: "imma",
    254: "dfma",
    257: "integer",
    258: "fp64",
    259: "fp32",
    260: "fp16",
}
KIB, MIB, MEGA = 1024, 1 << 20, 1e6


def _fields(metric: Metric, names: dict[int, str], den: float = 1) -> tuple[Field, ...]:
    return tuple(Field(number, Row(metric, (name,), den=den)) for number, name in names.items())


def _of_links(
    total: Metric, each: Metric | None, kinds: Mapping[int, tuple[str, ...]]
) -> Iterator[Field]:
    """Fields of every link, added up; each link's own rows with ``each``."""
    for link in range(LINKS):
        for number, labels in kinds.items():
            row = Row(each, (str(link), *labels)) if each else None
            yield Field(number, row, link, True, Row(total, labels))


def gpu_queries(detail: bool, processes: bool) -> Iterator[Query]:
    """What is read of a GPU."""
    yield Call("supported_reasons", ONCE, ())
    yield Call("mig_mode", LATER, (Row(MODE, ("mig",)),))
    yield Call("utilization", EACH, (Row(UTILIZATION), Row(MEMORY_UTILIZATION)), whole=True)
    yield Call("memory", EACH, tuple(map(Row, MEMORY.values())))
    yield Call("temperature", EACH, (Row(TEMPERATURE),), (0,))
    yield Call("reasons", EACH, tuple(Row(REASON, (name,)) for name in REASONS))
    yield Fields(
        EACH,
        (
            Field(185, Row(POWER_AVERAGE, den=1000)),
            Field(186, Row(POWER, den=1000)),
            Field(191, Row(ENERGY, den=1000)),
        ),
    )
    yield Call("power_usage", EACH, (Row(POWER, den=1000),))
    yield Call("energy", EACH, (Row(ENERGY, den=1000),))
    yield Fields(EACH, (Field(197, Row(PCIE_TX)), Field(198, Row(PCIE_RX))))
    yield Fields(
        EACH,
        (Field(138, Row(NVLINK_TX, num=KIB), TOTAL), Field(139, Row(NVLINK_RX, num=KIB), TOTAL)),
    )
    yield Fields(
        EACH,
        (*_of_links(NVLINK_TX, None, {202: ()}), *_of_links(NVLINK_RX, None, {204: ()})),
    )
    yield Gpm(
        {
            1: Row(GRAPHICS_ACTIVE, den=100),
            2: Row(SM_ACTIVE, den=100),
            3: Row(SM_OCCUPANCY, den=100),
            5: Row(TENSOR_ACTIVE, den=100),
            10: Row(DRAM_ACTIVE, den=100),
            **{number: Row(PIPE_ACTIVE, (name,), den=100) for number, name in PIPES.items()},
            20: Row(GPM_RATES["pcie_tx"], num=MIB),
            21: Row(GPM_RATES["pcie_rx"], num=MIB),
            60: Row(GPM_RATES["nvlink_rx"], num=MIB),
            61: Row(GPM_RATES["nvlink_tx"], num=MIB),
            **{number: Row(GPM_CYCLES, (name,)) for number, name in CYCLES.items()},
        }
    )
    yield Ring(0, TICK, tuple(Row(metric, den=1000) for metric in POWER_PEAKS))
    yield Ring(1, SOON, tuple(map(Row, UTILIZATION_PEAKS)), whole=True)

    yield Fields(SOON, _fields(THROTTLED, THROTTLES, 1e9))
    yield Fields(SOON, (Field(82, Row(MEMORY_TEMPERATURE)),))
    yield Fields(
        SOON,
        (
            Field(1, Row(ECC_MODE)),
            *(
                Field(3 + 2 * s + t, Row(ECC_ERRORS, (ERROR_TYPES[t], ERROR_SCOPES[s], "all")))
                for s in range(2)
                for t in range(2)
            ),
        ),
    )
    yield Fields(
        SOON,
        tuple(Field(165, Row(NVLINK_UP, (str(n),), flag=True), n, True) for n in range(LINKS)),
    )
    yield Fields(SOON, (Field(230, Row(RECOVERY, words=ACTIONS)),))
    for number, name in enumerate(CLOCKS):
        period = SOON if name in ("sm", "memory") else LATER
        yield Call("clock", period, (Row(CLOCK, (name,), MEGA),), (number,))
        yield Call("max_clock", ONCE, (Row(CLOCK_MAX, (name,), MEGA),), (number,))

    yield Call("pstate", LATER, (Row(PSTATE),))
    yield Call("encoder", LATER, (Row(ENGINES["encoder"]),), whole=True)
    yield Call("decoder", LATER, (Row(ENGINES["decoder"]),), whole=True)
    yield Call("jpg", LATER, (Row(ENGINES["jpeg"]),), whole=True)
    yield Call("ofa", LATER, (Row(ENGINES["ofa"]),), whole=True)
    yield Call("bar1", LATER, (Row(BAR1_TOTAL), Row(BAR1_USED)))
    yield Call("margin", LATER, (Row(MARGIN),))
    for number, name in enumerate(THRESHOLDS):
        yield Call("threshold", ONCE, (Row(THRESHOLD, (name,)),), (number,))
    yield Fields(
        ONCE,
        tuple(Field(n, Row(THRESHOLD, (f"{name}_margin",))) for n, name in MARGINS.items()),
    )
    yield Fields(
        LATER,
        _fields(POWER_LIMIT, {190: "enforced", 189: "default", 187: "min", 188: "max"}, 1000),
    )
    yield Call("enforced_limit", LATER, (Row(POWER_LIMIT, ("enforced",), den=1000),))
    yield Call("default_limit", LATER, (Row(POWER_LIMIT, ("default",), den=1000),))
    yield Call(
        "limit_constraints",
        LATER,
        (Row(POWER_LIMIT, ("min",), den=1000), Row(POWER_LIMIT, ("max",), den=1000)),
    )
    for fan in range(FANS):
        yield Call("fan", SOON, (Row(FAN, (str(fan),)),), (fan,), fan=True)
    yield from _memory_errors(detail)
    yield Call("pcie_generation", LATER, (Row(PCIE_GENERATION, ("current",)),))
    yield Call("pcie_width", LATER, (Row(PCIE_WIDTH, ("current",)),))
    yield Call("pcie_max_generation", ONCE, (Row(PCIE_GENERATION, ("max",)),))
    yield Call("pcie_max_width", ONCE, (Row(PCIE_WIDTH, ("max",)),))
    kinds = PCIE_KINDS | PCIE_DETAIL if detail else PCIE_KINDS
    yield Fields(LATER, (Field(94, Row(PCIE_REPLAYS)), *_fields(PCIE_ERRORS, kinds)))
    yield Call("pcie_replay", LATER, (Row(PCIE_REPLAYS),))
    for link in range(LINKS):
        row = Row(NVLINK_UP, (str(link),), flag=True)
        yield Call("link_state", SOON, (row,), (link,), link=True)
    each = LINK_ERRORS if detail else None
    for table in (LINK_KINDS, LINK5_KINDS):
        named = {number: (name,) for number, name in table.items()}
        yield Fields(LATER, tuple(_of_links(NVLINK_ERRORS, each, named)))
    yield Fields(LATER, _fields(NVLINK_ERRORS, LINKS_KINDS))
    yield Fields(LATER, (Field(90, Row(NVLINK_SPEED, num=MEGA)),))
    yield Fields(LATER, (Field(164, Row(NVLINK_SPEED, num=MEGA), 0, True),))
    yield Call(
        "fabric",
        LATER,
        (
            *(Row(FABRIC_STATE, (name,)) for name in FABRIC_STATES),
            *(Row(FABRIC_HEALTH, (name,)) for name in FABRIC_CHECKS),
        ),
    )
    yield Call("persistence", LATER, (Row(MODE, ("persistence",)),))
    yield Call("compute_mode", LATER, (Row(MODE, ("compute",)),))
    yield Call("conf_compute", LATER, (Row(MODE, ("cc",), flag=True),))
    if detail:
        yield from _links()
    if processes:
        yield Processes(0)
        yield Processes(1)


def _memory_errors(detail: bool) -> Iterator[Query]:
    """Memory errors by place, and what has been replaced for them."""
    for scope, in_scope in enumerate(ERROR_SCOPES):
        for kind, name in enumerate(ERROR_TYPES):
            row = Row(ECC_ERRORS, (name, in_scope, "all"))
            yield Call("total_ecc", SOON, (row,), (kind, scope))
            row = Row(ECC_ERRORS, (name, in_scope, "dram"))
            yield Call("memory_error", LATER, (row,), (kind, scope, DRAM))
            if detail:
                for place, location in LOCATIONS.items():
                    row = Row(ECC_ERRORS, (name, in_scope, location))
                    yield Call("memory_error", LATER, (row,), (kind, scope, place))
    sram = tuple(Row(ECC_ERRORS, (t, s, "sram")) for s in ERROR_SCOPES for t in ERROR_TYPES)
    yield Call("sram_status", LATER, (Row(SRAM_EXCEEDED), *sram))
    for number, row in enumerate(sram):
        yield Call("memory_error", LATER, (row,), (number % 2, number // 2, SRAM))
    yield Call("ecc_mode", LATER, (Row(ECC_MODE),))
    yield Call(
        "remapped_rows",
        LATER,
        (
            Row(REMAPPED, ("correctable",)),
            Row(REMAPPED, ("uncorrectable",)),
            Row(REMAP_PENDING, flag=True),
            Row(REMAP_FAILURE, flag=True),
        ),
    )
    banks = tuple(Row(REMAP_BANKS, (name,)) for name in ("max", "high", "partial", "low", "none"))
    yield Call("remap_histogram", LATER, banks)
    causes = Row(RETIRED, ("single_bit",)), Row(RETIRED, ("double_bit",))
    pending = Row(RETIRED_PENDING, flag=True)
    yield Fields(LATER, (Field(29, causes[0]), Field(30, causes[1]), Field(31, pending)))
    for number, row in enumerate(causes):
        yield Call("retired_pages", LATER, (row,), (number,))
    yield Call("retired_pending", LATER, (pending,))


def _links() -> Iterator[Query]:
    """What each NVLink has carried."""
    for period, tx, rx, unit in ((SOON, 138, 139, KIB), (SOON, 202, 204, 1)):
        yield Fields(
            period,
            tuple(
                Field(number, Row(metric, (str(link),), unit), link, True)
                for link in range(LINKS)
                for number, metric in ((tx, LINK_TX), (rx, LINK_RX))
            ),
        )
    yield Fields(
        LATER,
        tuple(
            Field(220, Row(LINK_BER, (str(link),), error_rate=True), link, True)
            for link in range(LINKS)
        ),
    )


def mig_queries() -> Iterator[Query]:
    """What is read of a MIG instance."""
    yield Call("memory", EACH, (*map(Row, MIG_MEMORY.values()), None))
    yield Call("utilization", EACH, (Row(MIG_UTILIZATION), None))
    yield Gpm(
        {
            1: Row(MIG_UTILIZATION),
            2: Row(MIG_SM_ACTIVE, den=100),
            3: Row(MIG_SM_OCCUPANCY, den=100),
            5: Row(MIG_TENSOR_ACTIVE, den=100),
            10: Row(MIG_DRAM_ACTIVE, den=100),
        }
    )
    yield Call("bar1", LATER, (Row(MIG_BAR1_TOTAL), Row(MIG_BAR1_USED)))
    for scope, in_scope in enumerate(ERROR_SCOPES):
        for kind, name in enumerate(ERROR_TYPES):
            yield Call("total_ecc", LATER, (Row(MIG_ECC_ERRORS, (name, in_scope)),), (kind, scope))


class Rows:
    """The plan that some queries make, and the row of each of its positions."""

    def __init__(self, nvml: ModuleType, queries: Iterable[Query]) -> None:
        self.nvml = nvml
        self.plan: Any = nvml.Plan()
        #: (metric, labels after those of the device) by position.
        self.rows: list[tuple[Metric, tuple[str, ...]]] = []
        #: The positions that have a value where processes could be listed; no rows are theirs.
        self.processes: list[int] = []
        self._positions: dict[tuple[Metric, tuple[str, ...]], int] = {}
        for query in queries:
            self._add(query)

    def _position(self, row: Row) -> int:
        keys = [(row.metric, (*row.labels, word)) for word in row.words] or [
            (row.metric, row.labels)
        ]
        if keys[0] not in self._positions:
            for key in keys:
                self._positions[key] = len(self.rows)
                self.rows.append(key)
        return self._positions[keys[0]]

    def _entry(self, row: Row | None) -> tuple[int, float, float, int, int]:
        """An entry of the plan, see Plan."""
        if row is None:
            return (-1, 1, 1, 0, 1)
        flags = (
            (self.nvml.WORD if row.words else 0)
            | (self.nvml.ERROR_RATE if row.error_rate else 0)
            | (self.nvml.FLAG if row.flag else 0)
            | (self.nvml.COUNTER if row.metric.kind == "counter" else 0)
        )
        return (self._position(row), row.num, row.den, flags, len(row.words) or 1)

    def _add(self, query: Query) -> None:
        plan = self.plan
        if isinstance(query, Call):
            entries = [self._entry(row) for row in query.rows]
            flags = (query.whole, query.link, query.fan)
            plan.call(query.name, query.period, entries, query.argument, *flags)
        elif isinstance(query, Fields):
            fields = []
            for f in query.fields:
                total = self._position(f.total) if f.total else -1
                entry = self._entry(f.row)
                if f.row is None and f.total:  # its own scale and kind
                    entry = (-1, *self._entry(f.total)[1:])
                fields.append((f.number, f.scope, f.link, total, entry))
            plan.fields(query.period, fields, query.whole)
        elif isinstance(query, Gpm):
            metrics = [(number, self._entry(row)) for number, row in query.rows.items()]
            plan.gpm(query.period, metrics)
        elif isinstance(query, Ring):
            plan.ring(query.period, query.kind, [self._entry(r) for r in query.rows], query.whole)
        else:
            entry = self._entry(Row(PROCESSES, (str(query.kind),)))
            self.processes.append(entry[0])
            plan.processes(query.period, query.kind, entry)
