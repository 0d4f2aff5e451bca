"""collectors/cpu.py: time, usage and load."""

import pytest

from esnode.collectors.cpu import STATES, Cpu
from tests.hosts import Rows, Tree

IDLE = 'esnode_cpu_time_seconds_total{state="idle"}'
LINES = "intr 91 5 0\nctxt 92\nprocesses 93\nprocs_running 4\nprocs_blocked 2\n"


def stat(*cores: str, total: str = "0 0 0 0 0 0 0 0 0 0", numbers: list[int] | None = None) -> str:
    """/proc/stat of some cores, each its columns."""
    named = zip(numbers or range(len(cores)), cores, strict=True)
    return f"cpu  {total}\n" + "".join(f"cpu{n} {core}\n" for n, core in named) + LINES


def usage(rows: Rows, core: str = "0") -> float | None:
    return rows.get(f'esnode_cpu_usage_percent{{core="{core}"}}')


def seconds(rows: Rows, state: str) -> float | None:
    return rows.get(f'esnode_cpu_time_seconds_total{{state="{state}"}}')


@pytest.fixture
def cpu(tree: Tree) -> Tree:
    tree.use(Cpu)
    tree.write({"proc/loadavg": "0.42 1.5 12 2/214 84211\n"})
    return tree


def test_values_of_the_files(cpu: Tree) -> None:
    total = "1012 207 3 4 5 6 7 8 12 7"
    cpu.write(
        {"proc/stat": stat("506 100 2 2 3 3 4 4 6 3", "506 107 1 2 2 3 3 4 6 4", total=total)}
    )
    assert cpu.read() == {
        "esnode_cpu_load_avg_1m": 0.42,
        "esnode_cpu_load_avg_5m": 1.5,
        "esnode_cpu_load_avg_15m": 12,
        # The kernel's user and nice contain the guests' time, ours do not.
        'esnode_cpu_time_seconds_total{state="user"}': 10,
        'esnode_cpu_time_seconds_total{state="nice"}': 2,
        'esnode_cpu_time_seconds_total{state="system"}': 0.03,
        'esnode_cpu_time_seconds_total{state="idle"}': 0.04,
        'esnode_cpu_time_seconds_total{state="iowait"}': 0.05,
        'esnode_cpu_time_seconds_total{state="irq"}': 0.06,
        'esnode_cpu_time_seconds_total{state="softirq"}': 0.07,
        'esnode_cpu_time_seconds_total{state="steal"}': 0.08,
        'esnode_cpu_time_seconds_total{state="guest"}': 0.12,
        'esnode_cpu_time_seconds_total{state="guest_nice"}': 0.07,
        "esnode_cpu_interrupts_total": 91,
        "esnode_cpu_context_switches_total": 92,
        "esnode_cpu_forks_total": 93,
        "esnode_cpu_procs_running": 4,
        "esnode_cpu_procs_blocked": 2,
        "esnode_cpu_cores": 2,
    }
    assert cpu.errors == 0


def test_usage_is_the_busy_share_between_two_ticks(cpu: Tree) -> None:
    cpu.write({"proc/stat": stat("100 100 100 1000 100 100 100 100 50 50")})
    assert usage(cpu.read()) is None
    # 6 x 10 busy, 30 idle, 10 waiting for I/O; the guests' 10 are part of user and nice.
    cpu.write({"proc/stat": stat("110 110 110 1030 110 110 110 110 55 55")})
    assert usage(cpu.read(tick=False)) is None, "it belongs to the tick"
    assert usage(cpu.read()) == 60
    assert usage(cpu.read()) is None, "no time has passed"
    cpu.write({"proc/stat": stat("110 110 110 1080 160 110 110 110 55 55")})
    assert usage(cpu.read()) == 0
    cpu.write({"proc/stat": stat("160 110 110 1080 160 110 110 110 55 55")})
    assert usage(cpu.read()) == 100


def test_a_reading_between_ticks_carries_the_usage_over(cpu: Tree) -> None:
    for core in ("100 0 0 100 0", "150 0 0 150 0"):
        cpu.write({"proc/stat": stat(core)})
        cpu.read()
    cpu.write({"proc/stat": stat("250 0 0 150 0")})
    assert usage(cpu.read(tick=False)) == 50
    assert usage(cpu.read()) == 100


def test_idle_that_steps_back_does_not_step_the_counter_back(cpu: Tree) -> None:
    cpu.write({"proc/stat": stat("9 0 0 5000 9", total="9 0 0 5000 9")})
    assert cpu.read()[IDLE] == 50
    cpu.write({"proc/stat": stat("9 0 0 4900 9", total="9 0 0 4900 9")})
    assert cpu.read()[IDLE] == 50
    cpu.write({"proc/stat": stat("9 0 0 5001 9", total="9 0 0 5001 9")})
    assert cpu.read()[IDLE] == 50.01
    cpu.write({"proc/stat": stat("9 0 0 900000 9", total="9 0 0 900000 9")})
    assert cpu.read()[IDLE] == 9000
    cpu.write({"proc/stat": stat("9 0 0 7 9", total="9 0 0 7 9")})
    assert cpu.read()[IDLE] == 0.07, "a reset is the source's own value"


