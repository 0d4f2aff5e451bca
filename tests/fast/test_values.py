"""Small files read by folder: what is in them, folders that change, refuse and hang."""

from __future__ import annotations

import errno
import gc
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from esnode._fast import values
from esnode._fast.table import Table
from esnode._fast.values import MALFORMED, Values
from tests import oracle
from tests.collectors.fuse import HANGS, FileSystem
from tests.fast.texts import ODD
from tests.process import SANITIZED, descriptors, resident, threads
from tests.running import wait_for

PATIENCE = 0.05
TIMEOUT = 0.5
#: As long as it takes.
PATIENT = 10
#: The size of a text that is too long for a value.
SIZE = 512
#: The limit of descriptors when none is set.
MOST = 1 << 30


class Bound:
    """A reader with a hidden slot for each value that it is asked for."""

    def __init__(
        self, timeout: float = TIMEOUT, patience: float = PATIENCE, quick: bool = False
    ) -> None:
        self.table = Table([])
        self.values = Values(self.table, timeout, patience, quick)
        self.slots: dict[bytes, dict[str, int]] = {}
        self.errors: dict[str, int] = {}
        self.changed: list[bytes] = []

    def bind(self, folder: Path, *cells: tuple[Any, ...] | str) -> None:
        """A cell is a name, or (name[, num[, den[, signed]]]), (name, numbers of states) or
        (name, None) for a text."""
        path = os.fsencode(folder)
        slots = self.slots[path] = {}

        def slot(name: str) -> int:
            slots[name] = self.table.hidden()
            return slots[name]

        made: list[tuple[Any, ...]] = []
        for cell in cells:
            name, *rest = (cell,) if isinstance(cell, str) else cell
            file = os.fsencode(name)
            if rest == [None]:
                made.append((file,))
            elif rest and isinstance(rest[0], tuple):
                made.append((file, {number: slot(f"{name}={number}") for number in rest[0]}))
            else:
                made.append((file, slot(name), *rest))
        self.values.bind(path, made)

    def drop(self, folder: Path) -> None:
        self.values.drop(os.fsencode(folder))
        for slot in self.slots.pop(os.fsencode(folder)).values():
            self.table.forget(slot)

    def read(self, folder: Path | None = None, tick: bool = True) -> dict[str, float]:
        """The values that are there, of a folder or all of them."""
        self.table.begin(True)
        self.values.start(tick)
        errors, self.changed = self.values.read()
        self.errors = {os.fsdecode(path).rpartition("/")[2]: code for path, code in errors.items()}
        wanted = self.slots.values() if folder is None else [self.slots[os.fsencode(folder)]]
        found = {name: self.table.get(slot) for slots in wanted for name, slot in slots.items()}
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def text(self, folder: Path, name: str) -> bytes | None:
        return self.values.text(os.fsencode(folder), name.encode())


def of(folder: Path, *cells: tuple[Any, ...] | str, **keys: Any) -> Bound:
    bound = Bound(**keys)
    bound.bind(folder, *cells)
    return bound


def replace(path: Path, text: str) -> None:
    """Puts another file in the place of one."""
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    fresh.rename(path)


# What is in a file.


