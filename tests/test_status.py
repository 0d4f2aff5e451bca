"""The document of /status: its keys, its values beside those of /metrics, and who gets it when."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from esnode.agent import Agent
from esnode.collectors.nvidia.journal import Event
from esnode.config import Config, Orchestrator, Settings
from esnode.dialects import TEXT
from esnode.status import Status, schema

from . import bighost, fakenvml, golden, running
from .fakenvml import Fake
from .hosts import FIXTURES, config
from .running import series, wait_for

REPOSITORY = Path(__file__).parents[1]
STATUS_MD = REPOSITORY.parent / "shared" / "STATUS.md"
VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema()))

Decoded = Any

#: Keys that are not in the list: what a page of the node needs besides.
ADDED = {
    *("disk_read_bytes_per_sec", "disk_written_bytes_per_sec"),
    *("infiniband_rx_bytes_per_sec", "infiniband_tx_bytes_per_sec", "infiniband"),
}


@pytest.fixture
def make() -> Iterator[Callable[..., Agent]]:
    """Makes an agent that no thread of its own reads."""
    agents: list[Agent] = []

    def agent(values: Config) -> Agent:
        agents.append(Agent(Settings(values)))
        return agents[-1]

    yield agent
    for each in agents:
        each.stop_collectors()
        if each.gpus:
            each.gpus.close()


def ask(agent: Agent) -> Status:
    """What a request gets, on the thread that it is built on."""
    got: list[bytes] = []
    agent.view.get(got.append)
    agent.view.answer()
    (data,) = got
    return msgspec.json.decode(data, type=Status)


@pytest.mark.parametrize("name", golden.DOCUMENTS)
def test_golden_document(name: str) -> None:
    expected = (golden.PAGES / f"{name}.status.json").read_text()
    assert golden.document(name) == expected, "run `make golden`, and look at the difference"


@pytest.mark.parametrize("name", golden.DOCUMENTS)
def test_the_golden_documents_follow_the_schema(name: str) -> None:
    document = json.loads((golden.PAGES / f"{name}.status.json").read_text())
    document["agent"].update(version="1", python="3")
    VALIDATOR.validate(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("hostname",), None),
        (("gpus", 0, "health", "last_xid"), None),
        (("gpus", 0, "gpu"), None),
        (("agent", "collectors", 0, "up"), None),
    ],
)
def test_the_schema_misses_a_key_and_sees_a_wrong_type(
    path: tuple[str | int, ...], value: object
) -> None:
    document = json.loads((golden.PAGES / "gpus.status.json").read_text())
    document["agent"].update(version="1", python="3")
    *way, last = path
    inner: Decoded = document
    for step in way:
        inner = inner[step]
    inner[last] = ["a list"]
    assert not VALIDATOR.is_valid(document)
    del inner[last]
    assert not VALIDATOR.is_valid(document)


@pytest.mark.skipif(not STATUS_MD.exists(), reason="the list of keys is not beside the repository")
def test_the_keys_are_those_of_the_list_in_its_order() -> None:
    text = " ".join(STATUS_MD.read_text().split())
    top, gpu = text.split("A GPU:")
    top = top.split("Top level:")[1]
    keys_of_gpu = list(msgspec.json.schema(Status)["$defs"]["Gpu"]["properties"])
    for words, keys in ((top, list(Status.__struct_fields__)), (gpu, keys_of_gpu)):
        words = re.sub(r"\([^()]*\)", "", words)
        while "{" in words:  # from the inside out
            words = re.sub(r"\{[^{}]*\}", "", words)
        words = re.sub(r"\[[^\[\]]*\]", "", words)
        found = re.findall(r"[a-z][a-z0-9_]*", words.partition(" when listed")[0])
        assert found == [key for key in keys if key not in ADDED]


def test_disks_and_ports_together(make: Callable[..., Agent], tmp_path: Path) -> None:
    bighost.write(tmp_path)
    agent = make(config(tmp_path))
    agent.read()
    first = ask(agent)
    assert first.infiniband is not None and len(first.infiniband) == 12
    assert {port.up for port in first.infiniband} == {False, True}
    assert first.disk_read_bytes_per_sec is None and first.infiniband_rx_bytes_per_sec is None
    for file, column, more in (("nvme0n1", 5, 2048), ("md0", 5, 1 << 20), ("dm-0", 5, 1 << 20)):
        path = tmp_path / "proc/diskstats"
        lines = [line.split() for line in path.read_text().splitlines()]
        for line in lines:
            if line[2] == file:
                line[column] = str(int(line[column]) + more)
        path.write_text("".join(f"{' '.join(line)}\n" for line in lines))
    counter = tmp_path / "sys/class/infiniband/mlx5_1/ports/1/counters/port_rcv_data"
    counter.write_text(f"{int(counter.read_text()) + 1000}\n")
    agent.read()
    second = ask(agent)
    assert second.disks is not None and second.infiniband is not None
    rates = {each.read_bytes_per_sec for each in second.disks} - {None, 0}
    assert second.disk_read_bytes_per_sec == min(rates)  # that of md0 and dm-0 is larger
    assert second.disk_written_bytes_per_sec == 0
    (port,) = [each for each in second.infiniband if each.device == "mlx5_1"]
    assert port.rx_bytes_per_sec and second.infiniband_rx_bytes_per_sec == port.rx_bytes_per_sec


def nested(found: Decoded, path: str = "") -> Iterator[tuple[str, Decoded]]:
    """(path, value) of everything that is no object or list."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from nested(value, f"{path}.{key}")
    elif isinstance(found, list):
        for i, value in enumerate(found):
            yield from nested(value, f"{path}[{i}]")
    else:
        yield path, found


