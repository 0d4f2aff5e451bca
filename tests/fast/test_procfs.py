"""The readers of kernel files, against the plain-Python oracle and on files that misbehave."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from esnode._fast.procfs import CHANGED, MALFORMED, File, Line, Pairs, Rows
from esnode._fast.table import Table
from tests import oracle
from tests.fast.readers import FORMATS, SNMP, Columns
from tests.fast.texts import ODD, texts
from tests.process import SANITIZED, descriptors, resident

PROC = Path("/proc")

#: What the kernel writes, in small.
SAMPLES = {
    "meminfo": b"MemTotal:       16318156 kB\nMemFree:         1235 kB\nCached:  0 kB\n"
    b"Mapped:          77 kB\nHugePages_Total:       3\nHugepagesize:       2048 kB\n",
    "vmstat": b"nr_free_pages 77\npgpgin 123456\npgfault 99\nthp_fault 0\noom_kill 0\n",
    "stat": b"cpu  301854 612 111922 8979004 3552 2 3944 0 7 1\n"
    b"cpu0 44490 19 21045 1087069 220 1 3410 2 3 0\n"
    b"cpu1 47869 23 16474 1110787 591 0 46 0\n"
    b"intr 8885917 17 0 0 0\nctxt 38014093\nbtime 1418183276\nprocs_blocked 0\n",
    "diskstats": b"   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0\n"
    b"   8       0 sda 25354637 34367663 1003346126 18492372 28444756 11134226 505697032 "
    b"63877960 0 9653880 82621804 1 2 3 4 5 6\n"
    b" 252       0 vda 11 0 88 4 0 0 0 0 0 4 4 0 0 0 0\n 253 0 dm-0 1 2 3 4\n",
    "net/dev": b"Inter-|   Receive        |  Transmit\n face |bytes packets|bytes\n"
    b"    lo: 435303245 1832268    0    0    0     0          0         0 435303245 1832268 "
    b"   0    0    0     0       0          0\n"
    b"  eth0:68210035552 520993275 0 0 0 0 0 0 9315587528 43451486 0 0 0 0 0 0\n"
    b"eth0:1:     648       8    0    0    0     0          0         0      438       5\n",
    "net/snmp": b"Tcp: RtoMin MaxConn RetransSegs X\nTcp: 200 -1 2987 5\n"
    b"Udp: InDatagrams InErrors\nUdp: 10179 50\n",
    "net/netstat": b"TcpExt: SyncookiesSent ListenDrops\nTcpExt: 0 17\n"
    b"IpExt: InNoRoutes\nIpExt: 1\n",
    "loadavg": b"0.25 1.00 11.73 4/102 15103\n",
    "net/sockstat": b"sockets: used 1602\nTCP: inuse 35 orphan 0 tw 4 alloc 59 mem 22\n"
    b"UDP: inuse 12 mem 62\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n",
    "sys/fs/file-nr": b"2240\t0\t9223372036854775807\n",
    "node0/meminfo": b"Node 0 MemTotal:       65855360 kB\nNode 0 MemFree:  4131300 kB\n"
    b"Node 0 HugePages_Total:     7\n",
    "pressure/io": b"some avg10=1.06 avg60=0.95 avg300=12.53 total=79388960\n"
    b"full avg10=0.00 avg60=0.00 avg300=0.00 total=69675965\n",
}
#: The same in odd shapes, and each key with every odd number.
EXAMPLES = {
    name: [
        sample,
        sample[:-1],
        b"",
        b"\n",
        b"\n" * 50 + sample,
        sample * 2,
        b"".join(reversed(sample.splitlines(keepends=True))),
        b"\0" + sample,
        b"x" * 100_000 + b"\n" + sample,
        sample.replace(b"\n", b" " + b"5 " * 30_000 + b"\n"),
        *(b"".join(b"%s %s\n" % (word, odd) for odd in ODD) for word in FORMATS[name].words),
    ]
    for name, sample in SAMPLES.items()
}


@pytest.mark.parametrize("name", FORMATS)
def test_samples_agree_with_the_oracle_wherever_they_are_cut(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    bound = FORMATS[name].bind(path)
    sample = SAMPLES[name]
    for text in [sample[:end] for end in range(len(sample))] + EXAMPLES[name]:
        path.write_bytes(text)
        assert bound.read() == FORMATS[name].expect(text), text[:300]
    path.write_bytes(sample)
    assert set(bound.read().values()) - {None}, "the sample has nothing to compare"


@pytest.mark.parametrize("name", FORMATS)
def test_any_text_agrees_with_the_oracle(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    bound = FORMATS[name].bind(path)

    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
    @given(texts(SAMPLES[name], FORMATS[name].words))
    def compare(text: bytes) -> None:
        path.write_bytes(text)
        assert bound.read() == FORMATS[name].expect(text)

    compare()


#: file-nr counts the oracle's own.
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "sys/fs/file-nr"])
def test_the_kernels_own_files(name: str, tmp_path: Path) -> None:
    """Each value is, at least now and then, between the oracle's before and after it; a copy of
    the file, which stands still, is read alike."""
    path = PROC / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    bound = FORMATS[name].bind(path)
    expect = FORMATS[name].expect
    left = set(bound.read())
    for _ in range(50):
        before, values, after = expect(path.read_bytes()), bound.read(), expect(path.read_bytes())
        for key in list(left):
            ends, value = (before[key], after[key]), values[key]
            if None in (*ends, value):
                found = ends == (None, None) and value is None
            else:
                found = min(ends) <= value <= max(ends)  # type: ignore[type-var, operator]
            if found:
                left.remove(key)
    assert not left
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    assert FORMATS[name].bind(copy).read() == expect(copy.read_bytes())


@pytest.mark.parametrize(
    ("name", "start", "shape"),
    [
        ("diskstats", b"", (0, 1, *range(3, 14))),
        ("net/dev", b"", range(1, 17)),
        ("stat", b"cpu", range(1, 5)),
    ],
)
def test_new_and_lost_keys_agree_with_the_oracle(
    name: str, start: bytes, shape: Sequence[int], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    form = FORMATS[name]
    key, until = (form.key, form.until) if isinstance(form, Columns) else (0, None)
    bound = form.words[:2]

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(texts(SAMPLES[name], form.words))
    def compare(text: bytes) -> None:
        path.write_bytes(text)
        rows = Rows(Table([]), path, key, until, start, shape)
        for word in bound:
            rows.bind(word)
        flags = rows.read()
        lines = form.rows(text) if isinstance(form, Columns) else oracle.keyed(text)
        fresh = [word for word in oracle.news(lines, start, shape) if word not in bound]
        gone = [word for word in bound if word not in dict(lines)]
        assert rows.changes() == (fresh, gone)
        assert bool(flags & CHANGED) == bool(fresh or gone)

    compare()


def test_keys_appear_move_and_vanish(tmp_path: Path) -> None:
    path = tmp_path / "file"
    table = Table([])
    rows = Rows(table, path, news=b"", shape=(1,))
    slots: dict[bytes, int] = {}

    def read(text: bytes) -> tuple[int, dict[bytes, float]]:
        path.write_bytes(text)
        table.begin(True)
        flags = rows.read()
        if flags & CHANGED:
            fresh, gone = rows.changes()
            for key in gone:
                rows.drop(key)
                table.forget(slots.pop(key))
            for key in fresh:
                slots[key] = table.hidden()
                rows.bind(key, (1, slots[key]))
            assert rows.rescan() == 0
        return flags, {key: table.get(slot) for key, slot in slots.items()}

    assert read(b"a 1\nb 2\n") == (CHANGED, {b"a": 1, b"b": 2})
    assert read(b"b 3\na 4\n") == (0, {b"a": 4, b"b": 3})
    assert read(b"b 5\nc 6\n") == (CHANGED, {b"b": 5, b"c": 6})
    assert read(b"a 7\nb 8\nc 9\n") == (CHANGED, {b"b": 8, b"c": 9, b"a": 7})
    many = {b"k%d" % i: float(i) for i in range(3000)}
    assert read(b"".join(b"%s %d\n" % item for item in many.items())) == (CHANGED, many)
    assert read(b"a 1\n") == (CHANGED, {b"a": 1})


def test_binding_twice_and_dropping_what_is_not_bound_is_refused(tmp_path: Path) -> None:
    rows = Rows(Table([]), tmp_path / "file")
    rows.bind(b"a")
    with pytest.raises(ValueError, match="twice"):
        rows.bind(b"a")
    with pytest.raises(KeyError):
        rows.drop(b"b")


@pytest.mark.parametrize("column", [-1, 64, 1000])
def test_a_column_out_of_range_is_refused(column: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a 1\n")
    table = Table([])
    slot = table.hidden()
    with pytest.raises(ValueError, match="column"):
        Rows(table, path, shape=(column,))
    with pytest.raises(ValueError, match="column"):
        Line(table, path, (column, slot))
    with pytest.raises(ValueError, match="column"):
        rows = Rows(table, path)
        rows.bind(b"a", (column, slot))
        rows.read()


def test_keys_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"".join(b"k%d 1\n" % i for i in range(20_000)))
    rows = Rows(Table([]), path, news=b"", shape=(1,))
    rows.read()
    fresh, _ = rows.changes()
    assert len(fresh) == 16384
    for key in fresh:
        rows.bind(key)
    assert rows.rescan() == MALFORMED


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (b"a 1\n", 0),
        (b"a 1\nb x\n", 0),
        (b"a\n", 0),
        (b"", MALFORMED),
        (b"b 1\n", MALFORMED),
        (b"a x\n", MALFORMED),
        (b"a 1\nb", MALFORMED),
        (b"a 18446744073709551616\n", MALFORMED),
    ],
)
def test_a_reader_says_what_it_cannot_understand(text: bytes, flags: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(text)
    table = Table([])
    rows = Rows(table, path)
    rows.bind(b"a", (1, table.hidden()))
    assert rows.read() == flags


@pytest.mark.parametrize(
    ("text", "flags", "value"),
    [
        (b"a x=1\n", 0, 1),
        (b"a 1\n", 0, 1),
        (b"a =1\n", 0, 1),
        (b"a x=\n", MALFORMED, None),
        (b"a =\n", MALFORMED, None),
        (b"a x=y=1\n", MALFORMED, None),
        (b"a x=1=\n", MALFORMED, None),
        (b"a x = 1\n", MALFORMED, None),
        (b"a x=-1\n", MALFORMED, None),
        (b"a\n", 0, None),
        (b"x=a 1\n", MALFORMED, None),
    ],
)
def test_a_number_after_a_mark(
    text: bytes, flags: int, value: float | None, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(text)
    table = Table([])
    slot = table.hidden()
    rows = Rows(table, path, after=b"=")
    rows.bind(b"a", (1, slot))
    assert rows.read() == flags
    assert table.get(slot) == pytest.approx(value) if value else math.isnan(table.get(slot))


def test_columns_before_the_key_have_the_mark_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"n=8 a=1 n=9\n")
    table = Table([])
    slots = [table.hidden(), table.hidden()]
    rows = Rows(table, path, 1, news=b"", shape=(0, 2), after=b"=")
    assert rows.read() == CHANGED
    assert rows.changes() == ([b"a=1"], [])
    rows.bind(b"a=1", (0, slots[0]), (2, slots[1]))
    assert rows.rescan() == 0
    assert [table.get(slot) for slot in slots] == [8, 9]


def test_pairs_and_lines_say_what_they_cannot_understand(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text, flags in {
        b"T: a b\nT: 1 2\n": 0,
        b"T: a b\nT: 1\n": MALFORMED,
        b"T: a\nU: 1\n": MALFORMED,
        b"T: a\n": MALFORMED,
        b"T: a\nT: x\n": MALFORMED,
        b"T: a b\nT: 1 x\n": 0,
        b"": MALFORMED,
    }.items():
        path.write_bytes(text)
        table = Table([])
        assert Pairs(table, path, {b"T:a": table.hidden()}).read() == flags, text
    for text, flags in {
        b"1 2\n": 0,
        b"1\n": MALFORMED,
        b"1 x\n": MALFORMED,
        b"": MALFORMED,
    }.items():
        path.write_bytes(text)
        table = Table([])
        assert Line(table, path, (1, table.hidden())).read() == flags, text


def test_a_name_too_long_to_be_bound_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for size in range(5000, 5064):
        path.write_bytes(b"Tcp: %s X\nTcp: 1 2\n" % (b"n" * size))
        assert FORMATS["net/snmp"].bind(path).read()["Tcp:X"] == 2


def test_what_was_bound_after_the_reading_is_not_gone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a 1\nb 2\n")
    rows = Rows(Table([]), path, news=b"", shape=(1,))
    rows.read()
    for i in range(2000):
        rows.bind(b"new%d" % i)
    assert rows.changes() == ([b"a", b"b"], [])


def readers(path: Path) -> list[Callable[[], object]]:
    table = Table([])
    rows = Rows(table, path)
    rows.bind(b"a", (1, table.hidden()))
    return [
        File(path).read,
        rows.read,
        Line(table, path, (0, table.hidden())).read,
        Pairs(table, path, {SNMP[0]: table.hidden()}).read,
    ]


def test_what_is_no_readable_file_raises_and_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(16 * 2**20 + 1)
    kinds = ["", "fifo", "loop", "dangling", "missing", "large", "missing/below"]
    start = time.monotonic()
    for path in [tmp_path / kind for kind in kinds] + [Path("/dev/zero"), Path("/dev/tty")]:
        for read in readers(path):
            for _ in range(2):
                with pytest.raises(OSError) as error:
                    read()
                assert error.value.errno
                assert error.value.filename == str(path)
    assert time.monotonic() - start < 5


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Root may read anything but what the kernel itself refuses."""
    path = tmp_path / "file"
    path.write_bytes(b"a 1\n")
    path.chmod(0)
    if os.geteuid() == 0:
        path = Path("/proc/self/mem")
    for read in readers(path):
        with pytest.raises(OSError, match=r"(?i)denied|input/output"):
            read()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192, 100_000])