@pytest.mark.parametrize(
    ("text", "scale", "value"),
    [
        (b"0\n", (), 0),
        (b"42\n", (), 42),
        (b"42", (), 42),
        (b" \t42 \n\n", (), 42),
        (b"42\0\0\0", (), 42),
        (b"\0 42", (), 42),
        (b"00042\n", (), 42),
        (b"18446744073709551615\n", (), 2**64),
        (b"0.25\n", (), 0.25),
        (b"12.50\n", (4,), 50),
        (b"3\n", (1, 10), 0.3),
        (b"52000\n", (1, 1000), 52),
        (b"7\n", (4, 1), 28),
        (b"-1\n", (), None),
        (b"-0.5\n", (), None),
        (b"-5\n", (1, 1, True), -5),
        (b"-12500\n", (1, 1000, True), -12.5),
        (b"12500\n", (1, 1000, True), 12.5),
        (b"N/A\n", (), None),
        (b" N/A (no PMA)\n", (), None),
        (b"5".ljust(SIZE - 1), (), 5),
    ],
)
def test_a_number(tmp_path: Path, text: bytes, scale: tuple[Any, ...], value: float | None) -> None:
    (tmp_path / "a").write_bytes(text)
    bound = of(tmp_path, ("a", *scale))
    for _ in range(2):
        assert bound.read() == ({} if value is None else {"a": value})
        assert bound.errors == {}


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"\n", b"\0", b"-", b"--1", b"- 1", b"+1", b"x", b"1 2", b"1\n2\n", b"1\0002"),
        *(b"0x1f", b"1e3", b"1.", b".5", b"1.2.3", b"1,5", b"\xff\xfe", b"5\r\n", b"n/a", b"N/"),
        *(b"18446744073709551616", b"9" * 400, b"0." + b"0" * 20, b"<unsupported>\n"),
        *(b"5".ljust(SIZE), b"5".ljust(SIZE + 1), b"1" * 100_000, b"\0" * 600, b"5 kB\n"),
    ],
)
def test_what_is_no_number_is_absent_and_told(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a").write_bytes(text)
    (tmp_path / "b").write_bytes(b"7\n")
    bound = of(tmp_path, ("a", 1, 1, True), "b")
    for _ in range(2):
        assert bound.read() == {"b": 7}
        assert bound.errors == {"a": MALFORMED}
    (tmp_path / "a").write_bytes(b"5\n")
    assert bound.read() == {"a": 5, "b": 7}
    assert bound.errors == {}


@pytest.mark.parametrize(
    ("text", "ones"),
    [
        (b"4: ACTIVE\n", [4]),
        (b"1: DOWN\n", [1]),
        (b"4\n", [4]),
        (b"4:", [4]),
        (b"6: ELSE\n", []),
        (b"N/A\n", None),
        (b"-4: ACTIVE\n", None),
    ],
)
def test_a_state(tmp_path: Path, text: bytes, ones: list[int] | None) -> None:
    (tmp_path / "state").write_bytes(text)
    bound = of(tmp_path, ("state", (1, 4, 5)))
    expected = {f"state={n}": float(n in ones) for n in (1, 4, 5)} if ones is not None else {}
    assert bound.read() == expected
    assert bound.errors == {}
    (tmp_path / "state").write_bytes(b"ACTIVE\n")
    assert bound.read() == {}
    assert bound.errors == {"state": MALFORMED}


def test_a_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"in_sync\n")
    bound = of(tmp_path, ("a", None), ("b", None))
    assert bound.text(tmp_path, "a") is None
    for text, known in (
        (b"in_sync\n", b"in_sync\n"),
        (b"faulty", b"faulty"),
        (b"", b""),
        (b"\0\xff\n" * 9, b"\0\xff\n" * 9),
        (b"x" * 5000, b"x" * SIZE),
        (b"x" * SIZE, b"x" * SIZE),
    ):
        (tmp_path / "a").write_bytes(text)
        was = bound.text(tmp_path, "a")
        assert bound.read() == {}
        assert bound.text(tmp_path, "a") == known
        assert not bound.errors
        if was != known:
            assert bound.changed == [os.fsencode(tmp_path)]
    assert bound.text(tmp_path, "b") is None, "it was never there"
    assert bound.text(tmp_path, "c") is None
    (tmp_path / "a").unlink()
    bound.read()
    assert (bound.text(tmp_path, "a"), bound.errors) == (b"", {})
    wait_for(lambda: not bound.read() and not bound.changed)


def single_texts() -> st.SearchStrategy[bytes]:
    """A file of one value, in all shapes, and what is none."""
    blank = st.sampled_from([b"", b"", b"\n", b" ", b"\t", b"\0", b"\r"])
    number = st.one_of(
        st.integers(-(2**65), 2**65).map(lambda n: b"%d" % n),
        st.decimals(-(10**9), 10**9, places=3).map(lambda n: str(n).encode()),
        st.sampled_from([*ODD, b"N/A", b"-", b"-1", b"4", b"1"]),
    )
    after = st.one_of(st.just(b""), st.sampled_from([b": ACTIVE", b":", b" kB", b":1"]))
    made = st.tuples(blank, number, after, blank).map(b"".join)
    size = st.integers(SIZE - 2, SIZE + 2)
    padded = st.tuples(made, size, st.sampled_from([b" ", b"\0", b"0"]))
    return st.one_of(made, padded.map(lambda p: p[0].ljust(p[1], p[2])), st.binary(max_size=600))


