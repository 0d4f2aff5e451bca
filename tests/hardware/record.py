"""Records what a GPU supports and what each call costs: `python -m tests.hardware.record`.

Prints a section for docs/reference/hardware.md for each kind of GPU of this machine; with
``--write FILE`` it takes the place of that GPU's section there, or comes after the last one. The
answers are those that nvidia-ml-py gets; the times are the agent's own, as they are in
esnode_agent_nvml_call_seconds_total, of a plan that reads nothing else.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pynvml as nv

from esnode.collectors.base import Unavailable
from esnode.collectors.nvidia import driver, readings
from esnode.collectors.nvidia.readings import Call, Fields, Gpm, Query, Ring, Row, Rows

from . import oracle
from .lane import Node

#: What the page says as long as it has no record.
NONE_YET = "**No GPU has been recorded yet.**"
#: Between two samples of GPM, and how many of them are timed.
GPM_PAUSE, GPM_REPEATS = 0.11, 20
PERIODS = {readings.EACH: "every reading", readings.TICK: "tick", readings.ONCE: "once"}


class Cost(NamedTuple):
    """Seconds of single calls; empty where none was made."""

    seconds: tuple[float, ...] = ()

    def __str__(self) -> str:
        """Median and 99th percentile as two cells, in µs."""
        if not self.seconds:
            return "- | -"
        ordered = sorted(self.seconds)
        last = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        return f"{ordered[len(ordered) // 2] * 1e6:.1f} | {last * 1e6:.1f}"


def _named(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """A call under the library's name for the function."""
    call.__name__ = name
    return call


def _sram(handle: Any) -> None:
    nv.nvmlDeviceGetSramEccErrorStatus(handle, ctypes.byref(nv.c_nvmlEccSramErrorStatus_v1_t()))


def _fabric(kind: type, version: int) -> Callable[[Any], None]:
    def ask(handle: Any) -> None:
        info = kind()
        info.version = version
        nv.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))

    return _named("nvmlDeviceGetGpuFabricInfoV", ask)


