"""The RSGI application: routes and answers. Handlers read the store and sample nothing."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection
from functools import lru_cache, partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from ..config import Config
from ..dialects import Dialect
from ..store import Page, Store
from . import events, export, negotiate, page
from .response import LONGEST, NO_STORE, TEXT_PLAIN, Headers, Refusal, Request, Respond, Response

if TYPE_CHECKING:  # loaded only where there is a web configuration
    from ..web import Web
    from .access import Access

log = logging.getLogger(__name__)

#: Seconds after which a first reading is not waited for any more.
HANGS = 5.0


class Application:
    """``GET`` and ``HEAD`` of a few paths; anything else is 404 or 405.

    Handlers do not block: all requests share a thread.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        version: str,
        collectors: dict[str, bool],
        history: export.Open | None = None,
    ) -> None:
        self.store = store
        self.config = config
        self.version = version
        #: Collectors by name, and whether they are enabled.
        self.collectors = collectors
        #: Has one function called with the document of /status, or another when it cannot be made,
        #: now or later.
        self.document: Callable[[Callable[[bytes], None], Callable[[], None]], None]
        #: Has a function called with what /recent answers.
        self.recent: Callable[[Callable[[bytes], None]], None]
        self.scrapes = 0
        #: Who may ask; None: everybody.
        self.access: Access | None = None
        #: Headers of every answer, and the rest of those of a page for a browser.
        self.headers, self.html_headers = security(())
        self.exports = export.Exports(history)
        self.streams = events.Streams(
            config.events_max_clients,
            config.events_max_clients_per_address,
            config.scrape_interval_seconds,
        )
        self.routes: dict[str, Callable[[Request, Respond], None]] = {
            "/": self.index,
            "/metrics": self.metrics,
            "/status": self.status,
            "/v1/status": self.status,
            "/recent": self.last_minutes,
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            export.PATH: self.exports.handle,
            events.PATH: self.streams.handle,
        }
        paths = [path for path in self.routes if path not in ("/", "/v1/status")]
        #: The page for people, compressed at most once for each encoding.
        self.page = Page(page.document(version, paths), 0)

    def configure(self, config: Config, collectors: dict[str, bool]) -> None:
        """Takes another configuration; any thread may call it."""
        self.config = config
        self.collectors = collectors
        self.streams.most = config.events_max_clients
        self.streams.most_of_one = config.events_max_clients_per_address
        self.streams.tick = config.scrape_interval_seconds

    def __call__(self, request: Request, respond: Respond) -> None:
        """Handles a request: responds now, or later from another thread."""
        if self.access is not None and request.path != OPEN:
            go = partial(guard, respond, self.handle, request, respond)
            guard(respond, self.access.check, request, respond, go)
        else:
            guard(respond, self.handle, request, respond)

    def protect(self, web: Web) -> None:
        """Takes over a web configuration: who may ask, and headers."""
        from .access import Access

        self.headers, self.html_headers = security(web.headers)
        if not (web.users or web.tokens):
            self.access = None
        elif self.access is not None:
            self.access.take(web)
        else:
            self.access = Access(web)

    def handle(self, request: Request, respond: Respond) -> None:
        """Finds the handler of a request and calls it. Raises Refusal."""
        handler = self.routes.get(request.path)
        if handler is None:
            raise Refusal(404, "not found; see / for what there is")
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, "only GET and HEAD", ("allow", "GET, HEAD"))
        handler(request, respond)

    def stop(self) -> None:
        """Ends the answers that take long."""
        self.exports.stop()
        self.streams.stop()

    def metrics(self, request: Request, respond: Respond) -> None:
        """The page of metrics: fresh, or as fresh as it can be had in time."""
        if not self.config.enable_metrics:
            raise Refusal(404, "metrics are turned off: enable_metrics is false")
        get = request.headers.get
        wanted = self.selection(request.query_string) if request.query_string else None
        lanes = None
        if wanted is not None:
            lanes = [
                name
                for name, entry in self.store.lanes.items()
                if any(part.name in wanted for part in entry.lane.parts)
            ]
        # Cut, for what was parsed is remembered; a scraper's header has some 300 letters.
        dialect = negotiate.dialect((get("accept") or "")[:LONGEST])
        encoding = negotiate.encoding((get("accept-encoding") or "")[:LONGEST])
        self.scrapes += 1

        def answer() -> None:
            page = self.store.page(dialect, wanted)
            respond(Response(200, page_headers(dialect, encoding), page.encoded(encoding)))

        self.store.fresh(
            partial(guard, respond, answer),
            patience((get("x-prometheus-scrape-timeout-seconds") or "")[:LONGEST]),
            lanes,
        )

    def selection(self, query: str) -> Collection[str] | None:
        """The collectors that ``collect[]`` or ``exclude[]`` leave; None for all of them."""
        pairs = parse_qsl(query, keep_blank_values=True)
        chosen = [value for name, value in pairs if name == "collect[]"]
        left_out = [value for name, value in pairs if name == "exclude[]"]
        known = ", ".join(self.collectors)
        if chosen and left_out:
            raise Refusal(400, f"collect[] and exclude[] exclude each other; collectors: {known}")
        for name in (*chosen, *left_out):
            if name not in self.collectors:
                raise Refusal(400, f"unknown collector {name!r}; collectors: {known}")
        for name in chosen:
            if not self.collectors[name]:
                raise Refusal(400, f"collector {name!r} is disabled; collectors: {known}")
        if chosen:
            return set(chosen)
        return set(self.collectors) - set(left_out) if left_out else None

    def status(self, request: Request, respond: Respond) -> None:
        """The document of the newest tick."""
        self.document(lambda data: respond(Response(200, JSON, data)), lambda: respond(FAULT))

    def healthz(self, request: Request, respond: Respond) -> None:
        """Whether the host lane ticks. Nothing else makes the agent unhealthy."""
        host = self.store.lanes.get("host")
        if host is not None:
            now = time.monotonic()
            if host.missing(now):
                age = host.age(now)
                since = "yet" if math.isinf(age) else f"for {age:.1f} s"
                raise Refusal(503, f"the host lane has not been read {since}")
        respond(OK)

    def readyz(self, request: Request, respond: Respond) -> None:
        """Whether every lane has been read once, or hangs in its first reading."""
        now = time.monotonic()
        waiting = [
            name
            for name, entry in self.store.lanes.items()
            if entry.snapshot is None
            and not entry.lane.derived
            and now - (entry.lane.reading_since or now) < HANGS
        ]
        if waiting:
            raise Refusal(503, f"not read yet: {', '.join(waiting)}")
        respond(OK)

    def last_minutes(self, request: Request, respond: Respond) -> None:
        """The last 15 minutes of what the page charts."""
        encoding = negotiate.encoding_of(request)
        headers = negotiate.headers(encoding, *JSON)
        self.recent(lambda data: respond(Response(200, headers, Page(data, 0).encoded(encoding))))

    def index(self, request: Request, respond: Respond) -> None:
        """The page for people, with links to the rest."""
        encoding = negotiate.encoding_of(request)
        policy = ("content-security-policy", page.source().policy)
        # A policy of the operator's own stays.
        others = [policy if pair[0] == policy[0] else pair for pair in self.html_headers]
        headers = negotiate.headers(encoding, HTML, NO_STORE, *others)
        respond(Response(200, headers, self.page.encoded(encoding)))


