"""``GET /events``: statuses, GPU events and degradations as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html. Events are numbered by the Unix time
in milliseconds, made to rise, so that the last number a client has seen is a time as well, and
holds across a restart of the agent. GPU events and degradations are kept for those who come back;
of the statuses the newest is enough.

One thread sends to all clients, a few at a time, and only to those that take it: for one that does
not, events wait where they are kept for everybody. Every client gets the same bytes.
"""

from __future__ import annotations

import logging
import math
import os
import resource
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs

from ..tsdb.select import SelectError, parse_time
from .response import NO_STORE, Gone, Headers, Outlet, Refusal, Request, Respond, Response

log = logging.getLogger(__name__)

PATH = "/events"
PARAMETERS = ("interval", "kinds", "since", "follow")
STATUS = "status"
#: What is kept.
KEPT = ("gpu", "degradation")
KINDS = (STATUS, *KEPT)

#: GPU events and degradations that are kept.
EVENTS = 1024
#: Milliseconds after which a client that lost us is to come back.
RETRY = 3000
#: Seconds without an event after which a client is sent a comment.
KEEP_ALIVE = 15.0
#: Seconds by which such a comment may be late, so that many clients are sent theirs together.
TOGETHER = 1.0
#: Seconds after which a client that takes nothing is dropped.
STALLED = 15.0
#: Bytes that a client is sent at a time, unless one event is longer.
PIECE = 1 << 16
#: Clients that are sent to in a row, and seconds of pause after them, in which the server sends
#: what it was given and scrapes are answered.
SLICE = 100
PAUSE = 0.001
#: Seconds after which it is seen again whether a client that took nothing does now.
SOONEST, LATEST = 0.01, 0.25
#: Part of its interval by which a client's status may come early: ticks are not exact.
EARLY = 0.1
#: Ticks after which a status is no news any more.
FRESH = 1.5
#: Seconds after a line of the log about dropped clients in which there is no other one.
QUIET = 10.0
#: Descriptors are for files and scrapers, too: clients get one in so many.
SHARE = 4
#: Clients on a unix socket, each of which costs a thread.
LOCAL = 256

HEADERS: Headers = [
    ("content-type", "text/event-stream; charset=utf-8"),
    NO_STORE,
    ("x-accel-buffering", "no"),  # nginx would keep events back
    ("connection", "close"),  # a stream's end is its connection's
]
FIRST = b"retry: %d\n" % RETRY
#: An id without data is no event, but is what a client comes back with.
REACHED = b"id: %d\n\n"
COMMENT = b": keep-alive\n"


class Event(NamedTuple):
    """An event as it is sent; ``at`` is when it was published, in monotonic seconds."""

    id: int
    kind: str
    text: bytes
    at: float


class Wish(NamedTuple):
    """What a client asks for; ``since`` is the number of the last event that it has seen."""

    kinds: frozenset[str]
    interval: float
    since: int | None
    resumes: bool
    follow: bool


class Client:
    """One that follows. The thread's own, but for ``outlet`` and ``open``."""

    __slots__ = (
        *("address", "blocked", "cursor", "first", "host", "interval", "kinds", "open", "outlet"),
        *("pulse", "sent", "shown", "status"),
    )

    def __init__(self, host: str, address: str, wish: Wish, cursor: int, shown: int) -> None:
        self.host = host
        self.address = address
        self.kinds = wish.kinds
        self.interval = wish.interval
        #: The number of the last kept event that it has, or does not want.
        self.cursor = cursor
        #: The number of the last status that it has, and when that was published.
        self.shown = shown
        self.status = -math.inf
        self.first = True
        #: Seconds in which it is to be sent something.
        self.pulse = KEEP_ALIVE
        #: When it was last sent something, and since when it takes nothing; monotonic seconds.
        self.sent = -math.inf
        self.blocked: float | None = None
        self.outlet: Outlet | None = None
        self.open = True

    def due(self, at: float) -> bool:
        """Whether a status published at a time is one that it wants."""
        return STATUS in self.kinds and at - self.status >= self.interval * (1 - EARLY)


class Portion(NamedTuple):
    """What some clients are to get: a text, the numbers it reaches to, and whether more waits."""

    text: bytes
    cursor: int
    shown: int
    more: bool