def test_any_text_agrees_with_the_oracle(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    bound = Bound()
    for name, cell in {
        "plain": ("a", 512, 7),
        "signed": ("a", 1, 1000, True),
        "state": ("a", (1, 4)),
        "text": ("a", None),
    }.items():
        (tmp_path / name).symlink_to(tmp_path)
        bound.bind(tmp_path / name, cell)

    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
    @given(single_texts())
    @example(b"-0")
    def compare(text: bytes) -> None:
        path.write_bytes(text)
        plain, fine = oracle.single(text)
        assert bound.read(tmp_path / "plain") == ({} if plain is None else {"a": plain * 512 / 7})
        signed, _ = oracle.single(text, signed=True)
        found = {} if signed is None else {"a": signed * 1 / 1000}
        assert bound.read(tmp_path / "signed") == found
        state, is_state = oracle.single(text, state=True)
        found = {} if state is None else {f"a={n}": float(state == n) for n in (1, 4)}
        assert bound.read(tmp_path / "state") == found
        assert (MALFORMED in bound.errors.values()) is not (fine and is_state)
        assert (bound.text(tmp_path / "text", "a") or b"") == text[:SIZE]

    compare()


# Files and folders that come, go and change.


def test_a_file_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1\n")
    bound = of(tmp_path, "a")
    for text, value in (("1\n", 1), ("22222\n", 22222), ("3\n", 3)):
        path.write_text(text)
        assert bound.read() == {"a": value}


def test_a_missing_file_is_absent_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("1\n")
    bound = of(tmp_path, "a", "there", "there/below", "no/folder")
    for _ in range(3):
        assert bound.read() == {"there": 1}
        assert bound.errors == {}
    (tmp_path / "a").write_text("5\n")
    (tmp_path / "no").mkdir()
    (tmp_path / "no/folder").write_text("6\n")
    assert bound.read() == {"a": 5, "there": 1, "no/folder": 6}


def test_a_file_that_goes_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for _ in range(2):
        path.write_text("1\n")
        bound = of(tmp_path, "a")
        assert bound.read() == {"a": 1}
        path.unlink()
        assert bound.read() == {}
        assert bound.errors == {"a": errno.ENOENT}
        assert bound.changed == [os.fsencode(tmp_path)]
        wait_for(lambda: not bound.read() and not bound.changed)  # noqa: B023
        assert bound.errors == {}
        path.write_text("2\n")
        assert bound.read() == {"a": 2}
        assert bound.errors == {}


@pytest.mark.parametrize("below", ["", "x/", "x/y/"])
def test_a_replaced_file(tmp_path: Path, below: str) -> None:
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a").write_text("0\n")
    bound = of(tmp_path, f"{below}a")
    for number in range(50):
        replace(folder / "a", f"{number}\n")
        assert bound.read() == {f"{below}a": number}
    time.sleep(0.05)
    for number in range(2):
        replace(folder / "a", f"{number}\n")
        assert bound.read() == {f"{below}a": number}, "after a rest"
        assert bound.errors == {}


def test_a_folder_that_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "device"
    bound = of(folder, "a", "x/b")
    assert bound.read() == {}
    for number in range(20):
        (folder / "x").mkdir(parents=True)
        (folder / "a").write_text(f"{number}\n")
        (folder / "x/b").write_text(f"{number}\n")
        assert bound.read() == {"a": number, "x/b": number}
        assert bound.errors == {}
        if number % 2:
            shutil.rmtree(folder)
            assert bound.read() == {}
            assert bound.errors == {"a": errno.ENOENT, "b": errno.ENOENT}
        else:
            folder.rename(tmp_path / f"old{number}")


def test_files_that_come_into_a_folder_are_a_change(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\n")
    bound = of(tmp_path, "a")
    for number in range(10):
        (tmp_path / f"new{number}").write_text("")
        bound.read()
        assert number == 0 or bound.changed == [os.fsencode(tmp_path)]
    wait_for(lambda: bound.read() and not bound.changed)
    (tmp_path / "a").write_text("2\n")
    assert bound.read() == {"a": 2}
    assert not bound.changed, "a number is none"


def test_what_is_no_file_is_not_asked_again(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "nowhere").symlink_to("gone")
    bound = of(tmp_path, "folder", "fifo", "null", "nowhere")
    for _ in range(2):
        assert bound.read() == {}
        assert bound.errors == {}
    refused = {os.fsencode(tmp_path / name) for name in ("folder", "fifo", "null")}
    assert bound.values.refused == refused
    (tmp_path / "loop").symlink_to("loop")
    bound = of(tmp_path, "loop", "x" * 256)
    bound.read()
    assert bound.errors == {"loop": errno.ELOOP, "x" * 256: errno.ENAMETOOLONG}


def test_names_of_255_odd_bytes(tmp_path: Path) -> None:
    odd = bytes(b for b in range(1, 256) if b != ord("/"))
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + odd + b"x"))
    folder.mkdir()
    names = [os.fsdecode(odd + tail) for tail in (b"x", b"\n", b"\xff")]
    for number, name in enumerate(names):
        (folder / name).write_text(f"{number}\n")
    bound = of(folder, *names)
    assert bound.read() == {name: number for number, name in enumerate(names)}
    (folder / names[0]).write_text("?")
    bound.read()
    assert bound.errors == {names[0]: MALFORMED}


