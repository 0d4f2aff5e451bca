"""logs.py: one line a record, whatever is in it."""

import json
import logging

import pytest

from esnode import logs

NAME = "mount /a\nb \udcff"


def record() -> logging.LogRecord:
    return logging.LogRecord("esnode", logging.WARNING, "", 1, "%s", (NAME,), None)


def test_text_is_one_line() -> None:
    line = logs.Text().format(record())
    assert "\n" not in line
    assert line.encode().endswith(rb"WARN  esnode: mount /a\nb \udcff")


def test_json_is_one_object() -> None:
    entry = json.loads(logs.Json().format(record()))
    assert entry["level"] == "warn"
    assert entry["message"].startswith("mount /a\nb ")


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_level_is_kept(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.setup("warn", form)
        logging.getLogger("esnode").info("not this")
        logging.getLogger("esnode").warning("this")
    finally:
        root.handlers[:], root.level = before[0], before[1]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "this" in lines[0]
