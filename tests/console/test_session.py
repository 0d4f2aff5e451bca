"""Sessions: keys go in through a pipe, as prompt-toolkit reads them; services are the test's."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prompt_toolkit.application import Application
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from esnode.client import NoAnswer
from esnode.console import teletype, terminal
from esnode.console.cells import plain
from esnode.console.seen import Profile
from esnode.console.session import Services, Session
from esnode.console.view import View
from esnode.status import Status
from tests.running import wait_for

from .scenes import HOSTILE, replace, status

F1, F3, F5, F12, ESCAPE = "\x1bOP", "\x1bOR", "\x1b[15~", "\x1b[24~", "\x1b"
DOWN, PAGE_DOWN = "\x1b[B", "\x1b[6~"


class Node:
    """What the services of a session do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = status(name)
        self.asked = 0
        self.tick = 0
        self.problem: str | None = None
        self.hangs = threading.Event()
        self.goes_on = threading.Event()
        self.on = {"enable_cpu": True, "enable_gpu": True}
        self.turned: list[tuple[str, bool]] = []
        self.refusal = ""
        self.connected: list[tuple[str, str, str]] = []
        self.connecting: Callable[[], str] = lambda: "connected to it"

    def services(self) -> Services:
        return Services("there:9100", self.ask, list, self.profiles, self.turn, self.connect)

    def ask(self) -> Status:
        self.asked += 1
        if self.hangs.is_set():
            self.goes_on.wait(30)
        if self.problem:
            raise NoAnswer(self.problem)
        self.tick += 1
        found: Any = replace(self.status, last_scrape_unix_ms=self.tick)
        return found  # type: ignore[no-any-return]

    def profiles(self) -> tuple[list[Profile], str]:
        names = {"enable_cpu": "host", "enable_gpu": "gpu"}
        found = [Profile(names[key], key, on, "default") for key, on in self.on.items()]
        return found, self.refusal

    def turn(self, pick: str, on: bool) -> str:
        self.turned.append((pick, on))
        kind, _, name = pick.partition(":")
        key = {"host": "enable_cpu", "gpu": "enable_gpu"}[name] if kind == "set" else name
        self.on[key] = on
        return f"{name} is saved"

    def connect(self, address: str, token: str, ca_file: str) -> str:
        self.connected.append((address, token, ca_file))
        return self.connecting()


class Console:
    """A session in a terminal that is none."""

    def __init__(
        self, session: Session, app: Application[None], keys: PipeInput, out: io.StringIO
    ) -> None:
        self.session = session
        self.app = app
        self.keys = keys
        self.out = out

    def press(self, text: str) -> None:
        self.keys.send_text(text)

    def shows(self, *words: str) -> None:
        """Waits until all of them are on the screen."""
        wait_for(lambda: all(word in self.text for word in words), f"{words} in {self.text}")

    def draws(self) -> None:
        """Waits until what is there now was drawn."""
        before = self.app.render_counter
        self.app.invalidate()
        wait_for(lambda: self.app.render_counter > before + 1, "it is drawn")

    @property
    def text(self) -> str:
        return "\n".join(plain(line) for line in self.session.frame().lines)


@contextmanager
def console(
    node: Node, size: tuple[int, int] = (80, 24), seconds: float = 0.2
) -> Iterator[Console]:
    session = Session(node.services(), View(), seconds)
    out = io.StringIO()
    with create_pipe_input() as keys:
        output = Vt100_Output(out, lambda: Size(rows=size[1], columns=size[0]), term="xterm")
        app = terminal.application(session, keys, output, {"TERM": "xterm"})
        ran = threading.Thread(
            target=lambda: app.run(pre_run=session.start, handle_sigint=False), daemon=True
        )
        ran.start()
        try:
            yield Console(session, app, keys, out)
            keys.send_text(F3)
            ran.join(15)
            assert not ran.is_alive(), "F3 does not leave"
        finally:
            session.stop()
            node.goes_on.set()


TITLES = (
    "Node overview", "GPU & power", "Network & disk", "Efficiency", "Metric profiles",
    "Agent status & logs", "Connect to ESNODE-Pulse", "Orchestrator", "GPU detail",
)  # fmt: skip


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
def test_a_walk_through_every_screen(size: tuple[int, int]) -> None:
    with console(Node("busy"), size) as seen:
        seen.shows("Main Menu", "16 GPUs")
        for at, title in enumerate(TITLES, 1):
            seen.press(f"{at}\r")
            seen.shows(f"ESN0{at}", title)
            seen.press(F1)
            seen.shows(f"Help: {title}", "sort GPUs")
            seen.press(f"{F1}{DOWN}{PAGE_DOWN}{F12}")
            seen.shows("Main Menu")
        seen.press("2\r" + DOWN * 15 + "\r")
        seen.shows("GPU 15 of 16")
        seen.press(ESCAPE)
        seen.shows("GPU & power")
        seen.draws()
    assert "\x1b[?1049l" in seen.out.getvalue()  # the screen before is back


def test_hostile_text_does_not_reach_the_terminal() -> None:
    with console(Node("hostile"), (160, 50)) as seen:
        seen.shows("16 GPUs")
        for screen in "123456789":
            seen.press(f"{screen}\r")
            seen.shows(f"ESN0{screen}")
            seen.draws()
            seen.press(F12)
    drawn = seen.out.getvalue()
    for trick in ("\x1b[2J", "\x1b]0", "\x07", "\u202e", "\u200b", "\x9b"):
        assert trick in HOSTILE
        assert trick not in drawn.replace("\x1b[?1049h\x1b[2J", "")


