"""collectors/mounts.py: space and inodes of mounted file systems."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from esnode._fast.mounts import VALUES
from esnode.collectors.mounts import Mount
from tests.hosts import Rows, Tree
from tests.process import threads

from .fuse import FIGURES, FileSystem

Line = tuple[str, str, str]


def mountinfo(*mounts: Line) -> str:
    """mountinfo of (mount point, type, device), spelled as the kernel does."""
    return "".join(
        f"{30 + i} 20 8:{i} / {point} rw,relatime shared:{i} - {fstype} {device} rw\n"
        for i, (point, fstype, device) in enumerate(mounts)
    )


def shown(rows: Rows) -> list[str]:
    """The mounts of the page, as their labels spell them."""
    head = 'esnode_disk_mount_timeout{mount="'
    return [name.removeprefix(head).split('",device=')[0] for name in rows if head in name]


def values(rows: Rows, point: str) -> dict[str, float]:
    """The values of a mount, by family without its prefix and unit."""
    return {
        name.split("{")[0].removeprefix("esnode_disk_").removesuffix("_bytes"): value
        for name, value in rows.items()
        if f'{{mount="{point}",' in name
    }


class Mounts(Tree):
    """A tree with a list of mounts, whose mount points are plain directories."""

    def mount(self, *mounts: Line) -> None:
        for point, *_ in mounts:
            (self.root / point.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self.write({"proc/1/mountinfo": mountinfo(*mounts)})


@pytest.fixture
def mounts(tmp_path: Path) -> Mounts:
    tree = Mounts(tmp_path)
    tree.use(Mount)
    return tree


def test_values_are_those_of_statvfs(mounts: Mounts) -> None:
    mounts.mount(("/", "ext4", "/dev/vda1"), ("/data", "nfs4", "10.0.0.5:/export"))
    before, rows, after = os.statvfs(mounts.root), mounts.read(), os.statvfs(mounts.root)
    name = 'esnode_disk_total_bytes{mount="/",device="/dev/vda1",fstype="ext4"}'
    assert rows[name] == before.f_blocks * before.f_frsize
    found = values(rows, "/")
    assert set(found) <= {*VALUES[:-1], "mount_timeout"}
    if (before.f_bfree, before.f_ffree) == (after.f_bfree, after.f_ffree):
        assert found["free"] == before.f_bfree * before.f_frsize
        assert found["available"] == before.f_bavail * before.f_frsize
        assert found["used"] == found["total"] - found["free"]
        if before.f_files:
            assert (found["inodes"], found["inodes_free"]) == (before.f_files, before.f_ffree)
    assert found["readonly"] == bool(before.f_flag & os.ST_RDONLY)
    assert found["mount_timeout"] == 0
    assert values(rows, "/data").keys() == found.keys()
    assert mounts.errors == 0


def test_default_filter(mounts: Mounts) -> None:
    visible = (
        ("/", "overlay", "overlay"),
        ("/dev/shm", "tmpfs", "tmpfs"),
        ("/boot/efi", "vfat", "/dev/vda15"),
        ("/srv", "xfs", "/dev/mapper/srv"),
        ("/scratch", "lustre", "10.0.0.1@o2ib:/scratch"),
        ("/mnt/nfs", "nfs4", "10.0.0.5:/export"),
        ("/mnt/bucket", "fuse.s3fs", "s3fs"),
        ("/mnt/disk", "fuseblk", "/dev/sdb1"),
        ("/var/lib/docker", "ext4", "/dev/vdb"),
        ("/snapshots", "btrfs", "/dev/vdc"),
    )
    hidden = (
        ("/proc", "proc", "proc"),
        ("/sys", "sysfs", "sysfs"),
        ("/sys/fs/cgroup", "cgroup2", "cgroup2"),
        ("/dev", "devtmpfs", "udev"),
        ("/dev/pts", "devpts", "devpts"),
        ("/run", "tmpfs", "tmpfs"),
        ("/tmp", "tmpfs", "tmpfs"),
        ("/run/credentials/a.service", "ramfs", "none"),
        ("/run/credentials/b.service", "ext4", "/dev/vda1"),
        ("/snap/core/1", "squashfs", "/dev/loop0"),
        ("/var/lib/lxcfs", "fuse.lxcfs", "lxcfs"),
        ("/var/lib/docker/overlay2/x/merged", "overlay", "overlay"),
        ("/var/lib/kubelet/pods/x/volumes/y", "ext4", "/dev/vdd"),
        ("/var/lib/containerd/x", "ext4", "/dev/vda1"),
        ("/run/user/1000", "tmpfs", "tmpfs"),
        ("/run/docker/netns/x", "nsfs", "nsfs"),
    )
    mounts.mount(*visible, *hidden)
    assert sorted(shown(mounts.read())) == sorted(point for point, *_ in visible)
    assert mounts.errors == 0


def test_include_and_exclude(mounts: Mounts) -> None:
    lines = (("/a", "ext4", "x"), ("/ab", "ext4", "x"), ("/b", "ext4", "x"), ("/ac", "xfs", "x"))
    mounts.use(
        Mount,
        disk_mount_include="^/a",
        disk_mount_exclude="b$",
        disk_fstype_include="^(ext4|tmpfs)$",
    )
    mounts.mount(*lines)
    assert shown(mounts.read()) == ["/a"]
    mounts.lane = None
    mounts.use(Mount, disk_fstype_exclude="^ext4$", disk_mount_exclude="")
    assert shown(mounts.read()) == ["/ac"]


def test_mounts_appear_and_vanish_at_the_next_tick(mounts: Mounts) -> None:
    mounts.mount(("/a", "ext4", "/dev/sda"))
    assert shown(mounts.read()) == ["/a"]
    mounts.mount(("/a", "ext4", "/dev/sda"), ("/b", "ext4", "/dev/sdb"))
    assert shown(mounts.read()) == ["/a", "/b"]
    mounts.mount(("/b", "ext4", "/dev/sdc"))
    rows = mounts.read()
    assert shown(rows) == ["/b"]
    assert all('device="/dev/sdc"' in name for name in rows)
    mounts.mount()
    assert mounts.read() == {}


def test_of_mounts_on_one_another_the_last_counts(mounts: Mounts) -> None:
    mounts.mount(
        ("/a", "autofs", "systemd-1"),
        ("/a", "ext4", "/dev/sda"),
        ("/b", "ext4", "/dev/sdb"),
        ("/b", "tmpfs", "tmpfs"),
    )
    rows = mounts.read()
    assert shown(rows) == ["/a"], "what lies under a hidden mount cannot be asked"
    assert all('device="/dev/sda"' in name for name in rows)
    assert mounts.errors == 0


@pytest.mark.parametrize(
    ("spelled", "point", "label"),
    [
        (rb"/a\040b", b"a b", "/a b"),
        (rb"/back\134slash", rb"back\slash", r"/back\\slash"),
        (rb"/tab\011bed", b"tab\tbed", "/tab\tbed"),
        (rb"/two\012lines", b"two\nlines", r"/two\nlines"),
        (b'/q"uote', b'q"uote', r"/q\"uote"),
        (b"/raw\xff\xfe", b"raw\xff\xfe", r"/raw\\xff\\xfe"),
        (rb"/not\0400", b"not 0", "/not 0"),
        (rb"/\134040", rb"\040", r"/\\040"),
    ],
)
def test_escaped_names(mounts: Mounts, spelled: bytes, point: bytes, label: str) -> None:
    Path(os.fsdecode(os.fsencode(mounts.root) + b"/" + point)).mkdir()
    mounts.write({"proc/1/mountinfo": b"30 20 8:1 / %b rw - ext4 /dev/sda rw\n" % spelled})
    rows = mounts.read()
    assert shown(rows) == [label]
    assert values(rows, label)["total"] > 0
    assert mounts.errors == 0


def test_names_that_read_alike_stay_one_series(mounts: Mounts) -> None:
    for name in (b"\xff", rb"\xff"):
        Path(os.fsdecode(os.fsencode(mounts.root) + b"/" + name)).mkdir()
    line = b"30 20 8:1 / /%b rw - ext4 /dev/sda rw\n"
    mounts.write({"proc/1/mountinfo": line % b"\xff" + line % rb"\134xff"})
    assert shown(mounts.read()) == [r"/\\xff"]
    assert mounts.errors == 1


def test_the_prefix_of_the_root_is_stripped(mounts: Mounts) -> None:
    root = mounts.root
    mounts.mount(
        ("/", "overlay", "overlay"),
        (str(root), "ext4", "/dev/vda1"),
        (f"{root}/srv", "xfs", "/dev/vdb"),
        (f"{root}-not", "xfs", "/dev/vdc"),
    )
    (root / "srv").mkdir()
    rows = mounts.read()
    assert shown(rows) == ["/", "/srv", f"{root}-not"]
    assert 'esnode_disk_total_bytes{mount="/",device="/dev/vda1",fstype="ext4"}' in rows


def test_a_mount_that_refuses_costs_its_rows_only(mounts: Mounts) -> None:
    mounts.mount(("/a", "ext4", "x"), ("/gone", "nfs", "y:/z"))
    (mounts.root / "gone").rmdir()
    rows = mounts.read()
    assert values(rows, "/gone") == {"mount_timeout": 0}
    assert values(rows, "/a")["total"] > 0
    assert mounts.errors == 1
    (mounts.root / "gone").mkdir()
    assert values(mounts.read(), "/gone")["total"] > 0


@pytest.mark.parametrize(
    "bad",
    [
        None,
        b"",
        b"\x00\xff" * 3000,
        b"nonsense\n" * 9 + b"30 20 8:1 / /a rw - ext4",
        b"30 20 8:1 / relative rw - ext4 x rw\n30 20 8:1 / /a rw ext4 x rw\n- - -",
    ],
)
def test_a_bad_file_costs_its_rows_and_comes_back(mounts: Mounts, bad: bytes | None) -> None:
    mounts.mount(("/a", "ext4", "x"))
    good = mounts.read()
    if bad is None:
        mounts.remove("proc/1/mountinfo")
    else:
        mounts.write({"proc/1/mountinfo": bad})
    assert mounts.read() == {}
    assert mounts.errors == 1
    mounts.mount(("/a", "ext4", "x"))
    assert mounts.read().keys() == good.keys()


def test_a_mount_point_of_4096_bytes_is_refused(mounts: Mounts) -> None:
    mounts.mount(("/a", "ext4", "x"))
    long = "30 20 8:1 / /" + "/".join(["x" * 255] * 20) + " rw - ext4 y rw\n"
    text = (mounts.root / "proc/1/mountinfo").read_text()
    for more in ("", "\n"):
        mounts.write({"proc/1/mountinfo": long + text + more})
        assert shown(mounts.read()) == ["/a"]
    mounts.mount(("/b", "ext4", "x"))
    assert shown(mounts.read()) == ["/b"]
    assert mounts.lane is not None
    assert len(mounts.lane.table.freeze(0, 0)) == len(VALUES), "no row is left behind"


@pytest.fixture
def fuse(mounts: Mounts) -> Callable[..., FileSystem]:
    """Makes a FUSE file system at /mnt of the tree, next to a plain one."""

    def make(delay: float = 0) -> FileSystem:
        mounts.mount(("/a", "ext4", "x"), ("/mnt", "fuse.test", "test"))
        return FileSystem(mounts.root / "mnt", delay)

    try:
        with make():
            pass
    except OSError as error:
        pytest.skip(f"a FUSE file system cannot be mounted here: {error}")
    return make


def until(read: Callable[[], Rows], wanted: Callable[[Rows], bool]) -> Rows:
    """Reads until it is as wanted; the last reading, after ten seconds."""
    end = time.monotonic() + 10
    while not wanted(rows := read()) and time.monotonic() < end:
        time.sleep(0.02)
    return rows


def test_figures_of_a_file_system(mounts: Mounts, fuse: Callable[..., FileSystem]) -> None:
    blocks, free, available, files, files_free, size = FIGURES
    with fuse():
        rows = until(mounts.read, lambda rows: "total" in values(rows, "/mnt"))
        assert values(rows, "/mnt") == {
            "total": blocks * size,
            "used": (blocks - free) * size,
            "free": free * size,
            "available": available * size,
            "inodes": files,
            "inodes_free": files_free,
            "readonly": 0,
            "mount_timeout": 0,
        }


def test_a_hung_mount_is_flagged_and_holds_up_nothing(
    mounts: Mounts, fuse: Callable[..., FileSystem]
) -> None:
    mounts.use(Mount, mount_timeout_seconds=0.3)
    before = threads()
    with fuse() as system:
        until(mounts.read, lambda rows: "total" in values(rows, "/mnt"))
        system.stop()
        durations = []

        def read() -> Rows:
            start = time.monotonic()
            rows = mounts.read()
            durations.append(time.monotonic() - start)
            assert values(rows, "/a")["total"] > 0, "the others are there in every reading"
            return rows

        rows = until(read, lambda rows: values(rows, "/mnt") == {"mount_timeout": 1})
        assert values(rows, "/mnt") == {"mount_timeout": 1}
        for _ in range(100):
            read()
        assert sorted(durations)[len(durations) // 2] < 0.1, "it is not waited for"
        assert threads() <= before + 2, "the one that hangs, and one that works"
        assert mounts.errors >= 100, "each reading without an answer counts"

        system.go_on()
        rows = until(mounts.read, lambda rows: "total" in values(rows, "/mnt"))
        assert values(rows, "/mnt")["mount_timeout"] == 0
        assert values(rows, "/mnt")["total"] > 0


def test_a_mount_that_vanishes_while_it_hangs(
    mounts: Mounts, fuse: Callable[..., FileSystem]
) -> None:
    mounts.use(Mount, mount_timeout_seconds=0.1)
    with fuse() as system:
        system.stop()
        until(mounts.read, lambda rows: values(rows, "/mnt") == {"mount_timeout": 1})
        mounts.mount(("/a", "ext4", "x"))
        assert shown(mounts.read()) == ["/a"]
        again = mountinfo(("/a", "ext4", "x"), ("/mnt", "fuse.test", "test"))
        mounts.write({"proc/1/mountinfo": again})  # a look at /mnt itself would hang
        rows = until(mounts.read, lambda rows: values(rows, "/mnt") == {"mount_timeout": 1})
        assert values(rows, "/mnt") == {"mount_timeout": 1}
        assert values(rows, "/a")["total"] > 0


def test_a_slow_mount_within_its_deadline_has_its_values(
    mounts: Mounts, fuse: Callable[..., FileSystem]
) -> None:
    with fuse(delay=0.06):
        rows: Rows = {}
        for _ in range(10):
            rows = mounts.read()
            time.sleep(0.1)
        assert values(rows, "/mnt").get("mount_timeout") == 0
        assert "total" in values(rows, "/mnt")


def test_a_mount_that_is_not_to_be_seen_has_no_values(mounts: Mounts) -> None:
    """As in a container without mount propagation: the path leads to the file system below."""
    device = mounts.root.stat().st_dev
    root = f"{os.major(device)}:{os.minor(device)}"
    (mounts.root / "data").mkdir()
    mounts.write(
        {
            "proc/1/mountinfo": f"30 20 {root} / / rw - ext4 /dev/a rw\n"
            "31 30 0:4095 / /data rw - xfs /dev/b rw\n"
            f"32 30 {root} /x /bind rw - ext4 /dev/a rw\n"
        }
    )
    (mounts.root / "bind").mkdir()
    rows = mounts.read()
    assert values(rows, "/")["total"] > 0
    assert values(rows, "/bind")["total"] > 0
    assert values(rows, "/data") == {"mount_timeout": 0}
    assert mounts.errors == 1
