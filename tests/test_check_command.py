"""`esnode-core check`: fit for work or not, and why."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import pytest
from msgspec.structs import replace

from esnode import status
from esnode.cli import check
from esnode.status import Status
from esnode.view import explained

from . import documents
from .documents import DOWN, ILL, NOW, WELL, gpu
from .peers import BROKEN, HUNG, Act, page, peer, request
from .running import free_port, run

GPUS = "esnode_gpus 8\nesnode_gpu_driver_up 1\nesnode_gpu_pci_devices 8\n"


def reasons(document: Status, metrics: str = "", hours: float = 24) -> list[str]:
    return list(check.troubles(document, check.parsed(metrics), NOW, hours))


def with_gpu(**values: object) -> Status:
    return replace(WELL, gpus=[gpu(0), gpu(1, **values)])  # type: ignore[arg-type]


def after(code: int, recovery: str | None, hours_ago: float = 1) -> Status:
    """A node whose GPU 1 had an Xid."""
    when = NOW - round(hours_ago * 3_600_000)
    xid = status.LastXid(code, *explained(code), when)
    return with_gpu(health={"recovery_action": recovery, "last_xid": xid})


def test_a_node_in_order_has_no_reason() -> None:
    assert reasons(WELL) == []
    assert reasons(WELL, GPUS + "esnode_gpus_expected 8\n") == []
    # Neither a full disk, nor heat, nor a power limit keeps work away.
    assert reasons(replace(ILL, gpus=[gpu(5, thermal_throttle=True)])) == []
    assert reasons(documents.NOTHING) == []


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        (GPUS + "esnode_gpus_expected 9\n", "8 GPUs of 9 that are expected"),
        (GPUS.replace("devices 8", "devices 9"), "the driver has 8 GPUs of 9 on the bus"),
        ("esnode_gpu_driver_up 0\nesnode_gpu_pci_devices 8\n", "driver is down, and 8 GPUs are on"),
        ("esnode_gpu_driver_up 0\nesnode_gpus_expected 8\n", "driver is down, and 8 GPUs are exp"),
        ("esnode_gpu_driver_up 0\nesnode_gpu_driver_released 1\n", "esnode-core gpu attach"),
        ('esnode_gpu_remap_pending{gpu="2",uuid="x"} 1\n', "GPU 2: a row of memory is to be"),
        ('esnode_gpu_remap_failure{gpu="2"} 1\n', "GPU 2: a row of memory could not"),
        ('esnode_gpu_retired_pages_pending{gpu="2",uuid="x"} 1\n', "GPU 2: pages are to be"),
        ('esnode_gpu_ecc_sram_threshold_exceeded{gpu="2",uuid="x"} 1\n', "GPU 2: too many"),
        (
            'esnode_gpu_ecc_errors_total{gpu="2",uuid="x",type="uncorrected",scope="volatile"'
            ',location="all"} 3\n',
            "GPU 2: uncorrected ECC errors since",
        ),
    ],
)
def test_what_the_metrics_tell(metrics: str, text: str) -> None:
    (reason,) = reasons(WELL, metrics)
    assert text in reason


@pytest.mark.parametrize(
    "metrics",
    [
        GPUS,
        "esnode_gpu_driver_up 0\nesnode_gpu_pci_devices 0\n",  # a node without GPUs
        "esnode_gpu_driver_up 0\n",
        'esnode_gpu_remap_pending{gpu="2",uuid="x"} 0\n',
        'esnode_gpu_ecc_errors_total{gpu="2",uuid="x",type="uncorrected",scope="aggregate"'
        ',location="all"} 3\n',
        'esnode_gpu_ecc_errors_total{gpu="2",uuid="x",type="corrected",scope="volatile"'
        ',location="all"} 3\n',
    ],
)
def test_what_is_no_reason(metrics: str) -> None:
    assert reasons(WELL, metrics) == []


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (with_gpu(up=False), "GPU 1 is lost"),
        (with_gpu(stuck=True, up=False), "GPU 1 is stuck"),
        (with_gpu(health={"recovery_action": "drain_and_reset"}), "asks for: drain and reset"),
        (after(48, None), "GPU 1: Xid 48 1h 0m ago: "),
        (after(79, None), "Reboot the node"),
        (after(79, "none", hours_ago=0.1), "GPU 1: Xid 79"),  # it may not have said so yet
        (after(81, "none"), "GPU 1: Xid 81"),
        (after(54, "none"), "GPU 1: Xid 54"),
    ],
)
def test_what_the_document_tells(document: Status, text: str) -> None:
    (reason,) = reasons(document)
    assert text in reason


@pytest.mark.parametrize(
    "document",
    [
        after(48, "none"),  # it was reset: the driver says so
        after(48, None, hours_ago=25),
        after(13, None),
        after(43, None),
        after(31, None),
        after(999_999, None),
    ],
)
def test_an_xid_that_does_not_count(document: Status) -> None:
    assert reasons(document) == []


def test_the_gravest_comes_first() -> None:
    found = reasons(ILL, 'esnode_gpu_remap_pending{gpu="2",uuid="x"} 1\n')
    assert [reason.partition(":")[0] for reason in found] == [
        *("GPU 3 is lost", "GPU 4 is stuck", "GPU 3", "GPU 2"),
    ]


# ------------------------------------------------------------------------------ the command


def serving(document: Status, metrics: str = GPUS, fresh: bool = True) -> Act:
    """An agent that has just read that document and those metrics."""

    def act(connection: socket.socket, stop: threading.Event) -> None:
        asked = request(connection)
        now_ms = round(time.time() * 1000)
        served = replace(document, last_scrape_unix_ms=now_ms) if fresh else document
        if asked.startswith(b"GET /status "):
            connection.sendall(page(msgspec.json.encode(served)))
        elif asked.startswith(b"GET /metrics?") and metrics:
            connection.sendall(page(metrics.encode()))
        else:
            connection.sendall(page(b"not found", "404 Not Found"))

    return act


@contextmanager
def checked(act: Act, *words: str) -> Iterator[subprocess.CompletedProcess[str]]:
    with peer(act) as address:
        yield run("--listen-address", address, "check", *words)


def verdict(act: Act, *words: str) -> tuple[int, str]:
    """Exit code and line."""
    with checked(act, *words) as done:
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1
        return done.returncode, done.stdout.rstrip()


def test_fit() -> None:
    assert verdict(serving(WELL)) == (0, "fit for work: 8 GPUs in order")
    # Metrics that are turned off, or without GPUs, are no reason.
    assert verdict(serving(WELL, metrics=""))[0] == 0
    assert verdict(serving(replace(WELL, gpus=[])))[1] == "fit for work: no GPU is known of"


def test_not_fit() -> None:
    code, line = verdict(serving(ILL))
    assert code == 1
    assert line.startswith("GPU 3 is lost: it does not answer; GPU 4 is stuck")
    code, line = verdict(serving(WELL, GPUS + "esnode_gpus_expected 9\n"))
    assert (code, line) == (1, "8 GPUs of 9 that are expected")


def test_gpus_that_are_expected_and_not_told_of() -> None:
    with peer(serving(WELL, metrics="")) as address:
        flags = ("--listen-address", address, "--expected-gpus")
        done = run(*flags, "9", "check")
        assert (done.returncode, done.stdout) == (1, "8 GPUs of 9 that are expected\n")
        assert run(*flags, "8", "check").returncode == 0
    # Not collecting them is no trouble of theirs; nor does it say that they are fit.
    off = replace(WELL, gpus=[], agent=replace(WELL.agent, collectors=[]))
    with peer(serving(off, metrics="esnode_agent_series 1\n")) as address:
        done = run("--listen-address", address, "--expected-gpus", "8", "check")
        assert (done.returncode, done.stdout) == (
            2,
            "unknown: GPUs are expected, and enable_gpu is false\n",
        )
        assert run("--listen-address", address, "check").returncode == 0


def test_metrics_that_fail_make_it_unknown() -> None:
    def act(connection: socket.socket, stop: threading.Event) -> None:
        if request(connection).startswith(b"GET /status "):
            now_ms = round(time.time() * 1000)
            found = replace(WELL, last_scrape_unix_ms=now_ms)
            connection.sendall(page(msgspec.json.encode(found)))
        else:
            connection.sendall(page(b"internal error", "500 Internal Server Error"))

    assert verdict(act)[0] == 2


def test_degradation_counts_where_it_is_asked_for() -> None:
    degraded = replace(WELL, degradation_reasons=["md0 is\nslow"], disk_degraded=True)
    assert verdict(serving(degraded))[0] == 0
    assert verdict(serving(degraded), "--degraded") == (1, "md0 is?slow")


def test_an_xid_counts_for_as_long_as_it_is_said() -> None:
    now_ms = round(time.time() * 1000)
    document = after(48, None)
    health = (document.gpus or [])[1].health
    xid = status.LastXid(48, *explained(48), now_ms - 7_200_000)
    ill = with_gpu(health={**msgspec.structs.asdict(health), "last_xid": xid})
    assert verdict(serving(ill))[0] == 1
    assert verdict(serving(ill), "--xid-hours", "1")[0] == 0


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (serving(WELL, fresh=False), "the agent has read this node"),
        (serving(replace(WELL, last_scrape_unix_ms=None), fresh=False), "this node never"),
        (serving(replace(DOWN, healthy=False)), "does not read this node as it should"),
        (HUNG["silent"], "did not answer within 2 s"),
        (BROKEN["nonsense"], "no status document"),
        (BROKEN["closes"], "broke off"),
    ],
    ids=["old", "never", "unhealthy", "silent", "nonsense", "closes"],
)
def test_not_known(act: Act, text: str) -> None:
    code, line = verdict(act)
    assert code == 2
    assert line.startswith("unknown: ")
    assert text in line


def test_no_agent() -> None:
    done = run("--listen-address", f"127.0.0.1:{free_port()}", "check")
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("unknown: no agent answers on")


@pytest.mark.parametrize("words", [["now"], ["--xid-hours", "-1"], ["--url", "x y"]])
def test_wrong_usage_is_code_2(words: Sequence[str]) -> None:
    done = run("check", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
