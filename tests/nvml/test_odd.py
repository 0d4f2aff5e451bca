"""What a driver says that is odd: unknown values, strange bytes, counters that start over."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from esnode.agent import Agent
from esnode.config import Settings
from esnode.dialects import OPENMETRICS, TEXT
from tests.fakenvml import Fake, Mig
from tests.hosts import config

from .node import Node
from .scripted import FIELDS, LINK_FIELDS, RANGES, script
from .test_values import rows

Make = Callable[..., Node]
#: The largest values of NVML's types, which stand for unknown.
U32, U64, S32 = 2**32 - 1, 2**64 - 1, 2**31 - 1
LONG = re.compile(r"memory_(?!t)|bar1|energy|corrected_|sram_(vol|agg)")
SIGNED = re.compile(r"tlimit|margin|persistence|compute_mode|temperature$")
#: Those of another meaning: bits, words, modes of the fake, and numbers whose highest is no value.
APART_FROM = ("clock_reasons", "fabric_state", "pstate", "ecc_mode")


def largest(name: str) -> int:
    return S32 if SIGNED.search(name) else U64 if LONG.search(name) else U32


@pytest.mark.parametrize("model", ["T4", "A6000", "H100", "B200"])
def test_the_largest_value_of_a_type_is_unknown(fake: Fake, node: Make, model: str) -> None:
    fake.set_gpus([model] * 2)
    for slot in range(2):
        script(fake, slot)
    gpu = fake.gpu(0)
    for name in RANGES:
        if name not in APART_FROM:
            gpu.set(name, largest(name))
    for name in ("memory_total", "bar1_total"):
        gpu.set(name, U64)
    gpu.set("pstate", 32)  # NVML's number of an unknown one
    for field in (*FIELDS, 160):
        gpu.field(field, U64)
    for link in range(gpu.get("links")):
        for field in LINK_FIELDS:
            gpu.field(field, U64, scope=link)
            gpu.field(field, U64)
    for name in ("shutdown", "slowdown", "gpu_max", "memory_max"):
        gpu.set(f"temperature_{name}", U32)
    gpu.field(90, U32, type=1)
    for name in ("minor", "module_id", "numa_node", "architecture"):
        gpu.set(name, U32)
    gpu.sample(0, 1, U32)
    gpu.sample(1, 1, U32)
    gpu.processes(compute=[(1, U64)])
    page = node(gpu_detail=True, gpu_process_metrics=True).pair()
    left = {
        (key[0].removeprefix("esnode_gpu_"), *key[1][2:]): value
        for key, value in rows(page).items()
        if key[1][0] == "0"
    }
    names = {name for name, *_ in left}
    known = {"info", "throttle_reason", "processes", "ecc_mode", "mode", "nvlink_up"}
    sampled = {name for name in names if name.endswith("_ratio") or name.startswith("gpm_")}
    states = {"fabric_state", "fabric_health", "nvlink_effective_ber"}
    free = {"memory_free_bytes"}  # the fake's sum of unknown numbers
    assert names - known - sampled - states - free == set()
    assert all(value in (0, 1) for key, value in left.items() if key[0] in known)
    assert {key for key in left if key[0] == "mode"} <= {("mode", "mig"), ("mode", "cc")}
    info = dict(zip(page.labels["esnode_gpu_info"], next(iter(info_of(page))), strict=True))
    assert {info[name] for name in ("minor", "module_id", "numa_node", "architecture")} == {None}


def info_of(page: object) -> list[tuple[str | None, ...]]:
    return [key[1] for key in page.rows if key[0] == "esnode_gpu_info" and key[1][0] == "0"]  # type: ignore[attr-defined]


def test_the_largest_value_of_bits_words_and_signed_numbers_is_unknown(
    fake: Fake, node: Make
) -> None:
    fake.set_gpus(["H100"])
    gpu = fake.gpu(0)
    gpu.set("clock_reasons", U64)
    for name in ("persistence", "compute_mode", "fabric_health"):
        gpu.set(name, U32)
    signed = 4  # nvmlValueType_t: long long
    gpu.field(186, 2**63 - 1, type=signed)
    gpu.field(198, U64, type=signed)  # a counter at -1
    gpu.metric(2, float("inf"))
    gpu.metric(3, 2.0**64)
    page = node().pair()
    for family in (
        *("throttle_reason", "fabric_health", "power_watts", "pcie_rx_bytes_total"),
        *("sm_active_ratio", "sm_occupancy_ratio"),
    ):
        assert not page.of(f"esnode_gpu_{family}"), family
    assert page.of("esnode_gpu_pcie_tx_bytes_total") and page.of("esnode_gpu_tensor_active_ratio")
    modes = {labels[-1] for labels in page.of("esnode_gpu_mode")}
    assert modes == {"mig", "cc"}


@pytest.mark.usefixtures("eager")
def test_what_becomes_unknown_is_absent_at_once(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"])
    gpu = fake.gpu(0)
    a = node()
    for name, family, unknown, known in (
        ("temperature", "temperature_celsius", S32, 50),
        ("power_usage", "power_watts", U32, 50_000),
        ("bar1_used", "bar1_used_bytes", U64, 50),
        ("temperature_margin", "temperature_margin_celsius", S32, -3),
        ("remapped_corrected", "remapped_rows_total", U32, 7),
    ):
        for value in (known, unknown, known):
            gpu.set(name, value % 2**64)
            page = a.tick()
            found = page.of(f"esnode_gpu_{family}")
            scale = 1000 if "power" in name else 1
            assert (known / scale in found.values()) == (value == known), name
    assert a.errors == 0


#: Texts, and what they are as a label; None: there is no such label.
TEXTS = {
    b"": None,
    b" ": None,
    b'say "hi"': r"say \"hi\"",
    b"back\\slash": r"back\\slash",
    b"two\nlines": r"two\nlines",
    b"\xff\xfe": r"\\xff\\xfe",
    b"caf\xc3\xa9 \xe2\x82": "café \\\\xe2\\\\x82",
    b"\x7f\x01\t\r": "\x7f\x01",
    b"{},=#": "{},=#",
    b"x" * 95: "x" * 95,
}


@pytest.mark.parametrize("raw", TEXTS)
def test_texts_with_odd_bytes(fake: Fake, tmp_path: Path, raw: bytes) -> None:
    """The page stays one that every parser reads, and says what can be said of them."""
    fake.set_gpus(["H100", "T4"])
    gpu = fake.gpu(0)
    for name in ("name", "serial", "part_number", "vbios"):
        gpu.text(name, raw)
    if raw.strip():
        gpu.text("uuid", raw[:79])
    fake.driver_version(raw[:79].decode("latin-1"))
    gpu.mig([Mig("1g.10gb", gi=7)])
    gpu.instance_at(0).text("name", raw + b" MIG 1g.10gb" if len(raw) < 80 else raw)
    (tmp_path / "proc/77").mkdir(parents=True)
    (tmp_path / "proc/77/comm").write_bytes(raw[:15] + b"\n")
    gpu.processes(compute=[(77, 1)])
    keys = {"enable_gpu_mig": True, "gpu_process_metrics": True, "k8s_mode": True}
    settings = config(tmp_path, enable_gpu=True, nvml_library=str(fake.path), **keys)
    agent = Agent(Settings(settings))
    for _ in range(2):
        agent.read()
    page = agent.store.page(TEXT).body.decode()
    other = agent.store.page(OPENMETRICS).body.decode()
    for sampler in agent.samplers:
        for lane in sampler.lanes:
            for part in lane.parts:
                part.collector.stop()
                if part.name == "gpu":
                    part.collector.close()  # type: ignore[attr-defined]
    series = [line.rsplit(" ", 1)[0] for line in page.split("\n") if line[:1] not in ("#", "")]
    assert len(series) == len(set(series))
    assert sum(len(family.samples) for family in plain(page)) == len(series)
    assert sum(len(family.samples) for family in openmetrics(other)) == len(series)
    if promtool := shutil.which("promtool"):
        done = subprocess.run(
            [promtool, "check", "metrics"], input=page, capture_output=True, text=True
        )
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    (info,) = re.findall(r'^esnode_gpu_info\{gpu="0".*', page, re.M)
    expected = TEXTS[raw]
    for label in ("name", "serial", "board_part_number", "vbios"):
        found = re.findall(rf'[,{{]{label}="((?:[^"\\]|\\.)*)"', info)
        assert found == ([] if expected is None else [expected]), label
    assert 'esnode_gpu_up{gpu="0"' in page
    assert re.search(r'^esnode_mig_info\{.*gi="7".* 1$', page, re.M)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("counted_by", ["a field", "a call"])
def test_a_counter_of_32_bits_wraps(fake: Fake, node: Make, counted_by: str) -> None:
    fake.set_gpus(["H100"] * 2)
    gpu = fake.gpu(0)
    if counted_by == "a call":
        gpu.feature("COUNTERS", False)
        gpu.feature("PCIECOUNT", False)
    a = node()

    def replays(value: int) -> float | None:
        gpu.set("pcie_replays", value)
        page = a.tick()
        assert page.get("esnode_gpu_pcie_replays_total", gpu=1) == 0
        return page.get("esnode_gpu_pcie_replays_total", gpu=0)

    assert replays(U32 - 9) == U32 - 9
    assert replays(5) == 2**32 + 5
    assert replays(U32) is None, "unknown"
    assert replays(7) == 2**32 + 7
    assert replays(U32 - 1) == 2**33 - 2
    assert replays(1) == 2**33 + 1
    assert replays(0) == 0, "it began again"
    assert replays(3) == 3
    replays(U32 - 1)
    assert replays(2) == 2**32 + 2
    fake.reload()
    a.follow()
    assert replays(4) == 4, "with the driver it began again"


@pytest.mark.usefixtures("eager")
def test_counters_that_begin_again(fake: Fake, node: Make) -> None:
    """They are the source's own values: what was is not added."""
    fake.set_gpus(["B200"])
    gpu = fake.gpu(0)
    a = node()
    for value in (2**53 - 1, 2**40, 5, 0, 7):
        gpu.field(191, value * 1000 if value < 2**40 else value)
        gpu.field(197, value)
        gpu.field(74, value)
        for link in range(18):
            gpu.field(204, value if link == 3 else 0, scope=link)
        page = a.tick()
        joules = value if value < 2**40 else value / 1000
        assert page.get("esnode_gpu_energy_joules_total") == joules
        assert page.get("esnode_gpu_pcie_tx_bytes_total") == value
        seconds = page.get("esnode_gpu_throttle_seconds_total", reason="sw_power_cap")
        assert seconds == value / 1e9
        assert page.get("esnode_gpu_nvlink_rx_bytes_total") == value


