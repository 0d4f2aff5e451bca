"""The page of this machine and of the fixture hosts, before its judges."""

from __future__ import annotations

import gc
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from esnode.agent import Agent
from esnode.catalog import metrics
from esnode.collectors import COLLECTORS
from esnode.collectors.agent import Agent as Own
from esnode.config import Config, Settings
from esnode.dialects import OPENMETRICS, TEXT, Dialect

from . import bighost, golden, process
from .hosts import FIXTURES, HOSTS, config
from .running import series

ROW = re.compile(r'([a-z_0-9]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+\})? (\S+)')
DETAILS = {
    **dict.fromkeys(("cpu_per_core_detail", "memory_detail", "infiniband_detail"), True),
    "cpu_frequency": True,
}
#: What is left of METRICS' 4,600 series when each of 16 GPUs with 18 links has 170.
HOST_SERIES = 4600 - 16 * 170
#: Where mountinfo of small-vm says that something is mounted.
MOUNT_POINTS = (
    "srv/data sets",
    "srv/back\\slash",
    "boot/efi",
    "mnt/models",
    "mnt/bucket",
    "dev/shm",
)

Pages = Callable[[Dialect], str]


def machine(name: str, root: Path) -> Agent:
    """The agent on this machine ("live") or on a fixture host whose root directory is `root`."""
    settings = Config(**DETAILS, enable_gpu=False)  # a library that other tests have loaded may lie
    if name == "bighost":
        bighost.write(root)
        settings = config(root, **DETAILS)
    elif name != "live":
        settings = config(FIXTURES / name, path_rootfs=str(root), **DETAILS)
        for point in MOUNT_POINTS:
            (root / point).mkdir(parents=True)
    return Agent(Settings(settings))


def tick(agent: Agent, count: int = 1) -> None:
    for _ in range(count):
        agent.read()


@pytest.fixture(params=["live", *HOSTS])
def pages(request: pytest.FixtureRequest, tmp_path: Path) -> Pages:
    """The page of a host after two ticks, in a dialect."""
    agent = machine(request.param, tmp_path)
    tick(agent, 2)
    return lambda dialect: agent.store.page(dialect).body.decode()


def families(page: str) -> Iterator[tuple[str, list[str]]]:
    """(family, its rows) of each block of a text page, as they follow one another."""
    for block in page.split("# HELP ")[1:]:
        about, kind, *rows = block.splitlines()
        name = about.split(" ")[0]
        assert kind.startswith(f"# TYPE {name} ")
        yield name, rows


def test_promtool_has_nothing_to_say(pages: Pages) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    result = subprocess.run(
        [promtool, "check", "metrics"], input=pages(TEXT), capture_output=True, text=True
    )
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


def test_the_text_parser_reads_what_we_wrote(pages: Pages) -> None:
    page = pages(TEXT)
    samples = [sample for family in plain(page) for sample in family.samples]
    assert len(samples) == len(series(page)) > 10
    kinds = {metric.base: metric.kind for _, _, metric in metrics()}
    for family in plain(page):
        assert family.type == kinds[family.name], family.name


def test_the_openmetrics_parser_reads_what_we_wrote(pages: Pages) -> None:
    page = pages(OPENMETRICS)
    assert page.endswith("# EOF\n")
    units = {metric.base: metric.unit or "" for _, _, metric in metrics()}
    samples = 0
    for family in openmetrics(page):
        assert family.unit == units[family.name], family.name
        samples += len(family.samples)
    assert samples == len(series(page)) > 10


def test_series_are_unique_and_families_contiguous(pages: Pages) -> None:
    page = pages(TEXT)
    assert page.endswith("\n")
    names = []
    rows = []
    for family, lines in families(page):
        names.append(family)
        assert lines, f"{family}: a header without a row"
        for line in lines:
            match = ROW.fullmatch(line)
            assert match, line
            assert match[1] == family, line
            assert float(match[3]) >= 0, line  # none of ours can be negative, or NaN
            labels = re.findall(r'([a-z_]+)="', match[2] or "")
            assert len(set(labels)) == len(labels), line
            rows.append((match[1], match[2]))
    assert len(set(names)) == len(names)
    assert len(set(rows)) == len(rows) == len(series(page))


