"""managed.json: who may read it, who has the last word, and what becomes of a damaged one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from esnode import control
from esnode.config import Config
from esnode.control import managed
from esnode.control.managed import State, Unusable, attached
from esnode.control.protocol import Policy, Sets

STATE = State(
    server="a:1",
    origin="command",
    cluster_id="CLU-1",
    node_id="n",
    join_token="join",
    token="secret",
    last_contact_unix_ms=5,
    policy=Policy(3, Sets(gpu=False)),
)


def keep(directory: Path, state: State | None) -> State | None:
    return managed.change(directory, lambda before: state)


def test_what_is_written_is_read_again_and_only_by_its_owner(tmp_path: Path) -> None:
    assert managed.load(tmp_path) is None
    assert managed.load(tmp_path / "missing") is None
    before = os.umask(0)
    try:
        keep(tmp_path, STATE)
    finally:
        os.umask(before)
    assert managed.load(tmp_path) == STATE
    path = tmp_path / managed.NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    keep(tmp_path, msgspec.structs.replace(STATE, token="other"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == [managed.NAME]
    keep(tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_a_state_does_not_show_its_tokens() -> None:
    found = attached(STATE, None)
    assert found is not None
    for text in (repr(STATE), str(STATE), repr(found), str(found)):
        assert "secret" not in text
        assert "join" not in text


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '{"server": "a:1"}', '{"server": 1, "origin": "command"}'),
        *('{"server": "a:1", "origin": "secret-token"}', "\xff", "[" * 50_000, " " * 100_000),
        '{"server": "a:1", "origin": "command", "version": 2}',
    ],
)
def test_a_damaged_file_is_said_to_be_one_and_stays(text: str, tmp_path: Path) -> None:
    path = tmp_path / managed.NAME
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(Unusable, match=r"managed.json") as unusable:
        managed.load(tmp_path)
    assert unusable.value.is_damage
    assert "secret" not in str(unusable.value)
    with pytest.raises(Unusable):
        keep(tmp_path, STATE)
    assert path.read_bytes() == text.encode("latin-1")
    aside = managed.put_aside(tmp_path)
    assert aside is not None
    assert aside.read_bytes() == text.encode("latin-1")
    assert managed.load(tmp_path) is None
    assert managed.put_aside(tmp_path) is None


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / managed.NAME
    os.mkfifo(path)
    with pytest.raises(Unusable, match="no regular file"):
        managed.load(tmp_path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(Unusable):
        managed.load(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_is_the_owner_s_of_the_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 54321)
    keep(tmp_path, STATE)
    managed.node_id(tmp_path)
    for name in (managed.NAME, managed.NODE):
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 54321, 0o600)


def test_a_write_that_fails_leaves_what_was(tmp_path: Path) -> None:
    keep(tmp_path, STATE)
    (tmp_path / ".managed.json.new").mkdir()  # in the way
    with pytest.raises(OSError):
        keep(tmp_path, msgspec.structs.replace(STATE, token="other"))
    assert managed.load(tmp_path) == STATE


def test_the_node_makes_a_name_for_itself_once(tmp_path: Path) -> None:
    name = managed.node_id(tmp_path)
    assert managed.node_id(tmp_path) == name
    assert len(name) == 36
    keep(tmp_path, STATE)
    keep(tmp_path, None)
    assert managed.node_id(tmp_path) == name
    other = tmp_path / "other"
    other.mkdir()
    assert managed.node_id(other) != name
    (tmp_path / managed.NODE).write_text("two\nlines")
    with pytest.raises(Unusable, match="node-id"):
        managed.node_id(tmp_path)


CONFIG = Config(managed_server="b:2", managed_cluster_id="CLU-2", managed_node_id="named")
DETACHED = State(server="b:2", origin="command", attached=False)
KNOWN = State(server="b:2", origin="configuration", cluster_id="CLU-9", node_id="n", token="t")


@pytest.mark.parametrize(
    ("state", "config", "server", "cluster"),
    [
        (None, None, None, None),
        (None, Config(), None, None),
        (STATE, None, "a:1", "CLU-1"),
        (STATE, CONFIG, "a:1", "CLU-1"),
        (None, CONFIG, "b:2", "CLU-2"),
        (KNOWN, CONFIG, "b:2", "CLU-2"),
        (KNOWN, Config(managed_server="b:2"), "b:2", "CLU-9"),
        (KNOWN, Config(managed_server="c:3"), "c:3", None),
        (KNOWN, Config(), None, None),
        (DETACHED, CONFIG, None, None),
        (DETACHED, Config(managed_server="c:3"), "c:3", None),
        (DETACHED, Config(), None, None),
    ],
)
def test_a_command_counts_more_than_the_configuration(
    state: State | None, config: Config | None, server: str | None, cluster: str | None
) -> None:
    found = attached(state, config)
    assert (found and found.server, found and found.cluster_id) == (server, cluster)


def test_what_is_learned_of_one_server_is_not_told_to_another() -> None:
    other = attached(KNOWN, Config(managed_server="c:3"))
    assert other is not None
    assert other.state is None


def test_tuning_is_refused_while_the_node_is_managed(tmp_path: Path) -> None:
    where = tmp_path / "state"
    assert control.refusal(None, where) is None
    assert not where.exists()
    text = control.refusal(CONFIG, where)
    assert text is not None
    assert "b:2" in text
    assert "esnode-core disconnect" in text
    where.mkdir()
    keep(where, STATE)
    assert "a:1" in (control.refusal(None, where) or "")
    keep(where, DETACHED)
    assert control.refusal(CONFIG, where) is None
    (where / managed.NAME).write_text("{")
    assert control.refusal(None, where) is None  # as the agent takes it


def test_a_secret_is_taken_out_of_the_command_line() -> None:
    code = (
        "import sys; from esnode.control import hide; hide(sys.argv[1]); hide('');"
        " print(open('/proc/self/cmdline').read(), sys.argv[1])"
    )
    words = [sys.executable, "-c", code, "se-cret", "--token=se-cret", "end"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    line, _, argument = found.rstrip("\n").rpartition(" ")
    assert argument == "se-cret"
    assert "se-cret" not in line
    assert line.endswith("\0*******\0--token=*******\0end\0")
