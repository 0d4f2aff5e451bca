"""The tests of tests/hardware and the recorder: on the fake, and on this machine's GPUs.

Each in a process of its own, which finds the library by name.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fakenvml
from tests.fakenvml import Fake, Mig
from tests.hardware import record

ROOT = Path(__file__).parents[2]
#: Of nvidia-smi: what it shows of the fake's GPUs, read by nvidia-ml-py.
SMI = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''  # Python's path may have a space in it
import sys
import pynvml as nv
KEYS = {{
    "uuid": nv.nvmlDeviceGetUUID,
    "name": nv.nvmlDeviceGetName,
    "pci.bus_id": lambda h: nv.nvmlDeviceGetPciInfo(h).busId,
    "memory.total": lambda h: nv.nvmlDeviceGetMemoryInfo(h).total >> 20,
    "power.draw.instant": lambda h: f"{{nv.nvmlDeviceGetPowerUsage(h) / 1000:.2f}}",
    "clocks.current.sm": lambda h: nv.nvmlDeviceGetClockInfo(h, 1) + {wrong},
    "persistence_mode": lambda h: ("Disabled", "Enabled")[nv.nvmlDeviceGetPersistenceMode(h)],
    "fan.speed": lambda h: "[N/A]",
}}
nv.nvmlInit()
(query,) = [word for word in sys.argv if "query-gpu" in word]
if "help" in query:
    print("Section about clocks", *[f'"{{key}}" or "other"\\nText.' for key in KEYS], sep="\\n")
else:
    for index in range(nv.nvmlDeviceGetCount()):
        handle = nv.nvmlDeviceGetHandleByIndex(index)
        print(*[KEYS[key](handle) for key in query.partition("=")[2].split(",")], sep=", ")
"""


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """One of each kind, with something to tell."""
    fake = Fake(fakenvml.library(), tmp_path / "nvml")
    fake.set_gpus(["H100", "T4", "A100", "A6000", "B200", "GB200", "H200"])
    for slot in range(7):
        gpu = fake.gpu(slot)
        gpu.set("energy", 123_456_789 + slot)
        gpu.set("power_usage", 71_000 + slot)
        gpu.set("utilization_gpu", 40 + slot)
        gpu.set("corrected_volatile_dram", 3 + slot)
        gpu.set("ring_period_us", 20_000)
        gpu.field(74, 5_000_000_000)
        gpu.field(165, 0, scope=2)
        gpu.processes(compute=[(10, 1 << 30)], graphics=[(10, 5), (11, 6)])
        gpu.metric(2, 41.5)
    fake.gpu(6).mig([Mig("1g.18gb", gi=7), None, Mig("3g.71gb", gi=2, start=4)])
    return fake


def python(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )


def pytest_of(*words: str, env: dict[str, str] | None) -> subprocess.CompletedProcess[str]:
    return python("pytest", "-q", "-p", "no:cacheprovider", "tests/hardware", *words, env=env)


def with_fake(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in fake.environment().items():
        monkeypatch.setenv(name, text)


def skipped(said: str) -> list[str]:
    return re.findall(r"^SKIPPED \[\d+\] (?:tests/hardware/)?(\S+?)(?::\d+)?: ", said, re.MULTILINE)


def test_on_the_fake(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_fake(fake, monkeypatch)
    smi(tmp_path / "bin", monkeypatch)
    done = pytest_of("-k", "not ten_thousand", env=None)
    assert done.returncode == 0, done.stdout
    assert skipped(done.stdout) == ["test_load.py"], done.stdout
    fake.set_gpus(["H100", "T4"])
    done = pytest_of("-k", "ten_thousand or rise", env=None)
    assert done.returncode == 0, done.stdout
    assert "no load can be put on this GPU: " in done.stdout


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: int = 0) -> None:
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(SMI.format(python=sys.executable, wrong=wrong))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_a_wrong_value_is_seen(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_fake(fake, monkeypatch)
    smi(tmp_path / "bin", monkeypatch, wrong=200)
    fake.set_gpus(["H100"])
    # The library has two functions for the same value, which differ here.
    fake.gpu(0).field(191, 99)
    done = pytest_of("-k", "every_value", env=None)
    failed = re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.MULTILINE)
    assert sorted(failed) == [
        "test_every_value_of_every_gpu",
        "test_every_value_that_nvidia_smi_shows",
    ]


def test_on_this_machine() -> None:
    done = pytest_of(env=None)
    if " passed" not in done.stdout and done.returncode == 0:
        (reason,) = set(re.findall(r": (no NVIDIA driver.*|the driver has no GPU)", done.stdout))
        pytest.skip(reason)
    assert done.returncode == 0, done.stdout


def test_the_record(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_fake(fake, monkeypatch)
    fake.set_gpus(["H100", "T4", "H100"])
    fake.gpu(1).fail("nvmlDeviceGetBoardPartNumber", 999)
    fake.gpu(0).fail("nvmlDeviceGetPerformanceState", 999)
    page = tmp_path / "hardware.md"
    page.write_text(f"# Hardware\n\n{record.NONE_YET} It will.\nSoon.\n\n## Tesla T4\n\nold\n")
    words = ("--repeats", "3", "--seconds", "0.3", "--interval", "0.15", "--write", str(page))
    for _ in range(2):  # the second one takes the place of the first
        done = python("tests.hardware.record", *words)
        assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert record.NONE_YET not in text
    assert "Soon" not in text
    assert "\nold\n" not in text
    headings = re.findall("^##? (.*)", text, re.MULTILINE)
    assert headings == ["Hardware", "Tesla T4", "NVIDIA H100 80GB HBM3"]
    t4, h100 = (table(text.split(f"\n## {name}\n")[1]) for name in headings[1:])

    assert h100["nvmlDeviceGetMemoryInfo_v2", ""][4] == "yes"
    assert h100["nvmlDeviceGetPerformanceState", ""][4:] == ["UNKNOWN", "-", "-"]
    for cells, answer in (
        (t4["nvmlDeviceGetRemappedRows", ""], "NOT_SUPPORTED"),
        (h100["nvmlDeviceGetTemperatureThreshold", "1"], "NOT_SUPPORTED"),
        (t4["nvmlDeviceGetTemperatureThreshold", "1"], "yes"),
    ):
        assert cells[4] == answer
        assert (cells[5] == "-") == (answer != "yes")
    assert h100["138", "nvlink_tx_bytes_total"][2:4] == ["yes", "unsigned long long"]
    assert t4["138", "nvlink_tx_bytes_total"][2] == "NOT_SUPPORTED"
    assert h100["2", "sm_active_ratio"][2] == "yes"
    assert "This GPU has no GPM." in text
    assert 0 < float(h100["nvmlDeviceGetUtilizationRates", ""][5]) < 1e5
    assert "580.95.05" in text


def table(text: str) -> dict[tuple[str, str], list[str]]:
    """The rows of the tables of a section by their first two cells."""
    text = re.split("^## ", text, flags=re.MULTILINE)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return {(row[0], row[1]): row for row in rows}


def test_without_a_driver_nothing_is_recorded() -> None:
    done = python("tests.hardware.record", "--repeats", "1", env={"LD_LIBRARY_PATH": "/nowhere"})
    if done.returncode == 0:
        pytest.skip("this machine has a driver")
    assert done.stderr.startswith("there is no driver to record: libnvidia-ml.so.1")
