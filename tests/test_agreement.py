"""This machine's page against node_exporter's: read before ours and after it."""

from __future__ import annotations

import http.client
import os
import resource
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from esnode.agent import Agent
from esnode.collectors import COLLECTORS
from esnode.config import Config, Settings
from esnode.dialects import TEXT

from .running import PATIENCE, free_port, wait_for

PAGE = resource.getpagesize()
#: How often both are read. A gauge of theirs that stands still is compared, see :func:`agree`.
ATTEMPTS = 8
FEW = 3

Labels = frozenset[tuple[str, str]]
#: name -> labels -> value
Page = Mapping[str, Mapping[Labels, float]]

COLLECTORS_ON = (
    *(
        "conntrack",
        "cpu",
        "cpu.guest",
        "diskstats",
        "dmi",
        "filefd",
        "filesystem",
        "loadavg",
        "meminfo",
        "netdev",
    ),
    *("netstat", "nfs", "os", "pressure", "sockstat", "softnet", "stat", "time", "uname", "vmstat"),
)
OPTIONS = (
    "--no-collector.netdev.netlink",  # which adds what is missed to what is dropped
    "--collector.netdev.device-exclude=^$",
    "--collector.netstat.fields=.*",
    "--collector.vmstat.fields=.*",
    "--collector.filesystem.fs-types-exclude=^$",
    "--collector.filesystem.mount-points-exclude=^/(proc|sys)",
    "--collector.diskstats.device-exclude=^$",
)


class Pair(NamedTuple):
    """Our family, theirs, and what of theirs it is: labels renamed, some chosen, others summed."""

    ours: str
    theirs: str
    factor: float = 1
    rename: Mapping[str, str] = {}
    #: Labels that a row of theirs must have.
    only: Mapping[str, str] = {}
    #: Labels that a row of ours must have, and that theirs lacks.
    fixed: Mapping[str, str] = {}
    #: Labels of theirs over which they are summed.
    summed: tuple[str, ...] = ()
    #: How far apart the two may be; several rounded values make up one of ours.
    slack: float = 0
    #: A gauge that only rises, and one that the reading itself changes.
    rises: bool = False
    moves: bool = False


def _meminfo(ours: str, theirs: str) -> Pair:
    return Pair(f"esnode_{ours}", f"node_memory_{theirs}")


def _disk(ours: str, theirs: str) -> Pair:
    return Pair(f"esnode_disk_{ours}", f"node_disk_{theirs}")


def _interface(ours: str, theirs: str) -> Pair:
    return Pair(
        f"esnode_network_{ours}_total", f"node_network_{theirs}_total", 1, {"device": "iface"}
    )


def _mount(ours: str, theirs: str) -> Pair:
    return Pair(f"esnode_disk_{ours}", f"node_filesystem_{theirs}", 1, {"mountpoint": "mount"})


def _stalled(resource: str, kind: str, theirs: str) -> Pair:
    return Pair(
        "esnode_pressure_stalled_seconds_total",
        f"node_pressure_{resource}_{theirs}_seconds_total",
        fixed={"resource": resource, "kind": kind},
        slack=1e-6,
    )


def _sockets(family: str, state: str) -> Pair:
    return Pair(
        "esnode_network_sockets",
        f"node_sockstat_{family}_{state}",
        fixed={"family": family.lower(), "state": state},
    )


def _softnet(ours: str, theirs: str) -> Pair:
    return Pair(
        f"esnode_network_softnet_{ours}_total", f"node_softnet_{theirs}_total", summed=("cpu",)
    )


TICKS_OF_CORES = 0.01 * (os.cpu_count() or 1) + 1e-6
CPU_TIME = "esnode_cpu_time_seconds_total"

