"""collectors/nvidia/journal.py: what is counted, and what of it outlives the process."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esnode.collectors.nvidia import journal as module
from esnode.collectors.nvidia.journal import FILE, KEPT, WINDOW, Event, Journal, Position
from esnode.collectors.nvidia.kernel_log import KernelLog
from esnode.host import Host
from tests.running import PATIENCE, wait_for

GPU, OTHER = "GPU-0c53ed0a", "GPU-11111111"
PCI = "0000:3b:00"
NOW = 1_700_000_000.0


def nvml(code: int = 79, when: float = NOW, kind: str = "xid", uuid: str = GPU) -> Event:
    return Event(when, "nvml", kind, uuid=uuid, code=code)


def kernel(code: int = 79, when: float = NOW, pci: str = PCI, text: str = "pid=1") -> Event:
    return Event(when, "kernel", "xid", pci=pci, code=code, text=text)


def known() -> Journal:
    """One in memory that knows its GPU's address."""
    journal = Journal(None)
    journal.start()
    journal.name({PCI: GPU})
    return journal


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Journal]:
    """One with a file."""
    journal = Journal(tmp_path)
    assert journal.start() is None
    yield journal
    journal.close(PATIENCE)


def loaded(directory: Path) -> Journal:
    """A further one, which has read what was saved and writes no more."""
    journal = Journal(directory)
    assert journal.start(PATIENCE) is None
    journal.close(PATIENCE)
    return journal


# Counting.


def test_counters_by_gpu_code_and_kind() -> None:
    journal = known()
    assert journal.add([nvml(31), nvml(31, NOW + 1), nvml(79, NOW + 2)]) == 3
    assert journal.add([nvml(0, NOW + 3, "clock"), nvml(13, NOW + 4, uuid=OTHER)]) == 2
    found = journal.counters()
    assert found.xids == {(GPU, 31): 2, (GPU, 79): 1, (OTHER, 13): 1}
    assert found.kinds == {(GPU, "xid"): 3, (GPU, "clock"): 1, (OTHER, "xid"): 1}
    assert found.last_xid == {GPU: 79, OTHER: 13}
    assert found.last_time == {GPU: NOW + 3, OTHER: NOW + 4}
    assert [event.code for event in journal.events] == [31, 31, 79, 0, 13]


def test_a_switchs_errors_are_by_code_alone() -> None:
    journal = known()
    journal.add([Event(NOW, "kernel", "sxid", pci=PCI, code=20034, text="Fatal, Link 30")] * 3)
    found = journal.counters()
    assert found.sxids == {20034: 3}
    assert (found.xids, found.kinds, found.last_xid) == ({}, {}, {})
    assert [event.kind for event in journal.events] == ["sxid"] * 3


@pytest.mark.parametrize("gap", [0.0, WINDOW, -WINDOW])
@pytest.mark.parametrize("kernel_first", [True, False])
def test_the_same_event_of_both_sources_is_one(gap: float, kernel_first: bool) -> None:
    journal = known()
    both = [kernel(when=NOW), nvml(when=NOW + gap)]
    assert [journal.add([event]) for event in (both if kernel_first else both[::-1])] == [1, 0]
    assert journal.counters().xids == {(GPU, 79): 1}
    assert journal.counters().kinds == {(GPU, "xid"): 1}
    (event,) = journal.events
    assert event.text == "pid=1"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (kernel(79), nvml(119)),
        (kernel(79), nvml(79, uuid=OTHER)),
        (kernel(79), nvml(79, NOW + WINDOW + 2)),
        (kernel(79), nvml(79, NOW - WINDOW - 2)),
        (kernel(79), nvml(79, kind="clock")),
        (kernel(79), kernel(79)),
        (nvml(79), nvml(79)),
    ],
)
def test_different_events_are_two(one: Event, other: Event) -> None:
    for order in ([one, other], [other, one]):
        assert known().add(order) == 2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("lines", "told"), [(1000, 1000), (1000, 0), (0, 1000), (1000, 1), (7, 1)])
def test_a_burst_counts_what_the_more_talkative_source_told(
    lines: int, told: int, seed: int
) -> None:
    """In whatever way the two are interleaved, within a few seconds."""
    times = [NOW + n / 250 for n in range(1000)]
    left = [kernel(when=when) for when in times[:lines]], [nvml(when=when) for when in times[:told]]
    journal = known()
    order = [0] * lines + [1] * told
    random.Random(seed).shuffle(order)
    for source in sorted(order) if seed == 0 else order:
        journal.add([left[source].pop(0)])
    assert journal.counters().xids == {(GPU, 79): max(lines, told)}


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["nvml", "kernel"]), st.integers(0, 30), st.sampled_from([13, 31])
        ),
        max_size=60,
    )
)
def test_no_event_stands_for_two(steps: list[tuple[str, int, int]]) -> None:
    """Each source in order of time: at least the larger of both counts, at most their sum."""
    clock = Counter[str]()
    told: Counter[tuple[str, int]] = Counter()
    journal = known()
    for source, gap, code in steps:
        clock[source] += gap
        told[source, code] += 1
        when = NOW + clock[source]
        journal.add([nvml(code, when) if source == "nvml" else kernel(code, when)])
    xids = journal.counters().xids
    for code in (13, 31):
        one, other = told["nvml", code], told["kernel", code]
        assert max(one, other) <= xids.get((GPU, code), 0) <= one + other
    assert len(journal.events) == sum(xids.values())


