"""Degradation: when a flag is raised, why, when it goes, and when it is not known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from esnode._fast.table import Snapshot, Table
from esnode.collectors import COLLECTORS
from esnode.collectors.nvidia import readings
from esnode.config import Config
from esnode.derive import COUNTERS, GAUGES, SAMPLED, SLOWDOWNS, WEIGHTS, Degradation, number
from esnode.host import Host
from esnode.sampler import Lane

METRICS = {metric.name: metric for cls in COLLECTORS for metric in cls.metrics}
NAMES = sorted(COUNTERS | SAMPLED | GAUGES)
TICK = 5.0
GPU = ("0", "GPU-a")

Rows = dict[tuple[str, ...], float]


def disk(
    device: str = "sda", ops: float = 0, seconds: float = 0, busy: float = 0
) -> dict[tuple[str, ...], float]:
    """What a disk has counted: as many reads as writes, each half of the time."""
    return {
        **{(f"esnode_disk_{op}_ops_total", device): ops / 2 for op in ("read", "write")},
        **{
            (f"esnode_disk_{op}_time_seconds_total", device): seconds / 2
            for op in ("read", "write")
        },
        ("esnode_disk_io_time_seconds_total", device): busy,
    }


def interface(packets: float, dropped: float, iface: str = "eth0") -> Rows:
    return {
        ("esnode_network_rx_packets_total", iface): packets,
        ("esnode_network_tx_packets_total", iface): 0,
        ("esnode_network_rx_dropped_total", iface): dropped,
        ("esnode_network_tx_dropped_total", iface): 0,
    }


def tcp(sent: float, again: float) -> Rows:
    return {
        ("esnode_network_tcp_out_segments_total",): sent,
        ("esnode_network_tcp_retrans_total",): again,
    }


def swap(bytes_in: float, bytes_out: float) -> Rows:
    return {
        ("esnode_swap_in_bytes_total",): bytes_in,
        ("esnode_swap_out_bytes_total",): bytes_out,
    }


def gpu(*rows: tuple[Any, ...], of: tuple[str, str] = GPU, up: float = 1) -> Rows:
    """Rows of a GPU: (name without esnode_gpu_, further labels ..., value)."""
    found: Rows = {("esnode_gpu_up", *of): up}
    for name, *labels, value in rows:
        found[(f"esnode_gpu_{name}", *of, *labels)] = value
    return found


class Feed:
    """The lane "derived", fed with the rows of made-up lanes; a new layout where they differ."""

    def __init__(self, **keys: Any) -> None:
        self.degradation = Degradation(Host(), Config(**keys))
        self.lane = Lane("derived", [self.degradation], TICK)
        self.now = 1000.0
        self.tables: dict[str, tuple[list[tuple[str, ...]], Table]] = {}
        self.flags: dict[tuple[str, ...], float] = {}

    def snapshot(self, lane: str, rows: Rows) -> Snapshot:
        keys, table = self.tables.get(lane, ([], None))
        if table is None or keys != list(rows):
            table = Table([("test", [METRICS[name] for name in NAMES])])
            for name, *labels in rows:
                table.add(METRICS[name], tuple(labels))
            self.tables[lane] = list(rows), table
        for (name, *labels), value in rows.items():
            slot = table.find(name, tuple(labels))
            assert slot is not None
            table.set(slot, value)
        return table.freeze(self.now, 0)

    def tick(self, rows: Rows, passed: float = TICK, **lanes: Rows) -> dict[tuple[str, ...], float]:
        """The derived rows after a tick, by short name and labels."""
        self.now += passed
        every = {"host": rows, **lanes}
        self.degradation.inputs = {lane: self.snapshot(lane, each) for lane, each in every.items()}
        self.flags = {
            (metric.name.removeprefix("esnode_").replace("_degradation", ""), *map(str, labels)): v
            for metric, labels, v in self.lane.read(True).items()
        }
        assert self.lane.parts[0].errors == 0, self.lane.parts[0].reason
        return self.flags

    @property
    def reasons(self) -> list[str]:
        return [flag.reason for flag in self.degradation.flags if flag.reason]

    @property
    def changes(self) -> list[tuple[str, dict[str, str], bool]]:
        return [(c.name, c.labels, c.degraded) for c in self.degradation.changes]


def test_what_has_counted_much_since_boot_is_not_degraded_for_it() -> None:
    """The first tick knows no rate, the next ones know that there is none."""
    feed = Feed()
    rows = {
        **disk(ops=1e6, seconds=1e6, busy=1e6),
        **interface(1e6, 1e6),
        **tcp(1e6, 1e6),
        **swap(1e12, 1e12),
        **gpu(
            ("throttle_seconds_total", "hw_thermal_slowdown", 1e6),
            ("ecc_errors_total", "uncorrected", "volatile", "all", 1e6),
            ("xid_errors_total", "79", 5),
            ("pcie_errors_total", "fatal", 9),
            ("nvlink_errors_total", "replay", 1e6),
        ),
    }
    assert feed.tick(rows) == {("degradation_score",): 0}  # the GPU answers, as is known
    for _ in range(20):
        flags = feed.tick(rows)
        assert len(flags) == 11
        assert set(flags.values()) == {0}


def test_a_slow_disk_is_degraded_until_the_window_has_passed() -> None:
    feed = Feed()
    feed.tick(disk())
    assert feed.tick(disk(ops=100, seconds=1))["disk_latency", "sda"] == 0
    flags = feed.tick(disk(ops=200, seconds=41))
    assert flags["disk_latency", "sda"] == 1
    assert flags["degradation_score",] == WEIGHTS["esnode_disk_degradation_latency"]
    assert feed.reasons == [
        "disk sda: 200 requests took 0.205 s on average in 60 s (threshold 0.1 s)"
    ]
    assert feed.changes == [("disk_degradation_latency", {"device": "sda"}, True)]
    ticks = 0
    while feed.tick(disk(ops=200, seconds=41))["disk_latency", "sda"]:
        ticks += 1
        assert not feed.changes
        assert ticks < 20
    assert 60 <= (ticks + 1) * TICK <= 70
    assert feed.changes == [("disk_degradation_latency", {"device": "sda"}, False)]
    assert feed.degradation.changes[0].reason.startswith("over: disk sda: 100 requests")
    assert feed.flags["degradation_score",] == 0


def test_a_few_slow_requests_are_none() -> None:
    feed = Feed()
    feed.tick(disk())
    assert feed.tick(disk(ops=8, seconds=80))["disk_latency", "sda"] == 0
    assert feed.tick(disk(ops=10, seconds=80))["disk_latency", "sda"] == 1


def test_a_disk_is_busy_when_it_was_so_for_nearly_all_of_the_window() -> None:
    feed = Feed()
    feed.tick(disk())
    raised = [feed.tick(disk(busy=tick * TICK))["disk_busy", "sda"] for tick in range(1, 20)]
    assert raised[:11] == [0] * 11
    assert raised[12:] == [1] * 7
    assert feed.reasons == ["disk sda: busy for 100 % of the time in 60 s (threshold 95 %)"]


def test_devices_that_stand_for_others_have_no_flags() -> None:
    feed = Feed()
    for ops in (0, 100):
        flags = feed.tick(
            {**disk("dm-0", ops), **disk("md127", ops), **disk("vda", ops), **interface(1, 1, "lo")}
        )
    assert {labels for _, *labels in map(tuple, flags) for labels in labels} == {"vda"}


def test_drops_count_by_the_packets() -> None:
    feed = Feed()
    feed.tick(interface(0, 0))
    assert feed.tick(interface(1_000_000, 900))["network_drops", "eth0"] == 0
    assert feed.tick(interface(1_000_000, 1100))["network_drops", "eth0"] == 1
    assert feed.reasons == [
        "interface eth0: 1100 of 1001100 packets dropped in 60 s, 0.11 % (threshold 0.1 %)"
    ]


@pytest.mark.parametrize(("packets", "dropped"), [(100_000, 59), (900, 70)])
def test_a_few_drops_are_usual(packets: int, dropped: int) -> None:
    feed = Feed(degradation_network_drops_percent=0)
    feed.tick(interface(0, 0))
    assert feed.tick(interface(packets, dropped))["network_drops", "eth0"] == 0
    assert feed.tick(interface(packets + 2000, dropped + 200))["network_drops", "eth0"] == 1


def test_retransmissions_count_by_the_segments() -> None:
    feed = Feed()
    feed.tick(tcp(0, 0))
    assert feed.tick(tcp(900, 100))["network_retrans",] == 0  # too few to say
    assert feed.tick(tcp(20_000, 190))["network_retrans",] == 0
    assert feed.tick(tcp(20_000, 250))["network_retrans",] == 1
    assert feed.reasons == [
        "network: 250 of 20000 TCP segments were sent again in 60 s, 1.25 % (threshold 1 %)"
    ]


def test_swap_is_traffic_and_not_what_is_swapped_out_already() -> None:
    feed = Feed(degradation_swap_bytes_per_second=1000)
    feed.tick(swap(1e12, 1e12))
    assert feed.tick(swap(1e12 + 30_000, 1e12 + 29_000))["swap",] == 0
    assert feed.tick(swap(1e12 + 31_000, 1e12 + 30_000))["swap",] == 1
    assert feed.reasons == ["swap: 1017 bytes a second swapped in and out in 60 s (threshold 1000)"]


@pytest.mark.parametrize("reason", SLOWDOWNS)
def test_each_slowdown_counts_by_the_ticks_that_have_met_it(reason: str) -> None:
    feed = Feed()
    feed.tick(gpu(("throttle_reason", reason, 0)))
    assert feed.tick(gpu(("throttle_reason", reason, 1)))["gpu_throttle", "0", "GPU-a"] == 1
    assert feed.reasons == [f"GPU 0: {reason} for 8.33 % of the time in 60 s (threshold 5 %)"]
    for _ in range(14):
        feed.tick(gpu(("throttle_reason", reason, 0)))
    assert feed.flags["gpu_throttle", "0", "GPU-a"] == 0


def test_slowdowns_count_by_their_counters_where_there_are_any() -> None:
    feed = Feed()
    feed.tick(gpu(("throttle_seconds_total", "hw_thermal_slowdown", 50)))
    flags = feed.tick(gpu(("throttle_seconds_total", "hw_thermal_slowdown", 52)))
    assert flags["gpu_throttle", "0", "GPU-a"] == 0
    flags = feed.tick(gpu(("throttle_seconds_total", "hw_thermal_slowdown", 54)))
    assert flags["gpu_throttle", "0", "GPU-a"] == 1


@pytest.mark.parametrize("reason", sorted(set(readings.REASONS) - set(SLOWDOWNS)))
def test_a_limit_that_was_set_is_no_degradation(reason: str) -> None:
    feed = Feed()
    for value in (0, 1, 1):
        flags = feed.tick(
            gpu(("throttle_reason", reason, value), ("throttle_reason", "hw_slowdown", 0))
        )
    assert flags["gpu_throttle", "0", "GPU-a"] == 0
    assert not feed.reasons


def test_new_uncorrected_errors_of_a_gpu() -> None:
    feed = Feed()

    def rows(volatile: float, aggregate: float, corrected: float) -> Rows:
        name = "ecc_errors_total"
        return gpu(
            (name, "uncorrected", "volatile", "all", volatile),
            (name, "uncorrected", "aggregate", "all", aggregate),
            (name, "corrected", "volatile", "all", corrected),
        )

    feed.tick(rows(0, 7, 0))
    assert feed.tick(rows(0, 7, 1000))["gpu_ecc", "0", "GPU-a"] == 0
    assert feed.tick(rows(2, 9, 1000))["gpu_ecc", "0", "GPU-a"] == 1
    assert feed.reasons == ["GPU 0: 2 uncorrected memory errors in 60 s (threshold 1)"]
    for _ in range(14):
        feed.tick(rows(2, 9, 1000))
    assert feed.flags["gpu_ecc", "0", "GPU-a"] == 0


@pytest.mark.parametrize(
    "name",
    ("remap_pending", "remap_failure", "retired_pages_pending", "ecc_sram_threshold_exceeded"),
)
def test_what_waits_for_repair_is_known_at_once_and_for_as_long_as_it_does(name: str) -> None:
    feed = Feed()
    assert feed.tick(gpu((name, 1)))["gpu_ecc", "0", "GPU-a"] == 1
    assert feed.reasons[0].startswith("GPU 0: ")
    for _ in range(20):
        assert feed.tick(gpu((name, 1)))["gpu_ecc", "0", "GPU-a"] == 1
    assert feed.tick(gpu((name, 0)))["gpu_ecc", "0", "GPU-a"] == 0


def test_an_xid_of_the_gpus_is_and_one_of_an_application_is_not() -> None:
    feed = Feed()
    common = [("xid_errors_total", code, 0) for code in ("13", "31", "43", "48", "79")]
    feed.tick(gpu(*common))
    assert (
        feed.tick(gpu(*common[:2], ("xid_errors_total", "43", 3), *common[3:]))[("gpu_xid", *GPU)]
        == 0
    )
    assert feed.tick(gpu(*common[:4], ("xid_errors_total", "79", 1)))["gpu_xid", "0", "GPU-a"] == 1
    assert feed.reasons == ["GPU 0: Xid 79 (1) in 60 s (threshold 1)"]


def test_an_xid_whose_row_comes_with_it_has_risen_from_nothing() -> None:
    feed = Feed()
    feed.tick(gpu(("xid_errors_total", "79", 0)))
    feed.tick(gpu(("xid_errors_total", "79", 0)))
    rows = gpu(("xid_errors_total", "79", 0), ("xid_errors_total", "140", 1))
    assert feed.tick(rows)["gpu_xid", "0", "GPU-a"] == 1
    other = gpu(("xid_errors_total", "79", 4), of=("1", "GPU-b"))  # of before it was there
    assert feed.tick({**rows, **other}).get(("gpu_xid", "1", "GPU-b")) is None
    assert feed.tick({**rows, **other})["gpu_xid", "1", "GPU-b"] == 0
    assert feed.flags["gpu_xid", "0", "GPU-a"] == 1


def test_a_narrow_link_is_degraded_and_a_slow_one_is_idle() -> None:
    feed = Feed()

    def rows(width: float, errors: float = 0) -> Rows:
        return gpu(
            ("pcie_link_width", "current", width),
            ("pcie_link_width", "max", 16),
            ("pcie_errors_total", "non_fatal", errors),
            ("pcie_errors_total", "correctable", 10 * errors),
        )

    assert "esnode_gpu_pcie_link_generation" not in NAMES
    assert feed.tick(rows(8))["gpu_pcie", "0", "GPU-a"] == 1
    assert feed.reasons == ["GPU 0: 8 PCIe lanes (threshold 16)"]
    assert feed.tick(rows(16))["gpu_pcie", "0", "GPU-a"] == 0
    assert feed.tick(rows(16, 2))["gpu_pcie", "0", "GPU-a"] == 1
    assert feed.reasons == ["GPU 0: 2 PCIe errors (non_fatal) in 60 s (threshold 1)"]


def links(*states: float, of: tuple[str, str] = GPU, errors: float = 0) -> Rows:
    rows = [("nvlink_up", str(link), state) for link, state in enumerate(states)]
    return gpu(
        *rows,
        ("nvlink_errors_total", "replay", errors),
        ("nvlink_errors_total", "symbol", 1000 * errors),
        of=of,
    )


def test_a_link_that_was_up_is_down() -> None:
    feed = Feed()
    feed.tick(links(1, 1, 1, 1))
    assert feed.tick(links(1, 1, 1, 0))["gpu_nvlink", "0", "GPU-a"] == 1
    assert feed.reasons == ["GPU 0: 3 NVLinks are up (threshold 4)"]
    # Another row of the GPU does not make it forget.
    rows = {**links(0, 0, 0, 0), **gpu(("xid_errors_total", "79", 0))}
    assert feed.tick(rows)["gpu_nvlink", "0", "GPU-a"] == 1
    assert feed.tick(links(1, 1, 1, 1))["gpu_nvlink", "0", "GPU-a"] == 0


def test_links_without_a_bridge_are_not_missed() -> None:
    feed = Feed()
    bridged = links(1, 1, 0, 0), links(1, 1, 0, 0, of=("1", "GPU-b"))
    bare = links(0, 0, 0, 0, of=("2", "GPU-c"))
    assert not any(v for v in feed.tick({**bridged[0], **bridged[1], **bare}).values())


def test_a_link_that_the_other_gpus_have_is_missed() -> None:
    feed = Feed()
    flags = feed.tick({**links(1, 1, 1), **links(1, 1, 0, of=("1", "GPU-b"))})
    assert (flags["gpu_nvlink", "0", "GPU-a"], flags["gpu_nvlink", "1", "GPU-b"]) == (0, 1)


def test_errors_of_links_add_up_but_for_those_that_are_corrected() -> None:
    feed = Feed()
    feed.tick(links(1, 1))
    assert feed.tick(links(1, 1, errors=9))["gpu_nvlink", "0", "GPU-a"] == 0
    assert feed.tick(links(1, 1, errors=10))["gpu_nvlink", "0", "GPU-a"] == 1
    assert feed.reasons == ["GPU 0: 10 NVLink errors in 60 s (threshold 10)"]


def test_a_gpu_that_does_not_answer_counts_and_its_flags_are_not_known() -> None:
    feed = Feed()
    nan = math.nan
    feed.tick(gpu(("remap_pending", 1)))
    assert feed.tick(gpu(("remap_pending", nan), up=0)) == {
        ("degradation_score",): WEIGHTS["esnode_gpu_up"]
    }
    assert feed.reasons == ["GPU 0: does not answer"]
    assert sorted(feed.changes) == [
        ("gpu_degradation_ecc", {"gpu": "0", "uuid": "GPU-a"}, False),
        ("gpu_up", {"gpu": "0", "uuid": "GPU-a"}, True),
    ]
    reasons = {c.name: c.reason for c in feed.degradation.changes}
    assert reasons["gpu_degradation_ecc"].startswith("not known any more: ")


def test_nothing_known_is_no_score() -> None:
    feed = Feed()
    assert feed.tick({}) == {}
    assert feed.degradation.score is None
    assert feed.tick(disk()) == {}
    assert feed.tick(disk(ops=math.nan)).get(("disk_latency", "sda")) is None
    assert feed.flags["degradation_score",] == 0  # of how busy it was


def test_a_counter_that_was_reset_says_nothing() -> None:
    feed = Feed()
    feed.tick(interface(1_000_000, 500_000))
    feed.tick(interface(1_000_000, 500_000))
    assert feed.tick(interface(10, 400_000))["network_drops", "eth0"] == 0
    assert feed.tick(interface(2_000, 400_500))["network_drops", "eth0"] == 1


@pytest.mark.parametrize(("ticks", "raised"), [(3, 1), (30, 0)])
def test_what_was_counted_while_it_could_not_be_read_is_of_the_window_or_not_known(
    ticks: int, raised: int
) -> None:
    feed = Feed()
    feed.tick(swap(0, 0))
    assert feed.tick(swap(0, 0))["swap",] == 0
    for _ in range(ticks):
        assert ("swap",) not in feed.tick(swap(math.nan, math.nan))
    feed.tick({**swap(1 << 40, 0), **disk()})  # its row moves as well
    assert feed.tick({**swap(1 << 40, 0), **disk()})["swap",] == raised


def test_devices_come_and_go() -> None:
    feed = Feed()
    feed.tick(disk("sda"))
    assert set(feed.tick(disk("sda"))) == {
        ("disk_latency", "sda"),
        ("disk_busy", "sda"),
        ("degradation_score",),
    }
    feed.tick({**disk("sda", 100, 100), **disk("sdb", 1e6, 1e6)})
    assert feed.flags["disk_latency", "sda"] == 1
    assert ("disk_latency", "sdb") not in feed.flags  # the first reading
    assert feed.tick({**disk("sdb", 1e6, 1e6)})["disk_latency", "sdb"] == 0
    assert ("disk_latency", "sda") not in feed.flags
    assert feed.changes == [("disk_degradation_latency", {"device": "sda"}, False)]
    feed.tick({**disk("sda", 300, 300), **disk("sdb", 1e6, 1e6)})
    assert ("disk_latency", "sda") not in feed.flags  # it may be another one


def test_a_lane_that_is_not_heard_of_has_no_flags_and_begins_anew() -> None:
    feed = Feed()
    feed.tick({}, disks=disk())
    assert feed.tick({}, disks=disk(ops=100, seconds=100))["disk_latency", "sda"] == 1
    assert feed.tick({}) == {}
    assert feed.tick({}, disks=disk(ops=200, seconds=200)) == {}
    assert feed.tick({}, disks=disk(ops=200, seconds=200))["disk_latency", "sda"] == 0


def test_a_lane_that_is_late_keeps_its_flags() -> None:
    feed = Feed()
    feed.tick(disk())
    feed.tick(disk(ops=100, seconds=100))
    for _ in range(3):  # the same snapshot again
        feed.lane.read(True)
        assert feed.reasons
        assert not feed.changes


@pytest.mark.parametrize("tick", [0.1, 1, 5, 30, 100])
def test_the_window_is_kept_at_any_interval(tick: float) -> None:
    """What is held does not grow with the number of ticks, and a flag lasts for the window, or till
    the next tick where these are further apart."""
    feed = Feed(degradation_window_seconds=20)
    feed.tick(disk(), tick)
    feed.tick(disk(ops=100, seconds=100), tick)
    raised = 0.0
    while feed.flags["disk_latency", "sda"]:
        raised += tick
        feed.tick(disk(ops=100, seconds=100), tick)
        assert raised < 500
    assert min(20, tick) - 0.01 <= raised <= max(20 * 1.1, tick) + tick
    assert len(feed.degradation.windows["host"]._kept) < 20


def test_thresholds_change_while_it_runs() -> None:
    feed = Feed()
    feed.tick(disk())
    feed.tick(disk(ops=100, seconds=20))
    assert feed.flags["disk_latency", "sda"] == 1
    feed.degradation.configure(
        Config(degradation_disk_latency_seconds=0.3, degradation_window_seconds=30)
    )
    assert feed.tick(disk(ops=100, seconds=20))["disk_latency", "sda"] == 0
    feed.tick(disk(ops=100, seconds=40))
    assert feed.reasons == [
        "disk sda: 100 requests took 0.4 s on average in 30 s (threshold 0.3 s)"
    ]
    feed.tick(disk(ops=100, seconds=40), 35)
    assert feed.tick(disk(ops=100, seconds=40))["disk_latency", "sda"] == 0


def test_every_flag_has_a_weight() -> None:
    flags = {metric.name for metric in Degradation.metrics} - {"esnode_degradation_score"}
    assert set(WEIGHTS) == flags | {"esnode_gpu_up"}


def test_what_the_rules_look_at_is_what_the_collectors_have() -> None:
    assert set(NAMES) <= set(METRICS)
    for name in COUNTERS:
        assert METRICS[name].kind == "counter"
    for name in SAMPLED | GAUGES:
        assert METRICS[name].kind == "gauge"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.12345, "0.123"), (99.96, "100"), (999.7, "1000"), (1 << 20, "1048576")],
)
def test_numbers_are_written_without_powers(value: float, text: str) -> None:
    assert number(value) == text