def test_guest_time_beyond_user_time_costs_that_row_only(cpu: Tree) -> None:
    cpu.write({"proc/stat": stat("1 2 3 4 5", total="10 20 3 4 5 6 7 8 11 0")})
    rows = cpu.read()
    assert seconds(rows, "user") is None
    assert seconds(rows, "guest") == 0.11
    assert seconds(rows, "nice") == 0.2


def test_an_older_kernels_missing_columns_are_absent(cpu: Tree) -> None:
    cpu.write({"proc/stat": stat("10 20 30 40", total="100 200 300 400 500 600 700")})
    rows = cpu.read()
    assert [state for state in STATES if seconds(rows, state) is not None] == [
        *("user", "nice", "system", "idle", "iowait", "irq", "softirq")
    ]
    assert seconds(rows, "user") == 1
    assert cpu.errors == 0
    cpu.write({"proc/stat": stat("15 20 30 50")})
    assert usage(cpu.read()) == pytest.approx(100 * 5 / 15)


def test_cores_go_offline_and_come_back(cpu: Tree) -> None:
    def after(ticks: int) -> str:
        return f"{10 * ticks} 0 0 {90 * ticks} 0"

    cpu.use(Cpu, cpu_per_core_detail=True)
    cpu.write({"proc/stat": stat(after(1), after(1), after(1))})
    cpu.read()
    cpu.write({"proc/stat": stat(after(2), after(2), after(2))})
    rows = cpu.read()
    assert [usage(rows, core) for core in "012"] == [10, 10, 10]
    assert rows["esnode_cpu_cores"] == 3

    cpu.write({"proc/stat": stat(after(3), after(3), numbers=[0, 2])})
    rows = cpu.read()
    assert [usage(rows, core) for core in "012"] == [10, None, 10]
    assert rows["esnode_cpu_cores"] == 2
    assert not [name for name in rows if 'core="1"' in name]

    cpu.write({"proc/stat": stat(after(4), after(3), after(4))})
    rows = cpu.read()
    assert [usage(rows, core) for core in "012"] == [10, None, 10], "its first tick is lost"
    assert rows["esnode_cpu_cores"] == 3
    cpu.write({"proc/stat": stat(after(5), after(4), after(5))})
    rows = cpu.read()
    assert [usage(rows, core) for core in "012"] == [10, 10, 10]
    assert rows['esnode_cpu_core_time_seconds_total{core="1",state="idle"}'] == 3.6
    assert cpu.errors == 0


def test_detail_of_the_cores(cpu: Tree) -> None:
    cpu.use(Cpu, cpu_per_core_detail=True)
    cpu.write({"proc/stat": stat("100 50 3 4 5 6 7 8 20 10", "1 2 3 4 5 6 7 8 0 0")})
    name = 'esnode_cpu_core_time_seconds_total{{core="{}",state="{}"}}'
    rows = cpu.read()
    assert rows[name.format(0, "user")] == 0.8
    assert rows[name.format(0, "nice")] == 0.4
    assert rows[name.format(0, "guest")] == 0.2
    assert rows[name.format(1, "steal")] == 0.08
    assert sum(name.startswith("esnode_cpu_core_time") for name in rows) == 2 * len(STATES)


def test_a_bad_file_costs_its_rows_and_comes_back(cpu: Tree) -> None:
    good = stat("1 2 3 4 5", total="1 2 3 4 5")
    cpu.write({"proc/stat": good})
    rows = cpu.read()
    loads = {name: value for name, value in rows.items() if "load" in name}
    bad: tuple[str | bytes, ...] = ("", b"\x00\xff" * 900, "cpu  1 2 3", "intr")
    for text in bad:
        errors = cpu.errors
        cpu.write({"proc/stat": text})
        assert cpu.read() == loads, text
        assert cpu.errors == errors + 1
        assert not cpu.up
        cpu.write({"proc/stat": good})
        assert cpu.read() == rows, f"after {text!r}"
        assert cpu.up


def test_a_missing_file_costs_its_rows_and_comes_back(cpu: Tree) -> None:
    good = stat("1 2 3 4 5", total="1 2 3 4 5")
    cpu.write({"proc/stat": good})
    rows = cpu.read()
    loads = {name: value for name, value in rows.items() if "load" in name}
    cpu.remove("proc/stat")
    assert cpu.read() == loads
    cpu.write({"proc/stat/directory": "in its place"})
    assert cpu.read() == loads
    assert cpu.errors == 2
    cpu.write({"proc/stat": good})
    assert cpu.read() == rows


def test_a_line_that_was_missing_once_comes_back(cpu: Tree) -> None:
    good = stat("1 2 3 4 5", total="1 2 3 4 5")
    cpu.write({"proc/stat": good})
    rows = cpu.read()
    cpu.write({"proc/stat": good.replace("ctxt 92\n", "")})
    assert "esnode_cpu_context_switches_total" not in cpu.read()
    cpu.write({"proc/stat": good})
    assert cpu.read() == rows


def test_numbers_that_are_none(cpu: Tree) -> None:
    huge = str(2**64)
    cpu.write(
        {"proc/stat": f"cpu  {huge} -1 x 4\ncpu0 1 2 3 4\nctxt {2**64 - 1}\nprocesses {huge}\n"}
    )
    rows = cpu.read()
    assert [state for state in STATES if seconds(rows, state) is not None] == ["idle"]
    assert rows["esnode_cpu_context_switches_total"] == float(2**64 - 1)
    assert "esnode_cpu_forks_total" not in rows
    assert cpu.errors == 1
