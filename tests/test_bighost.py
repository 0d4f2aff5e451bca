"""bighost.py: the tree is always the same, is what it says, and the agent reads all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bighost import write
from tests.hosts import Rows, lane, rows


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bighost")
    write(root)
    return root


def files(root: Path) -> dict[str, str]:
    """Every file's text and every link's target, by path."""
    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def texts(root: Path, pattern: str) -> list[str]:
    return [path.read_text().strip() for path in sorted(root.glob(pattern))]


def read(root: Path, collectors: str) -> Rows:
    """Two ticks of a lane, without an error."""
    reader = lane(root, collectors)
    reader.read(True)
    values = rows(reader.read(True))
    assert [part.errors for part in reader.parts] == [0] * len(reader.parts)
    return values


def labels(values: Rows, family: str, label: str) -> set[str]:
    found = (re.search(rf'^{family}{{.*\b{label}="([^"]*)"', row) for row in values)
    return {match[1] for match in found if match}


def test_it_is_always_the_same(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "again")
    assert files(tmp_path / "again") == files(root)


def test_links_lead_to_something_in_the_tree(root: Path) -> None:
    links = [path for path in root.rglob("*") if path.is_symlink()]
    assert len(links) > 500
    assert [path for path in links if path.readlink().is_absolute()] == []
    assert [path for path in links if not path.exists()] == []


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("devices/system/cpu/cpu[0-9]*", 256),
        ("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq", 256),
        ("devices/system/node/node*", 8),
        ("block/nvme*", 10),
        ("block/nvme*/device/model", 10),
        ("class/block/nvme*p*/partition", 22),
        ("block/md1/md/dev-*", 8),
        ("class/net/*/operstate", 20),
        ("class/net/*/device/driver", 14),
        ("class/infiniband/*/ports/1/counters/port_rcv_data", 12),
        ("class/infiniband/*/device/numa_node", 12),
        ("class/infiniband/mlx5_0/ports/1/counters/*", 21),
        ("class/infiniband/mlx5_0/ports/1/hw_counters/*", 22),
        ("class/infiniband/mlx5_1/ports/1/hw_counters/*", 32),
        ("class/infiniband/*/ports/1/gid_attrs/ndevs/0", 4),
        ("class/powercap/intel-rapl:*", 4),
        ("class/hwmon/*", 29),
        ("class/hwmon/*/temp*_input", 178),
        ("class/hwmon/*/device", 29),
    ],
)
def test_sysfs_has_so_many(root: Path, pattern: str, count: int) -> None:
    assert len(list((root / "sys").glob(pattern))) == count


def test_procfs_has_so_many(root: Path) -> None:
    proc = root / "proc"
    stat = (proc / "stat").read_text()
    assert len(re.findall(r"^cpu\d+ (\d+ ?){10}$", stat, re.MULTILINE)) == 256
    assert len(re.findall(r"^intr .*", stat, re.MULTILINE)[0].split()) == 814
    assert len((proc / "vmstat").read_text().splitlines()) == 180
    assert len((proc / "cpuinfo").read_text().split("\n\n")) == 256 + 1
    softnet = [line.split() for line in (proc / "net/softnet_stat").read_text().splitlines()]
    assert [len(row) for row in softnet] == [15] * 256
    assert [int(row[12], 16) for row in softnet] == list(range(256))


def test_ports(root: Path) -> None:
    ports = "sys/class/infiniband/*/ports/1"
    layers = texts(root, f"{ports}/link_layer")
    assert (layers.count("InfiniBand"), layers.count("Ethernet")) == (8, 4)
    assert texts(root, f"{ports}/state").count("1: DOWN") == 1
    assert texts(root, f"{ports}/counters/*").count("N/A (no PMA)") == 4
    for name in texts(root, f"{ports}/gid_attrs/ndevs/0"):
        assert (root / "sys/class/net" / name / "device/infiniband").is_dir()


def test_nodes_add_up_to_the_host(root: Path) -> None:
    for key in ("MemTotal", "MemFree", "Dirty", "HugePages_Total"):
        line = re.compile(rf"^(?:Node \d+ )?{key}: +(\d+)", re.MULTILINE)
        whole, *parts = (
            int(line.findall(text)[0])
            for pattern in ("proc/meminfo", "sys/devices/system/node/node*/meminfo")
            for text in texts(root, pattern)
        )
        assert sum(parts) == whole
    cpus = ",".join(texts(root, "sys/devices/system/node/node*/cpulist"))
    ranges = (map(int, part.split("-")) for part in cpus.split(","))
    assert sorted(cpu for first, last in ranges for cpu in range(first, last + 1)) == [*range(256)]


def test_mdstat_is_of_the_arrays(root: Path) -> None:
    mdstat = (root / "proc/mdstat").read_text()
    for array in ("md0", "md1"):
        members = re.findall(rf"^{array} : active (\S+) (.*)\n.*\[(\d+)/(\d+)\]", mdstat, re.M)
        ((level, names, disks, used),) = members
        sysfs = root / "sys/block" / array / "md"
        assert (sysfs / "level").read_text().strip() == level
        assert (sysfs / "raid_disks").read_text().strip() == disks
        assert (sysfs / "degraded").read_text().strip() == str(int(disks) - int(used))
        parts = {path.name for path in sysfs.glob("dev-*")}
        assert parts == {"dev-" + name.partition("[")[0] for name in names.split()}
        assert texts(sysfs, "dev-*/state").count("in_sync") == int(used)


def test_the_agent_reads_it(root: Path) -> None:
    values = read(root, "host")
    assert values["esnode_cpu_cores"] == 256
    assert len(labels(values, "esnode_disk_read_bytes_total", "device")) == 13
    shown = labels(values, "esnode_network_rx_bytes_total", "iface")
    hidden = {"docker0", "br-6d1f0c2a9b3e", "veth1c9a0d4", "veth7be2215"}
    assert len(shown) == 16
    interfaces = {path.parent.name for path in (root / "sys/class/net").glob("*/operstate")}
    assert shown | hidden == interfaces


def test_the_agent_finds_the_mounts(root: Path) -> None:
    assert len(labels(read(root, "mounts"), "esnode_disk_total_bytes", "mount")) == 20
