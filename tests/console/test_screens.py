"""The screens, without a terminal: golden texts, what they never do, what they say."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from esnode.console.cells import line_width, plain
from esnode.console.frame import frame
from esnode.console.seen import Entry, Seen
from esnode.console.view import MENU, SCREENS, View
from esnode.status import Status

from . import picture, scenes
from .scenes import NOW, drawn, replace, scene, seen, status, uuid

ALL = (MENU, *SCREENS)


@pytest.mark.parametrize(
    ("name", "size"), list(itertools.product(scenes.NODES, scenes.SIZES)), ids=str
)
def test_golden_text(name: str, size: tuple[int, int]) -> None:
    width, height = size
    expected = (scenes.TEXTS / f"{name}.{width}x{height}.txt").read_text()
    found = scenes.text(name, width, height)
    assert found == expected, "run `make golden`, and look at the difference"


@pytest.mark.parametrize("name", scenes.NODES)
def test_every_screen_fits_any_terminal_and_has_nothing_but_text(name: str) -> None:
    found = seen(name)
    sizes = ((80, 24), (160, 50), (132, 43), (41, 12), (10, 5), (1, 1))
    for screen, (width, height), detail in itertools.product(ALL, sizes, (False, True)):
        view = View(screen=screen, width=width, height=height, detail=detail, at=3)
        for each in (view, view.to(help=True), view.to(ascii=True)):
            shown = frame(scene(found, each))
            assert len(shown.lines) <= height
            row, column = shown.cursor
            assert 0 <= row < height and 0 <= column < width
            for line in shown.lines:
                assert line_width(line) <= width, plain(line)
                assert plain(line).isprintable(), repr(plain(line))
                assert plain(line).isascii() or not each.ascii


def test_wide_text_does_not_shift_the_columns() -> None:
    """Ends of the columns are at the same cell in each row."""
    found = seen("hostile")
    for width in (80, 160):
        shown = frame(scene(found, View(screen="2", width=width, height=50)))
        rows = [
            line for line, pick in zip(shown.lines[5:], shown.extent.picks, strict=False) if pick
        ]
        assert len(rows) == 16
        edges = [list(itertools.accumulate(line_width([piece]) for piece in row)) for row in rows]
        before = len(edges[0]) - 3  # the last column has what is left
        assert len({tuple(each[:before]) for each in edges}) == 1


def test_what_is_unknown_is_a_dash_and_no_number() -> None:
    """A document without a reading: no digit is there that the document does not have."""
    empty = status("empty")
    nulls = {
        name: None
        for name, value in msgspec.structs.asdict(empty).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        and name not in ("schema_version", "degradation_score")
    }  # fmt: skip
    about = replace(empty.agent, cpu_percent=None, resident_bytes=None, uptime_seconds=0)
    found = Seen("agent")
    found.take(replace(empty, **nulls, degradation_score=None, agent=about, hostname="h"))
    for screen in ("1", "2", "3", "4"):
        body = drawn(found, View(screen=screen))[2:-3]
        assert "-" in "".join(body)
        assert not re.search(r"\d", "".join(body)), body


def changed(found: Any, change: Callable[[Any], Any]) -> Iterator[Any]:
    """Documents that differ from one in one value, which is none of an object or a list."""
    items = found.items() if isinstance(found, dict) else enumerate(found)
    for key, value in items:
        kind = dict if isinstance(found, dict) else list
        if isinstance(value, (dict, list)):
            for other in [*changed(value, change), None]:
                copy = kind(found)
                copy[key] = other
                yield copy
        else:
            copy = kind(found)
            copy[key] = change(value)
            yield copy


def test_any_value_may_be_unknown() -> None:
    document = msgspec.to_builtins(status("gpus"))
    document["gpus"] = document["gpus"][:1]
    document["gpus"][0]["nvlink"]["links"] = document["gpus"][0]["nvlink"]["links"][:1]
    document["agent"]["collectors"] = document["agent"]["collectors"][:1]
    count = 0
    for each in changed(document, lambda value: None):
        try:
            found = msgspec.convert(each, Status)
        except msgspec.ValidationError:  # which is never null
            continue
        count += 1
        known = Seen("x")
        known.take(found)
        for screen in ALL:
            drawn(known, View(screen=screen, width=160, height=60))
    assert count > 100


@pytest.mark.parametrize("value", [0, -1, 2**63 - 1, 1e300])
def test_no_number_is_too_large(value: float) -> None:
    def put(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: put(each) for key, each in found.items()}
        if isinstance(found, list):
            return [put(each) for each in found]
        is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
        return (
            (value if isinstance(found, float) else int(min(value, 2**63 - 1)))
            if is_number
            else found
        )

    known = Seen("x")
    known.take(msgspec.convert(put(msgspec.to_builtins(status("busy"))), Status))
    for screen, width in itertools.product(ALL, (80, 160)):
        for line in drawn(known, View(screen=screen, width=width, detail=True)):
            assert len(line) <= width


def test_values_are_those_of_the_document() -> None:
    text = "\n".join(drawn(seen("busy"), View(screen="1")))
    assert re.search(r"CPU .* 42 %", text)
    assert "node 8,123 W" in text
    assert "1.4G/s" in text  # 1.5e9 bytes
    text = "\n".join(drawn(seen("busy"), View(screen="9", gpu=uuid(15))))
    assert "GPU 15 of 16" in text and "90 %" in text and "625 W" in text


def test_sixteen_gpus_scroll_and_are_sorted() -> None:
    view = View(screen="2", width=80, height=14)
    assert "More..." in drawn(seen("busy"), view)[-3]
    last = drawn(seen("busy"), view.to(top=99))
    assert "Bottom" in last[-3] and last[-4].split()[0] == "15"
    rows = drawn(seen("busy"), View(screen="2", sort="temperature", descending=True))[5:21]
    assert [row.split()[0] for row in rows] == [str(at) for at in range(15, -1, -1)]
    rows = drawn(seen("busy"), View(screen="2", sort="power"))[5:21]
    assert rows[-1].split()[0] == "3"  # whose power is not known
    rows = drawn(seen("busy"), View(screen="2", sort="health", descending=True))[5:8]
    assert {row.split()[0] for row in rows} == {"3", "7", "0"}  # troubles first


def test_a_filter_leaves_the_rows_that_have_it() -> None:
    rows = drawn(seen("busy"), View(screen="2", filter="STUCK"))[5:-3]
    assert [row.split()[0] for row in rows if row] == ["7"]
    assert "INTERFACE" in "\n".join(drawn(seen("busy"), View(screen="3", filter="nothing")))


def test_what_is_long_is_whole_somewhere() -> None:
    """An event and a reason of a collector with F9, why there are no GPUs at once."""
    words = "begin " + "and so on " * 30 + "end"
    found = seen("small-vm")
    assert found.status is not None
    about = found.status.agent
    gpu = next(each for each in about.collectors if each.name == "gpu")
    lacking = replace(about, collectors=[replace(gpu, enabled=True, up=False, reason=words)])
    found.status = replace(found.status, agent=lacking, gpus=None)
    found.log = [Entry(NOW, None, [("event ", "bold"), (words, "")])]

    def shown(screen: str, detail: bool) -> str:
        view = View(screen=screen, height=60, detail=detail)
        return " ".join(" ".join(drawn(found, view)).split())

    assert words not in shown("6", False)
    assert shown("6", True).count(words) == 2
    for screen in "249":
        assert words in shown(screen, False)


def test_a_lost_agent_is_said_with_since_when() -> None:
    found = seen("small-vm")
    found.miss("no agent answers", NOW + 4000)
    found.miss("still none", NOW + 9000)
    for screen in ALL:
        shown = drawn(found, View(screen=screen), 65_000)
        assert "NO ANSWER since 07:00:04Z" in shown[1]
        assert "data is 1m 5s old" in shown[1]
        assert "still none" in shown[-1]
    found.take(replace(status("small-vm"), last_scrape_unix_ms=NOW + 70_000))
    assert "NO ANSWER" not in drawn(found, View(), 71_000)[1]


def test_a_long_message_is_whole_and_covers_nothing_that_is_chosen() -> None:
    long = "not connected: " + "the certificate is not accepted, " * 5 + "name its authority"
    found = seen("busy")
    for width, height in ((80, 24), (160, 50)):
        view = View(screen="2", width=width, height=height, message=long)
        shown = drawn(found, view)
        at = next(place for place, line in enumerate(shown) if "not connected" in line)
        assert " ".join(" ".join(shown[at:]).split()) == long
        assert "F1=Help" in shown[at - 1] and len(shown) == height
    view = View(screen="2", height=22, at=13, pick=f"gpu:{uuid(13)}", message=long)
    lines = frame(scene(found, view)).lines
    assert any("chosen" in style for line in lines for _, style in line)
    assert drawn(found, view.to(height=10))[-1].endswith("…")


def test_before_the_first_answer_screens_say_why() -> None:
    found = Seen("x")
    assert "asking" in drawn(found, View(screen="1"))[1]
    found.miss("no agent answers on x: start one", NOW)
    for screen in "123468":
        assert "start one" in "\n".join(drawn(found, View(screen=screen)))
    assert "9. GPU detail" in "\n".join(drawn(found, View()))


def test_a_managed_node_shows_by_whom_and_locks_the_toggles() -> None:
    found = seen("managed")
    panel = " ".join(" ".join(drawn(found, View(screen="7"))).split())
    words = ("Managed by ESNODE-Pulse", "esnode-master-01:7443", "CLU-0042", "gpu-node-01")
    for word in (*words, "connected", "14s ago", "server disconnect"):
        assert word in panel, word
    assert "Token" not in panel
    shown = frame(scene(found, View(screen="5")))
    assert "esnode-master-01:7443" in shown.extent.locked
    assert "server disconnect" in shown.extent.locked


@pytest.mark.parametrize(
    ("loopback", "token", "words"),
    [
        (True, False, ("enforced", "NOT required")),
        (False, True, ("NOT enforced", "required")),
        (False, False, ("NOT enforced", "NOT required", "set orchestrator.token")),
    ],
)
def test_the_orchestrator_says_who_may_use_it(
    loopback: bool, token: bool, words: tuple[str, ...]
) -> None:
    found = seen("small-vm")
    assert found.status is not None
    about = replace(found.status.orchestrator, loopback_only=loopback, token_required=token)
    found.status = replace(found.status, orchestrator=about)
    text = "\n".join(drawn(found, View(screen="8")))
    for word in words:
        assert word in text
    assert ("set orchestrator.token" in text) == (not loopback and not token)


def test_a_token_is_masked() -> None:
    for width in (80, 30):
        view = View(screen="7", field=1, token="s3cr3t", width=width)
        assert "s3cr3t" not in "\n".join(drawn(seen("small-vm"), view))
        assert "s3cr3t" not in repr(view)
    assert "******" in "\n".join(drawn(seen("small-vm"), view))


def test_gpu_detail_has_instances_links_processes_and_its_own_events() -> None:
    view = View(screen="9", width=160, height=70)
    text = "\n".join(drawn(seen("gpus"), view))
    assert "1g.10gb" in text and "NVLink: 18 of 18 up" in text and "Processes" in text
    assert "Xid 79" in "\n".join(drawn(seen("busy"), view.to(gpu=uuid(3))))
    assert "none that the agent remembers" in "\n".join(drawn(seen("busy"), view.to(gpu=uuid(4))))
    assert "not there any more" in "\n".join(drawn(seen("busy"), view.to(gpu="GPU-gone")))


def test_trends_keep_what_is_new_and_forget_what_has_gone() -> None:
    found = seen("busy")
    count = len(found.trend("cpu"))
    assert found.status is not None
    found.take(found.status)  # the same tick again
    assert len(found.trend("cpu")) == count == 21
    for tick in range(500):
        found.take(replace(found.status, last_scrape_unix_ms=NOW + tick + 1, gpus=[]))
    assert len(found.trend("cpu")) == 120
    assert not [name for name in found.trends if name.startswith("util ")]


def test_the_picture_in_the_documents_is_what_the_console_shows() -> None:
    assert picture.PICTURE.read_text() == picture.picture(), "run `make golden`"
