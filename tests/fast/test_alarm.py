"""The timer that an event loop watches."""

from __future__ import annotations

import asyncio
import math
import os
import select
import threading
import time

import pytest

from esnode._fast.alarm import Alarm
from tests.process import descriptors


def rings(alarm: Alarm, within: float) -> bool:
    return bool(select.select([alarm], [], [], within)[0])


def test_rings_once_and_not_before_its_time() -> None:
    alarm = Alarm()
    assert not rings(alarm, 0)
    start = time.monotonic()
    alarm.set(0.05)
    assert rings(alarm, 2)
    assert time.monotonic() - start >= 0.05
    assert rings(alarm, 0), "it rings until it is cleared"
    alarm.clear()
    assert not rings(alarm, 0.08)


def test_a_new_time_replaces_the_old_one() -> None:
    alarm = Alarm()
    alarm.set(60)
    alarm.set(0.01)
    assert rings(alarm, 2)
    alarm.set(60)
    assert not rings(alarm, 0)


@pytest.mark.parametrize("seconds", [0, -1, -math.inf, math.nan, 1e10, 1e30, math.inf])
def test_no_time_at_all_turns_it_off_and_so_does_a_very_long_one(seconds: float) -> None:
    alarm = Alarm()
    alarm.set(0.02)
    alarm.set(seconds)
    assert not rings(alarm, 0.05)


def test_the_shortest_time_rings() -> None:
    alarm = Alarm()
    alarm.set(1e-12)
    assert rings(alarm, 1)


def test_clear_does_not_block() -> None:
    alarm = Alarm()
    start = time.monotonic()
    alarm.clear()
    assert time.monotonic() - start < 1


def test_another_thread_sets_it_and_a_loop_hears_it() -> None:
    async def wait() -> None:
        alarm = Alarm()
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(alarm.fileno(), heard.set)
        thread = threading.Thread(target=alarm.set, args=(0.01,))
        thread.start()
        await asyncio.wait_for(heard.wait(), 2)
        loop.remove_reader(alarm.fileno())
        thread.join()

    asyncio.run(wait())


def test_its_descriptor_is_closed_with_it_and_not_inherited() -> None:
    before = descriptors()
    alarms = [Alarm() for _ in range(50)]
    assert not os.get_inheritable(alarms[0].fileno())
    assert descriptors() == before + 50
    alarms.clear()
    assert descriptors() == before
