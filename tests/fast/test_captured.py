"""The readers on files from real machines, against the oracle."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.captured import files, read
from tests.fast.readers import FORMATS


@pytest.fixture(scope="module")
def captured() -> dict[str, bytes]:
    return files(read())


@pytest.mark.parametrize("name", FORMATS)
def test_captured_files_agree_with_the_oracle(
    name: str, captured: dict[str, bytes], tmp_path: Path
) -> None:
    """Every file of that name, those of processes and devices among them: other formats, too."""
    texts = {path: text for path, text in captured.items() if path.endswith("/" + name)}
    if not texts:
        pytest.skip(f"the archive has no {name}")
    copy = tmp_path / "copy"
    for path, text in texts.items():
        copy.write_bytes(text)
        form = FORMATS[name]
        assert form.bind(copy).read() == form.expect(text), path


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ("meminfo", "MemTotal:", 15666184 * 1024),
        ("stat", "cpu idle", 89790.04),
        ("stat", "ctxt", 38014093),
        ("diskstats", "sda 5", 1003346126 * 512 / 7),
        ("net/dev", "eth0 1", 874354587 * 512 / 7),
        ("26231/net/snmp", "Tcp:RetransSegs", 348),
        ("26231/net/netstat", "TcpExt:ListenDrops", 0),
        ("loadavg", "0", 0.02),
        ("pressure/io", "full 4", 25 / 7),
    ],
)
def test_some_values_as_they_stand_in_the_files(
    path: str, key: str, value: float, captured: dict[str, bytes], tmp_path: Path
) -> None:
    """Read off by eye, so that reader and oracle cannot err alike."""
    name = re.sub(r"^\d+/", "", path)
    copy = tmp_path / "copy"
    copy.write_bytes(captured[f"fixtures/proc/{path}"])
    assert FORMATS[name].bind(copy).read()[key] == value


@pytest.mark.parametrize("name", FORMATS)
def test_captured_files_cut_short(name: str, captured: dict[str, bytes], tmp_path: Path) -> None:
    form = FORMATS[name]
    copy = tmp_path / "copy"
    copy.write_bytes(b"")
    bound = form.bind(copy)
    for path, text in captured.items():
        if path.endswith("/" + name):
            for end in range(0, len(text), 1 + len(text) // 40):
                copy.write_bytes(text[:end])
                assert bound.read() == form.expect(text[:end]), (path, end)
