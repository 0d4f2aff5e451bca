"""collectors/nvidia/kernel_log.py: a file or a FIFO stands for /dev/kmsg."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esnode.collectors.base import Refused, Unavailable
from esnode.collectors.nvidia import kernel_log
from esnode.collectors.nvidia.journal import Event, Position, pci_address
from esnode.collectors.nvidia.kernel_log import KernelLog, parse
from esnode.host import Host
from tests.process import descriptors

from .kmsg import BOOT, Kmsg

FALLEN = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off."


@pytest.fixture
def kmsg(tmp_path: Path) -> Kmsg:
    return Kmsg(tmp_path)


@pytest.mark.parametrize(
    ("message", "pci", "code", "text"),
    [
        (FALLEN, "0000:3b:00", 79, "pid='<unknown>', name=<unknown>, GPU has fallen off."),
        ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen", "0000:3b:00", 79, "GPU has fallen"),
        ("NVRM: Xid (PCI:0000:3B:00.0): 13, pid=12, x", "0000:3b:00", 13, "pid=12, x"),
        ("NVRM: Xid (PCI:00000000:3b:00): 31, Ch 0010", "0000:3b:00", 31, "Ch 0010"),
        ("NVRM: Xid (PCI:00010000:3b:1f.0): 31, Ch 8", "10000:3b:1f", 31, "Ch 8"),
        ("NVRM: Xid (PCI:0009:01:00): 119, pid=1, name=a b, T", "0009:01:00", 119, None),
        ("NVRM: Xid (0000:03:00): 14, Channel 00000001", "0000:03:00", 14, "Channel 00000001"),
        ("NVRM: Xid (0001:00): 13, 0003 00000000", "0000:01:00", 13, "0003 00000000"),
        ("NVRM: Xid (PCI:0000:3b:00): 43", "0000:3b:00", 43, ""),
        ("NVRM: Xid (PCI:0000:3b:00): 45, pid=7, name=p, Ch 9 caused by previous Xid 31",
         "0000:3b:00", 45, None),
    ],
)  # fmt: skip
def test_the_forms_of_an_xid(message: str, pci: str, code: int, text: str | None) -> None:
    event = parse(message.encode(), 5.0)
    assert event is not None
    assert (event.kind, event.source, event.time) == ("xid", "kernel", 5.0)
    assert (event.pci, event.code, event.uuid, event.gi, event.ci) == (pci, code, None, None, None)
    assert event.text == (message.partition(f"{code}, ")[2] if text is None else text)


def test_the_mig_instance_of_an_xid() -> None:
    head = b"NVRM: Xid (PCI:0000:3b:00 GPU-I:05"
    event = parse(head + b" GPU-CI:01): 31, pid=4, name=python3, Ch 2", 1)
    assert event is not None
    assert (event.pci, event.gi, event.ci, event.code) == ("0000:3b:00", 5, 1, 31)
    event = parse(head + b"): 94, Contained", 1)
    assert event is not None
    assert (event.gi, event.ci, event.text) == (5, None, "Contained")


def test_an_sxid_is_its_first_line() -> None:
    head = "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): "
    event = parse(f"{head}20034, Fatal, Link 30 LTSSM Fault Up".encode(), 1)
    assert event == Event(
        1, "kernel", "sxid", pci="0000:c1:00", code=20034, text="Fatal, Link 30 LTSSM Fault Up"
    )
    event = parse(f"{head}12028, Non-fatal, Link 32 egress".encode(), 1)
    assert event is not None
    assert event.text.startswith("Non-fatal, ")
    assert parse(f"{head}20034, Severity 1 Engine instance 30".encode(), 1) is None
    assert parse(f"{head}20034, Data {{0x50610002, 0x0}}".encode(), 1) is None


@pytest.mark.parametrize(
    "message",
    [
        "NVRM: GPU at PCI:0000:3b:00: GPU-0c53ed0a-9a5a-6a0c-3f9e-8a6b1b3f1f0e",
        "NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:3b:00): seventy-nine",
        "NVRM: Xid (PCI:0000:3b:00): 1234567, x",
        "NVRM: Xid (PCI:0000:3b): 79, x",
        "NVRM: Xid (PCI:zzzz:3b:00): 79, x",
        "NVRM: Xid (::::::): 79, x",
        "NVRM: Xid (PCI:0000:3b:00) 79",
        "someone quotes NVRM: Xid (PCI:0000:3b:00): 79, x",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): garbled, Fatal",
        "nvidia-nvswitch3: SXid (PCI:c1): 20034, Fatal",
        "",
    ],
)
def test_other_lines_are_no_events(message: str) -> None:
    assert parse(message.encode(), 1) is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:3B:00.0", "0000:3b:00"),
        ("0000:3b:00", "0000:3b:00"),
        ("3b:00.0", "0000:3b:00"),
        ("00010000:01:00.0", "10000:01:00"),
        ("0000:3b:00.9", None),
        ("xb:00", None),
        ("", None),
    ],
)
def test_an_address_has_one_form(text: str, address: str | None) -> None:
    assert pci_address(text) == address


def test_a_first_start_counts_no_history(kmsg: Kmsg) -> None:
    kmsg.add(FALLEN, FALLEN)
    log = KernelLog(kmsg.host)
    assert log.read() == []
    assert log.position == Position(BOOT, 1)
    kmsg.add("usb 1-1: new device", FALLEN)
    before = time.time()
    (event,) = log.read()
    assert (event.pci, event.code) == ("0000:3b:00", 79)
    assert before - 1 <= event.time <= time.time()
    assert log.read() == []
    assert log.position == Position(BOOT, 3)


def test_a_restart_goes_on_with_the_next_record(kmsg: Kmsg) -> None:
    log = KernelLog(kmsg.host)
    kmsg.add(*(f"NVRM: Xid (PCI:0000:3b:00): {code}, x" for code in (13, 31)))
    assert [event.code for event in log.read()] == [13, 31]
    position = log.position
    log.close()
    kmsg.add("NVRM: Xid (PCI:0000:3b:00): 43, x", "other", "NVRM: Xid (PCI:0000:3b:00): 45, x")
    log = KernelLog(kmsg.host, position)
    assert log.position == position
    assert [event.code for event in log.read()] == [43, 45]
    assert log.read() == []


def test_after_another_boot_all_of_this_one_is_new(kmsg: Kmsg) -> None:
    kmsg.add(FALLEN)
    log = KernelLog(kmsg.host, Position("another", 99))
    assert [event.code for event in log.read()] == [79]
    assert log.position == Position(BOOT, 0)


@pytest.mark.parametrize("after", [None, Position("", 0), Position(BOOT, 0)])
def test_without_a_boot_id_nothing_is_counted_twice(kmsg: Kmsg, after: Position | None) -> None:
    kmsg.boot.unlink()
    kmsg.add(FALLEN, FALLEN)
    log = KernelLog(kmsg.host, after)
    assert log.read() == []
    kmsg.add(FALLEN)
    assert len(log.read()) == 1


def test_the_time_is_the_records_on_the_wall_clock(kmsg: Kmsg) -> None:
    kmsg.add(FALLEN, seconds=time.monotonic() - 3600)
    log = KernelLog(kmsg.host, Position("another", 0))
    (event,) = log.read()
    assert event.time == pytest.approx(time.time() - 3600, abs=1)


@pytest.mark.parametrize("drift", [-500.0, 500.0, 1e9])
def test_a_drift_of_the_logs_clock_is_no_matter_while_we_watch(kmsg: Kmsg, drift: float) -> None:
    """What is new since the last reading was logged since, whatever the record says."""
    log = KernelLog(kmsg.host)
    before = time.time()
    kmsg.add(FALLEN, seconds=max(0.0, time.monotonic() + drift))
    (event,) = log.read()
    assert before - 1 <= event.time <= time.time()


def test_what_an_operator_writes_to_the_log_counts(kmsg: Kmsg) -> None:
    """Alerts are tried out so; only root may write there."""
    log = KernelLog(kmsg.host)
    kmsg.add(FALLEN, priority=8 + 3)
    kmsg.add(FALLEN, priority=6)
    assert len(log.read()) == 2


def test_a_burst_is_read_in_parts(kmsg: Kmsg) -> None:
    log = KernelLog(kmsg.host)
    kmsg.add(*[FALLEN] * 5000)
    found = []
    while True:
        part = log.read()
        assert len(part) <= kernel_log.RECORDS + kernel_log.RECORD // 16
        found.append(len(part))
        if not log.behind:
            break
    assert sum(found) == 5000
    assert len(found) > 2


def test_texts_are_bounded_and_odd_bytes_stay_different(kmsg: Kmsg) -> None:
    log = KernelLog(kmsg.host)
    head = b"NVRM: Xid (PCI:0000:3b:00): 13, "
    kmsg.add(head + b"x" * 9000, head + b"a\xff\xfeb", head + "größe".encode())
    long, odd, good = log.read()
    assert long.text == "x" * kernel_log.TEXT
    assert odd.text == r"a\xff\xfeb"
    assert good.text == "größe"


def test_garbage_costs_nothing(kmsg: Kmsg) -> None:
    log = KernelLog(kmsg.host)
    with kmsg.file.open("ab") as file:
        file.write(b"\n\n;;;\nNVRM: Xid (PCI:0000:3b:00): 79\n3,x,1,-;" + FALLEN.encode() + b"\n")
        file.write(b"9" * 100_000 + b"\n" + os.urandom(50_000) + b"\n")
    kmsg.add(FALLEN)
    assert [event.code for event in log.read()] == [79]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    chunks=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [b"\n", b";", b"3,1,2,-;", b"NVRM: Xid (PCI:", b"0000:3b:00): ", b"79,"]
            ),
        ),
        max_size=30,
    )
)
def test_any_bytes_are_read(kmsg: Kmsg, chunks: list[bytes]) -> None:
    kmsg.file.write_bytes(b"")
    log = KernelLog(kmsg.host)
    for chunk in chunks:
        with kmsg.file.open("ab") as file:
            file.write(chunk)
        for event in log.read():
            assert event.code is not None
            assert 0 <= event.time <= time.time() + 1
    log.close()


def test_a_fifo_is_not_waited_for(kmsg: Kmsg) -> None:
    kmsg.file.unlink()
    os.mkfifo(kmsg.file)
    log = KernelLog(kmsg.host)
    assert log.read() == []
    writer = os.open(kmsg.file, os.O_WRONLY)
    assert log.read() == []
    half = FALLEN.encode()
    os.write(writer, b"3,7,1000,-;" + half[:20])
    assert log.read() == []
    os.write(writer, half[20:] + b"\n")
    assert [event.code for event in log.read()] == [79]
    assert log.position == Position(BOOT, 7)
    os.close(writer)
    assert log.read() == []


def test_where_there_is_no_log(kmsg: Kmsg) -> None:
    kmsg.file.unlink()
    with pytest.raises(Unavailable, match="kmsg: ENOENT"):
        KernelLog(kmsg.host)
    kmsg.file.mkdir()
    with pytest.raises(Unavailable, match="kmsg: EISDIR"):
        KernelLog(kmsg.host, Position(BOOT, 0))


def test_what_may_not_be_read_says_what_to_grant(kmsg: Kmsg) -> None:
    kmsg.file.chmod(0)
    user = os.geteuid()
    if user == 0:
        for parent in [kmsg.file.parent, *kmsg.file.parent.parents[:2]]:
            parent.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(Refused, match=r"kmsg: EACCES; .*CAP_SYSLOG.*dmesg_restrict"):
            KernelLog(kmsg.host)
    finally:
        os.seteuid(user)


def test_no_descriptor_is_left_open(kmsg: Kmsg) -> None:
    before = descriptors()
    for _ in range(3):
        KernelLog(kmsg.host).close()
    log = KernelLog(kmsg.host)
    assert os.get_blocking(log.fileno()) is False
    log.close()
    log.close()
    assert descriptors() == before


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK), reason="/dev/kmsg cannot be read")
def test_the_real_log() -> None:
    """Only read: its end is found, and what is after the first record can be read again."""
    try:
        log = KernelLog(Host())
    except Unavailable as reason:
        pytest.skip(str(reason))
    boot, last = log.position
    assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    log.read()
    again = KernelLog(Host(), Position(boot, 0))
    for _ in range(1000):
        again.read()
        if not again.behind:
            break
    assert again.position.sequence >= last