PAIRS = (
    Pair("esnode_node_boot_time_seconds", "node_boot_time_seconds"),
    Pair("esnode_node_time_seconds", "node_time_seconds", rises=True),
    Pair("esnode_file_descriptors", "node_filefd_allocated", slack=64),  # theirs, while they read
    Pair("esnode_file_descriptors_limit", "node_filefd_maximum"),
    Pair("esnode_cpu_load_avg_1m", "node_load1"),
    Pair("esnode_cpu_load_avg_5m", "node_load5"),
    Pair("esnode_cpu_load_avg_15m", "node_load15"),
    *(
        Pair(
            CPU_TIME,
            "node_cpu_seconds_total",
            only={"mode": state},
            rename={"mode": "state"},
            summed=("cpu",),
            slack=TICKS_OF_CORES,
        )
        for state in ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    ),
    *(
        Pair(
            CPU_TIME,
            "node_cpu_guest_seconds_total",
            only={"mode": mode},
            rename={"mode": ""},
            fixed={"state": state},
            summed=("cpu",),
            slack=TICKS_OF_CORES,
        )
        for mode, state in (("user", "guest"), ("nice", "guest_nice"))
    ),
    Pair("esnode_cpu_interrupts_total", "node_intr_total"),
    Pair("esnode_cpu_context_switches_total", "node_context_switches_total"),
    Pair("esnode_cpu_forks_total", "node_forks_total"),
    Pair("esnode_cpu_procs_running", "node_procs_running", moves=True),
    Pair("esnode_cpu_procs_blocked", "node_procs_blocked", moves=True),
    _stalled("cpu", "some", "waiting"),
    _stalled("memory", "some", "waiting"),
    _stalled("memory", "full", "stalled"),
    _stalled("io", "some", "waiting"),
    _stalled("io", "full", "stalled"),
    _meminfo("memory_total_bytes", "MemTotal_bytes"),
    _meminfo("memory_free_bytes", "MemFree_bytes"),
    _meminfo("memory_available_bytes", "MemAvailable_bytes"),
    _meminfo("memory_buffers_bytes", "Buffers_bytes"),
    _meminfo("memory_cached_bytes", "Cached_bytes"),
    _meminfo("memory_shared_bytes", "Shmem_bytes"),
    _meminfo("memory_slab_bytes", "Slab_bytes"),
    _meminfo("memory_dirty_bytes", "Dirty_bytes"),
    _meminfo("memory_writeback_bytes", "Writeback_bytes"),
    _meminfo("memory_anon_bytes", "AnonPages_bytes"),
    _meminfo("memory_mapped_bytes", "Mapped_bytes"),
    _meminfo("memory_committed_bytes", "Committed_AS_bytes"),
    _meminfo("memory_commit_limit_bytes", "CommitLimit_bytes"),
    _meminfo("memory_page_tables_bytes", "PageTables_bytes"),
    _meminfo("memory_hardware_corrupted_bytes", "HardwareCorrupted_bytes"),
    _meminfo("memory_anon_hugepages_bytes", "AnonHugePages_bytes"),
    _meminfo("memory_hugepages", "HugePages_Total"),
    _meminfo("memory_hugepages_free", "HugePages_Free"),
    _meminfo("swap_total_bytes", "SwapTotal_bytes"),
    _meminfo("swap_free_bytes", "SwapFree_bytes"),
    Pair("esnode_page_in_bytes_total", "node_vmstat_pgpgin", 1024),
    Pair("esnode_page_out_bytes_total", "node_vmstat_pgpgout", 1024),
    Pair("esnode_swap_in_bytes_total", "node_vmstat_pswpin", PAGE),
    Pair("esnode_swap_out_bytes_total", "node_vmstat_pswpout", PAGE),
    Pair("esnode_oom_kills_total", "node_vmstat_oom_kill"),
    Pair("esnode_page_faults_total", "node_vmstat_pgmajfault", fixed={"kind": "major"}),
    _disk("read_bytes_total", "read_bytes_total"),
    _disk("written_bytes_total", "written_bytes_total"),
    _disk("discarded_bytes_total", "discarded_sectors_total")._replace(factor=512),
    _disk("read_ops_total", "reads_completed_total"),
    _disk("write_ops_total", "writes_completed_total"),
    _disk("discard_ops_total", "discards_completed_total"),
    _disk("flush_ops_total", "flush_requests_total"),
    _disk("read_time_seconds_total", "read_time_seconds_total"),
    _disk("write_time_seconds_total", "write_time_seconds_total"),
    _disk("discard_time_seconds_total", "discard_time_seconds_total"),
    _disk("flush_time_seconds_total", "flush_requests_time_seconds_total"),
    _disk("io_time_seconds_total", "io_time_seconds_total"),
    _disk("io_weighted_seconds_total", "io_time_weighted_seconds_total"),
    _disk("io_in_progress", "io_now"),
    _mount("total_bytes", "size_bytes"),
    _mount("free_bytes", "free_bytes"),
    _mount("available_bytes", "avail_bytes"),
    _mount("inodes", "files"),
    _mount("inodes_free", "files_free"),
    _mount("readonly", "readonly"),
    Pair("esnode_nfs_requests_total", "node_nfs_rpcs_total"),
    Pair("esnode_nfs_retransmissions_total", "node_nfs_rpc_retransmissions_total"),
    _interface("rx_bytes", "receive_bytes"),
    _interface("tx_bytes", "transmit_bytes"),
    _interface("rx_packets", "receive_packets"),
    _interface("tx_packets", "transmit_packets"),
    _interface("rx_errors", "receive_errs"),
    _interface("tx_errors", "transmit_errs"),
    _interface("rx_dropped", "receive_drop"),
    _interface("tx_dropped", "transmit_drop"),
    _interface("rx_fifo_errors", "receive_fifo"),
    _interface("tx_fifo_errors", "transmit_fifo"),
    _interface("rx_multicast", "receive_multicast"),
    Pair("esnode_network_tcp_retrans_total", "node_netstat_Tcp_RetransSegs"),
    Pair("esnode_network_tcp_in_errors_total", "node_netstat_Tcp_InErrs"),
    Pair("esnode_network_tcp_active_opens_total", "node_netstat_Tcp_ActiveOpens"),
    Pair("esnode_network_tcp_passive_opens_total", "node_netstat_Tcp_PassiveOpens"),
    Pair("esnode_network_udp_in_errors_total", "node_netstat_Udp_InErrors"),
    Pair("esnode_network_udp_rcvbuf_errors_total", "node_netstat_Udp_RcvbufErrors"),
    Pair("esnode_network_tcp_established", "node_netstat_Tcp_CurrEstab"),
    Pair("esnode_network_tcp_listen_drops_total", "node_netstat_TcpExt_ListenDrops"),
    Pair("esnode_network_tcp_listen_overflows_total", "node_netstat_TcpExt_ListenOverflows"),
    Pair("esnode_network_tcp_timeouts_total", "node_netstat_TcpExt_TCPTimeouts"),
    *(_sockets("TCP", state) for state in ("inuse", "tw", "orphan", "alloc")),
    *(
        _sockets(family, "inuse")
        for family in ("UDP", "UDPLITE", "RAW", "TCP6", "UDP6", "UDPLITE6", "RAW6")
    ),
    _softnet("processed", "processed"),
    _softnet("dropped", "dropped"),
    _softnet("squeezed", "times_squeezed"),
    Pair("esnode_network_conntrack_entries", "node_nf_conntrack_entries"),
    Pair("esnode_network_conntrack_limit", "node_nf_conntrack_entries_limit"),
)
#: Families that are derived from several of theirs; each has a test of its own below.
DERIVED = {
    *("esnode_node_info", "esnode_node_dmi_info"),
    *("esnode_cpu_cores", "esnode_memory_used_bytes", "esnode_swap_used_bytes"),
    *("esnode_disk_used_bytes", "esnode_page_faults_total"),
}
#: Families that node_exporter does not have, or that are off by default.
OURS_ONLY = {
    *("esnode_cpu_usage_percent", "esnode_disk_io_latency_seconds", "esnode_disk_mount_timeout"),
    *("esnode_cpu_core_time_seconds_total", "esnode_memory_detail_bytes"),
}


