"""collectors/agent.py: what the agent says of itself."""

import math
import os
import time
from pathlib import Path

import pytest

from esnode import __version__, sampler
from esnode._fast.table import Table
from esnode.agent import Agent, up
from esnode.collectors import COLLECTORS
from esnode.collectors.base import Collector, Refused, Unavailable
from esnode.config import Settings
from esnode.dialects import TEXT
from esnode.host import Host
from esnode.sampler import Part
from tests.hosts import DEVICES, FIXTURES, Rows, config
from tests.running import series

#: Without the GPUs', which are off for trees.
NAMES = list(dict.fromkeys(cls.name for cls in COLLECTORS if cls.lane != "gpu"))
#: What has no source of its own, and is never off.
DERIVED = "degradation"
#: Collectors of what a small virtual machine has not.
HARDWARE = {"numa", "infiniband", "power", "hwmon"}


def agent(root: Path, **keys: object) -> Agent:
    return Agent(Settings(config(root, **keys)))


def read(agent: Agent, ticks: int = 1) -> Rows:
    """The page after some ticks."""
    for _ in range(ticks):
        agent.read()
    return series(agent.store.page(TEXT).body)


def by(rows: Rows, family: str, label: str = "collector") -> dict[str, float]:
    head = f'{family}{{{label}="'
    return {name.removeprefix(head)[:-2]: rows[name] for name in rows if name.startswith(head)}


def test_every_collector_is_accounted_for(tmp_path: Path) -> None:
    rows = read(agent(FIXTURES / "small-vm", path_rootfs=str(tmp_path), disk_mount_include="^/$"))
    assert by(rows, "esnode_agent_errors_total") == dict.fromkeys([*NAMES, DERIVED], 0)
    ups = {name: float(name not in HARDWARE) for name in [*NAMES, DERIVED]}
    assert by(rows, "esnode_agent_collector_up") == ups
    assert by(rows, "esnode_agent_collector_disabled") == {**dict.fromkeys(NAMES, 0), "gpu": 1}
    durations = by(rows, "esnode_agent_scrape_duration_seconds")
    assert list(durations) == [*NAMES, DERIVED]
    assert all(0 < seconds < 5 for seconds in durations.values())
    ages = by(rows, "esnode_agent_snapshot_age_seconds", "lane")
    assert list(ages) == ["host", "mounts", *DEVICES, "derived"]
    assert all(0 <= age < 5 for age in ages.values())


def test_errors_are_counted_from_zero_and_say_who_is_down() -> None:
    broken = agent(FIXTURES / "empty")
    before = read(broken)
    assert by(before, "esnode_agent_collector_up") == {**dict.fromkeys(NAMES, 0), DERIVED: 1}
    after = read(broken, 2)
    for name, errors in by(before, "esnode_agent_errors_total").items():
        assert (errors > 0) == (name not in {*HARDWARE, DERIVED})
        assert by(after, "esnode_agent_errors_total")[name] >= errors


def test_a_lane_that_is_not_heard_of_has_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    late = agent(FIXTURES / "small-vm", path_rootfs="/", disk_mount_include="^/$")
    ups = by(read(late), "esnode_agent_collector_up")
    assert ups["cpu"] == ups["memory"] == ups["network"] == 1
    entry = late.store.lanes["devices"]
    monkeypatch.setattr(entry.lane, "interval", -1)
    monkeypatch.setattr(sampler, "LEAST", 0)
    rows = series(late.store.page(TEXT, frozenset(late.enabled) | {"agent"}).body)
    assert not any(name.startswith("esnode_network_mtu") for name in rows)
    now = by(rows, "esnode_agent_collector_up")
    assert now["cpu"] == now["network"] == now["disk"] == 0
    assert now["memory"] == now["node"] == 1