def test_everything_is_declared_and_in_order(pages: Pages) -> None:
    declared = {metric.name: metric for _, _, metric in metrics()}
    groups = {metric.name: (collector, i) for i, (collector, _, metric) in enumerate(metrics())}
    last: dict[str, int] = {}
    # The lanes follow one another, and a collector may have parts in several.
    lanes = {metric.name: cls.lane for cls in COLLECTORS for metric in cls.metrics}
    for family, lines in families(pages(TEXT)):
        assert family in declared
        collector, position = groups[family]
        lane = f"{lanes.get(family)} {collector}"
        assert position > last.get(lane, -1), f"{family} is out of order"
        last[lane] = position
        for line in lines:
            labels = re.findall(r'([a-z_]+)="', line.rpartition(" ")[0])
            allowed = [label for label in declared[family].labels if label in labels]
            assert labels == allowed, line


def test_the_page_of_this_machine_has_every_family_that_any_machine_has() -> None:
    agent = machine("live", Path("/"))
    tick(agent, 2)
    found = {family for family, _ in families(agent.store.page(TEXT).body.decode())}
    expected = {metric.name for cls in (*COLLECTORS, Own) for metric in cls.metrics}
    sometimes = (
        *("esnode_cpu_usage_percent", "esnode_disk", "esnode_memory_hardware_corrupted_bytes"),
        *("esnode_memory_anon_hugepages", "esnode_memory_hugepages", "esnode_oom_kills"),
        *("esnode_network_conntrack", "esnode_nfs", "esnode_node_dmi_info", "esnode_pressure"),
        *(
            "esnode_cpu_frequency",
            "esnode_cpu_package",
            "esnode_cpu_domain",
            "esnode_cpu_throttles",
        ),
        *(
            "esnode_cpu_temperature",
            "esnode_hwmon",
            "esnode_infiniband",
            "esnode_md",
            "esnode_numa",
        ),
        *("esnode_network_speed", "esnode_node_power", "esnode_node_energy"),
        *("esnode_gpu", "esnode_mig", "esnode_nvswitch", "esnode_agent_nvml"),
        "esnode_agent_tsdb",
    )
    assert {name for name in expected - found if not name.startswith(sometimes)} == set()


@pytest.mark.parametrize("name", HOSTS)
def test_golden_page(name: str) -> None:
    """`make golden` writes them anew. Both ticks read the same files, so nothing has passed between
    them: usage and latency are absent on the second as on the first."""
    expected = (golden.PAGES / f"{name}.prom").read_text()
    first, second = golden.pages(name, ticks=2)
    assert first == expected
    assert second == expected


def test_the_series_of_a_large_host_stay_within_their_budget(tmp_path: Path) -> None:
    """Of 4,600 series with 16 GPUs the host's part may be this many; and the page has them all."""
    bighost.write(tmp_path)
    agent = Agent(Settings(config(tmp_path)))
    tick(agent, 2)
    assert 1500 < agent.store.page(TEXT).body.count(b"\n") < HOST_SERIES * 1.5
    assert sum(entry.snapshot.present for entry in agent.store.lanes.values()) <= HOST_SERIES


