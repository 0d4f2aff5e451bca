"""`esnode-core metrics`: the page of a running agent, or a part of it that is a valid page, too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from esnode import catalog
from esnode.cli import metrics

from .peers import HUNG, page, peer, request, says
from .running import Agent, free_port, run, series

FIXTURE = Path(__file__).parent / "fixtures/hosts/small-vm"
PAGE = """\
# HELP esnode_gpu_up Whether it answers.
# TYPE esnode_gpu_up gauge
esnode_gpu_up{gpu="0",uuid="a"} 1
esnode_gpu_up{gpu="1",uuid="b"} 0
# HELP esnode_gpu_power_watts Power. # TYPE of board.
# TYPE esnode_gpu_power_watts gauge
esnode_gpu_power_watts{gpu="0",uuid="a"} 100
# HELP esnode_disk_info Disks\u2028of a kind.
# TYPE esnode_disk_info gauge
esnode_disk_info{device="sd\u2028a # TYPE x"} 1
# HELP esnode_time_seconds Times.
# TYPE esnode_time_seconds histogram
esnode_time_seconds_bucket{le="1"} 1
esnode_time_seconds_bucket{le="+Inf"} 2
esnode_time_seconds_sum 3
esnode_time_seconds_count 2
"""


def kept(names: tuple[str, ...], pattern: str = "") -> str:
    return "".join(metrics.filtered(PAGE, names, re.compile(pattern)))


def test_a_filter_keeps_whole_families_in_order() -> None:
    assert kept(("*",)) == PAGE
    assert kept(("esnode_gpu_*",)) == "".join(PAGE.splitlines(keepends=True)[:7])
    assert kept(("esnode_disk_info",)).startswith("# HELP esnode_disk_info")
    assert kept(("nothing",)) == ""


def test_a_pattern_is_of_series() -> None:
    found = kept(("*",), 'gpu="0"')
    assert list(series(found)) == [
        'esnode_gpu_up{gpu="0",uuid="a"}',
        'esnode_gpu_power_watts{gpu="0",uuid="a"}',
    ]
    assert "# TYPE esnode_gpu_power_watts gauge\n" in found
    # A word of the help is none of a series; nor is a value.
    assert kept(("*",), "board") == ""
    assert kept(("*",), "100$") == ""
    # Some buckets of a histogram would be another histogram.
    assert kept(("*",), "Inf").count("\n") == 6


@pytest.mark.parametrize("name", metrics.SETS)
def test_each_word_of_a_set_is_of_a_family_that_there_is(name: str) -> None:
    names = {metric.name for _, _, metric in catalog.metrics()}
    names |= {"esnode_gpu_degradation_xid", "esnode_degradation_score", "esnode_pdu_x"}
    for each in metrics.SETS[name].families:
        assert any(metrics.fnmatchcase(found, each) for found in names), each


def test_a_part_is_asked_for_by_collector_and_the_whole_where_one_is_unknown() -> None:
    asked = []

    def act(connection: object, stop: object) -> None:
        asked.append(request(connection).split()[1].decode())  # type: ignore[arg-type]
        found = (
            page(b"unknown collector", "400 Bad Request")
            if "?" in asked[-1]
            else page(PAGE.encode())
        )
        connection.sendall(found)  # type: ignore[attr-defined]

    with peer(act) as address:
        done = run("--listen-address", address, "metrics", "gpu-only")
    assert (done.returncode, done.stderr) == (0, "")
    assert asked == ["/metrics?collect%5B%5D=gpu&collect%5B%5D=degradation", "/metrics"]
    assert done.stdout == kept(("esnode_gpu_*",))


def test_a_live_agent() -> None:
    flags = [f"--path-procfs={FIXTURE}/proc", f"--path-sysfs={FIXTURE}/sys"]
    with Agent(*flags, "--no-enable-gpu") as agent:
        to = ("--listen-address", agent.address, "metrics")
        full = run(*to)
        assert (full.returncode, full.stderr) == (0, "")
        everything = set(series(full.stdout))
        for words, wanted, unwanted in (
            (["basic"], "esnode_memory_total_bytes", "esnode_memory_slab_bytes"),
            (["power-only"], None, "esnode_memory_total_bytes"),
            (["full", "--grep", "^esnode_swap_"], "esnode_swap_total_bytes", "esnode_gpus"),
        ):
            done = run(*to, *words)
            if wanted is None and done.returncode == 1:
                continue  # a machine without any
            assert (done.returncode, done.stderr) == (0, "")
            names = set(series(done.stdout))
            assert names < everything
            assert wanted is None or wanted in names
            assert unwanted not in names
            families = list(text_string_to_metric_families(done.stdout))
            assert all(family.documentation and family.samples for family in families)
        none = run(*to, "--grep", "no such series")
        assert (none.returncode, none.stdout) == (1, "")
        assert none.stderr == "esnode-core: no series is like that\n"


def test_agents_that_do_not_answer() -> None:
    done = run("--listen-address", f"127.0.0.1:{free_port()}", "metrics")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no agent answers" in done.stderr
    with peer(HUNG["mute"]) as address:
        done = run("--listen-address", address, "metrics")
    assert (done.returncode, done.stdout) == (1, "")
    assert "did not answer within 2 s" in done.stderr
    with peer(says(page(b"off", "404 Not Found"))) as address:
        done = run("--listen-address", address, "metrics", "basic")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "404 off" in done.stderr


@pytest.mark.parametrize("words", [["all"], ["--grep", "["], ["basic", "full"]])
def test_wrong_usage_is_code_2(words: list[str]) -> None:
    done = run("metrics", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
