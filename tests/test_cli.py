"""The command line, as an operator types it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import esnode.agent
from esnode import config
from esnode.__main__ import main

from .running import Agent, command, environment, free_port, run, wait_for

EXAMPLES = Path(__file__).parents[1].parent / "shared/examples"
needs_examples = pytest.mark.skipif(
    not EXAMPLES.is_dir(), reason="the quickstart's files, shared/examples, are not here"
)


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fails a test in which an agent is built, and keeps the operator's own settings out."""

    def build(settings: config.Settings) -> None:
        raise AssertionError("an agent was built")

    monkeypatch.setattr(esnode.agent, "Agent", build)
    monkeypatch.setattr(config, "FILES", ())
    for name in list(os.environ):
        if name.startswith("ESNODE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_the_installed_command_prints_its_version() -> None:
    script = Path(sys.executable).with_name("esnode-core")
    done = subprocess.run([script, "--version"], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"esnode-core \d+\.\d+\.\d+\S*\n", done.stdout)


def test_help_lists_every_flag(
    nothing_starts: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    words = set(re.findall(r"--[\w-]+|(?:config|tsdb) \w+", text))
    assert {f"--{key.flag}" for key in config.KEYS.values()} <= words
    assert {"--once", "--version", "--config", "config show", "config check"} <= words
    assert {f"tsdb {word}" for word in ("ls", "stat", "verify", "export", "backfill")} <= words
    assert max(map(len, text.splitlines())) < 500


@pytest.mark.parametrize(
    "words",
    [
        ["--enable-gpuu"],
        ["--scrape-interval", "0"],
        ["--scrape-interval", "nan"],
        ["--listen-address", "9100"],
        ["--disk-mount-include", "["],
        ["--config", "no-such-file.toml"],
        ["--config", "."],
        ["--once", "--log-level", "loud"],
        ["--log-level", "loud", "config", "show"],
        ["config", "check", "no-such-file.toml"],
        ["config", "set", "enable_gpuu=true"],
        ["config", "set", "enable_gpu=maybe"],
        ["--config"],
    ],
)
def test_an_error_is_one_line_and_code_2(
    words: list[str], nothing_starts: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"esnode-core: [^\n]+\n", printed.err)


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["--once", "nonsense"],
        ["config", "chek"],
        ["config", "set"],
        ["config", "set", "enable_gpu"],
        ["enable-metric-set"],
        ["enable-metric-set", "gpus"],
        ["disable-metric-set", "host", "power"],
        ["profiles", "host"],
        ["config", "check", "a", "b"],
        ["config", "show", "a"],
        ["config", "show", "--nonsense"],
        ["--enable-gpu", "maybe"],
        ["config"],
    ],
)
def test_a_wrong_sub_command_is_code_2(
    words: list[str], nothing_starts: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert words[-1] in printed.out + printed.err


def test_an_error_of_the_real_command() -> None:
    done = run("--scrape-interval", "0s", "--managed-join-token", "hunter2")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "esnode-core: --scrape-interval: scrape_interval_seconds: found 0,"
        " allowed is a number from 0.1 to 3600 (seconds)\n"
    )