def test_values_are_those_of_the_page_of_the_same_tick(
    tmp_path: Path, make: Callable[..., Agent]
) -> None:
    bighost.write(tmp_path)
    fake = Fake(fakenvml.library())
    fake.set_gpus(["H100", "T4"])
    fake.gpu(0).set("power_usage", 123_456)
    keys = {"enable_gpu": True, "nvml_library": str(fake.path), "scrape_max_age_seconds": 3600}
    agent = make(config(tmp_path, disk_mount_include="^/$", **keys))
    agent.read()
    agent.read()
    status = ask(agent)
    page = series(agent.store.page(TEXT).body)
    fake.reset()

    def same(value: float | None, row: str, scale: float = 1) -> None:
        assert value is not None, row
        assert value == page.get(row, -1) * scale, row

    same(status.load_avg_1m, "esnode_cpu_load_avg_1m")
    same(status.cpu_cores, "esnode_cpu_cores")
    for word in ("total", "used", "free", "available"):
        same(getattr(status, f"mem_{word}_bytes"), f"esnode_memory_{word}_bytes")
    same(status.swap_used_bytes, "esnode_swap_used_bytes")
    same(status.node_power_watts, "esnode_node_power_watts")
    same(status.degradation_score, "esnode_degradation_score")
    (root,) = [row for row in page if row.startswith("esnode_disk_used_bytes")]
    same(status.disk_root_used_bytes, root)
    assert status.disks
    assert status.disks[0].used_bytes == status.disk_root_used_bytes
    assert status.interfaces
    for interface in status.interfaces:
        label = f'{{iface="{interface.iface}"}}'
        is_up = page[f"esnode_network_up{label}"] == 1
        # A driver may tell no state.
        assert interface.up == is_up or (interface.up is None and not is_up)
        if interface.speed_bytes is not None:
            same(interface.speed_bytes, f"esnode_network_speed_bytes{label}")
    assert status.cpu_temperatures
    for reading in status.cpu_temperatures:
        labels = f'{{package="{reading.package}",sensor="{reading.sensor}"}}'
        same(reading.celsius, f"esnode_cpu_temperature_celsius{labels}")
    assert status.gpus
    for gpu in status.gpus:

        def row(name: str, more: str = "", gpu: Any = gpu) -> str:
            return f'esnode_gpu_{name}{{gpu="{gpu.gpu}",uuid="{gpu.uuid}"{more}}}'

        same(gpu.power_watts, row("power_watts"))
        same(gpu.power_limit_watts, row("power_limit_watts", ',limit="enforced"'))
        same(gpu.temperature_celsius, row("temperature_celsius"))
        same(gpu.memory_total_bytes, row("memory_total_bytes"))
        same(gpu.energy_joules, row("energy_joules_total"))
        same(gpu.util_percent, row("utilization_percent"))
        same(gpu.clock_sm_mhz, row("clock_hertz", ',clock="sm"'), 1e-6)
        same(gpu.topo.pci_link_width_max, row("pcie_link_width", ',bound="max"'))
        same(gpu.health.pstate, row("pstate"))
        assert gpu.last_success_unix_ms == round(page[row("last_success_timestamp_seconds")] * 1000)
        for reason in gpu.health.throttle_reasons or ():
            same(1, row("throttle_reason", f',reason="{reason}"'))
    for each in status.agent.collectors:
        row = f'esnode_agent_collector_up{{collector="{each.name}"}}'
        assert page.get(row) == each.up, each