#: The variants of each call of csrc/nvml_calls.h, asked through nvidia-ml-py.
ASKED: dict[str, tuple[Callable[..., Any], ...]] = {
    "utilization": (nv.nvmlDeviceGetUtilizationRates,),
    "encoder": (nv.nvmlDeviceGetEncoderUtilization,),
    "decoder": (nv.nvmlDeviceGetDecoderUtilization,),
    "jpg": (nv.nvmlDeviceGetJpgUtilization,),
    "ofa": (nv.nvmlDeviceGetOfaUtilization,),
    "memory": (
        _named(
            "nvmlDeviceGetMemoryInfo_v2",
            lambda handle: nv.nvmlDeviceGetMemoryInfo(handle, nv.nvmlMemory_v2),
        ),
        nv.nvmlDeviceGetMemoryInfo,
    ),
    "bar1": (nv.nvmlDeviceGetBAR1MemoryInfo,),
    "temperature": (nv.nvmlDeviceGetTemperatureV, nv.nvmlDeviceGetTemperature),
    "margin": (nv.nvmlDeviceGetMarginTemperature,),
    "threshold": (nv.nvmlDeviceGetTemperatureThreshold,),
    "power_usage": (nv.nvmlDeviceGetPowerUsage,),
    "enforced_limit": (nv.nvmlDeviceGetEnforcedPowerLimit,),
    "default_limit": (nv.nvmlDeviceGetPowerManagementDefaultLimit,),
    "limit_constraints": (nv.nvmlDeviceGetPowerManagementLimitConstraints,),
    "energy": (nv.nvmlDeviceGetTotalEnergyConsumption,),
    "clock": (nv.nvmlDeviceGetClockInfo,),
    "max_clock": (nv.nvmlDeviceGetMaxClockInfo,),
    "pstate": (nv.nvmlDeviceGetPerformanceState,),
    "fan": (
        nv.nvmlDeviceGetFanSpeed_v2,
        _named("nvmlDeviceGetFanSpeed", lambda handle, fan: nv.nvmlDeviceGetFanSpeed(handle)),
    ),
    "supported_reasons": (
        nv.nvmlDeviceGetSupportedClocksEventReasons,
        nv.nvmlDeviceGetSupportedClocksThrottleReasons,
    ),
    "reasons": (
        nv.nvmlDeviceGetCurrentClocksEventReasons,
        nv.nvmlDeviceGetCurrentClocksThrottleReasons,
    ),
    "ecc_mode": (nv.nvmlDeviceGetEccMode,),
    "total_ecc": (nv.nvmlDeviceGetTotalEccErrors,),
    "memory_error": (nv.nvmlDeviceGetMemoryErrorCounter,),
    "sram_status": (_named("nvmlDeviceGetSramEccErrorStatus", _sram),),
    "remapped_rows": (nv.nvmlDeviceGetRemappedRows,),
    "remap_histogram": (nv.nvmlDeviceGetRowRemapperHistogram,),
    "retired_pages": (nv.nvmlDeviceGetRetiredPages_v2, nv.nvmlDeviceGetRetiredPages),
    "retired_pending": (nv.nvmlDeviceGetRetiredPagesPendingStatus,),
    "pcie_generation": (nv.nvmlDeviceGetCurrPcieLinkGeneration,),
    "pcie_max_generation": (nv.nvmlDeviceGetMaxPcieLinkGeneration,),
    "pcie_width": (nv.nvmlDeviceGetCurrPcieLinkWidth,),
    "pcie_max_width": (nv.nvmlDeviceGetMaxPcieLinkWidth,),
    "pcie_replay": (nv.nvmlDeviceGetPcieReplayCounter,),
    "link_state": (nv.nvmlDeviceGetNvLinkState,),
    "fabric": (
        _fabric(nv.c_nvmlGpuFabricInfo_v3_t, nv.nvmlGpuFabricInfo_v3),
        _fabric(nv.c_nvmlGpuFabricInfo_v2_t, nv.nvmlGpuFabricInfo_v2),
        _named(
            "nvmlDeviceGetGpuFabricInfo",
            lambda handle: nv.nvmlDeviceGetGpuFabricInfo(
                handle, ctypes.byref(nv.c_nvmlGpuFabricInfo_t())
            ),
        ),
    ),
    "persistence": (nv.nvmlDeviceGetPersistenceMode,),
    "compute_mode": (nv.nvmlDeviceGetComputeMode,),
    "mig_mode": (nv.nvmlDeviceGetMigMode,),
    "conf_compute": (
        _named("nvmlSystemGetConfComputeState", lambda handle: nv.nvmlSystemGetConfComputeState()),
    ),
}


class Bench:
    """One GPU, read by plans of one query each."""

    def __init__(self, nvml: ModuleType, index: int, repeats: int) -> None:
        self.nvml: Any = nvml
        self.index = index
        self.repeats = repeats
        self.handle = nv.nvmlDeviceGetHandleByIndex(index)
        self.none = Rows(nvml, ())

    def answer(self, call: Callable[..., Any], *arguments: int) -> str:
        """What the library says to a call: its code by name, or yes."""
        try:
            call(self.handle, *arguments)
        except nv.NVMLError as error:
            return self.code(int(error.value))
        return "yes"

    def code(self, number: int) -> str:
        return str(self.nvml.CODES.get(number, number)) if number else "yes"

    def time(self, query: Query) -> dict[str, Cost]:
        """The cost of the calls that a query makes, by function; those that fail are made once and
        have none."""
        rows = Rows(self.nvml, [query._replace(period=readings.TICK)])
        reader = self.nvml.Driver(rows.plan, self.none.plan, 2.0, 0.02, 60.0, False, False)
        assert reader.attach(), self.code(reader.code)

        def read() -> None:
            reader.start(True)
            assert reader.wait() == 0

        read()  # finds the GPUs,
        read()  # asks what they are
        for gpu in reader.gpus:
            gpu.want(gpu.index == self.index)
        read()
        read()  # and what they do not support
        times: dict[str, list[float]] = {}
        before = reader.calls()
        is_gpm = isinstance(query, Gpm)
        for _ in range(min(self.repeats, GPM_REPEATS) if is_gpm else self.repeats):
            if is_gpm:
                time.sleep(GPM_PAUSE)
            read()
            after = reader.calls()
            for name, (calls, seconds) in after.items():
                earlier, already = before.get(name, (0, 0.0))
                if calls > earlier and name != "nvmlDeviceGetCount_v2":
                    times.setdefault(name, []).append((seconds - already) / (calls - earlier))
            before = after
        assert reader.detach()
        return {name: Cost(tuple(seconds)) for name, seconds in times.items()}


