"""A session: what is known, what is chosen, and what is under way. The terminal is another's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..status import Status
from .cells import clean
from .feed import SECONDS, Feed
from .frame import Frame, frame
from .page import Scene
from .seen import Entry, Profile, Seen
from .view import Act, View, press

#: Screens that show events.
EVENTFUL = ("6", "9")


class Services(NamedTuple):
    """What the console asks for, and what it has done. Each may take its time, and raises an error
    whose text is for the operator."""

    #: The agent's address, as it is shown.
    agent: str
    ask: Callable[[], Status]
    events: Callable[[], Sequence[Entry]]
    #: The profiles, and why they cannot be changed here; empty where they can.
    profiles: Callable[[], tuple[list[Profile], str]]
    #: Turns a set ("set:gpu") or a key ("key:enable_gpu") on or off; what came of it.
    turn: Callable[[str, bool], str]
    #: Connects to a server with a token and a file of authorities, which may be empty; what came
    #: of it.
    connect: Callable[[str, str, str], str]
    #: Why the agent is not this node's to change; empty where it is.
    elsewhere: str = ""


def now_ms() -> int:
    return round(time.time() * 1000)


class Session:
    """Changed on the terminal's thread only: ``call`` has a function called there, ``redraw`` has
    all of it drawn anew, ``leave`` ends the terminal."""

    def __init__(
        self, services: Services, view: View | None = None, seconds: float = SECONDS
    ) -> None:
        self.services = services
        self.view = view or View()
        self.seen = Seen(services.agent, services.elsewhere)
        self.call: Callable[[Callable[[], None]], object] = lambda act: act()
        self.leave: Callable[[], object] = lambda: None
        self.redraw: Callable[[], object] = lambda: None
        self.ended = False
        self.feed = Feed(services.ask, services.events, self._take, self._miss, seconds)

    def start(self) -> None:
        self.feed.start()

    def stop(self) -> None:
        self.ended = True
        self.feed.stop()

    def frame(self) -> Frame:
        return frame(Scene(self.seen.status, self.view, self.seen, now_ms()))

    @property
    def is_typing(self) -> bool:
        """Whether letters are text, of a filter or of a form that is there, and no keys."""
        view = self.view
        return view.filtering or (view.focus is not None and not self.frame().extent.locked)

    def resize(self, width: int, height: int) -> None:
        if (width, height) != (self.view.width, self.view.height):
            self.view = self.view.to(width=width, height=height)

    def press(self, key: str) -> None:
        """A key. What leaves asks nothing of the screen, which may be what is wrong."""
        if key == "f3":
            self.leave()
            return
        before = self.view.screen
        self.view, act = press(self.view, key, self.frame().extent)
        if act is not None:
            self.act(act)
        if self.view.screen != before:
            self.feed.wants_events = self.view.screen in EVENTFUL
            if self.feed.wants_events:
                self.feed.refresh()
            if self.view.screen == "5":
                self.read_profiles()

    def act(self, act: Act) -> None:
        if act.what == "exit":
            self.leave()
        elif act.what == "refresh":
            self.redraw()
            self.feed.refresh()
            if self.view.screen == "5":
                self.read_profiles()
        elif act.what == "pick":
            self.turn(act.pick)
        elif act.what == "connect":
            self.view = self.view.to(token="")
            self.run(
                f"Connecting to {clean(act.address)} ...",
                lambda: self.services.connect(act.address, act.token, act.ca_file),
                lambda said: self.say(str(said)),
            )

    def turn(self, pick: str) -> None:
        """Turns a profile on or off, unless it may not be."""
        if locked := self.frame().extent.locked:
            self.say(locked)
            return
        kind, _, name = pick.partition(":")
        found = [each for each in self.seen.profiles if name == getattr(each, kind, None)]
        if not found:
            return
        on = not all(each.on for each in found if each.turned_on or kind == "key")

        def told(said: object) -> None:
            self.say(str(said))
            self.read_profiles()

        self.run("Saving ...", lambda: self.services.turn(pick, on), told)

    def read_profiles(self) -> None:
        def take(found: object) -> None:
            assert isinstance(found, tuple)
            self.seen.profiles, self.seen.profiles_problem = found

        self.run("", self.services.profiles, take)

    def run(self, busy: str, work: Callable[[], object], then: Callable[[object], None]) -> None:
        """Does on a thread what may take its time; one thing at a time that is told of."""
        if busy and self.view.busy:
            self.say("Something else is still under way.")
            return
        if busy:
            self.view = self.view.to(busy=busy)

        def done(result: object, error: Exception | None) -> None:
            if busy:
                self.view = self.view.to(busy="")
            if error is not None:
                self.say(str(error) or type(error).__name__)
            else:
                then(result)

        def worker() -> None:
            result: object = None
            failed: Exception | None = None
            try:
                result = work()
            except Exception as error:
                failed = error
            self._call(lambda: done(result, failed))

        threading.Thread(target=worker, name="work", daemon=True).start()

    def say(self, message: str) -> None:
        self.view = self.view.to(message=" ".join(message.split()))

    def _take(self, status: Status, events: Sequence[Entry] | None) -> None:
        def take() -> None:
            self.seen.take(status)
            if events is not None:
                self.seen.log = list(events)

        self._call(take)

    def _miss(self, problem: str) -> None:
        self._call(lambda: self.seen.miss(problem, now_ms()))

    def _call(self, act: Callable[[], None]) -> None:
        if not self.ended:
            self.call(act)
