"""This machine's page against node_exporter's: read before ours and after it."""

from __future__ import annotations

import http.client
import os
import resource
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from esnode.agent import Agent
from esnode.collectors import COLLECTORS
from esnode.collectors.infiniband import PHYSICAL_STATES, STATES
from esnode.config import Config, Settings
from esnode.dialects import TEXT

from . import bighost, hosts
from .running import PATIENCE, free_port, wait_for

PAGE = resource.getpagesize()
#: How often both are read. A gauge of theirs that stands still is compared, see :func:`agree`.
ATTEMPTS = 8
FEW = 3

Labels = frozenset[tuple[str, str]]
#: name -> labels -> value
Page = Mapping[str, Mapping[Labels, float]]

COLLECTORS_ON = (
    *("conntrack", "cpu", "cpu.guest", "cpufreq", "diskstats", "dmi", "filefd", "filesystem"),
    *("hwmon", "infiniband", "loadavg", "mdadm", "meminfo", "meminfo_numa", "netclass", "netdev"),
    *("netstat", "nfs", "os", "pressure", "rapl", "sockstat", "softnet", "stat", "time", "timex"),
    *("uname", "vmstat"),
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


def _link(ours: str, theirs: str) -> Pair:
    return Pair(f"esnode_network_{ours}", f"node_network_{theirs}", 1, {"device": "iface"})


def _numa(kind: str, theirs: str) -> Pair:
    name = f"node_memory_numa_{theirs}_total"
    return Pair("esnode_numa_allocations_total", name, fixed={"kind": kind})


def _port(ours: str, theirs: str, **fixed: str) -> Pair:
    return Pair(f"esnode_infiniband_{ours}", f"node_infiniband_{theirs}", fixed=fixed)


TICKS_OF_CORES = 0.01 * (os.cpu_count() or 1) + 1e-6
CPU_TIME = "esnode_cpu_time_seconds_total"

PAIRS = (
    Pair("esnode_node_boot_time_seconds", "node_boot_time_seconds"),
    Pair("esnode_node_time_seconds", "node_time_seconds", rises=True),
    Pair("esnode_file_descriptors", "node_filefd_allocated", slack=64),  # theirs, while they read
    Pair("esnode_file_descriptors_limit", "node_filefd_maximum"),
    Pair("esnode_clock_offset_seconds", "node_timex_offset_seconds", moves=True),
    Pair("esnode_clock_max_error_seconds", "node_timex_maxerror_seconds", moves=True),
    Pair("esnode_clock_synchronized", "node_timex_sync_status"),
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
        for state in ("system", "idle", "iowait", "irq", "softirq", "steal")
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
    Pair("esnode_network_tcp_out_segments_total", "node_netstat_Tcp_OutSegs"),
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
    *(
        Pair(f"esnode_numa_memory_{word}_bytes", f"node_memory_numa_Mem{word.capitalize()}")
        for word in ("total", "free", "used")
    ),
    *(_numa(kind, f"numa_{kind}") for kind in ("hit", "miss", "foreign")),
    *(_numa(kind, f"{kind}_node") for kind in ("local", "other")),
    _numa("interleave_hit", "interleave_hit"),
    Pair(
        "esnode_cpu_frequency_hertz",
        "node_cpu_scaling_frequency_hertz",
        1,
        {"cpu": "core"},
        moves=True,
    ),
    Pair("esnode_cpu_throttles_total", "node_cpu_package_throttles_total"),
    Pair("esnode_md_disks", "node_md_disks", 1, {"device": "array"}),
    Pair(
        "esnode_md_disks",
        "node_md_disks_required",
        1,
        {"device": "array"},
        fixed={"state": "required"},
    ),
    _link("up", "up"),
    _link("mtu_bytes", "mtu_bytes"),
    _link("speed_bytes", "speed_bytes"),
    _link("carrier_changes_total", "carrier_changes_total"),
    _port("rx_bytes_total", "port_data_received_bytes_total"),
    _port("tx_bytes_total", "port_data_transmitted_bytes_total"),
    _port("rx_packets_total", "port_packets_received_total"),
    _port("tx_packets_total", "port_packets_transmitted_total"),
    _port("link_downed_total", "link_downed_total"),
    _port("tx_wait_total", "port_transmit_wait_total"),
    _port("rate_bytes", "rate_bytes_per_second"),
    *(
        _port("errors_total", f"{theirs}_total", kind=kind)
        for kind, theirs in (
            ("link_error_recovery", "link_error_recovery"),
            ("symbol", "symbol_error"),
            ("rx", "port_errors_received"),
            ("rx_remote_physical", "port_receive_remote_physical_errors"),
            ("rx_switch_relay", "port_receive_switch_relay_errors"),
            ("rx_constraint", "port_constraint_errors_received"),
            ("tx_constraint", "port_constraint_errors_transmitted"),
            ("tx_discards", "port_discards_transmitted"),
            ("local_link_integrity", "local_link_integrity_errors"),
            ("excessive_buffer_overrun", "excessive_buffer_overrun_errors"),
            ("vl15_dropped", "vl15_dropped"),
        )
    ),
    Pair(
        "esnode_cpu_package_energy_joules_total",
        "node_rapl_package_joules_total",
        1,
        {"index": "package"},
        summed=("path",),
    ),
    Pair(
        "esnode_cpu_domain_energy_joules_total",
        "node_rapl_dram_joules_total",
        1,
        {"index": "package"},
        summed=("path",),
        fixed={"domain": "dram"},
    ),
)
#: Families that are derived from several of theirs; each has a test of its own below.
DERIVED = {
    *("esnode_node_info", "esnode_node_dmi_info"),
    *("esnode_cpu_cores", "esnode_memory_used_bytes", "esnode_swap_used_bytes"),
    *("esnode_disk_used_bytes", "esnode_page_faults_total", "esnode_network_info"),
    *("esnode_infiniband_info", "esnode_infiniband_state", "esnode_infiniband_physical_state"),
    *("esnode_cpu_temperature_celsius", "esnode_hwmon_temperature_celsius"),
    *("esnode_hwmon_fan_rpm", "esnode_hwmon_power_watts", "esnode_hwmon_volts"),
}
#: Families that node_exporter does not have, or that are off by default.
OURS_ONLY = {
    *("esnode_disk_info", "esnode_infiniband_hw_total", "esnode_numa_distance"),
    *("esnode_numa_cpu_usage_percent", "esnode_cpu_package_power_watts"),
    *("esnode_node_power_watts", "esnode_node_power_source_watts"),
    *("esnode_node_energy_joules_total", "esnode_node_power_envelope_exceeded"),
    *("esnode_cpu_usage_percent", "esnode_disk_io_latency_seconds", "esnode_disk_mount_timeout"),
    *("esnode_cpu_core_time_seconds_total", "esnode_memory_detail_bytes"),
}


#: Families that come from system calls: a tree of files has none of its own.
OF_THE_SYSTEM = {
    *("esnode_node_time_seconds", "esnode_clock_offset_seconds", "esnode_disk_readonly"),
    *("esnode_clock_max_error_seconds", "esnode_disk_inodes", "esnode_disk_inodes_free"),
    *(f"esnode_disk_{word}_bytes" for word in ("total", "free", "used", "available")),
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


@pytest.fixture(scope="module", params=["live", "big"])
def readings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Readings]]:
    """This machine, and a generated host whose files stand still."""
    if request.param == "live":
        ours = reader(Config())
        with node_exporter() as theirs:
            taken = []
            for _ in range(ATTEMPTS):
                taken.append(Readings(theirs(), ours(), theirs()))
                time.sleep(0.05)
        yield taken
        return
    root = tmp_path_factory.mktemp("host")
    bighost.write(root)
    paths = {"proc": f"{root}/proc", "sys": f"{root}/sys", "root": str(root)}
    options = [f"--path.{name}fs={path}" for name, path in paths.items()]
    with node_exporter(*options, f"--path.udev.data={root}/run/udev/data") as theirs:
        page = theirs()
    yield [Readings(page, reader(hosts.config(root, cpu_frequency=True))(), page)] * FEW