def test_a_file_is_read_whole(size: int, tmp_path: Path) -> None:
    text = os.urandom(size)
    (tmp_path / "file").write_bytes(text)
    assert File(tmp_path / "file").read() == text


def test_a_file_replaced_deleted_or_truncated_between_readings(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"a 1\n" + b"padding 1\n" * 1000)
    table = Table([])
    slot = table.hidden()
    rows = Rows(table, path)
    rows.bind(b"a", (1, slot))

    def read() -> float:
        table.begin(True)
        rows.read()
        return table.get(slot)

    assert read() == 1
    other.write_bytes(b"a 2\n")
    other.rename(path)
    assert read() == 2
    os.truncate(path, 0)
    assert read() != read(), "a value survived its file"
    path.write_bytes(b"a 3\n")
    assert read() == 3
    path.unlink()
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            read()
        assert table.get(slot) != table.get(slot)
    assert rows.rescan() == MALFORMED, "the text of a deleted file is still there"
    path.write_bytes(b"a 4\n")
    assert read() == 4


def test_a_process_that_has_gone(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    file = File(f"/proc/{child}/stat")
    try:
        assert file.read()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    with pytest.raises(OSError):
        file.read()


def test_ten_thousand_readings_leak_nothing(tmp_path: Path) -> None:
    """Good readings, failing ones, replaced files, new readers and keys that come and go."""
    path, fifo = tmp_path / "file", tmp_path / "fifo"
    path.write_bytes(b"a 1\nb 2\n")
    os.mkfifo(fifo)
    table = Table([])
    kept, failing = Rows(table, path, news=b"", shape=(1,)), File(fifo)
    slot = table.hidden()

    def turn(i: int) -> None:
        kept.read()
        kept.changes()
        kept.bind(b"key%d" % i, (1, slot))
        kept.rescan()
        kept.drop(b"key%d" % i)
        with pytest.raises(OSError):
            failing.read()
        for read in readers(path):
            read()
        if i % 100 == 0:
            (tmp_path / "next").write_bytes(b"a 1\nb 2\n")
            (tmp_path / "next").rename(path)

    for i in range(200):
        turn(i)
    gc.collect()
    fds, memory = descriptors(), resident()
    for i in range(1700):  # each makes six readings
        turn(i)
    gc.collect()
    assert descriptors() <= fds
    assert SANITIZED or resident() - memory < 2 * 2**20