def test_where_values_come_from(tmp_path: Path) -> None:
    (tmp_path / "esnode.toml").write_text(
        'log_level = "error"\nlog_format = "json"\nenable_cpu = false\n[orchestrator]\ntoken="f"\n'
    )
    done = run(
        *("--log-level", "trace", "--enable-orchestrator", "config", "show"),
        env={"ESNODE_CONFIG": "", "ESNODE_LOG_LEVEL": "warn", "ESNODE_LOG_FORMAT": "text"},
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert 'log_level = "trace"  # --log-level' in lines
    assert 'log_format = "text"  # ESNODE_LOG_FORMAT' in lines
    assert "enable_cpu = false  # ./esnode.toml" in lines
    assert "enable_memory = true  # default" in lines
    table = lines[lines.index("[orchestrator]") :]
    assert "enabled = true  # --enable-orchestrator" in table
    assert 'token = "********"  # ./esnode.toml' in table


def test_config_check(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("enable_gpu = false\n")
    bad.write_text("enable_gpu = 0\n")
    done = run("config", "check", str(good))
    assert (done.returncode, done.stderr) == (0, "")
    # What it checks is the file, whatever the operator's own file is like.
    assert run("config", "check", str(good), env={"ESNODE_CONFIG": str(bad)}).returncode == 0
    done = run("config", "check", str(bad))
    assert (done.returncode, done.stdout) == (2, "")
    assert str(bad) in done.stderr
    assert "enable_gpu" in done.stderr


@needs_examples
def test_the_quickstart_file_is_accepted(tmp_path: Path) -> None:
    file = EXAMPLES / "esnode.toml"
    assert run("config", "check", str(file)).returncode == 0
    done = run("--config", str(file), "--once", "--scrape-interval", "0.1")
    assert done.returncode == 0
    assert "esnode_node_info" in done.stdout
    assert config.read_file(str(file))["node_power_envelope_watts"] == 1200


@needs_examples
def test_the_quickstart_command_line_is_accepted() -> None:
    name, *words = shlex.split((EXAMPLES / "command-line.txt").read_text().replace("\\\n", ""))
    assert name == "esnode-core"
    values = config.parse_arguments(words).values
    assert values["scrape_interval_seconds"] == 5
    assert values["enable_gpu"] is True
    assert values["orchestrator.enabled"] is False
    assert values["local_tsdb_path"] == "/var/lib/esnode/tsdb"
    done = run(*words, "--once", "--scrape-interval", "0.1")
    assert done.returncode == 0
    assert "esnode_node_info" in done.stdout


def test_once_prints_one_valid_page() -> None:
    done = run("--once", "--scrape-interval", "0.1", "--log-level", "trace", env={"ESNODE_X": "y"})
    assert done.returncode == 0
    names = {family.name for family in text_string_to_metric_families(done.stdout)}
    # The second is a rate: it needs two readings.
    assert {"esnode_memory_total_bytes", "esnode_cpu_usage_percent"} <= names
    assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in done.stderr.splitlines())


@pytest.mark.parametrize("words", [["--once"], ["--help"], ["--version"], ["config", "show"]])
def test_a_reader_that_has_gone_is_no_traceback(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command("--scrape-interval", "0.1", *words),
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("words", [["--once"], ["--help"], ["config", "show"]])
def test_a_full_disk_is_an_error_in_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("--scrape-interval", "0.1", *words),
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("words", [["profiles"], ["status"], ["check"]])
def test_an_output_that_is_closed_is_no_traceback(words: list[str]) -> None:
    flags = ("--listen-address", f"127.0.0.1:{free_port()}")
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command(*flags, *words)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == {"profiles": 0, "status": 1, "check": 2}[words[0]]
    assert "Traceback" not in done.stderr


def test_the_log_has_no_token_and_is_json_when_asked() -> None:
    secret = "hunter2"
    flags = ["--log-level", "trace", "--log-format", "json", "--path-procfs", "/no/such/place"]
    tokens = ["--managed-join-token", secret, "--orchestrator-token", secret]
    with Agent(*flags, *tokens) as agent:
        agent.get()
        agent.get(f"/metrics?token={secret}", authorization=f"Bearer {secret}")
        assert agent.end()[0] == 0
        log = agent.log
    assert secret not in log
    entries = [json.loads(line) for line in log.splitlines()]
    assert len(entries) >= 3
    assert {"info", "warn"} <= {entry["level"] for entry in entries}
    for entry in entries:
        assert entry["message"]
        when = datetime.fromisoformat(entry["time"].replace("Z", "+00:00"))
        assert abs((datetime.now(timezone.utc) - when).total_seconds()) < 60


def test_a_failure_that_repeats_is_logged_once_and_counted() -> None:
    with Agent("--scrape-interval", "0.1", "--path-procfs", "/no/such/place") as agent:
        before = agent.series()['esnode_agent_errors_total{collector="memory"}']
        assert before > 0

        def counted() -> bool:
            return agent.series()['esnode_agent_errors_total{collector="memory"}'] > before + 2

        wait_for(counted, "the failure is counted again")
        log = agent.log
    assert log.count("/no/such/place/meminfo") == 1