def test_a_thousand_files_of_a_hundred_folders(tmp_path: Path) -> None:
    cells = []
    for folder in range(100):
        (tmp_path / f"{folder}").mkdir()
        for file in range(10):
            (tmp_path / f"{folder}/{file}").write_text(f"{folder}{file}\n")
            cells.append(f"{folder}/{file}")
    bound = of(tmp_path, *cells)
    expected = {name: float(name.replace("/", "")) for name in cells}
    for _ in range(2):
        assert bound.read() == expected


def test_folders_come_and_go(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(100)]
    bound = Bound()
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / f"{number}").write_text(f"{number}\n")
        bound.bind(folder, f"{number}")
    everything = {f"{number}": number for number in range(100)}
    assert bound.read() == everything
    before = descriptors()
    for folder in folders[::2]:
        bound.drop(folder)
    assert descriptors() == before - 100, "a file's and its folder's"
    assert bound.read() == {name: n for name, n in everything.items() if n % 2}
    for number in range(0, 100, 2):
        bound.bind(folders[number], f"{number}")
    assert bound.read() == everything
    with pytest.raises(KeyError):
        bound.values.drop(b"/nothing")
    with pytest.raises(KeyError):
        bound.values.text(b"/nothing", b"x")


def test_what_cannot_be_bound_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\n")
    bound = of(tmp_path, "a")
    path, there = os.fsencode(tmp_path), os.fsencode(tmp_path) + b"/b"
    slot = bound.table.hidden()
    for folder, cells, error in (
        (path, [(b"a", slot)], ValueError),
        (b"/a\0b", [(b"a", slot)], ValueError),
        (there, [(b"a\0", slot)], ValueError),
        (there, [(b"a", slot), (b"b", 999)], IndexError),
        (there, [(b"a", -1)], IndexError),
        (there, [(b"a", {1: slot, 2: 999})], IndexError),
        (there, [(b"a", slot), (b"b", slot, 1, "x")], TypeError),
        (there, [(b"a", {None: slot})], TypeError),
        (there, [(b"a", slot, 1, 1, False, 6)], ValueError),
        (there, [("a", slot)], TypeError),
    ):
        with pytest.raises(error):
            bound.values.bind(folder, cells)
    with pytest.raises(TypeError):
        Values(None, 1, 1)  # type: ignore[arg-type]
    assert bound.values.paths() == [path + b"/a"]
    assert bound.read() == {"a": 1}
    bound.values.bind(there, [])
    assert bound.read() == {"a": 1}


# Descriptors and memory.


@pytest.fixture
def limit() -> Iterator[Callable[[int], None]]:
    yield values.limit
    values.limit(MOST)


def some(root: Path, folders: int = 10, files: int = 10) -> tuple[Bound, dict[str, float]]:
    bound = Bound()
    expected = {}
    for folder in range(folders):
        (root / f"{folder}").mkdir()
        for file in range(files):
            (root / f"{folder}/{folder}.{file}").write_text(f"{folder}.{file}\n")
            expected[f"{folder}.{file}"] = float(f"{folder}.{file}")
        bound.bind(root / f"{folder}", *(f"{folder}.{file}" for file in range(files)))
    return bound, expected


def test_beyond_the_limit_files_are_opened_for_each_reading(
    tmp_path: Path, limit: Callable[[int], None]
) -> None:
    gc.collect()
    before = descriptors()
    bound, expected = some(tmp_path)
    limit(0)
    for _ in range(3):
        assert bound.read() == expected
        assert descriptors() == before
    assert values.limited()
    limit(30)
    for _ in range(3):
        assert bound.read() == expected
        assert descriptors() == before + 30
    (tmp_path / "9/9.9").write_text("77\n")
    replace(tmp_path / "8/8.8", "88\n")
    assert bound.read() == {**expected, "9.9": 77, "8.8": 88}
    for folder in range(5):
        bound.drop(tmp_path / f"{folder}")
    bound.read()
    assert descriptors() == before + 30, "others have what was let go of"
    limit(MOST)
    bound.read()
    assert descriptors() == before + 55
    time.sleep(0.05)
    bound.read()
    limit(10)
    assert bound.read().keys() == {f"{n}.{m}" for n in range(5, 10) for m in range(10)}
    assert descriptors() == before + 55, "what is kept is kept"
    del bound
    assert descriptors() == before
    bound = of(tmp_path / "0", *(f"0.{file}" for file in range(10)))
    bound.read()
    assert descriptors() == before + 10, "all was given back"