#: By hand, from the fixtures' files: what the golden pages must say, whatever wrote them.
BY_HAND = {
    "bighost": {
        'esnode_infiniband_rx_bytes_total{device="mlx5_0",port="1"}': 1656233736453570 * 4,
        'esnode_infiniband_errors_total{device="mlx5_0",port="1",kind="symbol"}': 92,
        'esnode_infiniband_hw_total{device="mlx5_0",port="1",counter="out_of_sequence"}': 80838,
        'esnode_infiniband_rate_bytes{device="mlx5_0",port="1"}': 50e9,  # 400 Gb/sec
        'esnode_infiniband_state{device="mlx5_0",port="1",state="active"}': 1,
        'esnode_infiniband_state{device="mlx5_0",port="1",state="down"}': 0,
        'esnode_cpu_package_energy_joules_total{package="1"}': 241130.718681,
        'esnode_cpu_domain_energy_joules_total{package="1",domain="dram"}': 22417.643629,
        'esnode_network_up{iface="bond0"}': 1,
        'esnode_network_mtu_bytes{iface="bond0"}': 1500,
        'esnode_network_speed_bytes{iface="bond0"}': 2.5e9,  # 20000 Mbit/s
        'esnode_network_carrier_changes_total{iface="bond0"}': 93,
        'esnode_numa_memory_total_bytes{node="3"}': 286784174 * 1024,
        'esnode_numa_allocations_total{node="3",kind="miss"}': 21427636835,
        'esnode_numa_distance{node="3",to="4"}': 21,
        'esnode_cpu_throttles_total{package="0"}': 31,
    },
    "small-vm": {
        'esnode_node_info{hostname="small-vm.example.org",kernel="6.1.0-18-cloud-amd64",'
        'os="Debian GNU/Linux 12 (bookworm)",arch="x86_64"}': 1,
        'esnode_node_dmi_info{vendor="QEMU",product="Standard PC (Q35 + ICH9, 2009)",'
        'bios_version="1.16.3-debian-1.16.3-2"}': 1,
        "esnode_node_boot_time_seconds": 1753081200,
        "esnode_file_descriptors": 1248,
        "esnode_cpu_load_avg_5m": 0.31,
        'esnode_cpu_time_seconds_total{state="user"}': 1503.4,  # (152340 - 2000) / 100
        'esnode_cpu_time_seconds_total{state="nice"}': 11,  # (1200 - 100) / 100
        'esnode_cpu_time_seconds_total{state="guest_nice"}': 1,
        'esnode_cpu_time_seconds_total{state="idle"}': 82103.45,
        "esnode_cpu_interrupts_total": 18450231,
        "esnode_cpu_procs_blocked": 1,
        "esnode_cpu_cores": 2,
        'esnode_pressure_stalled_seconds_total{resource="memory",kind="full"}': 0.09821,
        'esnode_pressure_stalled_seconds_total{resource="io",kind="some"}': 48.133072,
        'esnode_pressure_stalled_seconds_total{resource="irq",kind="full"}': 1.830245,
        "esnode_memory_total_bytes": 4110315520,  # 4013980 x 1024
        "esnode_memory_used_bytes": 1167216640,  # (4013980 - 2874120) x 1024
        "esnode_swap_used_bytes": 1048576,  # (2097148 - 2096124) x 1024
        "esnode_memory_hugepages_free": 12,
        "esnode_page_in_bytes_total": 3691746304,  # 3605221 x 1024
        'esnode_page_faults_total{kind="minor"}': 50118623,  # 50122034 - 3411
        "esnode_oom_kills_total": 3,
        'esnode_disk_read_bytes_total{device="vda"}': 3691746304,  # 7210442 x 512
        'esnode_disk_discarded_bytes_total{device="vda"}': 514560000,  # 1005000 x 512
        'esnode_disk_io_weighted_seconds_total{device="vda"}': 155.48,
        'esnode_disk_flush_ops_total{device="vda"}': 3120,
        "esnode_nfs_requests_total": 1843207,
        "esnode_nfs_retransmissions_total": 12,
        'esnode_network_rx_bytes_total{iface="eth0"}': 1295163789,
        'esnode_network_rx_multicast_total{iface="eth0"}': 4411,
        'esnode_network_tx_fifo_errors_total{iface="eth0"}': 7,
        "esnode_network_tcp_retrans_total": 514,
        "esnode_network_tcp_established": 9,
        "esnode_network_udp_rcvbuf_errors_total": 10,
        "esnode_network_tcp_listen_drops_total": 8,
        'esnode_network_sockets{family="tcp",state="orphan"}': 1,
        'esnode_network_sockets{family="tcp",state="alloc"}': 15,
        'esnode_network_sockets{family="raw6",state="inuse"}': 2,
        "esnode_network_softnet_processed_total": 1445078,  # 0xc81d4 + 0x98b02
        "esnode_network_softnet_squeezed_total": 48,  # 0x1f + 0x11
        "esnode_network_conntrack_entries": 131,
    },
    "old-kernel": {
        'esnode_node_info{hostname="old-kernel",kernel="3.10.0-1160.el7.x86_64",arch="x86_64"}': 1,
        'esnode_cpu_time_seconds_total{state="user"}': 90212.2,
        'esnode_cpu_time_seconds_total{state="guest"}': 0,
        "esnode_memory_free_bytes": 209317888,  # 204412 x 1024
        "esnode_swap_used_bytes": 96337920,  # (4194300 - 4100220) x 1024
        'esnode_page_faults_total{kind="minor"}': 3120420763,  # 3120441204 - 20441
        'esnode_disk_read_time_seconds_total{device="sda"}': 4294967.29,
        'esnode_disk_written_bytes_total{device="dm-0"}': 262166540288,  # 512044024 x 512
        'esnode_disk_read_ops_total{device="md127"}': 20441,
        'esnode_disk_read_ops_total{device="sr0"}': 0,
        'esnode_network_rx_bytes_total{iface="em1"}': float(2**64 - 1),
        'esnode_network_rx_dropped_total{iface="em1"}': 7,
        "esnode_network_tcp_listen_overflows_total": 31,
    },
    "empty": {'esnode_node_info{arch="x86_64"}': 1},
    "garbage": {
        r'esnode_node_info{hostname="we\"ird\\host'
        "\\n"
        'second\ufffd line",'
        r'os="Odd \\ OS'
        '\ufffd",arch="x86_64"}': 1,
        'esnode_cpu_time_seconds_total{state="nice"}': 2.9,  # (300 - 10) / 100
        'esnode_cpu_time_seconds_total{state="idle"}': 40,
        "esnode_cpu_forks_total": 12,
        "esnode_memory_available_bytes": 102400,
        "esnode_memory_dirty_bytes": 1536,
        'esnode_disk_read_ops_total{device="sda"}': 101,
        r'esnode_disk_read_ops_total{device="od\"d\\"}': 1,
        r'esnode_disk_read_ops_total{device="\\xff\\xfe"}': 1,
        'esnode_network_rx_bytes_total{iface="eth0"}': 101,
        r'esnode_network_rx_bytes_total{iface="e\"h\\"}': 1,
        "esnode_network_tcp_established": 7,
        'esnode_network_sockets{family="tcp",state="inuse"}': 3,
    },
}
#: What must not be on them.
ABSENT = {
    "bighost": ("lifespan", "docker0", "veth", "nvme0n1p1", "bonding_masters"),
    "small-vm": ("usage", "latency", "vda1", "loop", "docker", "veth", "eth9", "numa", "detail"),
    "old-kernel": (
        *("guest_nice", "memory_available", "memory_used", "oom", "discard", "flush", "sda1"),
        *("ram0", "fd0", "os=", "pressure"),
    ),
    "empty": ("esnode_cpu", "esnode_memory", "esnode_disk", "esnode_network", "hostname"),
    "garbage": (
        *("boot_time", "load_avg", "context_switches", "procs_running", "procs_blocked", "iowait"),
        *(
            "memory_total",
            "memory_free",
            "memory_cached",
            "page_tables",
            "swap_used",
            "page_faults",
        ),
        *("sdb", "sdd", "sde", "eth1", "cut", "wild", "tcp_active", "udp_", "listen", "kernel="),
        *("softnet", "orphan", 'family="udp'),
    ),
}


