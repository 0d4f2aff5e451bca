"""Completion by shells, the generated reference, colours, and what a command loads."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from esnode import __main__ as program
from esnode.cli import COMMANDS, completion, reference, tree
from esnode.config import KEYS

from .running import environment, run

CASES = [
    (["con"], ["config"]),
    (["--no-enable-gpu-m"], ["--no-enable-gpu-mig"]),
    (["--log-format", ""], ["json", "text"]),
    (["--log-level", "debug", "config", "s"], ["set", "show"]),
    (["config", "set", "managed_s"], ["managed_server="]),
    (["config", "set", "log_format", "=", "j"], ["json"]),
    (["config", "set", "enable_gpu", "=", "true", "log_f"], ["log_format="]),
    (["disable-metric-set", "h"], ["host"]),
    (["tsdb", "export", "--fo"], ["--format"]),
    (["completion", "f"], ["fish"]),
    (["config", "show", "--no"], ["--no-color"]),
    (["metrics", "g"], ["gpu-only"]),
]


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not here")


def shell(name: str, script: str) -> str:
    """What a script prints, run by a shell without its user's settings."""
    plain = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}
    done = subprocess.run(
        [name, *plain[name], "-c", script], capture_output=True, text=True, env=environment()
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@needs("bash")
@pytest.mark.parametrize(("words", "found"), CASES)
def test_bash_completes(words: list[str], found: list[str]) -> None:
    typed = " ".join(f"'{word}'" for word in ["esnode-core", *words])
    text = shell(
        "bash",
        f"{completion.bash()}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words)}\n"
        "_esnode_core; printf '%s\\n' \"${COMPREPLY[@]}\"",
    )
    assert sorted(text.split()) == found


@needs("bash")
def test_bash_knows_of_no_words_where_a_path_stands() -> None:
    text = shell(
        "bash",
        f"{completion.bash()}\nCOMP_WORDS=(esnode-core --config ''); COMP_CWORD=2\n"
        "_esnode_core; echo ${#COMPREPLY[@]}; complete -p esnode-core",
    )
    assert text.split()[0] == "0"
    assert "-o default" in text  # readline completes the path


def joined(words: list[str]) -> list[str]:
    """Words as all shells but bash have them, with key=value as one."""
    text = "\0".join(words).replace("\0=\0", "=")
    return text.split("\0")


@needs("zsh")
@pytest.mark.parametrize(("words", "found"), CASES)
def test_zsh_completes(words: list[str], found: list[str]) -> None:
    words = joined(words)
    typed = " ".join(f"'{word}'" for word in ["esnode-core", *words])
    add = (
        "compadd() { local typed=$2 each; while [[ $1 != -- ]]; do shift; done; shift\n"
        'for each; do [[ $typed$each == "$last"* ]] && print -r -- $typed$each; done; return 0; }'
    )
    text = shell(
        "zsh",
        f"compdef() {{ }}\n{add}\n{completion.zsh()}\n"
        f"words=({typed}); CURRENT={len(words) + 1}; last='{words[-1]}'\n_esnode-core",
    )
    head = words[-1].partition("=")
    assert sorted(text.split()) == [f"{head[0]}={word}" if head[1] else word for word in found]


@needs("fish")
@pytest.mark.parametrize(("words", "found"), CASES)
def test_fish_completes(words: list[str], found: list[str], tmp_path: Path) -> None:
    words = joined(words)
    script = tmp_path / "esnode-core.fish"
    script.write_text(completion.fish())
    text = shell("fish", f"source {script}; complete -C 'esnode-core {' '.join(words)}'")
    got = {line.split("\t")[0] for line in text.splitlines()}
    head = words[-1].partition("=")
    wanted = {f"{head[0]}={word}" if head[1] else word for word in found}
    assert wanted <= got
    assert all(word.startswith(words[-1]) for word in got)


def test_every_word_is_completed() -> None:
    places = completion.places()
    assert set(COMMANDS) <= set(places[""])
    assert {f"--{key.flag}" for key in KEYS.values()} <= set(places[""])
    assert {f"{name}=" for name in KEYS} <= set(places["/config/set"])
    assert {"host", "gpu", "power", "app", "all"} <= set(places["/enable-metric-set"])
    assert completion.values()["/config/set cpu_frequency"] == ("true", "false", "auto")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_command_prints_the_script(name: str) -> None:
    done = run("completion", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == getattr(completion, name)()
    if shutil.which(name):
        subprocess.run([name, "-n"], input=done.stdout, text=True, check=True)


# ------------------------------------------------------------------------------ the reference


def test_help_names_every_command() -> None:
    for command in tree.commands():
        if not command.commands:
            assert re.search(rf"^  {' '.join(command.path)}\b", program.USAGE, re.MULTILINE), (
                command
            )


def test_every_command_says_what_it_is_for() -> None:
    for command in tree.commands():
        assert command.help.endswith("."), command
        for word in (*command.arguments, *command.options):
            assert word.help, (command, word)


def test_the_reference_has_every_command_and_option() -> None:
    page, manual = reference.page(), reference.manual()
    for command in tree.commands():
        assert f"# {command.name}\n" in page
        for word in (*command.arguments, *command.options):
            for name in word.names:
                assert name in page
                assert reference.roff(name) in manual
    for key in KEYS.values():
        assert reference.roff(f"--{key.flag}") in manual


@needs("man")
def test_man_has_no_warnings(tmp_path: Path) -> None:
    file = tmp_path / "esnode-core.1"
    file.write_text(reference.manual())
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", str(file)],
        capture_output=True,
        text=True,
        env={**environment(), "MANWIDTH": "80", "MANPAGER": "cat", "LC_ALL": "C.UTF-8"},
    )
    if "not been installed" in done.stdout + done.stderr:
        pytest.skip("a system without manual pages")
    assert (done.returncode, done.stderr) == (0, "")
    text = re.sub(".\b", "", done.stdout)
    assert "--scrape-interval VALUE" in text
    assert "enable-metric-set [OPTIONS] SET" in text


# ------------------------------------------------------------------------------ all commands


@pytest.mark.parametrize("words", [["--no-color", "profiles"], ["profiles", "--no-color"]])
def test_no_color_stands_before_or_after(words: list[str]) -> None:
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("words", [["--no-color", "xid", "79"], ["xid", "79", "--no-color"]])
def test_no_color_reaches_the_commands(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("NO_COLOR", "")
    assert program.main(words) == 0
    assert os.environ["NO_COLOR"] == "1"


@pytest.mark.parametrize("path", [(), *(command.path for command in tree.commands())], ids=" ".join)
def test_help_of_every_command(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: esnode-core" in text
    assert "--no-color" in text or any(c.path == path and c.commands for c in tree.commands())


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["profiles"], ["tomlkit", "esnode.collectors", "esnode.tsdb", "rich", "http.client"]),
        (["config", "show"], ["tomlkit", "esnode.collectors", "esnode.tsdb", "rich"]),
        (["xid", "79"], ["tomlkit", "esnode.collectors", "esnode.tsdb", "rich"]),
        (["--version"], ["typer", "tomlkit", "prompt_toolkit", "esnode.cli", "esnode.console"]),
        (["--help"], ["typer", "tomlkit", "prompt_toolkit", "esnode.cli", "esnode.console"]),
    ],
)
def test_a_command_loads_only_what_it_needs(words: list[str], unwanted: list[str]) -> None:
    """What is loaded is most of the time that a command takes."""
    code = f"import sys; from esnode.__main__ import main; main({words!r}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & set(unwanted)