def test_words_and_states_that_nobody_knows(fake: Fake, node: Make) -> None:
    """A number that a newer driver gives stands for no word of ours."""
    fake.set_gpus(["H100"] * 2)
    gpu = fake.gpu(0)
    gpu.set("recovery_action", 99)
    gpu.set("fabric_state", 77)
    gpu.set("fabric_health", 0xFFFF)
    gpu.set("clock_reasons", 2**63 + 2**40 + 1)
    gpu.set("architecture", 1234)
    for link in range(18):
        gpu.field(165, 2 if link else 0, scope=link)  # asleep
    page = node().tick()
    assert page.of("esnode_gpu_recovery_action", gpu=0) == {}
    assert len(page.of("esnode_gpu_recovery_action", gpu=1)) == 1
    assert page.of("esnode_gpu_fabric_state", gpu=0) == {}
    checks = {key[-1]: value for key, value in page.of("esnode_gpu_fabric_health", gpu=0).items()}
    assert checks == {"incorrect_configuration": 1}
    reasons = {key[-1]: v for key, v in page.of("esnode_gpu_throttle_reason", gpu=0).items()}
    assert (reasons["gpu_idle"], sum(reasons.values()), len(reasons)) == (1, 1, 9)
    assert sum(page.of("esnode_gpu_nvlink_up", gpu=0).values()) == 17
    (info,) = info_of(page)
    assert info[page.labels["esnode_gpu_info"].index("architecture")] is None


def test_fabrics(fake: Fake, node: Make) -> None:
    """Without one there is nothing to say of it; one that has failed is a failure."""
    fake.set_gpus(["H100"] * 3)
    fake.gpu(0).set("fabric_state", 0)
    fake.gpu(1).set("fabric_status", 999)
    a = node()
    page = a.tick()
    for gpu in (0, 1):
        assert page.of("esnode_gpu_fabric_state", gpu=gpu) == {}
        assert page.of("esnode_gpu_fabric_health", gpu=gpu) == {}
    assert page.get("esnode_gpu_fabric_state", gpu=2, state="completed") == 1
    assert set(page.of("esnode_gpu_fabric_health", gpu=2).values()) == {0}
    assert (a.errors, a.reason) == (1, a.reason)
    assert "nvmlDeviceGetGpuFabricInfoV: UNKNOWN" in (a.reason or "")