def test_rates_are_of_the_time_between_two_ticks(
    tmp_path: Path, make: Callable[..., Agent]
) -> None:
    shutil.copytree(FIXTURES / "small-vm", tmp_path, dirs_exist_ok=True, symlinks=True)
    agent = make(config(tmp_path, disk_mount_exclude="."))
    agent.read()
    first = ask(agent)
    assert first.interfaces
    assert {each.rx_bytes_per_sec for each in first.interfaces} == {None}
    net = tmp_path / "proc/1/net/dev"
    text = net.read_text()
    (old,) = re.findall(r"eth0:\s*(\d+)", text)
    net.write_text(re.sub(r"(eth0:\s*)\d+", rf"\g<1>{int(old) + 1_000_000}", text))
    before = agent.store.lanes["host"].snapshot
    time.sleep(0.02)
    agent.read()
    after = agent.store.lanes["host"].snapshot
    assert before and after
    second = ask(agent)
    by_name = {each.iface: each for each in second.interfaces or ()}
    expected = 1_000_000 / (after.monotonic - before.monotonic)
    assert by_name["eth0"].rx_bytes_per_sec == pytest.approx(expected)
    assert by_name["eth0"].drops_per_sec == 0
    net.write_text(text)  # a counter that steps back tells no rate
    agent.read()
    third = {each.iface: each for each in ask(agent).interfaces or ()}
    assert third["eth0"].rx_bytes_per_sec is None
    assert third["eth0"].tx_bytes_per_sec == 0


def test_an_xid_has_its_meaning_and_its_time(
    tmp_path: Path, make: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    fake = Fake(fakenvml.library())
    fake.set_gpus(["H100"])
    keys = {"enable_gpu": True, "enable_gpu_events": True, "nvml_library": str(fake.path)}
    off = {f"enable_{name}": False for name in ("cpu", "memory", "disk", "network", "power")}
    agent = make(config(tmp_path, **off, **keys))
    agent.read()
    agent.read()
    gpu = (ask(agent).gpus or [])[0]
    assert gpu.health.last_xid is None
    before = time.time() * 1000
    fake.gpu(0).event(0x8, 79)

    def told() -> bool:
        agent.read()
        found = (ask(agent).gpus or [])[0].health.last_xid
        return found is not None

    wait_for(told, "the Xid in the status")
    status = ask(agent)
    last = (status.gpus or [])[0].health.last_xid
    assert last
    assert last.code == 79
    assert "bus" in (last.meaning or "")
    assert last.action
    assert last.unix_ms and before - 2000 <= last.unix_ms <= time.time() * 1000 + 2000
    assert status.gpu_degraded is True
    assert any(reason.startswith("GPU 0: Xid 79") for reason in status.degradation_reasons)
    fake.reset()


def test_a_lane_that_is_not_heard_of_is_not_known(
    tmp_path: Path, make: Callable[..., Agent]
) -> None:
    agent = make(config(FIXTURES / "small-vm", disk_mount_exclude="."))
    agent.read()
    whole = ask(agent)
    assert whole.healthy
    agent.derive({lane: each for lane, each in agent.view._snapshots[-1].items() if lane != "host"})
    status = ask(agent)
    assert not status.healthy
    assert status.mem_total_bytes is None
    assert status.load_avg_1m is None
    assert (status.disks, status.interfaces) == (None, None)
    assert status.degradation_score is None
    assert status.disk_degraded is None


def test_a_list_is_empty_only_where_somebody_could_look(
    tmp_path: Path, make: Callable[..., Agent]
) -> None:
    shutil.copytree(FIXTURES / "small-vm", tmp_path, dirs_exist_ok=True, symlinks=True)
    loop = "7 0 loop0 412 0 2244 68 0 0 0 0 0 116 68\n"  # not shown
    (tmp_path / "proc/diskstats").write_text(loop)
    agent = make(config(tmp_path, disk_mount_exclude=".", enable_network=False))
    agent.read()
    status = ask(agent)
    assert status.interfaces is None  # turned off
    assert (status.cpu_package_power_watts, status.cpu_temperatures) == (None, None)  # no sensor
    assert status.disks == []


@pytest.mark.parametrize("on_bus", [True, False])
def test_gpus_that_no_driver_tells_of_are_not_known(
    on_bus: bool, tmp_path: Path, make: Callable[..., Agent]
) -> None:
    fake = Fake(fakenvml.library())
    fake.set_gpus([])
    fake.reload(init=fakenvml.DRIVER_NOT_LOADED)
    device = tmp_path / "sys/bus/pci/devices/0000:17:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n" if on_bus else "0x8086\n")
    (device / "class").write_text("0x030200\n")
    off = {f"enable_{name}": False for name in ("cpu", "memory", "disk", "network", "power")}
    agent = make(config(tmp_path, **off, enable_gpu=True, nvml_library=str(fake.path)))
    agent.read()
    assert ask(agent).gpus == (None if on_bus else [])
    fake.reset()