def read(text: str) -> Page:
    """A page by name and labels."""
    page: dict[str, dict[Labels, float]] = defaultdict(dict)
    for family in parse(text):
        for sample in family.samples:
            page[sample.name][frozenset(sample.labels.items())] = sample.value
    return page


def translated(pair: Pair, page: Page) -> dict[Labels, float]:
    """Their rows of a pair, as ours must be."""
    rows: dict[Labels, float] = defaultdict(float)
    for labels, value in page.get(pair.theirs, {}).items():
        theirs = dict(labels)
        if pair.only.items() <= theirs.items():
            named = {pair.rename.get(name, name): text for name, text in theirs.items()}
            kept = {k: v for k, v in named.items() if k and k not in pair.summed}
            rows[frozenset({**kept, **pair.fixed}.items())] += value * pair.factor
    return rows


class Readings(NamedTuple):
    """Theirs, ours, theirs again."""

    before: Page
    ours: Page
    after: Page


def compare(pair: Pair, readings: list[Readings]) -> int:
    """Compares a pair's rows in every reading; how many rows both have."""
    kind = next(m.kind for cls in COLLECTORS for m in cls.metrics if m.name == pair.ours)
    still: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for before, ours, after in readings:
        low, high = translated(pair, before), translated(pair, after)
        for labels in low.keys() & high.keys() & ours.get(pair.ours, {}).keys():
            value = ours[pair.ours][labels]
            slack = pair.slack + 1e-9 * value
            known = still[labels]
            if kind == "counter" or pair.rises:
                assert low[labels] - slack <= value <= high[labels] + slack, (
                    f"{pair.ours}{dict(labels)} {value} is not between {pair.theirs}'s"
                    f" {low[labels]} and {high[labels]}"
                )
            elif low[labels] == high[labels]:
                known.append((value, low[labels]))
    for labels, values in still.items():
        assert agree(values, pair.slack) or pair.moves, (
            f"{pair.ours}{dict(labels)}, {pair.theirs}: {values}"
        )
    return len(still)


