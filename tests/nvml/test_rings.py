"""The driver's rings of samples: the lowest, mean and highest of a window."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.fakenvml import Fake

from .node import Node, Page

Make = Callable[..., Node]
SECOND = 1_000_000


def power(page: Page, gpu: int = 0) -> list[float | None]:
    return [page.get(f"esnode_gpu_power_{name}_watts", gpu=gpu) for name in ("min", "mean", "max")]


def utilization(page: Page) -> list[float | None]:
    return [
        page.get(f"esnode_gpu_utilization_{name}_percent", gpu=0) for name in ("min", "mean", "max")
    ]


def test_what_several_ticks_have_taken(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"] * 2)
    one, two = fake.gpu(0), fake.gpu(1)
    now = time.time_ns() // 1000
    a = node()
    assert power(a.tick()) == [None] * 3
    assert a.errors == 0, "that there is no sample is no failure"
    one.sample(0, now - 2 * SECOND, 300_000)
    two.sample(0, now - 2 * SECOND, 77_000)
    assert power(a.tick()) == [300, 300, 300]
    one.sample(0, now - SECOND, 100_500)
    one.sample(0, now, 700_000)
    page = a.tick()
    assert power(page) == [100.5, 1100.5 / 3, 700]
    assert power(page, 1) == [77, 77, 77]
    assert power(a.tick()) == [100.5, 1100.5 / 3, 700], "none is taken twice"
    one.sample(0, now + SECOND, 0xFFFF_FFFF)
    assert power(a.tick()) == [100.5, 1100.5 / 3, 700], "unknown"
    assert a.errors == 0


def test_what_is_old_at_first_is_not_taken(fake: Fake, node: Make) -> None:
    """The ring of a quiet GPU goes back further than the window."""
    fake.set_gpus(["H100"])
    now = time.time_ns() // 1000
    for age, value in ((300, 1), (61, 2), (59, 30_000), (10, 50_000), (0, 40_000)):
        fake.gpu(0).sample(0, now - age * SECOND, value)
        fake.gpu(0).sample(1, now - age * SECOND, value // 1000)
    page = node(peak_window_seconds=60).tick()
    assert power(page) == [30, 40, 50]
    assert utilization(page) == [30, 40, 50]


@pytest.mark.usefixtures("eager")
def test_old_samples_fall_out(fake: Fake, node: Make) -> None:
    """By when they were taken, not by when they were read; the driver's clock is its own."""
    fake.set_gpus(["H100"])
    gpu = fake.gpu(0)
    a = node(peak_window_seconds=10)
    base = 5_000 * SECOND
    began = time.monotonic()
    for milliseconds, value in ((0, 900_000), (9_000, 100_000), (9_500, 300_000)):
        gpu.sample(0, base + milliseconds * 1000, value)
        gpu.sample(1, base + milliseconds * 1000, value // 10_000)
    page = a.tick()
    assert power(page) == [100, 1300 / 3, 900]
    assert utilization(page) == [10, 130 / 3, 90]
    while power(page := a.tick())[2] == 900:
        time.sleep(0.02)
    passed = time.monotonic() - began
    assert 0.2 < passed < 2, "the first was taken 9.5 s before the last"
    assert power(page) == [100, 200, 300]
    assert utilization(page) == [10, 20, 30]
    gpu.sample(0, base + 11_000_000, 200_000)
    assert power(a.tick()) == [100, 200, 300]


def test_another_gpu_in_the_place_has_a_ring_of_its_own(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"] * 2)
    now = time.time_ns() // 1000
    fake.gpu(0).sample(0, now, 100_000)
    fake.gpu(1).sample(0, now - SECOND, 600_000)
    a = node()
    a.tick()
    fake.gpu(0).remove()
    page = a.tick()
    assert power(page, 0) == [None] * 3
    assert power(page, 1) == [600, 600, 600]
