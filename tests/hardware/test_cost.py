"""What the default set calls, and how long each call takes."""

from __future__ import annotations

import time

from .lane import Node

#: Readings, and seconds that a mean call, and the first one, may take. Reading PCIe's throughput,
#: which we never do, takes 0.02.
TICKS, MEAN = 30, 0.01


def test_the_calls_of_the_default_set(nvml: None) -> None:
    node = Node()
    node.tick()
    count = node.gpus.driver.count
    first = node.gpus.driver.calls()
    took = []
    for _ in range(TICKS):
        time.sleep(0.11)  # so that each has a GPM sample
        start = time.perf_counter()
        node.tick()
        took.append(time.perf_counter() - start)
    calls = {
        name: (number - first.get(name, (0, 0))[0], seconds - first.get(name, (0, 0))[1])
        for name, (number, seconds) in node.gpus.driver.calls().items()
    }
    node.close()
    for name, (number, seconds) in sorted(calls.items(), key=lambda item: -item[1][1]):
        if number:
            each = seconds / number
            print(f"{name:45} {number / TICKS / count:6.2f} a GPU and tick {each * 1e6:9.1f} µs")
            assert each < MEAN, name
    assert "nvmlDeviceGetPcieThroughput" not in calls
    assert "nvmlDeviceGetProcessUtilization" not in calls
    assert sorted(took)[TICKS // 2] < node.config.scrape_interval_seconds / 2
