"""`esnode-core diagnostics`: what it finds, and how to mend it, with and without an agent."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from esnode.cli import diagnostics
from esnode.config import Config
from esnode.host import Host

from . import documents, fakenvml
from .peers import BROKEN, HUNG, page, peer, says
from .running import Agent, free_port, run

FIXTURE = Path(__file__).parent / "fixtures/hosts/small-vm"
TREE = [f"--path-procfs={FIXTURE}/proc", f"--path-sysfs={FIXTURE}/sys"]

Found = dict[str, dict[str, str]]


def found(
    *flags: str, env: Mapping[str, str] | None = None, address: str = ""
) -> tuple[int, Found]:
    """The exit code, and the findings by subject; of several of a subject, the worst."""
    where = address or f"127.0.0.1:{free_port()}"
    done = run("--listen-address", where, *flags, "diagnostics", "--json", env=env)
    assert done.stderr == ""
    document = json.loads(done.stdout)
    subjects: Found = {}
    for finding in document["findings"]:
        assert finding.keys() == {"subject", "level", "text", "fix"}
        assert finding["level"] in ("ok", "note", "wrong")
        before = subjects.get(finding["subject"])
        if before is None or before["level"] != "wrong":
            subjects[finding["subject"]] = finding
    assert document["wrong"] == sum(f["level"] == "wrong" for f in document["findings"])
    assert done.returncode == (1 if document["wrong"] else 0)
    return done.returncode, subjects


def test_a_node_without_an_agent() -> None:
    _, subjects = found(*TREE)
    assert subjects["agent"]["level"] == "note"
    assert "no agent answers" in subjects["agent"]["text"]
    assert subjects["listen_address"]["level"] == "ok"
    assert subjects["listen_address"]["text"].endswith("is free")
    assert subjects["memory"]["level"] == "ok"
    assert subjects["configuration"]["level"] == "ok"
    # What this tree does not have is no fault.
    assert subjects["infiniband"]["level"] == "note"
    assert {"clock", "open files", "local history", "nvidia: NVML", "disk: mount"} <= set(subjects)


def test_lines_for_people() -> None:
    done = run(*TREE, "--listen-address", f"127.0.0.1:{free_port()}", "diagnostics")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok    configuration")
    assert " wrong, " in lines[-1]
    assert done.returncode == (not lines[-1].startswith("0 wrong"))
    assert "\x1b" not in done.stdout
    for line in lines:
        assert line.startswith(("ok", "note", "WRONG", " ", "0", "1", "2", "3"))


def test_a_live_agent() -> None:
    with Agent(*TREE, "--no-enable-gpu") as agent:
        _, subjects = found(*TREE, address=agent.address)
        where = subjects["listen_address"]
        assert where["level"] == "ok"
        assert f"process {agent.process.pid}" in where["text"]


def test_what_a_running_agent_says() -> None:
    with peer(says(page(msgspec.json.encode(documents.ILL)))) as address:
        _, subjects = found(*TREE, address=address)
    assert subjects["agent"]["level"] == "ok"
    power = subjects["agent: power"]
    assert power["level"] == "wrong"
    path = "/sys/class/powercap/intel-rapl:0/energy_uj"
    assert f"chmod g+r {path};" in power["fix"]


@pytest.mark.parametrize("act", [HUNG["silent"], BROKEN["no_http"]], ids=["hung", "garbage"])
def test_an_agent_that_does_not_answer_is_wrong(act: object) -> None:
    with peer(act) as address:  # type: ignore[arg-type]
        code, subjects = found(*TREE, address=address)
    assert code == 1
    assert subjects["agent"]["level"] == "wrong"


def test_a_port_that_another_process_has() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        _, subjects = found(*TREE, address=f"127.0.0.1:{taken.getsockname()[1]}")
    finding = subjects["listen_address"]
    assert finding["level"] == "wrong"
    assert f"process {os.getpid()}" in finding["text"]
    assert "another port" in finding["fix"]


def test_an_address_of_another_node() -> None:
    (finding,) = diagnostics.address(Config(listen_address="192.0.2.1:9100"), False)
    assert finding.level == "wrong"
    assert "0.0.0.0" in finding.fix


def test_a_configuration_that_is_not_valid(tmp_path: Path) -> None:
    file = tmp_path / "esnode.toml"
    file.write_text("enable_gpu = 0\n")
    done = run("--config", str(file), "diagnostics", "--json")
    finding = json.loads(done.stdout)["findings"][0]
    assert (done.returncode, finding["level"]) == (1, "wrong")
    assert str(file) in finding["text"]


def of_history(path: Path, megabytes: int = 1) -> diagnostics.Finding:
    """The last finding, of a history at a path with that budget."""
    settings = Config(
        enable_local_tsdb=True, local_tsdb_path=str(path), local_tsdb_max_disk_mb=megabytes
    )
    return list(diagnostics.history(settings))[-1]


def test_the_history(tmp_path: Path) -> None:
    assert of_history(tmp_path / "new/tsdb").level == "ok"
    assert list(tmp_path.iterdir()) == []  # nothing is made
    (tmp_path / "file").write_text("")
    assert of_history(tmp_path / "file/tsdb").level == "wrong"
    finding = of_history(tmp_path, 999_999_999)
    assert finding.level == "wrong"
    assert "local_tsdb_max_disk_mb=" in finding.fix
    assert of_history(tmp_path).level == "ok"
    (tmp_path / "99999993600000-100000000800000").mkdir()
    assert "future" in of_history(tmp_path).text
    assert next(diagnostics.history(Config())).level == "note"


@pytest.fixture
def gpu_tree(tmp_path: Path) -> Path:
    """A host with a GPU on its bus."""
    device = tmp_path / "sys/bus/pci/devices/0000:65:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    (tmp_path / "proc").mkdir()
    return tmp_path


def test_a_gpu_without_a_driver(gpu_tree: Path) -> None:
    tree = [f"--path-procfs={gpu_tree}/proc", f"--path-sysfs={gpu_tree}/sys"]
    code, subjects = found(*tree, "--nvml-library", "/no/such/library.so", "--expected-gpus", "2")
    assert code == 1
    assert subjects["nvidia: bus"]["level"] == "wrong"
    assert "1 GPUs are on the PCI bus, 2 are expected" in subjects["nvidia: bus"]["text"]
    assert subjects["nvidia: module"]["fix"] == "modprobe nvidia"
    nvml = subjects["nvidia: NVML"]
    assert nvml["level"] == "wrong"
    assert nvml["text"].startswith("/no/such/library.so: ")
    assert "nvml_library" in nvml["fix"]
    _, subjects = found(*tree, "--no-enable-gpu")
    assert subjects["nvidia"]["level"] == "note"


def test_a_library_of_another_version_than_the_module(gpu_tree: Path) -> None:
    (gpu_tree / "sys/module/nvidia").mkdir(parents=True)
    (gpu_tree / "sys/module/nvidia/version").write_text("550.54.15\n")
    named = gpu_tree / "libnvidia-ml.so.1"
    named.symlink_to("libnvidia-ml.so.550.54.15")
    tree = [f"--path-procfs={gpu_tree}/proc", f"--path-sysfs={gpu_tree}/sys"]
    for version, level in (("550.54.15", "ok"), ("560.35.03", "wrong")):
        shutil.copy(fakenvml.library(), gpu_tree / f"libnvidia-ml.so.{version}")
        named.unlink()
        named.symlink_to(f"libnvidia-ml.so.{version}")
        _, subjects = found(*tree, "--nvml-library", str(named))
        finding = subjects["nvidia: NVML"]
        assert finding["level"] == level
        assert f"{gpu_tree}/libnvidia-ml.so.{version}" in finding["text"]
    assert "560.35.03, the kernel's module of 550.54.15" in finding["text"]
    assert "reboot" in finding["fix"]


def test_devices(tmp_path: Path) -> None:
    host = Host(devfs=str(tmp_path))
    (finding,) = diagnostics.devices("devices", host)
    assert (finding.level, "nvidia-modprobe" in finding.fix) == ("wrong", True)
    for name in ("nvidiactl", "nvidia0", "nvidia1", "nvidia-uvm"):
        (tmp_path / name).write_text("")
    (finding,) = diagnostics.devices("devices", host)
    assert (finding.level, finding.text) == ("ok", "2 of GPUs")


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        (
            "/sys/class/powercap/intel-rapl:0:1/energy_uj: Permission denied",
            "chgrp users2 /sys/class/powercap/intel-rapl:0:1/energy_uj && chmod g+r"
            " /sys/class/powercap/intel-rapl:0:1/energy_uj; for good see docs/power.md",
        ),
        ("/dev/ipmi0: Permission denied: give the agent's group", "chmod g+rw /dev/ipmi0;"),
        ("/dev/kmsg: EPERM; the kernel's log", "CAP_SYSLOG"),
        ("adjtimex: Operation not permitted", "seccomp"),
        ("/etc/x: Permission denied", "let users2 read /etc/x"),
        ("/sys/class/infiniband: nothing to read", ""),
    ],
)
def test_fixes(reason: str, fix: str) -> None:
    found = diagnostics.fix_of(reason, "users2")
    assert fix in found
    assert bool(found) == bool(fix)


def test_a_clock_that_was_set_back() -> None:
    status = msgspec.structs.replace(documents.WELL, last_scrape_unix_ms=1 << 42)
    assert any("set back" in finding.text for finding in diagnostics.clocks(status))
    assert not any("set back" in finding.text for finding in diagnostics.clocks(documents.WELL))


def test_few_descriptors() -> None:
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 256; exec "$0" "$@"', *_command()],
        capture_output=True,
        text=True,
        env={**os.environ, "ESNODE_CONFIG": "/dev/null"},
    )
    findings = {each["subject"]: each for each in json.loads(done.stdout)["findings"]}
    assert findings["open files"]["level"] == "wrong"
    assert "LimitNOFILE" in findings["open files"]["fix"]


def _command() -> list[str]:
    from .running import command

    return command("--listen-address", f"127.0.0.1:{free_port()}", *TREE, "diagnostics", "--json")


def test_the_kernel_log(tmp_path: Path) -> None:
    (finding,) = diagnostics.messages(Host(devfs=str(tmp_path)))
    assert finding.level == "wrong"
    (tmp_path / "kmsg").write_text("6,1,1,-;hello\n")
    (finding,) = diagnostics.messages(Host(devfs=str(tmp_path)))
    assert finding.level == "ok"


def test_a_source_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from esnode.config import Settings
    from esnode.sampler import Lane

    monkeypatch.setattr(diagnostics, "PATIENCE", 2.0)
    hung = threading.Event()
    read = Lane.read

    def slow(lane: Lane, tick: bool) -> object:
        if lane.name == "sensors":
            hung.wait(20)
        return read(lane, tick)

    monkeypatch.setattr(Lane, "read", slow)
    config = Config(path_procfs=f"{FIXTURE}/proc", path_sysfs=f"{FIXTURE}/sys")
    settings = Settings(config)
    found = {finding.subject: finding for finding in diagnostics.sources(settings)}
    hung.set()
    assert found["power"].level == "wrong"
    assert found["memory"].level == "ok"
