"""The recorder: what is put in is what a reader gets, whatever the disk and the clock do."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from esnode._fast.table import Snapshot
from esnode.tsdb import block
from esnode.tsdb.export import Export
from esnode.tsdb.layout import INDEX, OPEN, WINDOW, name
from esnode.tsdb.recorder import Locked, Recorder, cost
from esnode.tsdb.select import select
from tests.running import wait_for
from tests.tsdb.history import HEAT, LOAD, START, Sample, Source, held, many, samples


def now() -> float:
    """The time of the samples."""
    return START / 1000


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """One that flushes when it is asked to, at the time of the samples."""
    made = Recorder(tmp_path / "tsdb", flush=3600, clock=now)
    made.start()
    assert made.flush()
    yield made
    made.stop()


def put(recorder: Recorder, *snapshots: Snapshot) -> list[Sample]:
    """Adds snapshots; their samples in the order of a reader."""
    found: dict[tuple[int, str, int], Sample] = {}
    for snapshot in snapshots:
        recorder.add(snapshot)
        for sample in samples(snapshot):
            found[sample[1] // WINDOW, sample[0], sample[1]] = sample
    return [found[key] for key in sorted(found)]


def test_what_is_put_in_comes_out(recorder: Recorder) -> None:
    source = Source([(LOAD, ()), (HEAT, ("a", None)), (HEAT, ("ü\n", "b"))])
    wanted = put(
        recorder,
        source.tick(START, [1, 0.1, math.nan]),
        source.tick(START + 5001, [2, math.nan, math.inf]),
        source.tick(START + 9999, [math.nan, math.nan, -0.5]),
    )
    assert not held(recorder.path)
    assert held(recorder.path, recorder.pending()) == wanted, "before it is written"
    assert recorder.flush()
    assert recorder.pending() == {}
    assert held(recorder.path) == wanted
    assert recorder.samples == len(wanted) == 5
    more = put(recorder, source.tick(START + 15000, [3, 4, 5]))
    assert held(recorder.path, recorder.pending()) == sorted(wanted + more)
    unread = recorder.pending()
    assert recorder.flush()
    assert held(recorder.path, unread) == sorted(wanted + more), "written in between"
    assert (recorder.dropped, recorder.errors, recorder.blocks) == (0, 0, 1)
    assert recorder.oldest == START / 1000
    assert recorder.bytes == (recorder.path / name(START) / OPEN).stat().st_size


def test_stopping_writes_what_there_is(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, flush=3600, clock=now)
    recorder.start()
    wanted = put(recorder, many(10).tick(START, range(10)))
    recorder.stop()
    assert held(tmp_path) == wanted


def test_it_flushes_by_itself_and_when_a_block_ends(tmp_path: Path) -> None:
    source = many(3)
    often = Recorder(tmp_path / "often", flush=0.05, clock=now)
    seldom = Recorder(tmp_path / "seldom", flush=3600, clock=now)
    for recorder in (often, seldom):
        recorder.start()
        assert recorder.flush()
        recorder.add(source.tick(START + WINDOW - 1, [1, 2, 3]))
    wait_for(lambda: often.samples == 3, "a flush")
    assert seldom.samples == 0
    seldom.add(source.tick(START + WINDOW, [1, 2, 3]))
    wait_for(lambda: seldom.samples >= 3, "a flush at the end of a block")
    for recorder in (often, seldom):
        recorder.stop()
    assert [path.name for path in sorted((tmp_path / "seldom").iterdir())] == [
        name(START),
        name(START + WINDOW),
        "age.json",
        "lock",
    ]


def test_a_clock_that_steps(recorder: Recorder) -> None:
    """Each sample is in the block of its own time; of two of one millisecond the later counts."""
    source = many(3)
    stamps = [0, 5, 5, 3, WINDOW, WINDOW + 1, -1, 7, -WINDOW, 3 * WINDOW, 5]
    snapshots = [
        source.tick(START + stamp, [index, index + 0.5, index if index % 2 else math.nan])
        for index, stamp in enumerate(stamps)
    ]
    wanted = put(recorder, *snapshots[:4])
    assert recorder.flush()
    wanted = put(recorder, *snapshots)  # all of the first ones again
    assert held(recorder.path, recorder.pending()) == wanted
    assert recorder.flush()
    assert held(recorder.path) == wanted


def test_a_second_one_is_refused_and_can_follow(recorder: Recorder) -> None:
    second = Recorder(recorder.path, clock=now)
    with pytest.raises(Locked, match=f"{recorder.path}: another agent"):
        second.start()
    wanted = put(recorder, many(2).tick(START, [1, 2]))
    recorder.stop()
    second.start()
    wanted += put(second, many(2).tick(START + 1, [3, 4]))
    second.stop()
    assert held(recorder.path) == sorted(wanted)


class Disk:
    """Stands for a disk that is full after so many more bytes, or does not sync."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.room: float = math.inf
        self.syncs = True
        self.write, self.sync = os.write, os.fdatasync
        patch.setattr(block.os, "write", self.take)
        patch.setattr(block.os, "fdatasync", self.settle)

    def take(self, descriptor: int, data: memoryview) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name != OPEN:
            return self.write(descriptor, data)
        size = int(min(self.room, len(data)))
        if not size:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= size
        return self.write(descriptor, data[:size])

    def settle(self, descriptor: int) -> None:
        if not self.syncs:
            raise OSError(errno.EIO, "Input/output error")
        self.sync(descriptor)


