"""Keys, without a terminal."""

from __future__ import annotations

import pytest

from esnode.console.cells import plain
from esnode.console.frame import frame
from esnode.console.view import SORTS, Act, View, press

from .scenes import replace, scene, seen, uuid


def keyed(view: View, *keys: str, name: str = "busy") -> tuple[View, list[Act]]:
    """After some keys; what was to be done meanwhile."""
    found, acts = seen(name), []
    for key in keys:
        view, act = press(view, key, frame(scene(found, view)).extent)
        if act:
            acts.append(act)
    return view, acts


@pytest.mark.parametrize("screen", "123456789")
def test_a_number_and_enter_open_a_screen_and_f12_leads_back(screen: str) -> None:
    view, acts = keyed(View(), screen, "enter")
    assert (view.screen, view.typed, acts) == (screen, "", [])
    assert keyed(view, "f12")[0].screen == "0"
    assert keyed(View(), *["down"] * (int(screen) - 1), "enter")[0].screen == screen


def test_back_goes_the_way_one_came() -> None:
    view, _ = keyed(View(), "2", "enter", "down", "f9")
    assert (view.screen, view.gpu) == ("9", uuid(1))
    view, _ = keyed(view, "right", "right", "left")
    assert view.gpu == uuid(2)
    view, _ = keyed(view, "f12")
    assert view.screen == "2"
    view, _ = keyed(view, "f12", "f12")
    assert view.screen == "0" and view.message


@pytest.mark.parametrize("keys", [["f3"], ["q"], ["9", "0", "enter"], ["7", "enter", "f3"]])
def test_ways_out(keys: list[str]) -> None:
    assert keyed(View(), *keys)[1][-1] == Act("exit")


def test_an_unknown_option_is_said() -> None:
    extent = frame(scene(seen("empty"), View())).extent
    for number in set(range(10, 100)) - {90}:
        view, _ = press(View(typed=str(number)), "enter", extent)
        assert str(number) in view.message and view.typed == "" and view.screen == "0"


def test_help_comes_and_goes() -> None:
    view, _ = keyed(View(screen="4"), "f1")
    assert view.help
    assert not keyed(view, "f1")[0].help
    assert keyed(view, "f12")[0] == View(screen="4")
    assert keyed(view, "?")[0].help is False


def test_help_is_whole_beside_a_filter_and_a_number_leaves_it() -> None:
    view = View(screen="2", filter="no row has this", help=True)
    shown = ["".join(text for text, _ in line) for line in frame(scene(seen("busy"), view)).lines]
    assert any("choose a row" in line for line in shown)
    view, _ = keyed(view, "3", "enter")
    assert (view.screen, view.help, view.typed) == ("3", False, "")
    view, _ = keyed(View(screen="2", help=True), "2", "enter")
    assert (view.screen, view.help) == ("2", False)


def test_the_filter_is_typed_kept_and_dropped() -> None:
    view, _ = keyed(View(screen="2"), "/", *"lostq", "backspace")
    assert (view.filter, view.filtering) == ("lost", True)
    view, _ = keyed(view, "enter")
    assert (view.filter, view.filtering) == ("lost", False)
    opened, _ = keyed(view, "enter")
    assert opened.gpu == uuid(3)  # the only row that is left
    assert keyed(view, "f12")[0].filter == ""
    assert keyed(view.to(filtering=True), "f12")[0].filter == ""


def test_sorting_goes_through_the_columns() -> None:
    view, names = View(screen="2"), []
    for _ in SORTS:
        view, _ = keyed(view, "f6")
        names.append(view.sort)
    assert sorted(names) == sorted(SORTS) and view.sort == "gpu"
    assert keyed(view, "f7")[0].descending
    assert keyed(View(screen="3"), "f6")[0].message


def test_moving_keeps_the_chosen_row_on_the_screen() -> None:
    view = View(screen="2", height=14)
    for keys in (["down"] * 40, ["up"] * 40, ["pagedown"] * 3, ["pageup"], ["end"], ["home"]):
        for key in keys:
            view, _ = keyed(view, key)
            extent = frame(scene(seen("busy"), view)).extent
            assert view.top <= view.at < view.top + extent.room
            assert extent.picks[view.at]
    assert (view.at, view.top) == (0, 0)
    assert keyed(View(screen="2", height=14), "end")[0].at == 15


def test_the_chosen_gpu_stays_chosen_when_gpus_are_sorted_anew() -> None:
    """And in view, wherever it has gone."""
    found = seen("busy")
    view = View(screen="2", sort="temperature", height=14)
    for key in ("down", "down", "end", "up"):
        view, _ = press(view, key, frame(scene(found, view)).extent)
    chosen = view.pick
    assert chosen == f"gpu:{uuid(14)}"
    assert found.status and found.status.gpus
    gpus = [replace(gpu, temperature_celsius=99.0 - at) for at, gpu in enumerate(found.status.gpus)]
    found.status = replace(found.status, gpus=gpus)
    (line,) = [line for line in frame(scene(found, view)).lines if "chosen" in str(line)]
    assert plain(line).split()[0] == "14"
    opened, _ = press(view, "enter", frame(scene(found, view)).extent)
    assert (opened.screen, opened.gpu) == ("9", uuid(14))
    back, _ = press(opened, "f12", frame(scene(found, opened)).extent)
    assert back.pick == chosen
    found.status = replace(found.status, gpus=gpus[:14])  # it has gone: another one is chosen
    opened, _ = press(view, "enter", frame(scene(found, view)).extent)
    assert opened.screen == "9" and opened.gpu != uuid(14)


def test_a_screen_without_choices_scrolls() -> None:
    view, _ = keyed(View(screen="9"), "down", "down", "pagedown")
    assert view.top > 2
    view, _ = keyed(view, *["pagedown"] * 9, "up")
    bottom = view.top
    assert keyed(view, "home")[0].top == 0 < bottom


def test_the_form_gathers_address_and_token() -> None:
    view, acts = keyed(View(screen="7"), *"h0st:1", "enter", *"q?/ 9", "enter", name="small-vm")
    (act,) = acts
    assert (act.what, act.address, act.token) == ("connect", "h0st:1", "q?/ 9")
    assert "q?/" not in repr(act)
    form = View(screen="7", address="h0st:1", field=1)
    (act,) = keyed(form, "tab", *"/ca", "enter", name="small-vm")[1]
    assert (act.address, act.token, act.ca_file) == ("h0st:1", "", "/ca")
    view, acts = keyed(View(screen="7"), "enter", name="small-vm")
    assert "HOST:PORT" in view.message and not acts
    view, _ = keyed(View(screen="7", token="t"), "tab", "tab", "tab", "1", "enter", name="small-vm")
    assert (view.screen, view.token) == ("1", "")


def test_a_managed_node_has_no_form_and_says_why() -> None:
    view, acts = keyed(View(screen="7", address="other:1"), "enter", "enter", name="managed")
    assert "disconnect" in view.message and not acts


def test_a_screen_whose_form_is_locked_has_the_keys_of_any_screen() -> None:
    view, acts = keyed(View(screen="7"), "2", "enter", name="managed")
    assert (view.screen, view.address, acts) == ("2", "", [])
    view, acts = keyed(View(screen="7"), "q", name="managed")
    assert acts == [Act("exit")] and not view.address


def test_enter_on_a_profile_turns_it() -> None:
    _, acts = keyed(View(screen="5"), "enter", "down", "space", name="small-vm")
    assert acts == [Act("pick", "set:host"), Act("pick", "key:enable_cpu")]