def family(row: Row) -> str:
    return row.metric.name.removeprefix("esnode_gpu_")


def what(row: Row | None) -> str:
    """A row as a cell of a table."""
    return "" if row is None else " ".join([family(row), *row.labels])


def period(query: Query) -> str:
    return PERIODS.get(query.period, f"{query.period:g} s")


def calls(bench: Bench, queries: list[Query]) -> Iterator[str]:
    """Each call with each argument that it is made with, and with each of its variants."""
    yield "| function | arguments | gives | how often | supported | median, µs | p99, µs |"
    yield "|---|---|---|---|---|---|---|"
    for query in queries:
        if not isinstance(query, Call):
            continue
        if (query.link or query.name == "fan") and query.argument[0] > 0:
            continue  # they are alike
        costs = bench.time(query)
        rows = [row for row in query.rows if row]
        names = (what(row) if len(rows) == 1 else family(row) for row in rows)
        gives = ", ".join(dict.fromkeys(names))
        arguments = " ".join(map(str, query.argument))
        for variant in ASKED[query.name]:
            name = variant.__name__
            answer = bench.answer(variant, *query.argument)
            cost = costs.pop(name, Cost()) if answer == "yes" else Cost()
            yield (
                f"| {name} | {arguments} | {gives or query.name} | {period(query)}"
                f" | {answer} | {cost} |"
            )


def fields(bench: Bench, queries: list[Query]) -> Iterator[str]:
    """Each field alone; of links the first one's."""
    yield "| field | gives | supported | type | median, µs | p99, µs |"
    yield "|---|---|---|---|---|---|"
    types = {
        value: name.removeprefix("NVML_VALUE_TYPE_").lower().replace("_", " ")
        for name, value in vars(nv).items()
        if name.startswith("NVML_VALUE_TYPE_") and isinstance(value, int)
    }
    seen = set()
    for query in queries:
        for field in query.fields if isinstance(query, Fields) else ():
            if field.number in seen:
                continue
            seen.add(field.number)
            row = field.row or field.total
            alone = Fields(readings.TICK, (field._replace(row=row, total=None),))
            try:
                asked = [(field.number, field.scope)]
                (value,) = nv.nvmlDeviceGetFieldValues(bench.handle, asked)
                code, kind = bench.code(value.nvmlReturn), types.get(value.valueType, "")
            except nv.NVMLError as error:
                code, kind = bench.code(int(error.value)), ""
            costs = bench.time(alone) if code == "yes" else {}
            cost = costs.get("nvmlDeviceGetFieldValues", Cost())
            if row and field.link and field.row:
                row = row._replace(labels=row.labels[1:])
            gives = what(row)
            kind = kind if code == "yes" else ""
            yield f"| {field.number} | {gives} | {code} | {kind} | {cost} |"


def batches(bench: Bench, queries: list[Query]) -> Iterator[str]:
    """What is read at once by other calls than those of the table, as it is read."""
    yield "| read at once | how often | function | median, µs | p99, µs |"
    yield "|---|---|---|---|---|"
    for query in queries:
        if isinstance(query, Fields):
            numbers = [str(number) for number in dict.fromkeys(f.number for f in query.fields)]
            title = f"fields {', '.join(numbers)}"
            if any(field.link for field in query.fields):
                title += " of each link"
        elif isinstance(query, Gpm):
            title = "GPM"
        elif isinstance(query, Ring):
            title = f"samples of {what(query.rows[0]).partition('_')[0]}"
        elif isinstance(query, readings.Processes):
            title = ("compute", "graphics")[query.kind] + " processes"
        else:
            continue
        for name, cost in bench.time(query).items():
            yield f"| {title} | {period(query)} | {name} | {cost} |"