def test_text_that_is_no_utf8_is_written_so_that_it_can_be_read(
    tmp_path: Path, make: Callable[..., Agent]
) -> None:
    where = f"{tmp_path}/\udcff"  # as the command line gives a byte that is no UTF-8
    agent = make(config(FIXTURES / "empty", disk_mount_exclude=".", local_tsdb_path=where))
    agent.read()
    assert ask(agent).tsdb.path == f"{tmp_path}/\\udcff"


def test_a_document_that_cannot_be_made_is_an_error_for_who_waits(
    make: Callable[..., Agent],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = make(config(FIXTURES / "small-vm", disk_mount_exclude="."))
    build = agent.view.build

    def fault() -> Status:
        raise ValueError("of ours")

    monkeypatch.setattr(agent.view, "build", fault)
    got: list[str] = []
    for _ in range(3):
        agent.view.get(lambda data: got.append("document"), lambda: got.append("fault"))
        agent.read()
    assert got == ["fault"] * 3
    assert len(caplog.records) == 1
    monkeypatch.setattr(agent.view, "build", build)
    agent.view.get(lambda data: got.append("document"), lambda: got.append("fault"))
    agent.view.answer()
    assert got[3:] == ["document"]


def test_an_event_says_where_the_gpu_is_as_the_document_does(
    tmp_path: Path, make: Callable[..., Agent]
) -> None:
    fake = Fake(fakenvml.library())
    fake.set_gpus(["H100"])
    off = {f"enable_{name}": False for name in ("cpu", "memory", "disk", "network", "power")}
    agent = make(config(tmp_path, **off, enable_gpu=True, nvml_library=str(fake.path)))
    agent.read()
    gpu = (ask(agent).gpus or [])[0]
    published: list[dict[str, Any]] = []
    agent.view.publish = lambda kind, data: published.append(json.loads(data))
    for pci, uuid in ((None, gpu.uuid), ("0000:17:00", gpu.uuid), ("0000:99:00", None)):
        agent.view.tell(Event(0, "kernel", "xid", uuid, pci, 79), None)
    places = [event["pci_bus_id"] for event in published]
    assert gpu.identity.pci_bus_id
    assert places == [gpu.identity.pci_bus_id] * 2 + ["0000:99:00"]
    fake.reset()


def test_secrets_are_not_in_it(make: Callable[..., Agent]) -> None:
    agent = make(
        config(
            FIXTURES / "small-vm",
            disk_mount_exclude=".",
            managed_server="https://me:hunter2@server:1/?token=hunter2",
            managed_join_token="hunter2",
            orchestrator=Orchestrator(token="hunter2"),
        )
    )
    agent.read()
    status = ask(agent)
    assert "hunter2" not in msgspec.json.encode(status).decode()
    assert status.mode == "managed"
    assert status.orchestrator.token_required


def test_numbers_are_finite_and_strings_are_text(make: Callable[..., Agent]) -> None:
    agent = make(config(FIXTURES / "garbage", disk_mount_exclude="."))
    agent.read()
    for path, value in nested(msgspec.to_builtins(ask(agent))):
        assert value is None or isinstance(value, (bool, int, float, str)), path
        if isinstance(value, float):
            assert value == value and abs(value) != float("inf"), path


class Spy:
    """Counts what the view builds, and on which threads."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[int] = []
        build = agent.view.build

        def counted() -> Status:
            self.threads.append(threading.get_ident())
            return build()

        monkeypatch.setattr(agent.view, "build", counted)


def test_it_is_built_once_a_tick_and_only_for_who_asks(
    make: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make(config(FIXTURES / "small-vm", disk_mount_exclude="."))
    spy = Spy(agent, monkeypatch)
    published: list[tuple[str, bytes]] = []
    listened = False
    agent.view.publish = lambda kind, data: published.append((kind, data))
    agent.view.listened = lambda: listened
    got: list[bytes] = []
    agent.view.get(got.append)  # before the first tick: it waits
    agent.view.answer()
    assert not got
    agent.read()
    assert len(got) == len(spy.threads) == 1
    for _ in range(5):
        agent.view.get(got.append)
    assert len(got) == 6
    assert len(set(got)) == len(spy.threads) == 1
    agent.read()  # somebody has asked since: it is made with the tick
    assert len(spy.threads) == 2
    agent.read()  # nobody has
    agent.read()
    assert len(spy.threads) == 2
    assert not published
    listened = True
    agent.read()
    agent.read()
    assert len(spy.threads) == 4
    assert [kind for kind, _ in published] == ["status", "status"]
    assert b"\n" not in published[0][1]


def test_a_change_of_a_flag_is_published(tmp_path: Path, make: Callable[..., Agent]) -> None:
    shutil.copytree(FIXTURES / "small-vm", tmp_path, dirs_exist_ok=True, symlinks=True)
    agent = make(config(tmp_path, disk_mount_exclude="."))
    published: list[tuple[str, bytes]] = []
    agent.view.publish = lambda kind, data: published.append((kind, data))
    agent.read()
    vmstat = tmp_path / "proc/vmstat"
    text = vmstat.read_text()
    (old,) = re.findall(r"pswpin (\d+)", text)
    vmstat.write_text(text.replace(f"pswpin {old}", f"pswpin {int(old) + 1_000_000}"))
    agent.read()
    ((kind, data),) = published
    event = json.loads(data)
    assert kind == "degradation"
    assert list(event) == ["unix_ms", "flag", "labels", "degraded", "reason", "score"]
    assert (event["flag"], event["labels"], event["degraded"]) == ("swap_degradation", {}, True)
    assert "threshold" in event["reason"]
    assert event["score"] == 3
    status = ask(agent)
    assert status.swap_degraded
    assert status.degradation_reasons == [event["reason"]]


def test_a_running_agent_serves_it_under_both_names() -> None:
    with running.Agent("--scrape-interval", "200ms") as agent:
        first = agent.get("/status")
        assert first.status == 200
        assert first.headers["content-type"] == "application/json"
        document = json.loads(first.body)
        VALIDATOR.validate(document)
        assert list(document) == list(Status.__struct_fields__)
        assert json.loads(agent.get("/v1/status").body)["hostname"] == document["hostname"]
        assert agent.get("/status", "HEAD").body == b""
        assert agent.get("/status", "POST").status == 405

        def moves() -> bool:
            now = json.loads(agent.get("/status").body)
            return bool(now["last_scrape_unix_ms"] > document["last_scrape_unix_ms"])

        wait_for(moves, "another tick's document")
        last = json.loads(agent.get("/status").body)
        assert last["agent"]["cpu_percent"] is not None
        assert last["agent"]["resident_bytes"] > 1 << 20