def test_a_clock_that_is_set_back_hides_no_later_twin() -> None:
    journal = known()
    journal.add([nvml(when=NOW)])
    back = NOW - 5000
    assert journal.add([nvml(when=back), kernel(when=back)]) == 1


def test_what_is_known_by_its_address_goes_to_the_gpu() -> None:
    journal = Journal(None)
    journal.add([kernel(79), kernel(31, NOW + 1)])
    assert journal.counters().xids == {(PCI, 79): 1, (PCI, 31): 1}
    journal.add([nvml(13, NOW - 5)])
    journal.name({PCI: GPU})
    found = journal.counters()
    assert found.xids == {(GPU, 13): 1, (GPU, 79): 1, (GPU, 31): 1}
    assert found.kinds == {(GPU, "xid"): 3}
    assert (found.last_xid, found.last_time) == ({GPU: 31}, {GPU: NOW + 1})
    assert {event.uuid for event in journal.events} == {GPU}
    # What waits for its twin does so under the new name.
    assert journal.add([nvml(79, NOW + 1)]) == 0


def test_an_event_of_no_gpu_is_kept_and_counted_nowhere() -> None:
    journal = known()
    assert journal.add([Event(NOW, "nvml", "power_source_change")]) == 1
    assert journal.counters().kinds == {}
    assert len(journal.events) == 1


def test_memory_is_bounded() -> None:
    journal = known()
    events = [nvml(code, NOW + code) for code in range(5000)]
    events += [kernel(79, NOW, f"{n:04x}:3b:00") for n in range(5000)]
    events += [nvml(79, NOW + n) for n in range(5000)]
    events += [Event(NOW, "kernel", "sxid", pci=PCI, code=n) for n in range(5000)]
    for event in events:
        journal.add([event])
    found = journal.counters()
    assert len(journal.events) == KEPT
    assert len(found.xids) <= module.GPUS * 2 + module.CODES
    assert len(found.sxids) <= module.SWITCH_CODES
    assert 5000 <= found.xids[GPU, 79] <= 5002
    assert all(len(twins) <= module.SECONDS for twins in journal._waiting.values())


def test_it_says_when_there_is_something_new() -> None:
    journal = known()
    before = journal.changes
    journal.add([], Position("boot", 3))
    assert journal.changes == before
    journal.add([kernel()])
    assert journal.changes > before
    before = journal.changes
    journal.name({PCI: GPU})
    assert journal.changes == before


def test_without_a_directory_nothing_is_written() -> None:
    journal = known()
    journal.add([kernel()])
    assert journal.flush(0)
    assert journal.close(0)
    assert journal.counters().xids == {(GPU, 79): 1}


# The file.


def test_all_survives_a_restart(tmp_path: Path, opened: Journal) -> None:
    opened.name({PCI: GPU})
    opened.add([nvml(13), kernel(79, NOW + 1), nvml(4, NOW + 2, "mig_config_change")])
    opened.add([Event(NOW, "kernel", "sxid", pci=PCI, code=20034)], Position("boot", 41))
    assert opened.close(PATIENCE)
    again = loaded(tmp_path)
    assert again.counters() == opened.counters()
    assert again.events == opened.events
    assert again.position == Position("boot", 41)
    # The lines of what the driver told are still to be read, and the GPU's address is known.
    assert again.add([kernel(13)]) == 0
    assert again.add([kernel(79, NOW + 2)]) == 1


def test_adding_is_enough_to_be_saved(tmp_path: Path, opened: Journal) -> None:
    opened.add([nvml()])
    wait_for((tmp_path / FILE).exists)


def test_where_the_log_is_at_is_saved_before_the_first_event(
    tmp_path: Path, opened: Journal
) -> None:
    opened.add([], Position("boot", 7))
    wait_for((tmp_path / FILE).exists)
    opened.close(PATIENCE)
    assert loaded(tmp_path).position == Position("boot", 7)


def test_the_file_is_for_us_alone(tmp_path: Path, opened: Journal) -> None:
    assert opened.flush(PATIENCE)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / f"{FILE}.new").exists()