def test_a_failing_collector_is_no_other_ones_trouble(tmp_path: Path) -> None:
    (tmp_path / "proc/1/net").mkdir(parents=True)
    for name in ("dev", "snmp", "netstat"):
        text = (FIXTURES / "small-vm/proc/1/net" / name).read_bytes()
        (tmp_path / "proc/1/net" / name).write_bytes(text)
    rows = read(agent(tmp_path, enable_disk=False, enable_cpu=False))
    ups = by(rows, "esnode_agent_collector_up")
    is_up = {"memory": 0, "network": 1, DERIVED: 1}
    assert ups == {**dict.fromkeys(HARDWARE - {"numa"}, 0), **is_up}
    errors = by(rows, "esnode_agent_errors_total")
    counted = {"memory": 2, "network": 0, DERIVED: 0}
    assert errors == {**dict.fromkeys(HARDWARE - {"numa"}, 0), **counted}


class Outcome(Collector):
    """Ends at bind or in a reading as it is told to."""

    name = "outcome"
    metrics = ()

    def __init__(self, root: Path, at_bind: Exception | None, at_sample: Exception | None) -> None:
        super().__init__(Host(), config(root))
        self.at_bind, self.at_sample = at_bind, at_sample

    def bind(self) -> None:
        if self.at_bind:
            raise self.at_bind

    def sample(self, tick: bool) -> None:
        if self.at_sample:
            raise self.at_sample


@pytest.mark.parametrize(
    ("outcomes", "is_up"),
    [
        (["good"], True),
        (["good", "absent"], True),
        (["absent", "good", "good"], True),
        (["absent"], False),
        (["absent", "absent"], False),
        (["good", "failing"], False),
        (["good", "refused"], False),
        (["good", "broken"], False),
        (["absent", "refused"], False),
    ],
)
def test_a_collector_of_parts_is_up_when_all_are_that_can_be(
    outcomes: list[str], is_up: bool, tmp_path: Path
) -> None:
    ends: dict[str, tuple[Exception | None, Exception | None]] = {
        "good": (None, None),
        "absent": (Unavailable("no such device"), None),
        "refused": (Refused("no permission"), None),
        "broken": (KeyError("a fault of ours"), None),
        "failing": (None, OSError("cannot be read")),
    }
    parts = [Part(Outcome(tmp_path, *ends[outcome])) for outcome in outcomes]
    assert not up(parts), "nothing has been read yet"
    for part in parts:
        part.start(Table([]), time.monotonic(), True)
        part.sample(True)
    assert up(parts) == is_up


def test_a_disabled_collector_has_no_rows_but_one() -> None:
    rows = read(agent(FIXTURES / "small-vm", enable_disk=False, enable_network=False))
    disabled = by(rows, "esnode_agent_collector_disabled")
    off = ("disk", "network", "infiniband")
    assert disabled == {**{name: float(name in off) for name in NAMES}, "gpu": 1}
    on = [*(name for name in NAMES if name not in off), DERIVED]
    assert list(by(rows, "esnode_agent_collector_up")) == on
    assert list(by(rows, "esnode_agent_snapshot_age_seconds", "lane")) == [
        *("host", "devices", "sensors", "derived")
    ]
    assert not [name for name in rows if name.startswith(("esnode_disk", "esnode_network"))]


def test_what_it_is_and_costs() -> None:
    before = time.time()
    cpu = time.process_time()
    rows = read(agent(FIXTURES / "small-vm"))
    (info,) = [name for name in rows if name.startswith("esnode_agent_build_info")]
    assert f'version="{__version__}"' in info
    assert before <= rows["esnode_agent_start_time_seconds"] <= time.time()
    assert cpu <= rows["esnode_agent_cpu_seconds_total"] <= time.process_time()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    assert rows["esnode_agent_resident_memory_bytes"] == pytest.approx(resident, rel=0.2)
    assert rows["esnode_agent_scrapes_total"] == 0
    assert rows["esnode_agent_config_reloads_total"] == 0


def test_series_is_the_number_of_rows_of_the_page() -> None:
    running = agent(FIXTURES / "small-vm")
    for _ in range(3):
        rows = read(running)
        assert rows["esnode_agent_series"] == len(rows)


def test_before_the_first_reading_no_lane_has_an_age() -> None:
    rows = series(agent(FIXTURES / "small-vm").store.page(TEXT).body)
    assert by(rows, "esnode_agent_snapshot_age_seconds", "lane") == {}
    assert not any(math.isnan(value) for value in rows.values())
    assert all(name.startswith("esnode_agent_") for name in rows)
