"""`config show|check|set`, `profiles`, `enable-metric-set` and `disable-metric-set`."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from esnode import config
from esnode.cli import edit, profiles
from esnode.collectors import COLLECTORS

from .running import command, environment, run

FILE = """\
# Of the operator's: "enable_gpu = true" in a comment stays.
enable_cpu   =   true      # aligned by hand
enable_memory=false
log_level = 'warn'
disk_mount_exclude = '''
^/scratch # no comment'''

#   enable_disk = false

# What the orchestrator does
[orchestrator]   # a table
enabled = false# close
\ttoken = "hunter2"

# the end, without a newline"""


def edited(text: str, **values: object) -> str:
    return edit.edited(text.encode(), "f", values).decode()


def test_an_edit_changes_one_value_and_no_other_byte() -> None:
    assert edited(FILE, enable_cpu=False) == FILE.replace("=   true ", "=   false ")
    assert edited(FILE, enable_memory=True) == FILE.replace("memory=false", "memory=true")
    after = edit.edited(FILE.encode(), "f", {"orchestrator.enabled": True}).decode()
    assert after == FILE.replace("enabled = false#", "enabled = true#")


def test_a_new_key_stands_before_the_first_table_and_its_comment() -> None:
    new = 'log_format = "json"\nscrape_interval_seconds = 60\n'
    after = edited(FILE, log_format="json", scrape_interval_seconds=60.0)
    assert after == FILE.replace("= false\n\n# What", f"= false\n{new}\n# What")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "enable_cpu = true",
        "orchestrator.token = 'a'\n",
        "orchestrator = {enabled = true}\n",
        "[orchestrator]\n",
        "# head\n[orchestrator]\nenabled = true\n",
        '"enable_cpu" = true\r\n\r\n[ orchestrator ]\r\n"enabled" = true # c\r\n',
    ],
)
def test_every_shape_of_a_file_can_be_edited(text: str) -> None:
    values = {"enable_cpu": False, "log_level": "debug", "orchestrator.enabled": False}
    after = edit.edited(text.encode(), "f", values)
    assert config.check(config.document(after, "f"), "f").items() >= values.items()
    assert all(line in after.decode() for line in text.split("\n") if line.startswith("#"))
    assert (b"\r\n" in after) == ("\r\n" in text)
    assert after.count(b"\r\n") in (0, after.count(b"\n"))
    # Twice is once.
    assert edit.edited(after, "f", values) == after


def test_a_key_is_taken_out_with_its_line() -> None:
    after = edit.edited(FILE.encode(), "f", {"orchestrator.token": None}).decode()
    assert after == FILE.replace('\ttoken = "hunter2"\n', "")


def test_a_file_that_is_not_valid_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    for text in ("enable_cpu = tru\n", "enable_cpu = true\nenable_cpu = true\n", "nonsense = 1\n"):
        file.write_text(text)
        done = run("--config", str(file), "config", "set", "enable_gpu=false")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"esnode-core: {file}: ")
        assert done.stderr.count("\n") == 1
        assert file.read_text() == text
        assert os.listdir(tmp_path) == ["f.toml"]  # noqa: PTH208