WRITER = """
import sys
from pathlib import Path
from esnode.collectors.nvidia.journal import Event, Journal, Position
journal = Journal(Path(sys.argv[1]))
assert journal.start(10) is None
count = sum(journal.counters().xids.values())
print(count, flush=True)
while True:
    events = [Event(1e9 + count, "kernel", "xid", uuid="GPU", code=31, text="x" * 200)]
    count += journal.add(events, Position("boot", count))
    if count % 50 == 0:
        assert journal.flush(10), journal.problem
        print(count, flush=True)
"""


def test_a_process_that_is_killed_leaves_all_that_was_saved(tmp_path: Path) -> None:
    """Again and again, at any moment, in the midst of a writing as well."""
    count = 0
    for attempt in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert int(process.stdout.readline()) >= count
            while count < 100 * (attempt + 1):
                count = int(process.stdout.readline())
            time.sleep(random.Random(attempt).uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
            count = int(rest[-1]) if rest else count
        again = loaded(tmp_path)
        assert again.problem is None
        found = again.counters().xids["GPU", 31]
        assert found >= count
        assert again.position == Position("boot", found - 1)
        count = found


def content(directory: Path) -> bytes:
    """The file of a journal with some events."""
    journal = Journal(directory)
    journal.start(PATIENCE)
    journal.add([nvml(13), kernel(79)], Position("boot", 5))
    assert journal.close(PATIENCE)
    return (directory / FILE).read_bytes()


def begins_at_zero(directory: Path, damaged: bytes, text: str = "is damaged, or not ours") -> None:
    """Reads a file that is no good: it is said once, counted from 0, and kept aside."""
    (directory / FILE).write_bytes(damaged)
    journal = Journal(directory)
    problem = journal.start(PATIENCE)
    assert problem is not None
    assert text in problem
    assert str(directory) in problem
    assert "\n" not in problem
    assert journal.counters() == ({}, {}, {}, {}, {})
    assert (journal.events, journal.position) == ([], None)
    assert journal.add([nvml(31)]) == 1
    assert journal.close(PATIENCE)
    assert journal.problem is None
    assert loaded(directory).counters().xids == {(GPU, 31): 1}
    assert (directory / f"{FILE}.old").read_bytes() == damaged


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\0" * 4096,
        b"[]",
        b"{}",
        b'{"version":1,"crc32":0,"state":{}}',
        b'{"version":0,"crc32":0,"state":{}}',
        b'{"version":"1","crc32":0,"state":{}}',
        b'{"some":"other","program":1}',
        b"[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_file(tmp_path: Path, damaged: bytes) -> None:
    begins_at_zero(tmp_path, damaged)


def test_a_file_that_is_cut_short_or_changed_anywhere(tmp_path: Path) -> None:
    whole = content(tmp_path)
    chosen = random.Random(1)
    for attempt in range(20):
        damaged = bytearray(whole)
        at = chosen.randrange(len(whole))
        if attempt % 2:
            damaged[at:] = b""
        else:
            damaged[at] ^= 1 << chosen.randrange(8)
        begins_at_zero(tmp_path, bytes(damaged), "begins at 0")


def test_a_file_of_a_future_version(tmp_path: Path) -> None:
    future = json.loads(content(tmp_path)) | {"version": 2, "state": {"gpus": 7}}
    begins_at_zero(tmp_path, json.dumps(future).encode(), "newer version")


@pytest.mark.parametrize(
    "state",
    [
        '{"gpus":{"GPU":{"xids":{"79":-1}}}}',
        '{"gpus":{"GPU":{"xids":{"79":1e300}}}}',
        '{"gpus":{"GPU":{"xids":{"79":99999999999999999999999}}}}',
        '{"gpus":{"GPU":{"xids":{"-3":1}}}}',
        '{"gpus":{"GPU":{"time":-1}}}',
        '{"gpus":{"GPU":{"time":1e200}}}',
        '{"events":[{"time":1,"source":"me","kind":"xid"}]}',
        '{"sequence":-5}',
    ],
)
def test_absurd_numbers_under_a_good_sum(tmp_path: Path, state: str) -> None:
    text = f'{{"version":1,"crc32":{module.zlib.crc32(state.encode())},"state":{state}}}'
    begins_at_zero(tmp_path, text.encode())


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    """A FIFO is not waited for, a link not followed."""
    os.mkfifo(tmp_path / FILE)
    journal = Journal(tmp_path)
    assert "not a regular file" in (journal.start(PATIENCE) or "")
    assert journal.close(PATIENCE)
    (tmp_path / FILE).unlink()
    (tmp_path / "target").write_text("precious")
    (tmp_path / FILE).symlink_to("target")
    (tmp_path / f"{FILE}.new").symlink_to("target")
    journal = Journal(tmp_path)
    assert "counting begins at 0" in (journal.start(PATIENCE) or "")
    journal.add([nvml()])
    assert journal.close(PATIENCE)
    assert (tmp_path / "target").read_text() == "precious"


def test_a_directory_that_cannot_be_written_costs_the_file_only(tmp_path: Path) -> None:
    place = tmp_path / "a" / "state"
    journal = Journal(place)
    assert journal.start(PATIENCE) is None
    place.rmdir()  # it was made
    assert journal.add([nvml()]) == 1
    assert not journal.flush(PATIENCE)
    assert journal.problem == f"{place}/{FILE}: cannot be written: No such file or directory"
    assert journal.add([nvml(31)]) == 1
    place.mkdir()
    assert journal.flush(PATIENCE)
    assert journal.problem is None
    assert journal.close(PATIENCE)
    assert loaded(place).counters() == journal.counters()


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file" / "state")
    assert "Not a directory" in (journal.start(PATIENCE) or "")
    assert journal.add([nvml()]) == 1
    assert not journal.close(PATIENCE)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, opened: Journal) -> None:
    """The limit of a file's size stands for a full disk: both fail in write()."""
    opened.add([nvml()])
    assert opened.flush(PATIENCE)
    before = (tmp_path / FILE).read_bytes()
    opened.add([kernel(text="x" * 5000)] * 10)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        written = opened.flush(PATIENCE)
        problem = opened.problem
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not written
    assert problem is not None
    assert "cannot be written" in problem
    assert (tmp_path / FILE).read_bytes() == before
    assert opened.flush(PATIENCE)