def reader(config: Config) -> Callable[[], Page]:
    """Reads our page."""
    agent = Agent(Settings(config))

    def ours() -> Page:
        for sampler in agent.samplers:
            sampler.read(True)
        return read(agent.store.page(TEXT).body.decode())

    return ours


def is_live(readings: list[Readings]) -> bool:
    return len(readings) == ATTEMPTS


@contextmanager
def node_exporter(*options: str) -> Iterator[Callable[[], Page]]:
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
            *options,
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


def test_every_family_of_ours_has_its_place() -> None:
    # node_exporter knows nothing of GPUs: those are compared with nvidia-ml-py.
    ours = {metric.name for cls in COLLECTORS if cls.lane != "gpu" for metric in cls.metrics}
    assert {pair.ours for pair in PAIRS} | DERIVED | OURS_ONLY == ours


@pytest.mark.parametrize(
    "pair", PAIRS, ids=[f"{p.ours}{'-' if p.only else ''}{p.only.get('mode', '')}" for p in PAIRS]
)
def test_the_two_agree(pair: Pair, readings: list[Readings]) -> None:
    if pair.ours in OF_THE_SYSTEM and not is_live(readings):
        return
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

    mounts = [page.get("esnode_disk_used_bytes", {}).keys() for _, page, _ in readings]
    mounts += [translated(size, page).keys() for b, _, a in readings for page in (b, a)]
    for labels in set.intersection(*map(set, mounts)) if is_live(readings) else ():
        judge(labels)


