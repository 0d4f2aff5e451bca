"""The values of a tick of GPUs, read with nvidia-ml-py in a loop, as one would write it.

The arguments and the answers are those of nvml_loop.c.
"""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml as nvml

LEAP = ctypes.CDLL(None).leap
#: The arguments after the handle.
ARGUMENTS = {
    "nvmlDeviceGetMemoryInfo": (nvml.nvmlMemory_v2,),
    "nvmlDeviceGetTemperatureV": (nvml.NVML_TEMPERATURE_GPU,),
    "nvmlDeviceGetClockInfo": (nvml.NVML_CLOCK_SM,),
    "nvmlDeviceGetTotalEccErrors": (0, 0),
    "nvmlDeviceGetMemoryErrorCounter": (0, 0, 2),
    "nvmlDeviceGetNvLinkState": (0,),
}
#: The member of a field's value, by its type.
MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")

values: dict[Any, Any] = {}


class Gpu:
    """A GPU, and what is kept of it between two ticks."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self.last = 0
        self.samples = []
        for _ in range(2):
            self.samples.append(nvml.nvmlGpmSampleAlloc())
            nvml.nvmlGpmSampleGet(self.handle, self.samples[-1])
            LEAP(1)


def fields(gpu: Gpu, asked: list[tuple[int, int]]) -> None:
    for f in nvml.nvmlDeviceGetFieldValues(gpu.handle, asked):
        if f.nvmlReturn == 0:
            value = getattr(f.value, MEMBERS[f.valueType])
            values[gpu.index, f.fieldId, f.scopeId] = value


def samples(gpu: Gpu) -> None:
    try:
        _, new = nvml.nvmlDeviceGetSamples(gpu.handle, nvml.NVML_TOTAL_POWER_SAMPLES, gpu.last)
    except nvml.NVMLError_NotFound:
        return
    gpu.last = new[-1].timeStamp
    found = [sample.sampleValue.uiVal for sample in new]
    values[gpu.index, "power"] = min(found), sum(found) / len(found), max(found)


def take_gpm(gpu: Gpu) -> None:
    gpu.samples.reverse()
    nvml.nvmlGpmSampleGet(gpu.handle, gpu.samples[1])


def gpm(gpu: Gpu, asked: list[tuple[int, int]]) -> None:
    get = nvml.c_nvmlGpmMetricsGet_t()
    get.version = nvml.NVML_GPM_METRICS_GET_VERSION
    get.sample1, get.sample2 = gpu.samples
    get.numMetrics = len(asked)
    for at, (metric, _) in enumerate(asked):
        get.metrics[at].metricId = metric
    nvml.nvmlGpmMetricsGet(get)
    for at, (metric, _) in enumerate(asked):
        values[gpu.index, "gpm", metric] = get.metrics[at].value


def number(name: str) -> Callable[[Gpu], None]:
    """One of the many functions that give a value, or a struct of some."""
    function = getattr(nvml, name)
    arguments = ARGUMENTS.get(name, ())

    def read(gpu: Gpu) -> None:
        values[gpu.index, name] = function(gpu.handle, *arguments)

    return read


def fabric(gpu: Gpu) -> None:
    info = nvml.c_nvmlGpuFabricInfoV_t()
    nvml.nvmlDeviceGetGpuFabricInfoV(gpu.handle, ctypes.byref(info))
    values[gpu.index, "fabric"] = info.state, info.healthMask


def sram(gpu: Gpu) -> None:
    status = nvml.c_nvmlEccSramErrorStatus_v1_t()
    status.version = nvml.nvmlEccSramErrorStatus_v1
    nvml.nvmlDeviceGetSramEccErrorStatus(gpu.handle, ctypes.byref(status))
    values[gpu.index, "sram"] = status.aggregateCor, status.volatileCor, status.bThresholdExceeded


def conf_compute(_: Gpu) -> None:
    values["conf_compute"] = nvml.nvmlSystemGetConfComputeState().ccFeature


def count(_: Gpu) -> None:
    values["count"] = nvml.nvmlDeviceGetCount()


OTHERS: dict[str, Callable[[Gpu], None]] = {
    "nvmlDeviceGetSamples": samples,
    "nvmlGpmSampleGet": take_gpm,
    "nvmlDeviceGetGpuFabricInfoV": fabric,
    "nvmlDeviceGetSramEccErrorStatus": sram,
    "nvmlSystemGetConfComputeState": conf_compute,
    "nvmlDeviceGetCount": count,
}


def parse(line: str) -> tuple[bool, int, Callable[[Gpu], None]]:
    """A line of the script: whether it is for each GPU, its times in a minute, and what it does."""
    scale, times, name, *words = line.split()
    asked = [(int(a), int(b or 0)) for a, _, b in (word.partition(":") for word in words)]
    name = re.sub(r"_v\d$", "", name)
    work: Callable[[Gpu], None]
    if name == "nvmlDeviceGetFieldValues":
        work = lambda gpu: fields(gpu, asked)  # noqa: E731
    elif name == "nvmlGpmMetricsGet":
        work = lambda gpu: gpm(gpu, asked)  # noqa: E731
    else:
        work = OTHERS.get(name) or number(name)
    return scale == "each", int(times), work


def main() -> None:
    script = list(map(parse, Path(sys.argv[1]).read_text().splitlines()))
    ticks = int(sys.argv[2])
    nvml.nvmlInit()
    gpus = [Gpu(index) for index in range(nvml.nvmlDeviceGetCount())]
    # What is due in each tick of a minute, spread as in nvml_loop.c.
    due = [
        [
            (work, gpus if is_each else gpus[:1])
            for is_each, times, work in script
            for _ in range(times * (tick + 1) // ticks - times * tick // ticks)
        ]
        for tick in range(ticks)
    ]
    for line in sys.stdin:
        minutes = int(line)
        cpu, began = time.process_time(), time.monotonic()
        for _ in range(minutes):
            for tick in due:
                LEAP(60 // ticks)
                for work, whose in tick:
                    for gpu in whose:
                        work(gpu)
        n = minutes * ticks
        wall = (time.monotonic() - began) / n - 60 // ticks
        print((time.process_time() - cpu) / n, wall, flush=True)


if __name__ == "__main__":
    main()