def test_thousands_of_readings_leak_nothing(tmp_path: Path, limit: Callable[[int], None]) -> None:
    bound, expected = some(tmp_path, 4, 5)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a").write_bytes(b"\xff" * 600)
    (tmp_path / "bad/b").mkdir()
    bound.bind(tmp_path / "bad", "a", "b", ("c", None), "d")
    limit(10)

    def read(times: int) -> None:
        for number in range(times):
            assert bound.read() == expected
            if number % 10 == 0:
                (tmp_path / "bad/c").write_text(f"{number}")
                bound.drop(tmp_path / "0")
                bound.bind(tmp_path / "0", *(f"0.{file}" for file in range(5)))

    read(1000)
    gc.collect()
    time.sleep(0.05)  # what was not kept because it was new is kept
    bound.read()
    before = descriptors(), threads(), resident()
    read(2000 if SANITIZED else 10_000)
    gc.collect()
    time.sleep(0.05)
    bound.read()
    assert (descriptors(), threads()) == before[:2]
    assert SANITIZED or resident() - before[2] < 500_000


def test_a_reader_that_is_let_go_of_closes_its_files(tmp_path: Path) -> None:
    gc.collect()
    before = descriptors()
    bound, expected = some(tmp_path)
    assert bound.read() == expected
    assert descriptors() == before + 110
    del bound
    assert descriptors() == before


def test_so_does_one_in_a_ring_of_objects(tmp_path: Path) -> None:
    class Ring:
        def __init__(self, bound: Bound) -> None:
            self.bound = bound
            self.itself = self

    gc.collect()
    before = descriptors()
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        ring = Ring(some(tmp_path / str(number))[0])
        ring.bound.read()
        del ring
        gc.collect()
        assert descriptors() == before


# The kernel's own files.


def test_files_of_sysfs() -> None:
    lo = Path("/sys/class/net/lo")
    if not (lo / "mtu").exists():
        pytest.skip("there is no /sys/class/net/lo")
    for quick in (False, True):
        bound = of(lo, "mtu", ("flags", None), "speed", "statistics/collisions", quick=quick)
        for _ in range(3):
            found = bound.read()
            assert found["mtu"] == int((lo / "mtu").read_text())
            assert found["statistics/collisions"] == 0
            assert bound.text(lo, "flags") == (lo / "flags").read_bytes()
            assert bound.errors == {}
        assert bound.values.refused == {b"/sys/class/net/lo/speed"}
        assert not bound.changed


COMES_AND_GOES = """
import os, subprocess, sys
from esnode._fast.table import Table
from esnode._fast.values import Values

def ip(words):
    subprocess.run(["ip", *words.split()], check=True)

def descriptors():
    return len(os.listdir("/proc/self/fd"))

subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
table = Table([])
reader = Values(table, 1, 0.02, len(sys.argv) > 1)
mtu, other = table.hidden(), table.hidden()
ip("tuntap add tap7 mode tap")
reader.bind(b"/sys/class/net/tap7", [(b"mtu", mtu), (b"tx_queue_len", other), (b"ifindex",)])
for number in 1400, 1300:
    ip(f"link set tap7 mtu {number}")
    errors, changed = reader.read()
    print("there", table.get(mtu), table.get(other), errors, changed)
    assert reader.text(b"/sys/class/net/tap7", b"ifindex") == (
        open("/sys/class/net/tap7/ifindex", "rb").read())
    before = descriptors()
    ip("tuntap del tap7 mode tap")
    errors, changed = reader.read()
    print("gone", table.get(mtu), table.get(other), sorted(errors.items()), changed)
    assert descriptors() == before - 3
    print("still", table.get(mtu), *reader.read())
    ip("tuntap add tap7 mode tap")
reader.read()
ip("tuntap del tap7 mode tap")
ip("tuntap add tap7 mode tap")
ip("link set tap7 mtu 1200")
errors, changed = reader.read()
print("another", table.get(mtu), errors, changed)
assert descriptors() == before
"""


