"""collectors/disk.py: traffic and latency of disks."""

import pytest

from esnode.collectors.disk import Disk
from tests.hosts import Rows, Tree

READ_TIME = 'esnode_disk_read_time_seconds_total{device="sda"}'


def line(device: str | bytes, *columns: int, major: int = 8, minor: int = 0) -> bytes:
    """A line of diskstats; columns from the number of reads on."""
    name = device if isinstance(device, bytes) else device.encode()
    numbers = " ".join(map(str, columns)).encode()
    return b"%4d %7d %b %b\n" % (major, minor, name, numbers)


def busy(reads: int = 0, read_ms: int = 0, writes: int = 0, write_ms: int = 0) -> bytes:
    return line("sda", reads, 0, 0, read_ms, writes, 0, 0, write_ms, 0, 0, 0)


def devices(rows: Rows) -> list[str]:
    """The devices that are shown, as their labels spell them."""
    head = "esnode_disk_read_bytes_total{device="
    return [name.removeprefix(head)[1:-2] for name in rows if name.startswith(head)]


def latency(rows: Rows, op: str) -> float | None:
    return rows.get(f'esnode_disk_io_latency_seconds{{device="sda",op="{op}"}}')


@pytest.fixture
def disk(tree: Tree) -> Tree:
    tree.use(Disk)
    return tree


def test_every_column(disk: Tree) -> None:
    disk.write({"proc/diskstats": line("sda", *range(101, 118))})
    assert disk.read() == {
        'esnode_disk_read_ops_total{device="sda"}': 101,
        'esnode_disk_read_bytes_total{device="sda"}': 103 * 512,
        'esnode_disk_read_time_seconds_total{device="sda"}': 0.104,
        'esnode_disk_write_ops_total{device="sda"}': 105,
        'esnode_disk_written_bytes_total{device="sda"}': 107 * 512,
        'esnode_disk_write_time_seconds_total{device="sda"}': 0.108,
        'esnode_disk_io_in_progress{device="sda"}': 109,
        'esnode_disk_io_time_seconds_total{device="sda"}': 0.11,
        'esnode_disk_io_weighted_seconds_total{device="sda"}': 0.111,
        'esnode_disk_discard_ops_total{device="sda"}': 112,
        'esnode_disk_discarded_bytes_total{device="sda"}': 114 * 512,
        'esnode_disk_discard_time_seconds_total{device="sda"}': 0.115,
        'esnode_disk_flush_ops_total{device="sda"}': 116,
        'esnode_disk_flush_time_seconds_total{device="sda"}': 0.117,
    }
    assert disk.errors == 0


@pytest.mark.parametrize(("columns", "families"), [(11, 9), (15, 12), (17, 14)])
def test_kernels_with_fewer_columns(disk: Tree, columns: int, families: int) -> None:
    disk.write({"proc/diskstats": line("sda", *range(1, columns + 1))})
    assert len(disk.read()) == families
    assert disk.errors == 0


def test_default_filter(disk: Tree) -> None:
    shown = (
        *("sda", "hdb", "vdc", "xvdd", "sdaa", "nvme0n1", "nvme10n2", "mmcblk0", "nbd0"),
        *("dm-0", "dm-12", "md0", "md127", "sr0"),
    )
    hidden = (
        *("sda1", "sdaa15", "hdb2", "vdc1", "xvdd3", "nvme0n1p1", "nvme10n2p12", "nvme0c0n1"),
        *("mmcblk0p2", "nbd0p1", "md0p1", "loop0", "loop12", "ram0", "zram0", "fd0"),
    )
    disk.write({"proc/diskstats": b"".join(line(name, *range(11)) for name in (*shown, *hidden))})
    assert sorted(devices(disk.read())) == sorted(shown)


def test_include_and_exclude(disk: Tree) -> None:
    disk.use(Disk, disk_device_include="^sd", disk_device_exclude="b$")
    disk.write(
        {"proc/diskstats": b"".join(line(n, *range(11)) for n in ("sda", "sdb", "sda1", "vda"))}
    )
    assert devices(disk.read()) == ["sda", "sda1"]


def test_disks_appear_and_vanish_at_the_next_tick(disk: Tree) -> None:
    disk.write({"proc/diskstats": busy(1)})
    assert devices(disk.read()) == ["sda"]
    disk.write({"proc/diskstats": busy(1) + line("sdb", *range(50, 61))})
    rows = disk.read()
    assert devices(rows) == ["sda", "sdb"]
    assert rows['esnode_disk_read_ops_total{device="sdb"}'] == 50
    disk.write({"proc/diskstats": line("sdb", *range(60, 71))})
    rows = disk.read()
    assert not [name for name in rows if "sda" in name]
    assert rows['esnode_disk_read_ops_total{device="sdb"}'] == 60
    assert disk.errors == 0