class Kept(NamedTuple):
    """What there is to send at one moment. Nothing up to ``floor`` is kept, nothing is after
    ``last``."""

    events: Sequence[Event]
    floor: int
    last: int
    status: Event | None

    def portion(self, kinds: frozenset[str], cursor: int, status: Event | None) -> Portion:
        """What comes next after an event, with a status where that is due."""
        chosen: list[Event] = []
        if cursor < self.last and not kinds.isdisjoint(KEPT):
            chosen = [event for event in self.events if event.id > cursor and event.kind in kinds]
            if cursor < self.floor:
                chosen.insert(0, gap(cursor, self.floor))
        if status is not None:
            chosen.append(status)
            chosen.sort()
        size, count, shown = 0, 0, 0
        for event in chosen:
            if count and size + len(event.text) > PIECE:
                break
            size += len(event.text)
            count += 1
            if event is status:
                shown = event.id
        more = count < len(chosen)
        reached = max(cursor, chosen[count - 1].id) if more else self.last
        return Portion(b"".join(e.text for e in chosen[:count]), reached, shown, more)


class Streams:
    """The clients that follow, and what is kept for them. Any thread may call it."""

    def __init__(self, most: int, most_of_one: int, tick: float) -> None:
        #: Clients at once, in all and from one address.
        self.most = most
        self.most_of_one = most_of_one
        #: Seconds between two statuses.
        self.tick = tick
        #: Called when a client waits for its first status, and there is none that is fresh; not
        #: again before there is one.
        self.ask: Callable[[], None] = lambda: None
        self.stopped = False
        #: Clients dropped because they took nothing.
        self.dropped = 0
        self._last = self._floor = int(time.time() * 1000)
        self._events: deque[Event] = deque()
        self._status: Event | None = None
        self._data = b""
        self._asked = False
        self._clients: dict[Client, None] = {}
        self._hosts: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._news = False
        self._thread: threading.Thread | None = None
        self._logged = -math.inf
        self._unlogged = 0

    def __len__(self) -> int:
        """How many clients follow."""
        return len(self._clients)

    @property
    def listened(self) -> bool:
        """Whether a status published now would be sent to some client."""
        now = time.monotonic()
        with self._changed:
            return any(client.due(now) for client in self._clients)

    def publish(self, kind: str, data: bytes) -> None:
        """Sends an event of some kind, one line of JSON, to whom it is for."""
        if b"\n" in data or b"\r" in data:  # in JSON no more than a blank
            data = data.replace(b"\r", b" ").replace(b"\n", b" ")
        with self._changed:
            if kind == STATUS:
                self._asked = False
                if data is self._data and self._fresh():
                    return  # one that was asked for, and made for the tick as well
                self._data = data
            number = self._last = max(self._last + 1, int(time.time() * 1000))
            event = Event(number, kind, frame(kind, number, data), time.monotonic())
            if kind == STATUS:
                self._status = event
            else:
                if len(self._events) >= EVENTS:
                    self._floor = self._events.popleft().id
                self._events.append(event)
            if self._clients:
                self._wake()

    def handle(self, request: Request, respond: Respond) -> None:
        """Answers with a stream, or with what is kept. Raises Refusal."""
        wish = parse(request.query_string, request.headers.get("last-event-id"))
        if request.method == "HEAD":
            respond(Response(200, HEADERS, Path(os.devnull)))
            return
        if not wish.follow:
            respond(Response(200, HEADERS, FIRST + b"\n" + self._replay(wish)))
            return
        client, waits = self._admit(request.client, wish)
        try:
            respond(Response(200, HEADERS, partial(self._attach, client)))
        except OSError as error:
            self._remove(client)
            raise Refusal(503, f"no stream can be opened: {error.strerror}") from None
        except BaseException:
            self._remove(client)
            raise
        if waits:
            self.ask()

    def stop(self) -> None:
        """Ends all streams, and takes no more."""
        with self._changed:
            self.stopped = True
            clients = list(self._clients)
            self._clients.clear()
            self._hosts.clear()
            self._wake()
        for client in clients:
            client.open = False
            outlet = client.outlet
            if outlet is not None:
                if outlet.ready():
                    outlet.end()
                else:
                    outlet.cut()

    def _replay(self, wish: Wish) -> bytes:
        kept = self._kept()
        cursor = kept.floor if wish.since is None else self._cursor(wish, kept)
        text = b""
        more = True
        while more:
            piece, cursor, _, more = kept.portion(wish.kinds, cursor, None)
            text += piece
        return text

    def _kept(self) -> Kept:
        with self._changed:
            status = self._status if self._fresh() else None
            return Kept(list(self._events), self._floor, self._last, status)

    def _fresh(self) -> bool:
        """Whether there is a status that is news. The lock is held."""
        status = self._status
        return status is not None and time.monotonic() - status.at <= self.tick * FRESH

    def _cursor(self, wish: Wish, kept: Kept) -> int:
        """Where a client begins that has seen an event, or names a time."""
        assert wish.since is not None
        if wish.since <= max(kept.last, int(time.time() * 1000)):
            return min(wish.since, kept.last)
        # A number of the future: a clock was put back. What it has seen of ours is not known.
        return 0 if wish.resumes else kept.last

    def _admit(self, address: str, wish: Wish) -> tuple[Client, bool]:
        """A new client, and whether a status is to be asked for. Raises Refusal."""
        host = address.rpartition(":")[0]
        kept = self._kept()
        if wish.since is not None:
            cursor = shown = self._cursor(wish, kept)
        else:
            # From the status on that it gets first, so that its numbers rise.
            status = kept.status if STATUS in wish.kinds else None
            cursor, shown = (status.id if status else kept.last), 0
        client = Client(host, address or "a client on the unix socket", wish, cursor, shown)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = self.most if limit == resource.RLIM_INFINITY else min(self.most, limit // SHARE)
        most_of_one = self.most_of_one if host else min(self.most_of_one, LOCAL)
        with self._changed:
            if self.stopped:
                raise Refusal(503, "the agent ends")
            wait = ("retry-after", "10")
            if len(self._clients) >= most:
                raise Refusal(429, f"{most} clients follow: see events_max_clients", wait)
            if self._hosts[host] >= most_of_one:
                raise Refusal(
                    429,
                    f"{most_of_one} clients follow from {host or 'the unix socket'}: see"
                    " events_max_clients_per_address",
                    wait,
                )
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="events", daemon=True)
                thread.start()  # raises where there can be no more threads
                self._thread = thread
            self._clients[client] = None
            self._hosts[host] += 1
            waits = STATUS in wish.kinds and kept.status is None and not self._asked
            self._asked |= waits
        return client, waits

    def _attach(self, client: Client, outlet: Outlet) -> None:
        client.pulse = min(client.pulse, outlet.pulse)
        client.outlet = outlet
        outlet.watch(partial(self._remove, client))
        with self._changed:
            if not client.open:  # it has gone, or we end
                outlet.end()
            self._wake()

    def _remove(self, client: Client) -> None:
        with self._changed:
            client.open = False
            if client not in self._clients:
                return
            del self._clients[client]
            self._hosts[client.host] -= 1
            if not self._hosts[client.host]:
                del self._hosts[client.host]

    def _wake(self) -> None:
        """Has the thread look at its clients. The lock is held."""
        self._news = True
        self._changed.notify()

    def _run(self) -> None:
        pause: float | None = None
        while True:
            with self._changed:
                if not self._news:
                    self._changed.wait(pause)
                self._news = False
                if self.stopped:
                    return
                clients = [client for client in self._clients if client.outlet is not None]
            try:
                pause = self._round(clients)
            except Exception:
                log.exception("events were not sent")
                pause = LATEST

    def _round(self, clients: Sequence[Client]) -> float | None:
        """Sends everybody what is due; seconds until the next time, None where there is none."""
        kept = self._kept()
        portions: dict[tuple[frozenset[str], int, bool], Portion] = {}
        pause = math.inf
        now = time.monotonic()
        sent = 0
        for client in clients:
            if not client.open:
                continue
            pause = min(pause, self._serve(client, kept, portions, now))
            sent += client.sent == now
            if sent == SLICE:
                time.sleep(PAUSE)
                now = time.monotonic()
                sent = 0
        if sent:  # or whether there is room would be asked before it is filled
            time.sleep(PAUSE)
        pause = min(pause, self._log(now))
        return None if pause == math.inf else pause

    def _serve(
        self,
        client: Client,
        kept: Kept,
        portions: dict[tuple[frozenset[str], int, bool], Portion],
        now: float,
    ) -> float:
        """Sends one client what is due; seconds until something is due again at the latest."""
        status = kept.status
        if status is not None and not (status.id > client.shown and client.due(status.at)):
            status = None
        key = client.kinds, client.cursor, status is not None
        portion = portions.get(key)
        if portion is None:
            portion = portions[key] = kept.portion(client.kinds, client.cursor, status)
        text = portion.text
        if not text and client.blocked is None:
            client.cursor = portion.cursor
            left = client.sent + client.pulse - now
            if left > 0:
                return max(left, TOGETHER)
            text = COMMENT + REACHED % client.cursor
        outlet = client.outlet
        assert outlet is not None
        if not outlet.ready():
            return self._wait(client, outlet, now)
        client.blocked = None
        if client.first:
            text = FIRST + REACHED % client.cursor + portion.text
        if text:
            try:
                outlet.send(text)
            except Gone:
                self._remove(client)
                return math.inf
            client.first = False
            client.sent = now
        client.cursor = portion.cursor
        if portion.shown and status is not None:
            client.shown, client.status = portion.shown, status.at
        return SOONEST if portion.more else client.pulse

    def _wait(self, client: Client, outlet: Outlet, now: float) -> float:
        """Waits for a client, or drops it; seconds until it is to be looked at again."""
        if client.blocked is None:
            client.blocked = now
        since = now - client.blocked
        if since < STALLED:
            return min(max(since / 4, SOONEST), LATEST)
        self._remove(client)
        outlet.cut()
        self.dropped += 1
        if self._unlogged or now - self._logged < QUIET:
            self._unlogged += 1
        else:
            text = "dropped a slow reader of events, %s: it took nothing for %.0f s"
            log.warning(text, client.address, since)
            self._logged = now
        return math.inf

    def _log(self, now: float) -> float:
        """Tells of the clients that were dropped after the last that was told of; seconds until
        that is due."""
        if not self._unlogged:
            return math.inf
        left = self._logged + QUIET - now
        if left > 0:
            return left
        text = "dropped %d more slow readers of events: they took nothing for %.0f s"
        log.warning(text, self._unlogged, STALLED)
        self._logged, self._unlogged = now, 0
        return math.inf


