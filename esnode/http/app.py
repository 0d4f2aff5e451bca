"""The RSGI application: routes and answers. Handlers read the store and sample nothing."""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol
from urllib.parse import parse_qsl

from ..config import Config
from ..store import Store
from . import negotiate

log = logging.getLogger(__name__)

Headers = list[tuple[str, str]]

TEXT_PLAIN = ("content-type", "text/plain; charset=utf-8")
NO_STORE = ("cache-control", "no-store")


class Request(Protocol):
    """What we use of RSGI's scope."""

    method: str
    path: str
    query_string: str
    headers: Any


class Answer(Exception):
    """An answer other than a page; raised from anywhere in a handler."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status = status
        self.text = text + "\n"
        self.headers = [TEXT_PLAIN, NO_STORE, *headers]


class Application:
    """``GET`` and ``HEAD`` of a few paths; anything else is 404 or 405."""

    def __init__(
        self, store: Store, config: Config, version: str, collectors: dict[str, bool]
    ) -> None:
        self.store = store
        self.config = config
        self.version = version
        #: Collectors by name, and whether they are enabled.
        self.collectors = collectors
        self.scrapes = 0
        self.routes: dict[str, Callable[[Request], Awaitable[tuple[Headers, bytes]]]] = {
            "/": self.index,
            "/metrics": self.metrics,
            "/healthz": self.healthz,
            "/readyz": self.readyz,
        }

    async def __call__(self, scope: Request, protocol: Any) -> None:
        try:
            handler = self.routes.get(scope.path)
            if handler is None:
                raise Answer(404, "not found; see / for what there is")
            if scope.method not in ("GET", "HEAD"):
                raise Answer(405, "only GET and HEAD", ("allow", "GET, HEAD"))
            status = 200
            headers, body = await handler(scope)
        except Answer as answer:
            status, headers, body = answer.status, answer.headers, answer.text.encode()
        except Exception:
            log.exception("%s %s", scope.method, scope.path)
            status, headers, body = 500, [TEXT_PLAIN], b"internal error; see the log\n"
        if scope.method == "HEAD":
            headers = [*headers, ("content-length", str(len(body)))]
            protocol.response_empty(status, headers)
        else:
            protocol.response_bytes(status, headers, body)

    async def metrics(self, request: Request) -> tuple[Headers, bytes]:
        """The page of metrics: fresh, or as fresh as it can be had in time."""
        if not self.config.enable_metrics:
            raise Answer(404, "metrics are turned off: enable_metrics is false")
        get = request.headers.get
        wanted = self.selection(request.query_string) if request.query_string else None
        lanes = None
        if wanted is not None:
            lanes = [
                lane.sampler.name
                for lane in self.store.lanes.values()
                if any(part.name in wanted for part in lane.sampler.parts)
            ]
        await self.store.refresh(patience(get("x-prometheus-scrape-timeout-seconds")), lanes)
        self.scrapes += 1
        dialect = negotiate.dialect(get("accept") or "")
        encoding = negotiate.encoding(get("accept-encoding") or "")
        headers = [
            ("content-type", dialect.content_type),
            ("vary", "accept, accept-encoding"),
            NO_STORE,
        ]
        if encoding != "identity":
            headers.append(("content-encoding", encoding))
        return headers, self.store.page(dialect, wanted).encoded(encoding)

    def selection(self, query: str) -> Collection[str] | None:
        """The collectors that ``collect[]`` or ``exclude[]`` leave; None for all of them."""
        pairs = parse_qsl(query, keep_blank_values=True)
        chosen = [value for name, value in pairs if name == "collect[]"]
        left_out = [value for name, value in pairs if name == "exclude[]"]
        known = ", ".join(self.collectors)
        if chosen and left_out:
            raise Answer(400, f"collect[] and exclude[] exclude each other; collectors: {known}")
        for name in (*chosen, *left_out):
            if name not in self.collectors:
                raise Answer(400, f"unknown collector {name!r}; collectors: {known}")
        for name in chosen:
            if not self.collectors[name]:
                raise Answer(400, f"collector {name!r} is disabled; collectors: {known}")
        if chosen:
            return set(chosen)
        return set(self.collectors) - set(left_out) if left_out else None

    async def healthz(self, request: Request) -> tuple[Headers, bytes]:
        """Whether the host lane ticks. Nothing else makes the agent unhealthy."""
        host = self.store.lanes.get("host")
        if host is not None:
            now = time.monotonic()
            if host.missing(now):
                age = host.age(now)
                since = "at all" if age is None else f"for {age:.1f} s"
                raise Answer(503, f"the host lane has not been read {since}")
        return [TEXT_PLAIN, NO_STORE], b"ok\n"

    async def readyz(self, request: Request) -> tuple[Headers, bytes]:
        """Whether every lane has been read once."""
        waiting = [name for name, lane in self.store.lanes.items() if lane.snapshot is None]
        if waiting:
            raise Answer(503, f"not read yet: {', '.join(waiting)}")
        return [TEXT_PLAIN, NO_STORE], b"ok\n"

    async def index(self, request: Request) -> tuple[Headers, bytes]:
        """A page that names the version and links the rest."""
        version = html.escape(self.version)
        links = "".join(
            f'<li><a href="{path}">{path}</a></li>' for path in self.routes if path != "/"
        )
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            f"<title>ESNODE-Core</title><h1>ESNODE-Core {version}</h1><ul>{links}</ul></html>\n"
        )
        return [("content-type", "text/html; charset=utf-8"), NO_STORE], page.encode()


def patience(header: str | None) -> float:
    """How long a scraper lets us wait: half of the time it waits for us."""
    try:
        seconds = float(header or "inf")
    except ValueError:
        return float("inf")
    return seconds / 2 if seconds > 0 else float("inf")