@pytest.mark.parametrize("quick", [False, True])
def test_a_device_of_the_kernel_that_comes_and_goes(quick: bool) -> None:
    """An interface, in a network of its own."""
    script = [sys.executable, "-c", COMES_AND_GOES, *["quick"] * quick]
    probe = ["unshare", "-nm", "sh", "-c", "mount -t sysfs s /sys && ip tuntap add a mode tap"]
    try:
        subprocess.run(probe, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network of our own can be had here")
    done = subprocess.run(["unshare", "-nm", *script], capture_output=True, text=True, timeout=60)
    folder = b"/sys/class/net/tap7"
    gone = [(folder + b"/mtu", errno.ENOENT), (folder + b"/tx_queue_len", errno.ENOENT)]
    lines = []
    for mtu in (1400.0, 1300.0):
        lines.append(f"there {mtu} 1000.0 {{}} [{folder!r}]")
        lines.append(f"gone nan nan {gone} [{folder!r}]")
        lines.append("still nan {} []")
    lines.append(f"another 1200.0 {{}} [{folder!r}]")
    assert done.stdout.splitlines() == lines, done.stderr


# Files that refuse, and folders that hang.


@pytest.fixture
def system(tmp_path: Path) -> Iterator[FileSystem]:
    point = tmp_path / "fuse"
    point.mkdir()
    try:
        with FileSystem(point) as system:
            yield system
            system.go_on()
    except OSError as error:
        pytest.skip(f"a FUSE file system cannot be mounted here: {error}")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_that_is_refused_is_asked_once(system: FileSystem, code: int) -> None:
    system.hold({"d/no": code, "d/yes": b"1\n"})
    bound = of(system.point / "d", "no", "yes", patience=PATIENT)
    for _ in range(5):
        assert bound.read() == {"yes": 1}
        assert bound.errors == {}
    assert system.opens() == {"d/no": 1, "d/yes": 5}
    assert bound.values.refused == {os.fsencode(system.point / "d/no")}
    bound.drop(system.point / "d")
    bound.bind(system.point / "d", "no", "yes")
    assert bound.read() == {"yes": 1}
    assert system.opens()["d/no"] == 1, "also when it is bound again"
    bound.values.refused.clear()
    bound.drop(system.point / "d")
    bound.bind(system.point / "d", "no", "yes")
    bound.read()
    assert system.opens()["d/no"] == 2


def test_a_file_that_was_read_before_is_asked_again(system: FileSystem) -> None:
    system.hold({"d/a": b"1\n"})
    bound = of(system.point / "d", "a", patience=PATIENT)
    assert bound.read() == {"a": 1}
    system.hold({"d/a": errno.EINVAL})
    for _ in range(3):
        assert bound.read() == {}
        assert bound.errors == {"a": errno.EINVAL}
    system.hold({"d/a": b"2\n"})
    assert bound.read() == {"a": 2}
    assert bound.errors == {}


@pytest.mark.parametrize("code", [errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.EBUSY])
def test_a_failing_file_is_told_each_time(system: FileSystem, code: int) -> None:
    system.hold({"d/a": code, "d/b": b"1\n"})
    bound = of(system.point / "d", "a", "b", patience=PATIENT)
    for _ in range(3):
        assert bound.read() == {"b": 1}
        assert bound.errors == {"a": code}
        assert not bound.changed
    system.hold({"d/a": b"2\n", "d/b": b"1\n"})
    assert bound.read() == {"a": 2, "b": 1}


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ENODATA, errno.ENXIO, errno.ENOENT])
def test_a_file_that_has_nothing_is_told_when_it_had(system: FileSystem, code: int) -> None:
    system.hold({"d/a": code})
    bound = of(system.point / "d", "a", patience=PATIENT)
    for _ in range(3):
        assert bound.read() == {}
        assert bound.errors == {}
    system.hold({"d/a": b"2\n"})
    assert bound.read() == {"a": 2}
    system.hold({"d/a": code})
    assert bound.read() == {}
    assert bound.errors == {"a": code}
    assert bound.changed == [os.fsencode(system.point / "d")]
    assert bound.read() == {}
    assert (bound.errors, bound.changed) == ({}, [])


def test_a_text_that_cannot_be_read_is_empty(system: FileSystem) -> None:
    system.hold({"d/a": b"one\n"})
    bound = of(system.point / "d", ("a", None), patience=PATIENT)
    for answer, text in ((b"one\n", b"one\n"), (errno.EIO, b""), (errno.EACCES, b""), (b"2", b"2")):
        system.hold({"d/a": answer})
        bound.read()
        assert (bound.text(system.point / "d", "a"), bound.errors) == (text, {})
    assert bound.values.refused == set()