def agree(values: list[tuple[float, float]], slack: float = 0) -> bool:
    """Whether ours and theirs were equal once, of the times when theirs stood still. A value that
    moves all the time may come back to where it was by chance, so a few times tell nothing."""
    return len(values) < FEW or any(
        ours == pytest.approx(theirs, abs=slack or None) for ours, theirs in values
    )


@pytest.fixture(scope="module")
def node_exporter() -> Iterator[Callable[[], Page]]:
    """Reads a node_exporter of ours."""
    program = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")
    if program is None:
        pytest.skip("node_exporter is not installed (Debian package prometheus-node-exporter)")
    port = free_port()
    process = subprocess.Popen(
        [
            *(program, f"--web.listen-address=127.0.0.1:{port}", "--collector.disable-defaults"),
            *(f"--collector.{name}" for name in COLLECTORS_ON),
            *OPTIONS,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Kept open, so that there are as many connections when we count them as when they do.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def get() -> Page:
        connection.request("GET", "/metrics")
        return read(connection.getresponse().read().decode())

    def ready() -> bool:
        assert process.poll() is None, "node_exporter has ended"
        try:
            return bool(get())
        except OSError:
            connection.close()
            return False

    try:
        wait_for(ready, "node_exporter answers")
        yield get
    finally:
        connection.close()
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def readings(node_exporter: Callable[[], Page]) -> list[Readings]:
    agent = Agent(Settings(Config(), {}, None, ()))

    def ours() -> Page:
        for sampler in agent.samplers:
            sampler.read(True)
        return read(agent.store.page(TEXT).body.decode())

    taken = []
    for _ in range(ATTEMPTS):
        taken.append(Readings(node_exporter(), ours(), node_exporter()))
        time.sleep(0.05)
    return taken


def test_every_family_of_ours_has_its_place() -> None:
    ours = {metric.name for cls in COLLECTORS for metric in cls.metrics}
    assert {pair.ours for pair in PAIRS} | DERIVED | OURS_ONLY == ours


@pytest.mark.parametrize(
    "pair", PAIRS, ids=[f"{p.ours}{'-' if p.only else ''}{p.only.get('mode', '')}" for p in PAIRS]
)
def test_the_two_agree(pair: Pair, readings: list[Readings]) -> None:
    compared = compare(pair, readings)
    rows = readings[-1].ours.get(pair.ours, {})
    ours = [labels for labels in rows if pair.fixed.items() <= dict(labels).items()]
    theirs = readings[-1].before.get(pair.theirs, {})
    assert compared or not ours or not theirs, "not a row in common"
    # What node_exporter has and our filter does not hide must be there.
    if not any(name in ("device", "mountpoint") for labels in theirs for name, _ in labels):
        assert bool(ours) == bool(theirs)


def test_every_shown_disk_interface_and_mount_is_theirs_too(readings: list[Readings]) -> None:
    pairs = {pair.ours: pair for pair in PAIRS}
    before, ours, after = readings[-1]
    for name in (
        *("esnode_disk_read_bytes_total", "esnode_network_rx_bytes_total"),
        "esnode_disk_total_bytes",
    ):
        theirs = translated(pairs[name], before).keys() | translated(pairs[name], after).keys()
        assert ours[name].keys() <= theirs
    assert ours["esnode_network_rx_bytes_total"]


def between(
    readings: list[Readings], ours: Callable[[Page], float], theirs: Callable[[Page], float]
) -> None:
    """Ours is theirs where theirs stood still."""
    still = [(ours(page), theirs(b)) for b, page, a in readings if theirs(b) == theirs(a)]
    assert agree(still), still


def plain(name: str) -> Callable[[Page], float]:
    return lambda page: page[name][frozenset()]


def test_used_is_total_less_available(readings: list[Readings]) -> None:
    total, available = (plain(f"node_memory_Mem{word}_bytes") for word in ("Total", "Available"))
    between(readings, plain("esnode_memory_used_bytes"), lambda page: total(page) - available(page))


def test_swap_used_is_total_less_free(readings: list[Readings]) -> None:
    total, free = (plain(f"node_memory_Swap{word}_bytes") for word in ("Total", "Free"))
    between(readings, plain("esnode_swap_used_bytes"), lambda page: total(page) - free(page))


def test_used_space_is_size_less_free(readings: list[Readings]) -> None:
    size, free = _mount("used_bytes", "size_bytes"), _mount("used_bytes", "free_bytes")

    def judge(labels: Labels) -> None:
        between(
            readings,
            lambda page: page["esnode_disk_used_bytes"][labels],
            lambda page: translated(size, page)[labels] - translated(free, page)[labels],
        )

    mounts = readings[0].ours.get("esnode_disk_used_bytes", {})
    for labels in mounts:
        judge(labels)


def test_page_faults_are_split(readings: list[Readings]) -> None:
    total, major = plain("node_vmstat_pgfault"), plain("node_vmstat_pgmajfault")
    for before, ours, after in readings:
        minor = ours["esnode_page_faults_total"][frozenset({("kind", "minor")})]
        assert total(before) - major(after) <= minor <= total(after) - major(before)


def test_cores_are_those_of_node_exporter(readings: list[Readings]) -> None:
    before, ours, _ = readings[-1]
    cores = {dict(labels)["cpu"] for labels in before["node_cpu_seconds_total"]}
    assert plain("esnode_cpu_cores")(ours) == len(cores)


def test_the_node_is_the_same(readings: list[Readings]) -> None:
    before, ours, _ = readings[-1]
    (info,) = (dict(labels) for labels in ours["esnode_node_info"])
    (uname,) = (dict(labels) for labels in before["node_uname_info"])
    (name, kernel, arch) = uname["nodename"], uname["release"], uname["machine"]
    assert (info["hostname"], info["kernel"], info["arch"]) == (name, kernel, arch)
    for labels in before.get("node_os_info", {}):
        assert info["os"] == dict(labels)["pretty_name"]


def test_the_machine_is_the_same(readings: list[Readings]) -> None:
    before, ours, _ = readings[-1]
    words = {"vendor": "system_vendor", "product": "product_name", "board": "board_name"}
    words["bios_version"] = "bios_version"
    found = [dict(labels) for labels in ours.get("esnode_node_dmi_info", {})]
    theirs = [dict(labels) for labels in before.get("node_dmi_info", {})]
    known = [{k: t[v] for k, v in words.items() if t.get(v)} for t in theirs]
    assert found == [info for info in known if info]
