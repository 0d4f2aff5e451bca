"""statvfs of mounts, one of which hangs: a FUSE file system whose daemon is stopped."""

from __future__ import annotations

import errno
import gc
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from esnode._fast.mounts import VALUES, Mounts
from esnode._fast.procfs import File
from esnode._fast.table import Table
from tests.process import descriptors, threads
from tests.running import wait_for

PATIENCE = 0.02
TIMEOUT = 0.3


class Fuse:
    """A directory shown at another place by bindfs."""

    def __init__(self, below: Path, *options: str) -> None:
        self.source, self.point = below / "source", below / "point"
        self.source.mkdir(parents=True)
        self.point.mkdir()
        self.daemon = subprocess.Popen(
            ["bindfs", "-f", *options, str(self.source), str(self.point)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: os.path.ismount(self.point) or self.daemon.poll() is not None)
        if self.daemon.poll() is not None:
            pytest.skip("bindfs cannot mount here")

    @property
    def path(self) -> bytes:
        return os.fsencode(self.point)

    def hang(self) -> None:
        self.daemon.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.daemon.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    def go_on(self) -> None:
        self.daemon.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.go_on()
        subprocess.run(["umount", "-l", str(self.point)], capture_output=True)
        try:
            self.daemon.wait(5)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[Callable[..., Fuse]]:
    if not shutil.which("bindfs") or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("bindfs or /dev/fuse is not there")
    made: list[Fuse] = []

    def make(*options: str) -> Fuse:
        made.append(Fuse(tmp_path / f"fuse{len(made)}", *options))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Bound:
    """A reader and what it reads, by path."""

    def __init__(self, *paths: bytes) -> None:
        self.table = Table([])
        self.mounts = Mounts(self.table, TIMEOUT, PATIENCE)
        self.slots: dict[bytes, list[int]] = {}
        self.errors: dict[bytes, int] = {}
        for path in paths:
            self.bind(path)

    def bind(self, path: bytes) -> None:
        self.slots[path] = [self.table.hidden() for _ in VALUES]
        self.mounts.bind(path, self.slots[path])

    def drop(self, path: bytes) -> None:
        self.mounts.drop(path)
        for slot in self.slots.pop(path):
            self.table.forget(slot)

    def read(self) -> dict[bytes, dict[str, float]]:
        """The values that are there."""
        self.table.begin(True)
        self.errors = self.mounts.read()
        found = {}
        for path, slots in self.slots.items():
            values = zip(VALUES, map(self.table.get, slots), strict=True)
            found[path] = {name: value for name, value in values if not math.isnan(value)}
        return found


def expected(path: bytes) -> dict[str, float]:
    """The values by Python's own statvfs."""
    answer = os.statvfs(path)
    values = {
        "total": answer.f_blocks * answer.f_frsize,
        "used": (answer.f_blocks - answer.f_bfree) * answer.f_frsize,
        "free": answer.f_bfree * answer.f_frsize,
        "available": answer.f_bavail * answer.f_frsize,
        "readonly": float(bool(answer.f_flag & os.ST_RDONLY)),
        "timeout": 0,
    }
    if answer.f_files:
        values |= {"inodes": answer.f_files, "inodes_free": answer.f_ffree}
    return values


def same(bound: Bound, path: bytes) -> bool:
    """Whether a reading says what statvfs says, on a file system that others write to."""
    for _ in range(20):
        before = expected(path)
        values = bound.read()[path]
        if expected(path) == before:
            return values == before
    raise AssertionError(f"{path!r} does not keep still")


def test_values_are_those_of_statvfs(tmp_path: Path) -> None:
    paths = [b"/", b"/proc", b"/sys", b"/dev", os.fsencode(tmp_path)]
    bound = Bound(*paths)
    for path in paths:
        assert same(bound, path), path
    assert bound.errors == {}


def test_a_read_only_mount(fuse: Callable[..., Fuse]) -> None:
    mount = fuse("-o", "ro")
    assert Bound(mount.path).read()[mount.path]["readonly"] == 1


def test_a_path_that_refuses_has_its_errno_and_no_values(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    missing, below = os.fsencode(tmp_path / "missing"), os.fsencode(tmp_path / "file/below")
    bound = Bound(b"/", missing, below)
    for _ in range(2):
        values = bound.read()
        assert bound.errors == {missing: errno.ENOENT, below: errno.ENOTDIR}
        assert values[missing] == values[below] == {"timeout": 0}
        assert values[b"/"]["total"] > 0
    (tmp_path / "missing").mkdir()
    assert "total" in bound.read()[missing], "an error was kept"
    assert missing not in bound.errors


def test_mounts_come_and_go(tmp_path: Path) -> None:
    paths = [os.fsencode(tmp_path / str(i)) for i in range(100)]
    for path in paths:
        Path(os.fsdecode(path)).mkdir()
    bound = Bound(*paths)
    assert all("total" in values for values in bound.read().values())
    for path in paths[::2]:
        bound.drop(path)
    assert set(bound.read()) == set(paths[1::2])
    for path in paths[::2]:
        bound.bind(path)
    assert all("total" in values for values in bound.read().values())
    with pytest.raises(KeyError):
        bound.mounts.drop(b"/nothing")


def test_what_cannot_be_bound_is_refused() -> None:
    bound = Bound(b"/")
    slots = bound.slots[b"/"]
    for path, count in ((b"/", 8), (b"/" + b"x" * 4095, 8), (b"/proc", 7), (b"/proc", 9)):
        with pytest.raises(ValueError, match="bound already, too long"):
            bound.mounts.bind(path, (slots * 2)[:count])
    assert "total" in bound.read()[b"/"]
    bound.bind(b"/" + b"x" * 4094)
    bound.read()
    assert list(bound.errors.values()) == [errno.ENAMETOOLONG]


def test_start_may_come_long_before_read_and_more_than_once() -> None:
    bound = Bound(b"/", b"/proc")
    for _ in range(100):
        bound.mounts.start()
        bound.mounts.start()
        assert all("total" in values for values in bound.read().values())


def test_a_hung_mount_costs_nobody_else(fuse: Callable[..., Fuse], tmp_path: Path) -> None:
    """The whole story of a mount that stops answering and comes back."""
    mount = fuse()
    other = os.fsencode(tmp_path)
    bound = Bound(mount.path, b"/proc", other)
    last = bound.read()[mount.path]
    assert "total" in last

    mount.hang()
    hung = time.monotonic()
    values = bound.read()
    assert time.monotonic() - hung < 0.2
    assert values[mount.path] == last, "within the timeout the last answer counts"
    assert same(bound, other)

    wait_for(lambda: bound.read()[mount.path] != last)
    assert TIMEOUT <= time.monotonic() - hung < TIMEOUT + 0.5
    assert bound.read()[mount.path] == {"timeout": 1}
    assert list(bound.errors.values()) == [errno.ETIMEDOUT]

    before = threads(), descriptors()
    slowest = 0.0
    for _ in range(200):
        start = time.monotonic()
        values = bound.read()
        slowest = max(slowest, time.monotonic() - start)
        assert values[mount.path] == {"timeout": 1}
        assert "total" in values[b"/proc"]
    assert slowest < 0.2
    assert (threads(), descriptors()) == before
    assert same(bound, other)

    mount.go_on()
    wait_for(lambda: bound.read()[mount.path].get("timeout") == 0)
    assert same(bound, mount.path)
    assert threads() <= before[0]


def test_several_hung_mounts(fuse: Callable[..., Fuse]) -> None:
    mounts = [fuse() for _ in range(3)]
    base = threads()
    bound = Bound(*(mount.path for mount in mounts), b"/proc")
    bound.read()
    for mount in mounts:
        mount.hang()
    start = time.monotonic()
    assert "total" in bound.read()[b"/proc"], "the last in the row was not asked"
    assert time.monotonic() - start < 0.4
    wait_for(lambda: [bound.read()[m.path] for m in mounts] == [{"timeout": 1}] * 3)
    assert threads() - base <= 4
    for mount in mounts:
        mount.go_on()
    wait_for(lambda: all("total" in values for values in bound.read().values()))
    wait_for(lambda: threads() - base <= 1)


def test_a_mount_that_hangs_from_the_start(fuse: Callable[..., Fuse]) -> None:
    mount = fuse()
    mount.hang()
    bound = Bound(mount.path)
    assert bound.read()[mount.path] == {}
    wait_for(lambda: bound.read()[mount.path] == {"timeout": 1})


def test_a_hung_mount_can_be_dropped_and_bound_again(fuse: Callable[..., Fuse]) -> None:
    mount = fuse()
    base = threads()
    bound = Bound(mount.path, b"/proc")
    mount.hang()
    for _ in range(5):
        assert "total" in bound.read()[b"/proc"]
        bound.drop(mount.path)
        assert set(bound.read()) == {b"/proc"}
        bound.bind(mount.path)
    mount.go_on()
    wait_for(lambda: "total" in bound.read()[mount.path])
    wait_for(lambda: threads() - base <= 1)


def test_a_reader_that_is_let_go_of_takes_its_threads_along(fuse: Callable[..., Fuse]) -> None:
    mount = fuse()
    base = threads()
    for _ in range(20):
        Bound(b"/").read()
    gc.collect()
    wait_for(lambda: threads() <= base)
    bound = Bound(mount.path, b"/")
    mount.hang()
    bound.read()
    del bound
    gc.collect()
    mount.go_on()
    wait_for(lambda: threads() <= base)


LET_GO = """
import os, signal, sys, time
from esnode._fast.mounts import Mounts
from esnode._fast.table import Table
table = Table([])
mounts = Mounts(table, 0.3, 0.02)
for path in [os.fsencode(sys.argv[1])] + [b"/proc/self/" + b"./" * i for i in range(50)]:
    mounts.bind(path, [table.hidden() for _ in range(8)])
mounts.start()
time.sleep(0.05)
del mounts
spoil = [bytes([255]) * 4400 for _ in range(100)]
os.kill(int(sys.argv[2]), signal.SIGCONT)
time.sleep(0.2)
print(len(os.listdir("/proc/self/task")))
"""


def test_a_reader_may_be_let_go_of_while_it_is_asking(fuse: Callable[..., Fuse]) -> None:
    """In a process of its own, which a use after free would end."""
    mount = fuse()
    mount.hang()
    done = subprocess.run(
        [sys.executable, "-c", LET_GO, str(mount.point), str(mount.daemon.pid)],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_mountinfo_says_when_a_mount_has_come(fuse: Callable[..., Fuse]) -> None:
    info = File("/proc/self/mountinfo")
    assert info.changed(), "nothing was read yet"
    info.read()
    wait_for(lambda: not info.changed())
    mount = fuse()
    assert info.changed()
    assert mount.path in info.read()
    wait_for(lambda: not info.changed())
    mount.close()
    assert info.changed()
    assert mount.path not in info.read()


def test_a_file_that_is_not_the_kernels_may_always_have_changed(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_bytes(b"")
    file = File(tmp_path / "mountinfo")
    for _ in range(2):
        file.read()
        assert file.changed()
