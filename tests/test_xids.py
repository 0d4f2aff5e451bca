"""xids.py: the catalogue of error codes, and the command that looks into it."""

from __future__ import annotations

import re

import pytest

from esnode import xids
from esnode.__main__ import main


def test_the_codes_that_operators_meet_are_there() -> None:
    wanted = "13 31 32 38 43 45 46 48 54 56 57 58 60 61 62 63 64 66 68 69 70 71 72 73 74 78 79 80"
    wanted += " 81 82 92 93 94 95 96 105 109 110 111 " + " ".join(map(str, range(119, 127)))
    wanted += " 136 137 " + " ".join(map(str, range(139, 162)))
    assert set(map(int, wanted.split())) <= set(xids.XIDS)
    assert set(xids.COMMON) <= set(xids.XIDS)
    assert sorted(set(xids.COMMON)) == list(xids.COMMON)


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (13, "debug"),
        (31, "debug"),
        (43, "none"),
        (45, "none"),
        (48, "reset"),
        (54, "mechanical"),
        (63, "none"),
        (64, "reset"),
        (70, "application"),
        (74, "nvlink"),
        (79, "reboot"),
        (94, "application"),
        (95, "reset"),
        (119, "reset"),
        (120, "reset"),
        (126, "application"),
        (140, "reset"),
        (154, "other"),
    ],
)
def test_actions_are_those_of_the_published_catalogue(code: int, action: str) -> None:
    assert xids.XIDS[code].action == action


def test_engines_are_numbered_as_the_driver_does() -> None:
    for code, name in {
        39: "copy engine 0",
        70: "copy engine 3",
        85: "copy engine 9",
        126: "copy engine 10",
        135: "copy engine 19",
        68: "video decoder 0",
        83: "video decoder 1",
        98: "video decoder 7",
        82: "JPEG decoder 0",
        105: "JPEG decoder 7",
    }.items():
        assert name in xids.XIDS[code].meaning


def test_every_entry_fits_on_a_screen_and_in_a_table() -> None:
    for code, xid in xids.XIDS.items():
        assert xid.action in xids.ACTIONS
        assert xid.meaning.endswith(".")
        text = xids.describe(code)
        assert 2 <= text.count("\n") <= 3
        assert len(text) < 600
        assert "|" not in text
    assert set(xids.ACTIONS) == {xid.action for xid in xids.XIDS.values()}


def test_the_command_says_what_a_code_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xid", "79"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "Xid 79: " in printed.out
    assert "fallen off the bus" in printed.out
    assert "Reboot the node" in printed.out


def test_without_a_code_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xid"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in lines] == sorted(xids.XIDS)


@pytest.mark.parametrize("code", ["999", "0", "abc", "7_9", "1e3", "9" * 5000, "\n"])
def test_an_unknown_code_is_one_line_and_code_2(
    code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["xid", code]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"esnode-core: xid [^\n]+ not in the catalogue[^\n]+\n", printed.err)
    assert len(printed.err) < 200