def test_user_and_nice_come_without_the_guests(readings: list[Readings]) -> None:
    def theirs(page: Page, name: str, mode: str) -> float:
        rows = page[f"node_cpu_{name}seconds_total"].items()
        return sum(value for labels, value in rows if ("mode", mode) in labels)

    for before, ours, after in readings:
        for mode in ("user", "nice"):
            value = ours[CPU_TIME][frozenset({("state", mode)})]
            low = theirs(before, "", mode) - theirs(after, "guest_", mode)
            high = theirs(after, "", mode) - theirs(before, "guest_", mode)
            slack = TICKS_OF_CORES + 1e-9 * value
            assert low - slack <= value <= high + slack


def test_ports_are_in_the_same_state(readings: list[Readings]) -> None:
    before, ours, _ = readings[-1]
    for name, numbers in (("state", STATES), ("physical_state", PHYSICAL_STATES)):
        theirs = {
            (*labels, ("state", numbers[int(value)]))
            for labels, value in before.get(f"node_infiniband_{name}_id", {}).items()
        }
        states = ours.get(f"esnode_infiniband_{name}", {})
        assert {labels for labels, value in states.items() if value} == set(map(frozenset, theirs))
        assert set(states.values()) <= {0, 1}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("cpu_temperature_celsius", "hwmon_temperature_celsius"), ("temp_celsius",)),
        (("hwmon_fan_rpm",), ("fan_rpm",)),
        (("hwmon_power_watts",), ("power_watt", "power_average_watt")),
        (("hwmon_volts",), ("in_volts",)),
    ],
)
def test_sensors_are_the_same(
    ours: tuple[str, ...], theirs: tuple[str, ...], readings: list[Readings]
) -> None:
    """The labels differ; and of chips that share a device they show one."""
    before, page, _ = readings[-1]
    values = Counter(
        round(value, 6) for name in ours for value in page.get(f"esnode_{name}", {}).values()
    )
    expected = Counter(
        round(value, 6)
        for name in theirs
        for value in before.get(f"node_hwmon_{name}", {}).values()
    )
    assert not expected - values
    assert values.total() - expected.total() <= 3


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
    if not is_live(readings):
        return
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
