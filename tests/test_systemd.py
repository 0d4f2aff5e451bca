"""deploy/systemd: the unit does what the documents say, and the example is valid."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from .running import run

HERE = Path(__file__).parents[1] / "deploy/systemd"


def unit() -> dict[str, list[str]]:
    """The settings of the unit's section [Service]."""
    found = defaultdict(list)
    text = (HERE / "esnode-core.service").read_text()
    for line in text.partition("[Service]")[2].partition("[Install]")[0].splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def test_the_unit_reloads_and_has_what_the_agent_needs() -> None:
    service = unit()
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert service["RestartPreventExitStatus"] == ["2"]
    assert run("--log-level", "loud").returncode == 2
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"]
    assert set(service["AmbientCapabilities"][0].split()) == {"CAP_DAC_READ_SEARCH", "CAP_SYSLOG"}
    # What would show the agent another node than the one it is on.
    assert not service.keys() & {"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (HERE / "esnode-core.service").read_text()
    mine = tmp_path / "esnode-core.service"
    mine.write_text(text.replace("/usr/bin/esnode-core", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(mine)],
        capture_output=True,
        text=True,
        check=False,
    )
    about_us = [line for line in done.stderr.splitlines() if "esnode-core.service:" in line]
    assert about_us == []


def test_the_example_is_valid_with_all_that_it_names(tmp_path: Path) -> None:
    text = (HERE / "esnode.toml").read_text()
    assert run("config", "check", str(HERE / "esnode.toml")).returncode == 0
    named = re.findall(r"^# (\w+ = .*)$", text, re.MULTILINE)
    assert len(named) > 5
    for number, line in enumerate(named):
        if line.startswith("web_config_file"):  # of which there is none
            continue
        file = tmp_path / f"{number}.toml"
        file.write_text(f"{line}\n")
        done = run("config", "check", str(file))
        assert (done.returncode, done.stderr) == (0, ""), line