def metrics(bench: Bench, queries: list[Query]) -> Iterator[str]:
    """Each metric of GPM."""
    rows = {n: row for query in queries if isinstance(query, Gpm) for n, row in query.rows.items()}
    try:
        answers = oracle.gpm_answers(bench.handle, list(rows))
    except nv.NVMLError as error:
        yield f"GPM cannot be sampled: {bench.code(int(error.value))}."
        return
    if not answers:
        yield "This GPU has no GPM."
        return
    yield "| metric | gives | supported |"
    yield "|---|---|---|"
    for number, row in rows.items():
        yield f"| {number} | {what(row)} | {bench.code(answers[number][0])} |"


def default_set(seconds: float, interval: float) -> Iterator[str]:
    """What the agent's default settings make of it, over a while."""
    node = Node(scrape_interval_seconds=interval)
    node.pair()
    reader = node.gpus.driver
    before = reader.calls()
    ticks = max(2, round(seconds / interval))
    for _ in range(ticks):
        time.sleep(interval)
        node.tick()
    shown = []
    for name, (number, took) in reader.calls().items():
        earlier, already = before.get(name, (0, 0.0))
        if number > earlier:
            shown.append((took - already, number - earlier, name))
    scale = ticks * reader.count
    made, spent = sum(n for _, n, _ in shown) / scale, sum(s for s, _, _ in shown) / scale
    yield (
        f"{made:.1f} calls and {spent * 1e6:.0f} µs for each GPU and tick, over {ticks} ticks of"
        f" {interval:g} s:"
    )
    yield ""
    yield "| function | calls of a GPU and tick | mean, µs |"
    yield "|---|---|---|"
    for took, number, name in sorted(shown, reverse=True):
        yield f"| {name} | {number / scale:.2f} | {took / number * 1e6:.1f} |"
    node.close()


def section(bench: Bench, seconds: float, interval: float) -> str:
    """The record of a GPU."""
    known = oracle.identity(bench.handle)
    queries = list(readings.gpu_queries(detail=True, processes=True))
    mode = oracle.ask(nv.nvmlDeviceGetMigMode, bench.handle)
    lines = [
        f"## {known['name']}",
        "",
        f"Driver {known['driver_version']}, CUDA {known['cuda_version']}, VBIOS {known['vbios']},"
        f" compute capability {known['compute_capability']}; MIG mode"
        f" {'on' if mode and mode[0] else 'off' if mode else 'not supported'};"
        f" {nv.nvmlDeviceGetCount()} GPU(s) in the machine; {datetime.date.today()}."
        f" Each call was timed {bench.repeats} times.",
    ]
    for title, rows in (
        ("The default set", default_set(seconds, interval)),
        ("Calls", calls(bench, queries)),
        ("Fields, each alone", fields(bench, queries)),
        ("Batches, samples and processes", batches(bench, queries)),
        ("Metrics of GPM", metrics(bench, queries)),
    ):
        lines += ["", f"### {title}", "", *rows]
    return "\n".join(lines) + "\n"


def put(page: str, text: str) -> str:
    """A page with a section in the place of the one that has its heading, or after the last."""
    heading = text.partition("\n")[0]
    page = re.sub(rf"{re.escape(NONE_YET)}[^\n]*\n(?:[^\n]+\n)*\n?", "", page)
    found = re.search(rf"^{re.escape(heading)}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if found:
        is_last = found.end() == len(page)
        return page[: found.start()] + text + ("" if is_last else "\n") + page[found.end() :]
    return page.rstrip("\n") + "\n\n" + text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=200, help="how often each call is timed")
    parser.add_argument("--seconds", type=float, default=60, help="of the default set")
    parser.add_argument("--interval", type=float, default=5, help="between two ticks of it")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the page to put it into")
    options = parser.parse_args()
    try:
        module = driver.load("")
        nv.nvmlInit()
    except (Unavailable, nv.NVMLError) as error:
        print(f"there is no driver to record: {error}", file=sys.stderr)
        return 1
    recorded = set()
    for index in range(nv.nvmlDeviceGetCount()):
        bench = Bench(module, index, options.repeats)
        name = nv.nvmlDeviceGetName(bench.handle)
        if name in recorded:
            continue
        recorded.add(name)
        text = section(bench, options.seconds, options.interval)
        if options.write:
            options.write.write_text(put(options.write.read_text(), text))
        else:
            print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
