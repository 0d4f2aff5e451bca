"""Times, names and selectors, as texts and as what they choose."""

from __future__ import annotations

import json

import pytest

from esnode.tsdb.select import EARLIEST, LATEST, SelectError, Selection, parse_time, select

NOON = 1_795_348_800_000  # 2026-11-22T12:00:00Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1795348800000", NOON),
        ("1795348800", NOON),
        ("1795348800.25", NOON + 250),
        ("1795348800.", NOON),
        (" 1795348800 ", NOON),
        ("2026-11-22T12:00:00Z", NOON),
        ("2026-11-22t12:00:00z", NOON),
        ("2026-11-22 12:00:00.007Z", NOON + 7),
        ("2026-11-22T13:30:00+01:30", NOON),
        ("2026-11-22T13:30:00 01:30", NOON),  # a plus that was not encoded
        ("2026-11-22T10:00:00-02:00", NOON),
        ("0", 0),
        ("99999999999", 99_999_999_999_000),  # the last number of seconds
        ("100000000000", 100_000_000_000),  # the first of milliseconds
    ],
)
def test_times(text: str, expected: int) -> None:
    assert parse_time("from", text) == expected


@pytest.mark.parametrize(
    "text", ["1795348800.0001", "2026-11-22T12:00:00.0001Z", "1795348800000.1"]
)
def test_a_time_between_two_milliseconds_leaves_out_what_is_outside(text: str) -> None:
    assert (select(start=text).start, select(end=text).end) == (NOON + 1, NOON)


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "-5", "1e9", "nan", "0x10", "12:00", "2026-11-22", "2026-11-22T12:00:00",
        "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01T25:00:00Z", "1" * 18, "1" * 50,
        "1960-01-01T00:00:00Z", "0001-01-01T00:00:00+23:00", "٣٣٣٣٣٣٣٣٣٣", "2026-11-22T12:00:00Z;",
        "2026-11-22T12:00:00+24:00", "2026-11-22T12:00:00-01:60",
    ],
)  # fmt: skip
def test_what_is_no_time_names_its_parameter(text: str) -> None:
    with pytest.raises(SelectError, match=r"^from: "):
        select(start=text)
    with pytest.raises(SelectError, match=r"^--until: "):
        select(end=text, called=("--from", "--until", "--metrics", "--match"))


def test_a_range_in_the_wrong_order() -> None:
    with pytest.raises(SelectError, match=r"^from: 3 is after to, 2"):
        select("3", "2")
    with pytest.raises(SelectError, match=r"^from: 3 is after to"):
        select("3", "2.9999")
    nothing = select("1.0001", "1.0002")  # no whole millisecond is in it
    assert nothing.start > nothing.end
    one = select("3", "3")
    assert (one.start, one.end) == (3000, 3000)
    everything = select()
    assert (everything.start, everything.end) == (EARLIEST, LATEST)
    assert everything.everything


SERIES = [
    {"__name__": "esnode_gpu_power_watts", "gpu": "0", "uuid": "GPU-a"},
    {"__name__": "esnode_gpu_power_watts", "gpu": "1", "uuid": 'odd "\\\n`\u00e9'},
    {"__name__": "esnode_gpu_up"},
    {"__name__": "esnode_cpu_seconds_total", "mode": "idle"},
]


def chosen(selection: Selection) -> list[int]:
    return [i for i, labels in enumerate(SERIES) if selection.wanted(json.dumps(labels).encode())]


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ([], [0, 1, 2, 3]),
        (["*"], [0, 1, 2, 3]),
        (["esnode_gpu_*"], [0, 1, 2]),
        (["esnode_gpu_up, esnode_cpu*"], [2, 3]),
        (["esnode_gpu_up", "esnode_cpu_seconds_total"], [2, 3]),
        (["esnode_gpu"], []),
        (["esnode_gpu_up*"], [2]),
    ],
)
def test_names(metrics: list[str], expected: list[int]) -> None:
    assert chosen(select(metrics=metrics)) == expected


@pytest.mark.parametrize("text", ["", ",", "a,", "a*b", "**", "*a", "1a", "a b", "a{}", "é"])
def test_bad_names(text: str) -> None:
    with pytest.raises(SelectError, match=r"^metrics: "):
        select(metrics=[text])


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (["esnode_gpu_up"], [2]),
        (["esnode_gpu_power_watts{}"], [0, 1]),
        (['esnode_gpu_power_watts{gpu="0"}'], [0]),
        (['esnode_gpu_power_watts{gpu!="0"}'], [1]),
        (['{__name__="esnode_gpu_power_watts", gpu="1",}'], [1]),
        (['{__name__!="esnode_gpu_up"}'], [0, 1, 3]),
        (['{gpu=""}'], [2, 3]),
        (['{gpu!=""}'], [0, 1]),
        (["{gpu='0'}"], [0]),
        ([r'{gpu="\U00000030"}'], [0]),
        ([r'{uuid="odd \"\\\n`\xc3\xa9"}'], [1]),
        ([r'{uuid="odd \"\\\n`\303\251"}'], [1]),
        (["{gpu=`0`}"], [0]),
        ([r'{uuid="odd \"\\\n`é"}'], [1]),
        ([r"{uuid='odd \x22\\\012`\u00e9'}"], [1]),
        (['{gpu="0"}', '{mode="idle"}'], [0, 3]),
        ([' esnode_gpu_up { gpu = "" } '], [2]),
        (['{gpu="0,}"}'], []),
    ],
)
def test_selectors(match: list[str], expected: list[int]) -> None:
    assert chosen(select(match=match)) == expected


def test_names_and_selectors_must_both_hold() -> None:
    assert chosen(select(metrics=["esnode_gpu_*"], match=['{gpu=""}'])) == [2]


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", " ", "a{", "a}", "a{b}", "a{b=}", 'a{b="}', 'a{b="c" d="e"}', 'a{b="c"}x',
        'a{b="c"};', 'a{,}', 'a{b=="c"}', "a b", "1a", 'a{1="b"}', 'a{b="c"}{d="e"}', "a{b=c}",
        'a{b="c",,d="e"}', 'a{b="\n"}', r'a{b="\d"}', r'a{b="\400"}', r'a{b="\xff"}',
        r'a{b="\ud800"}', r'a{b="\Uffffffff"}', 'a{b="\ud800"}',
    ],
)  # fmt: skip
def test_bad_selectors(text: str) -> None:
    with pytest.raises(SelectError, match=r"^match: "):
        select(match=[text])


@pytest.mark.parametrize("operator", ["=~", "!~"])
def test_regular_expressions_are_refused_by_name(operator: str) -> None:
    with pytest.raises(SelectError, match=f"{operator} is not supported, only = and !="):
        select(match=[f'a{{b{operator}"c.*"}}'])