def test_a_value_that_is_not_valid_can_be_mended(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text("scrape_interval_seconds = 0 # too fast\n")
    assert run("--config", str(file), "config", "check").returncode == 2
    done = run("--config", str(file), "config", "set", "scrape_interval_seconds=1m30s")
    assert done.returncode == 0
    assert file.read_text() == "scrape_interval_seconds = 90 # too fast\n"
    done = run("--config", str(file), "config", "check")
    assert (done.returncode, done.stdout) == (0, f"{file}: valid\n")


def test_mode_link_and_content_of_a_file_that_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "sub" / "link.toml"
    real.write_text(FILE)
    real.chmod(0o640)
    link.parent.mkdir()
    link.symlink_to("../real.toml")
    inode = real.stat().st_ino
    done = run("--config", str(link), "disable-metric-set", "host")
    assert done.returncode == 0
    assert link.is_symlink()
    assert real.stat().st_ino != inode  # replaced: who reads it sees the old one or the new one
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    values = config.read_file(str(real))
    assert [values[key] for key in profiles.SETS["host"]] == [False] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real.toml", "sub"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_the_owner_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text("")
    os.chown(file, 65534, 65533)
    assert run("--config", str(file), "config", "set", "enable_gpu=no").returncode == 0
    assert (file.stat().st_uid, file.stat().st_gid) == (65534, 65533)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be had by root only")
def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    """We are nobody, and the directory is ours: it could be replaced, and is not."""
    tmp_path.chmod(0o755)
    for path in tmp_path.parents:
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    folder = tmp_path / "d"
    folder.mkdir()
    file = folder / "f.toml"
    file.write_text("")
    file.chmod(0o444)
    os.chown(folder, 65534, 65534)
    program = (
        "import os\n"
        "from pathlib import Path\n"
        "import esnode.cli.edit as edit\n"
        "os.setgid(65534); os.setuid(65534)\n"
        f"try: edit.change(Path({str(file)!r}), {{'enable_gpu': False}})\n"
        "except OSError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith(f"{file}: cannot be written: Permission denied; run this as")
    assert done.stdout.count("\n") == 1
    assert file.read_text() == ""
    assert [path.name for path in folder.iterdir()] == ["f.toml"]


@pytest.mark.parametrize("where", ["/proc/1/x/f.toml", "/dev/null", "/", "/sys/f.toml"])
def test_a_place_where_nothing_can_be_written(where: str) -> None:
    done = run("--config", where, "config", "set", "enable_gpu=no")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"esnode-core: {where}: cannot be written: ")
    assert done.stderr.count("\n") == 1


def test_a_file_is_made_where_there_is_none(tmp_path: Path) -> None:
    file = tmp_path / "new" / "f.toml"
    words = ("config", "set", "enable_gpu=no")
    assert run(*words, env={"ESNODE_CONFIG": str(file)}).returncode == 0
    assert file.read_text() == "enable_gpu = false\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    secret = tmp_path / "secret.toml"
    done = run("--config", str(secret), "config", "set", "orchestrator.token=hunter2")
    assert "hunter2" not in done.stdout + done.stderr
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_secrets_are_not_echoed(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    words = (
        "managed_join_token=hunter2",
        "app_metrics_url=http://me:hunter2@localhost/?token=hunter2",
    )
    done = run("--config", str(file), "config", "set", *words)
    assert done.returncode == 0
    assert "hunter2" in file.read_text()
    assert "hunter2" not in done.stdout + done.stderr
    assert "managed_join_token" in done.stdout


def test_what_counts_more_than_the_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    flags = ("--config", str(file), "--log-level", "error")
    words = ("config", "set", "enable_gpu=no", "log_level=debug", "enable_cpu=no")
    done = run(*flags, *words, env={"ESNODE_ENABLE_GPU": "true"})
    assert done.returncode == 0
    notes = done.stderr.splitlines()
    assert "note: enable_gpu is true all the same: ESNODE_ENABLE_GPU counts more" in notes
    assert 'note: log_level is "error" all the same: --log-level counts more' in notes
    assert not any("enable_cpu" in note for note in notes)


def test_two_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text("# kept\n")
    keys = ("enable_gpu", "enable_power", "enable_cpu", "enable_disk")
    started = [
        subprocess.Popen(
            command("--config", str(file), "config", "set", f"{key}=false"),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for key in keys
    ]
    assert [process.wait() for process in started] == [0] * len(keys)
    assert config.read_file(str(file)) == dict.fromkeys(keys, False)
    assert file.read_text().startswith("# kept\n")


def test_sets(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text("enable_gpu_amd = true # for now\n")
    flags = ("--config", str(file))
    assert run(*flags, "disable-metric-set", "all").returncode == 0
    settings = config.read_file(str(file))
    assert not any(settings.values())
    assert settings.keys() >= {cls.switch for cls in COLLECTORS}
    assert run(*flags, "enable-metric-set", "gpu").returncode == 0
    settings = config.read_file(str(file))
    assert settings["enable_gpu"] is True
    assert settings["enable_gpu_amd"] is False  # what is an experiment is asked for by itself
    done = run(*flags, "profiles", env={"ESNODE_ENABLE_APP": "yes"})
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["gpu", "enable_gpu", "true", str(file)] in rows
    assert ["host", "enable_disk", "false", str(file)] in rows
    assert ["app", "enable_app", "true", "ESNODE_ENABLE_APP"] in rows


def test_every_collector_is_in_one_set() -> None:
    keys = [key for keys in profiles.SETS.values() for key in keys]
    assert len(keys) == len(set(keys))
    assert {cls.switch for cls in COLLECTORS} <= set(keys)
    assert set(keys) <= config.KEYS.keys()


def test_check_without_a_file() -> None:
    done = run("config", "check", env={"ESNODE_CONFIG": "", "ESNODE_TYPO": "1"})
    assert done.returncode == 0
    assert "ESNODE_TYPO: unknown variable" in done.stderr
    assert run("config", "check", env={"ESNODE_ENABLE_GPU": "maybe"}).returncode == 2


def test_check_reads_the_web_configuration(tmp_path: Path) -> None:
    web, file = tmp_path / "web.yml", tmp_path / "esnode.toml"
    file.write_text(f"web_config_file = '{web}'\n")
    for words in (("--config", str(file), "config", "check"), ("config", "check", str(file))):
        web.write_text("{}\n")
        assert run(*words).returncode == 0
        web.write_text("basic_auth_users: {ada: hunter2}\n")
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "found no bcrypt hash" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_note_stands_once(tmp_path: Path) -> None:
    file = tmp_path / "esnode.toml"
    file.write_text("")
    file.chmod(0o644)
    secrets = ("orchestrator.token=one", "managed_join_token=two")
    done = run("--config", str(file), "config", "set", *secrets)
    assert done.stderr.count(f"chmod 600 {file}") == 1


def test_a_usage_error_is_one_line() -> None:
    for words in (("enable-metric-set",), ("disable-metric-set", "gpus"), ("profiles", "--x")):
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("esnode-core: ")
        assert done.stderr.count("\n") == 1
        assert f"esnode-core {words[0]} --help" in done.stderr
