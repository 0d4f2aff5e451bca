"""The thread that asks the agent, so that one that hangs never keeps a key waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ..client import NoAnswer
from ..status import Status
from .seen import Entry

#: Between two documents, in seconds; the agent has a new one at each tick.
SECONDS = 2.0


class Feed:
    """Asks again and again. What is found goes to ``take`` and ``miss``, on the feed's thread."""

    def __init__(
        self,
        ask: Callable[[], Status],
        events: Callable[[], Sequence[Entry]],
        take: Callable[[Status, Sequence[Entry] | None], object],
        miss: Callable[[str], object],
        seconds: float = SECONDS,
    ) -> None:
        self.ask = ask
        self.events = events
        self.take = take
        self.miss = miss
        self.seconds = seconds
        #: Whether events are looked at, too.
        self.wants_events = False
        self._due = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def refresh(self) -> None:
        """Asks now; when a request is under way, after it."""
        self._due.set()

    def stop(self) -> None:
        """Ends it; a request that hangs is left behind."""
        self._ending = True
        self._due.set()

    def _run(self) -> None:
        while not self._ending:
            self._due.clear()
            try:
                status = self.ask()
                events = self._events() if self.wants_events else None
            except Exception as error:
                self._tell(self.miss, str(error) or type(error).__name__)
            else:
                self._tell(self.take, status, events)
            self._due.wait(self.seconds)

    def _events(self) -> Sequence[Entry] | None:
        """What has happened; None for an agent that does not say, or says it to too many."""
        try:
            return self.events()
        except NoAnswer:
            return None

    def _tell(self, whom: Callable[..., object], *what: object) -> None:
        if not self._ending:
            whom(*what)