def beside(tmp_path: Path, system: FileSystem) -> Bound:
    """A folder that can hang, d, and two that cannot: one on a disk, one read by a worker."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/b").write_text("7\n")
    bound = of(system.point / "d", "a", "z")
    bound.bind(tmp_path / "disk", "b")
    bound.bind(system.point / "e", "c")
    return bound


GOOD = {"d/a": b"1\n", "d/z": b"2\n", "e/c": b"8\n"}
HUNG = {**GOOD, "d/z": HANGS}
ALL = {"a": 1, "z": 2, "b": 7, "c": 8}
REST = {"b": 7, "c": 8}


def test_a_folder_that_hangs_costs_its_own_values(tmp_path: Path, system: FileSystem) -> None:
    """The whole story of a folder that stops answering and comes back."""
    system.hold(GOOD)
    bound = beside(tmp_path, system)
    wait_for(lambda: bound.read() == ALL)
    assert not bound.values.busy(os.fsencode(system.point / "d"))

    system.hold({**HUNG, "d/a": b"99\n"})
    hung = time.monotonic()
    assert bound.read() == ALL, "within the timeout its last answer counts"
    assert time.monotonic() - hung < 0.4
    assert bound.errors == {}
    assert bound.values.busy(os.fsencode(system.point / "d"))
    wait_for(lambda: bound.read() != ALL)
    assert TIMEOUT <= time.monotonic() - hung < TIMEOUT + 0.5

    before = threads(), descriptors()
    slowest = 0.0
    for _ in range(200):
        start = time.monotonic()
        assert bound.read() == REST
        slowest = max(slowest, time.monotonic() - start)
        assert bound.errors == {"d": errno.ETIMEDOUT}
    assert slowest < 0.3
    assert (threads(), descriptors()) == before

    system.hold({**GOOD, "d/a": b"5\n"})
    wait_for(lambda: not bound.values.busy(os.fsencode(system.point / "d")))
    assert bound.read() == {**ALL, "a": 5}, "and not the 99 of long ago"
    assert bound.errors == {}
    assert threads() <= before[0]


def test_what_was_read_long_ago_is_no_value(tmp_path: Path, system: FileSystem) -> None:
    """An answer that took longer than the timeout, at a reading that does not ask anew."""
    system.hold({**HUNG, "d/a": b"99\n"})
    bound = beside(tmp_path, system)
    wait_for(lambda: bound.read() and bound.errors)
    system.hold(GOOD)
    wait_for(lambda: not bound.values.busy(os.fsencode(system.point / "d")))
    for _ in range(2):
        assert bound.read(tick=False) == REST
        assert bound.errors == {}
    assert bound.read(tick=True) == ALL
    assert bound.read(tick=False) == ALL


def test_a_slow_folder_is_asked_with_a_tick_only(tmp_path: Path, system: FileSystem) -> None:
    system.hold(HUNG)
    bound = beside(tmp_path, system)
    wait_for(lambda: bound.read() == REST)
    time.sleep(2 * PATIENCE)
    system.hold(GOOD)
    wait_for(lambda: bound.read(tick=False) == ALL)
    before = system.opens()
    for _ in range(3):
        assert bound.read(tick=False) == ALL
    after = system.opens()
    assert (after["d/a"], after["e/c"]) == (before["d/a"], before["e/c"] + 3)
    bound.read(tick=True)
    bound.read(tick=False)
    assert system.opens()["d/a"] == before["d/a"] + 2, "it is quick again"


def test_a_slow_folder_has_its_values_when_there_are_only_ticks(
    tmp_path: Path, system: FileSystem
) -> None:
    """Each answer comes after the reading that asked for it, and is taken at the next one."""
    system.hold(GOOD)
    bound = beside(tmp_path, system)
    wait_for(lambda: bound.read() == ALL)
    for number in range(3, 8):
        system.hold({**HUNG, "d/a": b"%d\n" % number})
        last = {"a": number - 1, "z": number - 1} if number > 3 else {}
        assert bound.read() == {**ALL, **last}
        time.sleep(2 * PATIENCE)
        answer = b"%d\n" % number
        system.hold({**GOOD, "d/a": answer, "d/z": answer})
        wait_for(lambda: not bound.values.busy(os.fsencode(system.point / "d")))


def test_the_errors_of_a_late_answer_are_told(tmp_path: Path, system: FileSystem) -> None:
    system.hold(GOOD)
    bound = beside(tmp_path, system)
    wait_for(lambda: bound.read() == ALL)
    system.hold(HUNG)
    bound.read()
    system.hold({**GOOD, "d/z": errno.ENODEV})
    wait_for(lambda: not bound.values.busy(os.fsencode(system.point / "d")))
    assert bound.read() == {**REST, "a": 1}
    assert bound.errors == {"z": errno.ENODEV}
    assert os.fsencode(system.point / "d") in bound.changed
    bound.read()
    assert bound.errors == {}
    assert os.fsencode(system.point / "d") not in bound.changed


def test_several_folders_hang(system: FileSystem) -> None:
    good = {f"{folder}/a{folder}": b"%d\n" % folder for folder in range(5)}
    hung: dict[str, Any] = {**good, **dict.fromkeys(("0/a0", "1/a1", "2/a2"), HANGS)}
    system.hold(good)
    base = threads()
    bound = Bound()
    for folder in range(5):
        bound.bind(system.point / f"{folder}", f"a{folder}")
    everything = {f"a{folder}": folder for folder in range(5)}
    wait_for(lambda: bound.read() == everything)
    system.hold(hung)
    start = time.monotonic()
    assert bound.read() == everything
    assert time.monotonic() - start < 0.6
    wait_for(lambda: bound.read() == {"a3": 3, "a4": 4})
    assert threads() - base <= 4
    system.hold(good)
    wait_for(lambda: bound.read() == everything)
    wait_for(lambda: threads() - base <= 1)


def test_who_finds_no_worker_has_no_values(tmp_path: Path, system: FileSystem) -> None:
    """More folders hang than there may be workers; the last in the row cannot be asked."""
    names = [f"h{number}" for number in range(256)]
    files: dict[str, Any] = {**{f"{name}/{name}": b"1\n" for name in names}, "last/l": b"2\n"}
    system.hold(files)
    (tmp_path / "b").write_text("7\n")
    base = threads()
    bound = Bound(patience=0.002)
    for name in names:
        bound.bind(system.point / name, name)
    bound.bind(system.point / "last", "l")
    bound.bind(tmp_path, "b")
    wait_for(lambda: len(bound.read()) == 258)
    system.hold({**files, **{f"{name}/{name}": HANGS for name in names}})
    wait_for(
        lambda: bound.read() == {"b": 7} and bound.errors.get("last") == errno.EAGAIN, timeout=30
    )
    system.hold(files)
    wait_for(lambda: len(bound.read()) == 258)
    wait_for(lambda: threads() - base <= 1)


def test_a_folder_that_hangs_can_be_dropped_and_bound_again(
    tmp_path: Path, system: FileSystem
) -> None:
    system.hold(GOOD)
    base = threads()
    bound = beside(tmp_path, system)
    bound.read()
    system.hold(HUNG)
    for _ in range(5):
        bound.read()
        bound.drop(system.point / "d")
        assert bound.read() == REST
        assert not bound.errors
        bound.bind(system.point / "d", "a", "z")
    system.hold(GOOD)
    wait_for(lambda: bound.read() == ALL)
    wait_for(lambda: threads() - base <= 1)


def test_it_may_be_dropped_between_the_halves_of_a_reading(
    tmp_path: Path, system: FileSystem
) -> None:
    system.hold(GOOD)
    bound = beside(tmp_path, system)
    for _ in range(100):
        bound.values.start()
        bound.drop(system.point / "d")
        bound.values.start()
        bound.values.start(False)
        assert bound.values.read()[0] == {}
        bound.bind(system.point / "d", "a", "z")
        assert bound.values.read()[0] == {}
    wait_for(lambda: bound.read() == ALL)


@pytest.mark.parametrize("turn", range(5))
def test_a_reader_may_be_let_go_of_while_it_hangs(
    tmp_path: Path, system: FileSystem, turn: int
) -> None:
    system.hold(HUNG)
    gc.collect()
    base = threads(), descriptors()
    for _ in range(5):
        bound = beside(tmp_path, system)
        shutil.rmtree(tmp_path / "disk")
        if turn % 2:
            bound.read()
        else:
            bound.values.start()
        ring: list[object] = [bound]
        ring.append(ring)
        del bound, ring
        gc.collect()
    spoil = [bytes([255]) * 4400 for _ in range(100)]
    system.hold(GOOD)
    wait_for(lambda: threads() <= base[0] and descriptors() <= base[1])
    assert spoil


def test_readings_while_a_folder_comes_and_goes(tmp_path: Path, system: FileSystem) -> None:
    """Whatever the moment: the others are there, and it has a value that it had, or none."""
    system.hold(GOOD)
    bound = beside(tmp_path, system)
    wait_for(lambda: bound.read() == ALL)
    over = threading.Event()

    def disturb() -> None:
        for number in range(1000):
            if over.is_set():
                break
            system.hold(HUNG)
            time.sleep(number % 10 / 1000)
            system.hold(GOOD)
        system.hold(GOOD)

    other = threading.Thread(target=disturb)
    other.start()
    try:
        for number in range(300):
            assert bound.read(tick=number % 2 == 0) == ALL
            assert bound.errors == {}
    finally:
        over.set()
        other.join()
