"""A piece of work on a history in a process of its own, and what it cost: one Cost as JSON.

python -m benchmarks.history_work seal PATH START | export PATH METRICS | drain PORT QUERY
"""

from __future__ import annotations

import gc
import json
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from esnode.tsdb import seal
from esnode.tsdb.export import Export
from esnode.tsdb.select import select


class Cost(NamedTuple):
    """Seconds, and bytes: the most memory above that before, what was read, and what came of it."""

    cpu: float
    wall: float
    memory: int
    read: int
    size: int


def status(pid: int | str, key: str) -> int:
    """Bytes of a line of /proc/PID/status, as ``VmHWM``, the most memory there was."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def forget_peak(pid: int | str) -> int:
    """Has VmHWM begin again at what there is now, which is returned. Raises OSError."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return status(pid, "VmHWM")


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def measured(work: Callable[[], int]) -> Cost:
    gc.collect()
    before, read = forget_peak("self"), bytes_read()
    nothing = bytes_read() - read  # what reading the figure itself counts
    cpu, wall = time.process_time(), time.perf_counter()
    size = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    read = bytes_read() - read - 2 * nothing
    return Cost(cpu, wall, status("self", "VmHWM") - before, read, size)


def sealing(path: str, start: str) -> int:
    return list(seal.seal(Path(path), int(start)))[-1]


def exporting(path: str, metrics: str) -> int:
    return sum(map(len, Export(Path(path), select(metrics=[metrics] if metrics else []))))


def draining(port: str, query: str) -> int:
    """Takes a whole export as fast as it comes."""
    with socket.create_connection(("127.0.0.1", int(port)), 60) as client:
        head = f"GET /tsdb/export?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode())
        buffer = bytearray(1 << 20)
        size, end = 0, b""
        while got := client.recv_into(buffer):
            size += got
            end = (end + buffer[max(0, got - 64) : got])[-64:]
    if b"# EOF\n" not in end:
        raise RuntimeError(f"an export was cut: {end!r}")
    return size


WORK: dict[str, Callable[[str, str], int]] = {
    "seal": sealing,
    "export": exporting,
    "drain": draining,
}

if __name__ == "__main__":
    work = WORK[sys.argv[1]]
    if work is exporting:  # what is imported and set up once is not counted
        exporting(sys.argv[2], "nothing")
    print(json.dumps(measured(lambda: work(sys.argv[2], sys.argv[3]))))