def test_latency_is_time_by_requests_between_two_ticks(disk: Tree) -> None:
    disk.write({"proc/diskstats": busy(100, 1000, 10, 100)})
    rows = disk.read()
    assert latency(rows, "read") is latency(rows, "write") is None
    disk.write({"proc/diskstats": busy(110, 1025, 10, 100)})
    rows = disk.read()
    assert latency(rows, "read") == pytest.approx(0.0025)
    assert latency(rows, "write") is None, "nothing was written"
    disk.write({"proc/diskstats": busy(110, 1025, 14, 100)})
    rows = disk.read()
    assert latency(rows, "read") is None
    assert latency(rows, "write") == 0, "four writes within the millisecond"


def test_a_32_bit_wrap_of_the_milliseconds_goes_on_above(disk: Tree) -> None:
    disk.write({"proc/diskstats": busy(10, 2**32 - 5)})
    assert disk.read()[READ_TIME] == (2**32 - 5) / 1000
    disk.write({"proc/diskstats": busy(20, 15)})
    rows = disk.read()
    assert rows[READ_TIME] == pytest.approx((2**32 + 15) / 1000, abs=1e-6)
    assert latency(rows, "read") == pytest.approx(0.002, abs=1e-6)
    disk.write({"proc/diskstats": busy(30, 2**31)})
    assert disk.read()[READ_TIME] == pytest.approx((2**32 + 2**31) / 1000, abs=1e-6)


def test_a_disk_that_comes_back_starts_over(disk: Tree) -> None:
    disk.write({"proc/diskstats": busy(9, 2**32 - 5)})
    disk.read()
    disk.write({"proc/diskstats": line("sdb", *range(11))})
    disk.read()
    disk.write({"proc/diskstats": busy(2, 8)})
    rows = disk.read()
    assert rows[READ_TIME] == 0.008
    assert latency(rows, "read") is None


def test_odd_names_are_valid_and_differ(disk: Tree) -> None:
    odd = (b'q"uote', b"back\\slash", b"\xff\xfe", b"\xff\xfd", "größe".encode())
    disk.write({"proc/diskstats": b"".join(line(name, *range(11)) for name in odd)})
    assert devices(disk.read()) == [
        *('q\\"uote', "back\\\\slash", "\\\\xff\\\\xfe", "\\\\xff\\\\xfd", "größe")
    ]
    assert disk.errors == 0


def test_a_name_that_reads_like_another_ones_label_is_refused(disk: Tree) -> None:
    disk.write({"proc/diskstats": line(b"\xff", *range(11)) + line(rb"\xff", *range(20, 31))})
    rows = disk.read()
    assert devices(rows) == [r"\\xff"]
    assert rows[r'esnode_disk_read_ops_total{device="\\xff"}'] == 0
    assert disk.errors == 1


def test_lines_of_the_wrong_shape_cost_their_rows_only(disk: Tree) -> None:
    bad = (
        line("short", 1, 2, 3)
        + b"   8      16\n\n"
        + b"   x       y text 1 2 3 4 5 6 7 8 9 10 11\n"
        + line("negative", 1, 2, 3, 4, 5, 6, 7, 8, -9, 10, 11)
    )
    cut = line("cut", *range(11))[:-1]  # its last number may be the first digits of a longer one
    disk.write({"proc/diskstats": bad + busy(7) + line("sdb", *range(11)) + cut})
    assert devices(disk.read()) == ["sda", "sdb"]
    assert disk.errors == 1


def test_a_number_beyond_64_bits_costs_its_row_only(disk: Tree) -> None:
    disk.write({"proc/diskstats": line("sda", 2**64, *range(2, 12))})
    rows = disk.read()
    assert 'esnode_disk_read_ops_total{device="sda"}' not in rows
    assert rows['esnode_disk_write_ops_total{device="sda"}'] == 5
    assert disk.errors == 1


def test_a_device_twice_is_one_series(disk: Tree) -> None:
    disk.write({"proc/diskstats": busy(1) + busy(2)})
    rows = disk.read()
    assert devices(rows) == ["sda"]
    assert rows['esnode_disk_read_ops_total{device="sda"}'] == 2


@pytest.mark.parametrize("bad", [None, b"", b"\x00\xff" * 3000, b"8 0 sda 1 2"])
def test_a_bad_file_costs_its_rows_and_comes_back(disk: Tree, bad: bytes | None) -> None:
    disk.write({"proc/diskstats": busy(7)})
    good = disk.read()
    if bad is None:
        disk.remove("proc/diskstats")
    else:
        disk.write({"proc/diskstats": bad})
    assert disk.read() == {}
    assert disk.errors == 1
    disk.write({"proc/diskstats": busy(7)})
    assert disk.read() == good