def frame(kind: str, number: int, data: bytes) -> bytes:
    """An event as it is sent."""
    return b"event: %s\nid: %d\ndata: %s\n\n" % (kind.encode(), number, data)


def gap(cursor: int, floor: int) -> Event:
    """Says that of the events after one number and up to another none is known any more."""
    data = b'{"after_unix_ms":%d,"until_unix_ms":%d}' % (cursor, floor)
    return Event(floor, "gap", frame("gap", floor, data), 0)


def parse(query: str, last_event_id: str | None) -> Wish:
    """What a query and the header of a client that comes back ask for. Raises Refusal."""
    try:
        given = parse_qs(query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise Refusal(400, "more than 100 parameters") from None
    for name, values in given.items():
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise Refusal(400, f"{name[:60]}: unknown parameter; there are {known}")
        if len(values) > 1:
            raise Refusal(400, f"{name}: given more than once")
    texts = {name: values[0] for name, values in given.items()}
    follow = texts.get("follow", "true")
    if follow not in ("true", "false"):
        raise Refusal(400, f"follow: {follow[:60]!r} is neither true nor false")
    kinds = _kinds(texts.get("kinds"), follow == "true")
    interval = 0.0
    if (text := texts.get("interval")) is not None:
        interval = _interval(text)
        if STATUS not in kinds:
            raise Refusal(400, "interval: it is that of status, which is not asked for")
    since = None
    resumes = bool(last_event_id)
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 16):
            raise Refusal(400, f"Last-Event-ID: {last_event_id[:60]!r} is no number of an event")
        since = int(last_event_id)
    elif (text := texts.get("since")) is not None:
        try:
            since = parse_time("since", text)
        except SelectError as error:
            raise Refusal(400, str(error)) from None
    return Wish(kinds, interval, since, resumes, follow == "true")


def _kinds(text: str | None, follow: bool) -> frozenset[str]:
    if text is None:
        return frozenset(KINDS if follow else KEPT)
    chosen = [kind.strip() for kind in text.split(",")]
    for kind in chosen:
        if kind not in KINDS:
            raise Refusal(400, f"kinds: {kind[:60]!r} is unknown; there are {', '.join(KINDS)}")
    if not follow and STATUS in chosen:
        raise Refusal(400, "kinds: status is not kept, see /status; there are gpu, degradation")
    return frozenset(chosen)


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 86400:
        raise Refusal(400, f"interval: {text[:60]!r} is no number of seconds above 0, up to 86400")
    return seconds