@pytest.mark.parametrize("name", HOSTS)
def test_golden_page_by_hand(name: str) -> None:
    rows = series((golden.PAGES / f"{name}.prom").read_text())
    assert {row: rows.get(row) for row in BY_HAND[name]} == BY_HAND[name]
    for word in ABSENT[name]:
        assert not [row for row in rows if word in row], word


def resources() -> tuple[int, int, int]:
    """Our descriptors, threads and resident bytes, without what earlier tests have left."""
    gc.collect()
    return process.descriptors(), process.threads(), process.resident()


#: Devices of the generated host that go and come back.
PASSING = (
    *("class/infiniband/mlx5_3", "class/hwmon/hwmon12", "class/net/ibp24s0", "block/md1"),
    *("class/powercap/intel-rapl:1:0", "devices/system/node/node5"),
)


def disturb(tree: Path, number: int) -> None:
    """A disk comes, another one goes; and on the generated host a device goes, or comes back."""
    diskstats = tree / "proc/diskstats"
    lines = diskstats.read_bytes().splitlines(keepends=True)
    disk = b"   8      16 sdz%d 1 2 3 4 5 6 7 8 9 10 11\n" % (number % 7)
    diskstats.write_bytes(b"".join([disk, *(line for line in lines if b" sdz" not in line)]))
    here = tree / "sys" / PASSING[number // 2 % len(PASSING)]
    away = tree / "away"
    if here.exists():
        here.rename(away)
    elif away.is_symlink() or away.exists():
        away.rename(here)


@pytest.mark.parametrize("name", ["small-vm", "garbage", "bighost"])
def test_ten_thousand_ticks_leak_nothing(name: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    rootfs = tmp_path / "root"
    if name == "bighost":
        bighost.write(tree)
        rootfs = tree
    else:
        shutil.copytree(FIXTURES / name, tree)
        for point in MOUNT_POINTS:
            (rootfs / point).mkdir(parents=True)
    details = DETAILS if name != "bighost" else {}  # which would take a minute
    settings = config(tree, path_rootfs=str(rootfs), **details)
    agent = Agent(Settings(settings))

    def ticks(count: int) -> None:
        for number in range(count):
            if number % 50 == 0:
                disturb(tree, number // 50)
            if number % 500 == 0:
                agent.store.page(TEXT)
            tick(agent)

    ticks(1000)
    before = resources()
    growth, resident = [], before[2]
    for _ in range(3):
        ticks(3000)
        after = resources()
        growth.append(after[2] - resident)
        resident = after[2]
    # A thread of an earlier test may still have been about to end.
    assert after[0] == before[0]
    assert after[1] <= before[1]
    # What leaks grows each time; the allocator's pages, after other tests, only now and then.
    assert min(growth) < 1 << 18, growth