def test_of_two_agents_one_writes(tmp_path: Path, opened: Journal) -> None:
    opened.add([nvml()])
    assert opened.flush(PATIENCE)
    second = Journal(tmp_path)
    assert second.start(PATIENCE) is None
    assert second.counters() == opened.counters()
    second.add([nvml(31)])
    assert not second.flush(PATIENCE)
    assert second.problem is not None
    assert "another agent" in second.problem
    assert opened.flush(PATIENCE)
    # When the first one ends, the second takes over.
    assert opened.close(PATIENCE)
    assert second.flush(PATIENCE)
    assert second.problem is None
    assert second.close(PATIENCE)
    assert loaded(tmp_path).counters().xids == {(GPU, 79): 1, (GPU, 31): 1}


def test_a_hung_disk_holds_up_nothing(hung: Path) -> None:
    journal = Journal(hung)
    start = time.monotonic()
    problem = journal.start(0.1)
    assert problem is not None
    assert "does not answer" in problem
    assert journal.add([nvml()]) == 1
    assert not journal.flush(0.1)
    assert not journal.close(0.1)
    assert time.monotonic() - start < 2
    assert journal.counters().xids == {(GPU, 79): 1}


def test_a_storm_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writings = []
    write = Journal._write

    def counted(self: Journal, content: bytes) -> None:
        writings.append(len(content))
        write(self, content)

    monkeypatch.setattr(Journal, "_write", counted)
    journal = Journal(tmp_path)
    journal.start(PATIENCE)
    start = time.monotonic()
    for number in range(1000):
        journal.add([nvml(when=NOW + number / 1000)])
    took = time.monotonic() - start
    assert len(writings) <= 2 + took / module.PAUSE
    assert journal.close(PATIENCE)
    assert loaded(tmp_path).counters().xids == {(GPU, 79): 1000}


def test_an_agent_that_is_killed_between_two_savings_loses_no_line_and_counts_none_twice(
    tmp_path: Path,
) -> None:
    """Only what had been saved is known to the next one; the log itself has the rest."""
    log_file = tmp_path / "dev/kmsg"
    boot = tmp_path / "proc/sys/kernel/random/boot_id"
    for path, text in ((log_file, ""), (boot, "boot\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    host = Host(procfs=str(tmp_path / "proc"), devfs=str(tmp_path / "dev"))
    chosen = random.Random(3)
    written = 0
    for start in range(10):
        journal = Journal(tmp_path)
        assert journal.start(PATIENCE) is None
        journal.name({PCI: GPU})
        log = KernelLog(host, journal.position)
        journal.add([], log.position)
        for _ in range(5):
            lines = chosen.randrange(20)
            with log_file.open("a") as file:
                for number in range(written, written + lines):
                    file.write(f"3,{number},{number},-;NVRM: Xid ({PCI}): 31, pid=1\n")
            written += lines
            journal.add(log.read(), log.position)
            if not start or chosen.random() < 0.5:
                assert journal.flush(PATIENCE)
        log.close()
        # As good as killed: what is counted from here on is not written any more.
        journal._write = lambda content: None  # type: ignore[method-assign]
        journal.close(PATIENCE)
    journal = loaded(tmp_path)
    log = KernelLog(host, journal.position)
    journal.add(log.read(), log.position)
    assert journal.counters().xids == {(GPU, 31): written}