@pytest.mark.parametrize("room", [0, 1, 700, math.inf])
def test_a_failed_flush_is_done_again_as_a_whole(
    room: float, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = many(10)
    wanted = put(recorder, source.tick(START, range(10)))
    assert recorder.flush()
    disk = Disk(monkeypatch)
    disk.room, disk.syncs = room, False
    more = put(recorder, source.tick(START + 1, range(10)), source.tick(START + WINDOW, range(10)))
    assert not recorder.flush()
    assert recorder.errors > 0
    assert held(recorder.path) == wanted, "none of it, not a part"
    more += put(recorder, source.tick(START + 2, range(10)))
    assert sorted(held(recorder.path, recorder.pending())) == sorted(wanted + more)
    disk.room, disk.syncs = math.inf, True
    assert recorder.flush()
    assert sorted(held(recorder.path)) == sorted(wanted + more)
    assert recorder.dropped == 0


def test_a_queue_that_is_full_drops_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = many(100)
    ticks = [source.tick(START + stamp, range(100)) for stamp in range(50)]
    recorder = Recorder(tmp_path, flush=3600, queue=10 * cost(ticks[0]), clock=now)
    disk = Disk(monkeypatch)
    disk.room = 0
    recorder.start()
    for tick in ticks:
        recorder.add(tick)
        if tick is ticks[20]:
            assert not recorder.flush()
    assert recorder.dropped == 40 * 100
    disk.room = math.inf
    assert recorder.flush()
    assert held(tmp_path) == sorted(sample for tick in ticks[40:] for sample in samples(tick))
    recorder.stop()


def test_an_export_of_a_full_queue_takes_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of what waits for the disk is many times as big; it is never there as a whole."""
    rows, ticks = 1000, 500
    recorder = Recorder(tmp_path, flush=3600, clock=now)
    Disk(monkeypatch).room = 0
    recorder.start()
    source = many(rows)
    for stamp in range(ticks):
        recorder.add(source.tick(START + stamp, (row + stamp / 7 for row in range(rows))))
    assert not recorder.flush()
    tracemalloc.start()
    try:
        export = Export(tmp_path, select(), pending=recorder.pending())
        size = sum(map(len, export))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert export.samples == rows * ticks
    assert size > 20 << 20
    assert peak < 3 << 20
    recorder._queue.clear()
    recorder.stop()


def test_a_path_that_is_removed_comes_back(recorder: Recorder) -> None:
    source = many(2)
    put(recorder, source.tick(START, [1, 2]))
    assert recorder.flush()
    shutil.rmtree(recorder.path / name(START))
    wanted = put(recorder, source.tick(START + 1, [1, 2]))
    assert recorder.flush()
    assert held(recorder.path) == wanted


def test_a_path_that_cannot_be_made_yet(tmp_path: Path) -> None:
    """What is in the way goes, and the recorder goes on by itself."""
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    recorder = Recorder(obstacle / "tsdb", flush=3600, clock=now)
    recorder.start()
    wanted = put(recorder, many(2).tick(START, [1, 2]))
    assert not recorder.flush()
    obstacle.unlink()
    assert recorder.flush()
    assert held(recorder.path) == wanted
    recorder.stop()
    assert not (recorder.path / name(START) / INDEX).exists()
