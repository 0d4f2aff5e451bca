"""The node's power from its BMC: what needs no device here, and bmc.py with one that is played."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from esnode._fast.ipmi import DEVICES, Power
from esnode.host import Host
from tests.process import descriptors

HERE = Path(__file__).parent


def test_with_a_bmc(tmp_path: Path) -> None:
    """In a process of its own, in which the device's calls come to fake_ipmi.c instead."""
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("there is no C compiler to build the BMC with")
    library = tmp_path / "fake_ipmi.so"
    source = HERE / "fake_ipmi.c"
    made = subprocess.run(
        [cc, "-std=c11", "-g", "-fPIC", "-shared", "-o", library, source],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    # The sanitizers, if any, must come first.
    preload = [*os.environ.get("LD_PRELOAD", "").split(), str(library)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", HERE / "bmc.py"],
        cwd=HERE.parents[1],
        env={
            **os.environ,
            "LD_PRELOAD": " ".join(preload),
            "FAKE_IPMI": f"{tmp_path}/ipmi0",
            "FAKE_IPMI_LIBRARY": str(library),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("name", "error"), [("ipmi0", FileNotFoundError), (".", IsADirectoryError)]
)
def test_what_cannot_be_opened_is_named(tmp_path: Path, name: str, error: type[OSError]) -> None:
    path = str(tmp_path / name)
    with pytest.raises(error) as caught:
        Power(path)
    assert caught.value.filename == path


def test_another_file_in_its_place_is_refused(tmp_path: Path) -> None:
    """Also a FIFO, whose opening would wait."""
    (tmp_path / "ipmi0").write_bytes(b"")
    os.mkfifo(tmp_path / "ipmi1")
    before = descriptors()
    for path in (f"{tmp_path}/ipmi0", f"{tmp_path}/ipmi1", "/dev/null"):
        power = Power(path)
        with pytest.raises(OSError, match="Inappropriate ioctl") as caught:
            power.ask()
        assert caught.value.filename == path
        del power
    assert descriptors() <= before


def test_where_the_device_is() -> None:
    assert [Host().dev(name) for name in DEVICES] == ["/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0"]
    assert Host(devfs="/host/dev").dev(DEVICES[0]) == "/host/dev/ipmi0"