def test_an_agent_that_dies_is_said_and_comes_back() -> None:
    node = Node("small-vm")
    with console(node) as seen:
        seen.press("1\r")
        seen.shows("Linux 6.1.0")
        node.problem = "no agent answers on there:9100"
        seen.shows("NO ANSWER since", "no agent answers on there:9100", "Linux 6.1.0")
        node.problem = None
        wait_for(lambda: "NO ANSWER" not in seen.text, "it is back")


def test_a_hung_agent_freezes_no_key() -> None:
    node = Node("small-vm")
    with console(node) as seen:
        seen.shows("CPU")
        node.hangs.set()
        asked = node.asked
        wait_for(lambda: node.asked > asked, "the feed hangs")
        for at, title in enumerate(TITLES[:4], 1):
            seen.press(f"{at}\r{F5}")
            seen.shows(title)


def test_toggles_save_and_are_read_again() -> None:
    node = Node("small-vm")
    with console(node) as seen:
        seen.press("5\r")
        seen.shows("enable_gpu")
        seen.press("\r")
        seen.shows("host is saved", "host      off")
        seen.press(DOWN + DOWN + DOWN + " ")
        seen.shows("enable_gpu is saved")
    assert node.turned == [("set:host", False), ("key:enable_gpu", False)]


def test_toggles_refuse_where_the_node_is_managed() -> None:
    node = Node("managed")
    with console(node) as seen:
        seen.shows("managed")
        seen.press("5\r")
        seen.shows(
            "enable_gpu", "Managed by ESNODE-Pulse (esnode-master-01:7443)", "server disconnect"
        )
        seen.press("\r")
        wait_for(lambda: "Managed by" in plain(seen.session.frame().lines[-2]), "the reason")
        assert plain(seen.session.frame().lines[-1]).endswith("makes the node standalone again.")
    assert not node.turned


def test_toggles_refuse_where_nothing_can_be_changed() -> None:
    node = Node("small-vm")
    node.refusal = "profiles are in the file of its own node"
    with console(node) as seen:
        seen.press("5\r")
        seen.shows("enable_gpu", "of its own node")
        seen.press("\r")
        wait_for(lambda: "own node" in plain(seen.session.frame().lines[-1]), "the reason")
    assert not node.turned


def test_connecting_shows_no_token_and_what_came_of_it() -> None:
    node = Node("small-vm")
    may = threading.Event()

    def connecting() -> str:
        may.wait(15)
        raise OSError("not connected: no answer from master:7443")

    node.connecting = connecting
    with console(node) as seen:
        seen.press("7\rmaster:7443\t")
        seen.press("\x1b[200~s3cr3t q\x1b[201~\t/ca\r")  # pasted
        seen.shows("Connecting to master:7443")
        seen.press(ESCAPE)  # keys go on
        seen.shows("Main Menu")
        may.set()
        seen.shows("not connected: no answer from master:7443")
    assert node.connected == [("master:7443", "s3cr3t q", "/ca")]
    assert seen.session.view.token == ""
    assert "s3cr3t" not in seen.out.getvalue()


def test_a_node_that_was_named_by_a_url_is_not_connected_from_here() -> None:
    node = Node("small-vm")
    session = Session(node.services()._replace(elsewhere="log in there"), View(screen="7"))
    for key in (*"pulse:1", "tab", *"t0k", "enter"):
        session.press(key)
    assert node.connected == []
    session.view = View(screen="7")
    shown = "\n".join(plain(line) for line in session.frame().lines)
    assert "log in there" in shown and "Token" not in shown
    session.press("enter")
    assert session.view.message == "log in there"


def test_a_teletype_gets_screen_after_screen() -> None:
    node = Node("busy")
    session = Session(node.services(), View(), 0.05)
    out = io.StringIO()
    words = [
        "2",
        "j",
        "",
        "/nothing",
        "b",
        "?",
        "?",
        "",
        "5",
        "7",
        "h:1",
        "t0k",
        "q",
        "b",
        "q",
        "x",
    ]
    assert teletype.run(session, io.StringIO("\n".join(words)), out) == 0
    text = out.getvalue()
    for word in ("Main Menu", "GPU & power", "GPU 1 of 16", "Help: ", "Metric profiles"):
        assert word in text
    assert text.isascii() and "\x1b" not in text and "t0k" not in text
    assert any(line.startswith(">") for line in text.splitlines())
    assert node.connected == []


def test_what_is_pasted_presses_no_keys() -> None:
    with console(Node("managed")) as seen:
        seen.press("7\r")
        seen.shows("ESN07")
        seen.press("\x1b[200~quit 3\x1b[201~")
        seen.draws()
        assert seen.app.is_running and not seen.session.view.typed
        seen.press("3\r")
        seen.shows("ESN03")


def test_a_teletype_leaves_a_form_that_is_locked() -> None:
    session = Session(Node("managed").services(), View(), 0.05)
    out = io.StringIO()
    assert teletype.run(session, io.StringIO("7\n2\nq\n"), out) == 0
    assert "ESN07" in out.getvalue() and "ESN02" in out.getvalue()
