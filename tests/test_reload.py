"""A reload of the configuration: what it takes up, what it leaves alone, and what it costs."""

from __future__ import annotations

import ast
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from esnode import config
from esnode._fast.table import Snapshot
from esnode.agent import Agent as Daemon
from esnode.cli.profiles import SETS
from esnode.collectors import COLLECTORS
from esnode.collectors.base import Collector
from esnode.collectors.nvidia.gpus import Gpus
from esnode.config import KEYS, Arguments, Config, Settings
from esnode.dialects import TEXT
from esnode.host import Host
from esnode.metrics import counter, gauge
from esnode.reload import Reload
from esnode.sampler import Lane, Part, Sampler
from esnode.store import Store

from .fakenvml import Fake, library
from .process import threads
from .running import PATIENCE, Agent, environment, free_port, run, wait_for

XID = 0x8  # nvmlEventTypeXidCriticalError
RELOADS = "esnode_agent_config_reloads_total"
GOOD = "esnode_agent_config_last_reload_successful"
QUICK = "scrape_interval_seconds = 0.2\nscrape_max_age_seconds = 0\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "esnode.toml"
    path.write_text(QUICK)
    return path


def disabled(agent: Agent, name: str) -> bool:
    return agent.series()[f'esnode_agent_collector_disabled{{collector="{name}"}}'] == 1


def reload(agent: Agent) -> None:
    """Has the agent reload, and waits until it has."""
    before = agent.series()[RELOADS]
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: agent.series()[RELOADS] > before, "the configuration is reloaded")


# ------------------------------------------------------------------------------ what is noticed


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def renamed(file: Path, text: str) -> None:
    other = file.with_name("other")
    other.write_text(text)
    other.rename(file)


def same_time_and_size(file: Path, text: str) -> None:
    """Only the content tells that it is another one."""
    before = file.stat()
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


@pytest.mark.parametrize("write", [in_place, renamed, same_time_and_size])
def test_a_changed_file_is_noticed(file: Path, write: Callable[[Path, str], None]) -> None:
    file.write_text(QUICK + "enable_disk = true  # is it?\n")
    with Agent("--config", str(file)) as agent:
        assert not disabled(agent, "disk")
        write(file, QUICK + "enable_disk = false # is it?\n")
        wait_for(lambda: disabled(agent, "disk"), "the file is read again")
        wait_for(lambda: not has(agent, "esnode_disk_"), "its rows have gone")
        assert agent.series()[RELOADS] == 1
        assert "enable_disk" in agent.log


def has(agent: Agent, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in agent.series())


