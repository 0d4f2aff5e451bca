"""The GPU lane in a process of its own: its ticks, as the agent's thread makes them.

The arguments are a Config as JSON, and whether snapshots are published, too. leap.c is preloaded.
Each line on stdin is a number of minutes of ticks; the answer is the CPU time and the time, of one
tick, in seconds, and the number of series. A line that is a path makes one minute, whose batches
are written there.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time

import msgspec

from esnode.collectors.nvidia.gpus import Gpus
from esnode.config import Config
from esnode.host import Host
from esnode.sampler import Lane
from esnode.store import Store

INTERVAL = 5
TICKS = 60 // INTERVAL
CLOCKS = ctypes.CDLL(None)


def main() -> None:
    config = msgspec.json.decode(sys.argv[1], type=Config)
    host = Host(config.path_procfs, config.path_sysfs, config.path_rootfs)
    lane = Lane("gpu", [Gpus(host, config)], INTERVAL)
    store = Store(1.0, 0.05, lambda seconds: None)
    store.arrange([lane])
    publishes = sys.argv[2] == "publish"

    def minutes(number: int) -> int:
        for _ in range(number * TICKS):
            CLOCKS.leap(INTERVAL)
            snapshot = lane.read(True)
            if publishes:
                store.publish(lane.name, snapshot)
        return snapshot.present

    minutes(2)  # what is read once, and what each device supports
    gc.collect()
    gc.freeze()  # as the agent does
    for line in map(str.strip, sys.stdin):
        if line.startswith("/"):
            CLOCKS.leap_record(os.fsencode(line))
        number = 1 if line.startswith("/") else int(line)
        cpu, began = time.process_time(), time.monotonic()
        series = minutes(number)
        wall = (time.monotonic() - began) / number / TICKS - INTERVAL
        cpu = (time.process_time() - cpu) / number / TICKS
        CLOCKS.leap_record(None)
        print(cpu, wall, series, flush=True)


if __name__ == "__main__":
    main()
