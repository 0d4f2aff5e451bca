"""state.py: where the state is."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from esnode.state import state_directory
from tests import fakenvml
from tests.running import Agent, wait_for


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"STATE_DIRECTORY": "/a", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/a"),
        ({"STATE_DIRECTORY": "/a:/b", "HOME": "/h"}, "/a"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/esnode"),
        ({"HOME": "/h"}, "/h/.local/state/esnode"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state/esnode"),
        ({"STATE_DIRECTORY": "a", "XDG_STATE_HOME": "x", "HOME": "/h"}, "/h/.local/state/esnode"),
    ],
)
def test_the_first_that_is_set_counts(
    environ: Mapping[str, str], expected: str, tmp_path: Path
) -> None:
    below = {
        name: ":".join(f"{tmp_path}{part}" if part[:1] == "/" else part for part in text.split(":"))
        for name, text in environ.items()
    }
    found = state_directory(below)
    assert str(found) == f"{tmp_path}{expected}"
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert state_directory(below) == found


def test_without_a_home_in_the_environment_it_is_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    user = pwd.struct_passwd(("u", "", os.geteuid(), 0, "", str(tmp_path), ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: user)
    assert state_directory({}) == tmp_path / ".local/state/esnode"
    assert state_directory({"HOME": "relative"}) == tmp_path / ".local/state/esnode"


def test_an_unknown_user_without_a_home_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(OSError, match="STATE_DIRECTORY"):
        state_directory({})


def test_what_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert state_directory({"STATE_DIRECTORY": str(tmp_path)}) == tmp_path
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_file_in_its_place_or_no_path_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/below", f"{tmp_path}/\0"):
        with pytest.raises(OSError):
            state_directory({"STATE_DIRECTORY": str(path)})


def test_a_disk_that_hangs_holds_up_no_start(
    hung: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the GPUs, whose events would be kept there."""
    fake = fakenvml.Fake(fakenvml.library(), tmp_path / "nvml")
    fake.set_gpus(["H100"])
    for name, text in fake.environment().items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("STATE_DIRECTORY", str(hung / "esnode"))
    with Agent("--nvml-library", str(fake.path)) as agent:
        wait_for(lambda: "esnode_gpus" in agent.series(), "the GPUs are read")
        assert agent.get("/status").status == 200