def test_a_link_that_is_swapped_is_noticed(tmp_path: Path) -> None:
    """As Kubernetes does with a ConfigMap: the file is a link through a link to a directory."""
    for name, text in (("..1", QUICK), ("..2", QUICK + "enable_memory = false\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "esnode.toml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "esnode.toml").symlink_to("..data/esnode.toml")
    with Agent("--config", str(tmp_path / "esnode.toml")) as agent:
        assert not disabled(agent, "memory")
        (tmp_path / "..next").symlink_to("..2")
        (tmp_path / "..next").rename(tmp_path / "..data")
        wait_for(lambda: disabled(agent, "memory"), "the other file is read")


def test_the_command_is_picked_up_by_a_running_agent(file: Path) -> None:
    with Agent("--config", str(file), "--log-level", "info") as agent:
        address = ("--listen-address", agent.address)
        done = run("--config", str(file), *address, "disable-metric-set", "host")
        assert done.returncode == 0
        assert f"process {agent.process.pid}, takes this up by itself" in done.stderr
        wait_for(lambda: disabled(agent, "cpu"), "it is picked up")
        assert disabled(agent, "memory")
        assert disabled(agent, "network")
        assert not has(agent, "esnode_memory_")
        assert agent.get("/healthz").status == 200
        assert agent.get("/readyz").status == 200
        assert run("--config", str(file), *address, "enable-metric-set", "all").returncode == 0
        wait_for(lambda: has(agent, "esnode_memory_total_bytes"), "it is picked up")
        # Its flags count more, which the command says; and so they do.
        done = run("--config", str(file), *address, "config", "set", "log_level=debug")
        assert "was started with --log-level, which counts more" in done.stderr
        # Another file is not the agent's.
        other = file.with_name("other.toml")
        done = run("--config", str(other), *address, "config", "set", "log_level=debug")
        assert f"process {agent.process.pid}, reads {file}" in done.stderr


def test_a_file_that_is_not_valid_changes_nothing(file: Path) -> None:
    with Agent("--config", str(file)) as agent:
        before = agent.series()
        assert (before[RELOADS], before[GOOD]) == (0, 1)
        file.write_text(QUICK + "enable_disk = fals\n")
        wait_for(lambda: agent.series()[GOOD] == 0, "the file is looked at")
        agent.process.send_signal(signal.SIGHUP)
        wait_for(lambda: agent.log.count("stays as it was") >= 2, "it is looked at again")
        after = agent.series()
        assert after[RELOADS] == 0
        assert not disabled(agent, "disk")
        line = next(line for line in agent.log.splitlines() if "stays as it was" in line)
        assert f"{file}: invalid TOML" in line
        file.write_text(QUICK)
        wait_for(lambda: agent.series()[GOOD] == 1, "it is valid again")
        assert agent.process.poll() is None


def test_a_file_that_has_gone_changes_nothing(file: Path) -> None:
    file.write_text(QUICK + "enable_disk = false\n")
    with Agent("--config", str(file)) as agent:
        file.unlink()
        wait_for(lambda: "cannot be read" in agent.log, "that is said")
        assert disabled(agent, "disk")
        file.write_text(QUICK)
        wait_for(lambda: not disabled(agent, "disk"), "it is back")
        assert agent.log.count("cannot be read") == 1


def test_what_cannot_change_is_named_and_secrets_are_not(file: Path, tmp_path: Path) -> None:
    with Agent("--config", str(file), "--enable-disk", "true") as agent:
        file.write_text(
            QUICK
            + f'local_tsdb_path = "{tmp_path}/tsdb"\nenable_local_tsdb = true\n'
            + 'listen_address = "127.0.0.1:1"\nenable_memory = false\nenable_disk = false\n'
            + '[orchestrator]\ntoken = "hunter2"\n'
        )
        reload(agent)
        log = agent.log
        late = next(line for line in log.splitlines() if "started anew" in line)
        for key in ("local_tsdb_path", "enable_local_tsdb", "orchestrator.token"):
            assert key in late
        assert "listen_address" not in late  # the flag counts, before and after
        assert "hunter2" not in log
        assert disabled(agent, "memory")
        assert not disabled(agent, "disk")
        assert not (tmp_path / "tsdb").exists()


# ------------------------------------------------------------------------------ what goes on


def test_what_is_left_alone_goes_on_without_a_gap(file: Path) -> None:
    """The counters of other collectors never step back, and no page lacks them."""
    with Agent("--config", str(file), "--path-procfs", "/no/such/place") as agent:
        names = ("esnode_agent_scrapes_total", 'esnode_agent_errors_total{collector="memory"}')
        start = "esnode_agent_start_time_seconds"
        before = agent.series()
        for text in ("enable_disk = false\n", "memory_detail = true\n", ""):
            file.write_text(QUICK + text)
            reload(agent)
            page = agent.get().body.decode()
            rows = [line.rpartition(" ")[0] for line in page.splitlines() if line[:1] != "#"]
            assert len(rows) == len(set(rows))
            after = agent.series()
            assert after[start] == before[start]
            for name in names:
                assert after[name] >= before[name]
            before = after


def test_intervals_levels_and_limits_change_live(file: Path) -> None:
    file.write_text("scrape_interval_seconds = 3600\nscrape_max_age_seconds = 3600\n")
    with Agent("--config", str(file)) as agent:
        assert agent.get("/metrics").status == 200
        file.write_text(QUICK + 'enable_metrics = false\nlog_format = "json"\n')
        agent.process.send_signal(signal.SIGHUP)
        wait_for(lambda: agent.get("/metrics").status == 404, "the page is turned off")
        wait_for(lambda: agent.log.splitlines()[-1].startswith("{"), "the log is JSON")
        file.write_text(QUICK)
        agent.process.send_signal(signal.SIGHUP)
        wait_for(lambda: agent.get("/metrics").status == 200, "the page is back")
        age = 'esnode_agent_snapshot_age_seconds{lane="host"}'
        time.sleep(0.5)
        assert agent.series()[age] < PATIENCE / 2  # by ticks: an hour has not gone by


def test_the_history_goes_on(file: Path, tmp_path: Path) -> None:
    samples = "esnode_agent_tsdb_samples_total"
    flags = ("--enable-local-tsdb", "--local-tsdb-path", str(tmp_path / "tsdb"))
    with Agent("--config", str(file), *flags) as agent:
        for text in ("enable_disk = false\n", "local_tsdb_retention_hours = 1\n", ""):
            file.write_text(QUICK + text)
            reload(agent)

        def times() -> list[float]:
            export = agent.get("/tsdb/export?metrics=esnode_memory_total_bytes").body.decode()
            return [float(line.split()[-1]) for line in export.splitlines() if line[:1] != "#"]

        before = len(times())
        wait_for(lambda: len(times()) > before + 1, "it is written on")
        found = times()
        assert len(found) == len(set(found))
        assert samples in agent.series()
        assert "cannot be written" not in agent.log


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux only")
def test_a_hundred_reloads_leak_nothing(file: Path) -> None:
    def state(agent: Agent) -> tuple[int, int]:
        return threads(agent.process.pid), agent.descriptors

    def steady(agent: Agent) -> set[str]:
        """The series but those that need a second tick, or requests to a disk."""
        changing = ("degradation", "usage_percent", "io_latency")
        return {name for name in agent.series() if not any(word in name for word in changing)}

    texts = (
        "enable_disk = false\n",
        "memory_detail = true\n",
        "enable_network = false\nenable_power = false\nenable_gpu = false\n",
        "enable_cpu = false\nenable_memory = false\n",
        "cpu_per_core_detail = true\nnetwork_interface_exclude = '^eth'\n",
    )
    with Agent("--config", str(file)) as agent:
        names = steady(agent)
        before = state(agent)
        memory = 0
        for number in range(100):
            file.write_text(QUICK + texts[number % len(texts)])
            reload(agent)
            if number == 30:
                memory = agent.memory
        file.write_text(QUICK)
        reload(agent)
        wait_for(lambda: steady(agent) == names, "all is there again")
        # Not more; the crews of threads and the files that are read now and then may be fewer.
        wait_for(lambda: all(map(int.__le__, state(agent), [n + 2 for n in before])), "no leak")
        assert agent.memory - memory < 3 << 20
        assert agent.series()[RELOADS] >= 101


def test_signals_in_quick_succession(file: Path) -> None:
    with Agent("--config", str(file)) as agent:
        for _ in range(200):
            agent.process.send_signal(signal.SIGHUP)
        wait_for(lambda: agent.series()[RELOADS] >= 1, "the configuration is reloaded")
        code, took = agent.end()
        assert code == 0
        assert took < PATIENCE


# ------------------------------------------------------------------------------ lanes and threads

ROW = gauge("esnode_test_one", "A row.")
COUNT = counter("esnode_test_total", "Another.")


class Held(Collector):
    """Hangs in its reading until it is let go of."""

    name = "held"
    switch = "enable_gpu"
    metrics = (ROW,)

    def __init__(self) -> None:
        super().__init__(Host(), Config())
        self.reads = threading.Event()
        self.go = threading.Event()
        self.ended: list[str] = []

    def bind(self) -> None:
        self.slot = self.table.add(ROW)

    def sample(self, tick: bool) -> None:
        self.reads.set()
        assert self.go.wait(PATIENCE)
        self.table.set(self.slot, 1)

    def close(self) -> None:
        self.ended.append(threading.current_thread().name)

    def stop(self) -> None:
        self.ended.append("stop")


class Counted(Collector):
    """Counts its readings, and goes on from one before it."""

    name = "counted"
    switch = "enable_app"
    metrics = (COUNT,)
    count = 0

    def bind(self) -> None:
        self.slot = self.table.add(COUNT)
        self.hidden = self.table.hidden(COUNT)

    def succeed(self, before: Collector) -> None:
        assert isinstance(before, Counted)
        self.count = before.count

    def sample(self, tick: bool) -> None:
        self.count += 1
        self.table.set(self.slot, self.count)


def test_a_lane_that_hangs_does_not_block_a_change() -> None:
    store = Store(1, 0.05, lambda seconds: None)
    held = Held()
    lane = Lane("held", [held], 3600)
    store.arrange([lane])
    published: list[str] = []

    def publish(name: str, snapshot: Snapshot) -> None:
        published.append(name)
        store.publish(name, snapshot)

    sampler = Sampler([lane], 3600, publish)
    sampler.start()
    assert held.reads.wait(PATIENCE)
    start = time.monotonic()
    lane.retired = True
    store.arrange([])
    sampler.change([], 3600)
    assert time.monotonic() - start < PATIENCE / 2
    assert not held.ended  # it is still reading
    held.go.set()
    wait_for(lambda: held.ended == ["held", "stop"], "it is let go of, on its own thread")
    sampler.stop(PATIENCE)
    assert published == []


def test_a_lane_takes_other_parts() -> None:
    first = Counted(Host(), Config())
    lane = Lane("lane", [first], 1, (Counted, Held))
    assert [value for *_, value in lane.read(True).items()] == [1]
    held = Held()
    held.go.set()
    kept = lane.parts[0]
    lane.parts = [kept, Part(held)]
    rows = {metric.name: value for metric, _, value in lane.read(True).items()}
    assert rows == {COUNT.name: 2, ROW.name: 1}
    slots = set()
    for number in range(20):
        lane.parts = [Part(Counted(Host(), Config()))]
        rows = {metric.name: value for metric, _, value in lane.read(True).items()}
        assert rows == {COUNT.name: 3 + number}
        collector = lane.parts[0].collector
        assert isinstance(collector, Counted)
        slots |= {collector.slot, collector.hidden}
    assert held.ended[-1] == "stop"
    assert len(slots) <= 4  # given back, the hidden ones too


# ------------------------------------------------------------------------------ the declarations


def reads(cls: type[Collector]) -> Iterator[str]:
    """The keys that a collector's own methods name, and those of what it builds of the keys."""
    for base in cls.__mro__:
        if base in (Collector, object):
            continue
        module = inspect.getmodule(base)
        assert module is not None
        source = Path(inspect.getsourcefile(base) or "")
        for path in (
            [source, *source.parent.glob("card.py")] if "nvidia" in str(source) else [source]
        ):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr in KEYS:
                    yield node.attr


#: Those that are read when they are needed, each time.
AT_USE = {"scrape_interval_seconds", "node_power_envelope_watts", "gpu_release_seconds"}


@pytest.mark.parametrize("cls", COLLECTORS, ids=lambda cls: cls.__name__)
def test_a_collector_names_the_keys_that_it_reads(cls: type[Collector]) -> None:
    used = set(reads(cls)) - AT_USE - {cls.switch}
    late = {name for name in used if KEYS[name].at_start}
    assert used - late == set(cls.keys) - AT_USE
    assert set(cls.keys) <= KEYS.keys()
    assert cls.switch in {key for keys in SETS.values() for key in keys}


# ------------------------------------------------------------------------------ GPUs


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Two GPUs, and no place to keep events: only what a collector hands on outlives it."""
    monkeypatch.setenv("STATE_DIRECTORY", "/dev/null/none")
    fake = Fake(library())
    fake.set_gpus(["H100", "T4"])
    yield fake
    fake.reset()


@contextmanager
def daemon(tmp_path: Path, fake: Fake, **keys: object) -> Iterator[Daemon]:
    settings = Config(
        **dict.fromkeys(SETS["host"], False),
        enable_power=False,
        nvml_library=str(fake.path),
        path_procfs=str(tmp_path / "proc"),
        path_sysfs=str(tmp_path / "sys"),
        **keys,  # type: ignore[arg-type]
    )
    agent = Daemon(Settings(settings))
    yield agent
    for sampler in agent.samplers:
        for lane in sampler.lanes:
            for part in lane.parts:
                part.collector.stop()
                part.collector.close()


def rows(agent: Daemon) -> dict[str, float]:
    for sampler in agent.samplers:
        sampler.read(True)
    text = agent.store.page(TEXT).body.decode()
    return {
        (parts := line.rpartition(" "))[0]: float(parts[2])
        for line in text.splitlines()
        if line[:1] != "#"
    }


def test_gpus_keep_their_numbers_and_counts(tmp_path: Path, fake: Fake) -> None:
    def numbers(found: dict[str, float]) -> dict[str, str]:
        matches = (re.match(r'esnode_gpu_up{gpu="(\d+)",uuid="([^"]+)"', name) for name in found)
        return {match[2]: match[1] for match in matches if match}

    def calls(found: dict[str, float]) -> dict[str, float]:
        return {name: n for name, n in found.items() if "nvml_calls" in name}

    with daemon(tmp_path, fake) as agent:
        rows(agent)
        before = rows(agent)
        assert len(numbers(before)) == 2
        kept = agent.parts[Gpus].collector
        agent.change(with_keys(agent.config, gpu_detail=True))
        assert agent.parts[Gpus].collector is not kept
        after = rows(agent)
        assert numbers(after) == numbers(before)
        known = calls(after)
        assert known
        assert all(known[name] >= number for name, number in calls(before).items())
        # Off: the driver is let go of, and nothing is shown; on again: as it was.
        agent.change(with_keys(agent.config, enable_gpu=False))
        assert not any(name.startswith("esnode_gpu") for name in rows(agent))
        agent.change(with_keys(agent.config, enable_gpu=True))
        assert numbers(rows(agent)) == numbers(before)


def test_events_outlive_a_reload(tmp_path: Path, fake: Fake) -> None:
    def found(agent: Daemon) -> dict[str, float]:
        return {name: n for name, n in rows(agent).items() if 'xid="48"' in name}

    with daemon(tmp_path, fake, enable_gpu_events=True) as agent:
        rows(agent)
        fake.gpu(1).event(XID, 48, times=3)
        wait_for(lambda: 3 in found(agent).values(), "the events are counted")
        before = found(agent)
        agent.change(with_keys(agent.config, gpu_detail=True))
        assert found(agent) == before
        fake.gpu(1).event(XID, 48)
        wait_for(lambda: 4 in found(agent).values(), "it goes on")


def test_gpus_that_are_turned_off_and_on_leave_nothing_open(tmp_path: Path, fake: Fake) -> None:
    def held() -> int:
        return sum(len(list(Path(f"/proc/self/{name}").iterdir())) for name in ("task", "fd"))

    def is_shown() -> bool:
        return b"esnode_gpu_up{" in agent.store.page(TEXT).body

    with daemon(tmp_path, fake, enable_gpu_events=True, scrape_interval_seconds=0.1) as agent:
        agent.started = True
        for sampler in agent.samplers:
            sampler.start()
        wait_for(is_shown, "the GPUs are there")
        before = held()
        for _ in range(12):
            agent.change(with_keys(agent.config, enable_gpu=False))
            wait_for(lambda: not is_shown(), "the GPUs are gone")
            agent.change(with_keys(agent.config, enable_gpu=True))
            wait_for(is_shown, "the GPUs are there again")
        # Those that were let go of take a moment to end.
        wait_for(lambda: held() <= before + 3, "no thread or descriptor is left behind")
        for sampler in agent.samplers:
            sampler.stop(PATIENCE)


def test_a_release_outlives_a_reload(tmp_path: Path, fake: Fake) -> None:
    with daemon(tmp_path, fake) as agent:
        rows(agent)
        collector = agent.parts[Gpus].collector
        collector.release()  # type: ignore[attr-defined]
        agent.change(with_keys(agent.config, gpu_detail=True))
        found = rows(agent)
        assert found["esnode_gpu_driver_up"] == 0
        assert not any(name.startswith("esnode_gpu_up") for name in found)


def with_keys(config: Config, **keys: object) -> Config:
    return msgspec.structs.replace(config, **keys)


# ------------------------------------------------------------------------------ small things


def test_the_watch_waits_for_no_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    settings = Settings(Config(), file=str(pipe), arguments=Arguments(config=str(pipe)))
    watch = Reload(settings, lambda config: None)
    watch.start()
    watch.stop()
    assert watch.count == 0


def test_a_file_is_found_that_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    monkeypatch.setattr(config, "FILES", (str(first), str(second)))
    monkeypatch.delenv("ESNODE_CONFIG", raising=False)
    taken: list[float] = []
    nothing = Arguments()
    watch = Reload(
        config.load(nothing, {}), lambda config: taken.append(config.scrape_interval_seconds)
    )
    watch.start()
    second.write_text("scrape_interval_seconds = 2")
    wait_for(lambda: taken == [2], "the file is found")
    first.write_text("scrape_interval_seconds = 1")
    wait_for(lambda: taken == [2, 1], "the other one comes first")
    watch.stop()


def test_the_daemon_loads_nothing_of_the_command_line(file: Path) -> None:
    program = (
        "import signal, sys, threading, time, os\n"
        "from esnode.__main__ import main\n"
        "def end():\n"
        "    time.sleep(1)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    time.sleep(0.5)\n"
        "    names = {name.partition('.')[0] for name in sys.modules}\n"
        "    print(sorted(names & {'typer', 'click', 'tomlkit', 'rich', 'prompt_toolkit'}),\n"
        "          'esnode.cli' in sys.modules, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=end).start()\n"
        f"main(['--config', {str(file)!r}, '--listen-address', '127.0.0.1:0'])\n"
    )
    program = program.replace("127.0.0.1:0", f"127.0.0.1:{free_port()}")
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "[] False\n", done.stderr