HTML = ("content-type", "text/html; charset=utf-8")

#: What a probe may ask without credentials.
OPEN = "/healthz"

#: The server's name without its version, and no guessing of types.
HEADERS = (("server", "esnode-core"), ("x-content-type-options", "nosniff"))
#: A page loads nothing, is in no frame and tells no other page of itself.
HTML_HEADERS = (
    (
        "content-security-policy",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-frame-options", "deny"),
    ("referrer-policy", "no-referrer"),
)

JSON = [("content-type", "application/json"), NO_STORE]
OK = Response(200, [TEXT_PLAIN, NO_STORE], b"ok\n")
FAULT = Response(500, [TEXT_PLAIN, NO_STORE], b"internal error; see the log\n")


def guard(respond: Respond, function: Callable[..., None], *arguments: object) -> None:
    """Calls a function that is to respond, and responds for it when it raises."""
    try:
        function(*arguments)
    except Refusal as refusal:
        respond(refusal.response)
    except Exception:
        log.exception("a request failed")
        respond(FAULT)


def security(set: Collection[tuple[str, str]]) -> tuple[Headers, Headers]:
    """The headers of all answers and of pages for a browser; those that were ``set`` come first."""
    names = {name for name, _ in set}
    common = [*(pair for pair in HEADERS if pair[0] not in names), *set]
    return common, [pair for pair in HTML_HEADERS if pair[0] not in names]


@lru_cache
def page_headers(dialect: Dialect, encoding: str) -> Headers:
    """The headers of a page of metrics."""
    content = ("content-type", dialect.content_type)
    return negotiate.headers(encoding, content, NO_STORE, vary="accept, accept-encoding")


@lru_cache
def patience(header: str | None) -> float:
    """How long a scraper lets us wait: half of the time it waits for us."""
    try:
        seconds = float(header or "inf")
    except ValueError:
        return math.inf
    return seconds / 2 if seconds > 0 else math.inf
