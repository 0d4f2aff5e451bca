"""The routes and their answers, without a server."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import msgspec
import pytest
import zstandard
from isal import isal_zlib

from esnode.agent import Agent
from esnode.config import Arguments, load
from esnode.http.response import Response
from tests.running import series

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Request(NamedTuple):
    """What a server hands over."""

    path: str
    query_string: str
    method: str
    headers: dict[str, str]


class Client:
    """Asks an agent's application without a server between them."""

    def __init__(self, **values: object) -> None:
        settings = load(Arguments(config="/dev/null"), {})
        settings = msgspec.structs.replace(
            settings, config=msgspec.structs.replace(settings.config, **values)
        )
        self.agent = Agent(settings)

    def read(self) -> None:
        """One tick."""
        self.agent.read()

    def get(self, target: str = "/metrics", method: str = "GET", **headers: str) -> Response:
        path, _, query = target.partition("?")
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        answers: list[Response] = []
        answered = threading.Event()

        def respond(response: Response) -> None:
            answers.append(response)
            answered.set()

        self.agent.application(Request(path, query, method, named), respond)
        assert answered.wait(5)
        (answer,) = answers
        return answer


@pytest.fixture(scope="module")
def client() -> Client:
    """An agent that has read once, and whose readings stay fresh."""
    client = Client(scrape_max_age_seconds=3600, scrape_interval_seconds=3600)
    client.read()
    return client


def collectors(response: Response) -> set[str]:
    """Whose rows are on a page."""
    text = response.body.decode()
    marks = {
        "esnode_node_info": "node",
        "esnode_cpu_": "cpu",
        "esnode_memory_total_bytes": "memory",
        "esnode_disk_": "disk",
        "esnode_network_": "network",
        "esnode_agent_build_info": "agent",
    }
    return {name for mark, name in marks.items() if f"\n{mark}" in f"\n{text}"}


EVERYTHING = {"node", "cpu", "memory", "disk", "network", "agent"}


def test_the_page_in_each_format(client: Client) -> None:
    text = client.get()
    assert text.status == 200
    assert dict(text.headers)["content-type"] == TEXT
    assert collectors(text) == EVERYTHING
    openmetrics = client.get(accept="application/openmetrics-text; version=1.0.0")
    assert dict(openmetrics.headers)["content-type"] == OPENMETRICS
    assert openmetrics.body.endswith(b"\n# EOF\n")
    assert b"# TYPE esnode_agent_scrapes counter\n" in openmetrics.body
    assert set(series(openmetrics.body)) == set(series(text.body))


def test_an_encoded_page_is_the_same_page(client: Client) -> None:
    plain = client.get()
    assert "content-encoding" not in dict(plain.headers)
    for encoding, decode in (
        ("gzip", lambda body: isal_zlib.decompress(body, wbits=31)),
        ("zstd", zstandard.ZstdDecompressor().decompress),
    ):
        response = client.get(accept_encoding=encoding)
        assert dict(response.headers)["content-encoding"] == encoding
        assert "accept-encoding" in dict(response.headers)["vary"]
        assert decode(response.body) == plain.body
        # Compressed once.
        assert client.get(accept_encoding=encoding).body is response.body


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("collect[]=cpu", {"cpu"}),
        ("collect%5B%5D=cpu&collect[]=memory&unrelated=1", {"cpu", "memory"}),
        ("collect[]=agent", {"agent"}),
        ("exclude[]=cpu", EVERYTHING - {"cpu"}),
        ("exclude[]=cpu&exclude[]=agent&exclude[]=disk", {"node", "memory", "network"}),
        ("unrelated=1", EVERYTHING),
        ("", EVERYTHING),
    ],
)
def test_collectors_are_chosen(query: str, expected: set[str], client: Client) -> None:
    assert collectors(client.get(f"/metrics?{query}")) == expected


@pytest.mark.parametrize(
    "query",
    ["collect[]=cp", "exclude[]=cp", "collect[]=", "collect[]=CPU", "collect[]=%ff%00",
     "collect[]=cpu&exclude[]=memory", "collect[]=cpu&collect[]=nothing"],
)  # fmt: skip
def test_a_wrong_choice_is_400_with_the_names(query: str, client: Client) -> None:
    response = client.get(f"/metrics?{query}")
    assert response.status == 400
    assert b"node, cpu, numa, memory, disk, network, infiniband, power, hwmon" in response.body


def test_a_disabled_collector() -> None:
    client = Client(enable_memory=False)
    client.read()
    assert client.get("/metrics?collect[]=memory").status == 400
    assert client.get("/metrics?exclude[]=memory").status == 200
    values = series(client.get().body)
    assert values['esnode_agent_collector_disabled{collector="memory"}'] == 1
    assert values['esnode_agent_collector_disabled{collector="cpu"}'] == 0
    assert not [name for name in values if name.startswith("esnode_memory_")]


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz"])
def test_methods(path: str, client: Client) -> None:
    assert client.get(path).status == 200
    assert client.get(path, "HEAD").status == 200
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", ""):
        response = client.get(path, method)
        assert response.status == 405
        assert dict(response.headers)["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "//", "", "/\0", "/../etc/passwd", "*"])
def test_an_unknown_path_is_404(path: str, client: Client) -> None:
    assert client.get(path).status == 404
    assert client.get(path, "POST").status == 404


def test_the_index_names_the_version_and_links_the_rest(client: Client) -> None:
    response = client.get("/")
    text = response.body.decode()
    assert dict(response.headers)["content-type"].startswith("text/html")
    assert client.agent.application.version in text
    for path in ("metrics", "healthz", "readyz"):
        assert f'href="{path}"' in text


def test_metrics_can_be_turned_off() -> None:
    client = Client(enable_metrics=False)
    client.read()
    response = client.get()
    assert response.status == 404
    assert b"enable_metrics" in response.body
    assert client.get("/healthz").status == 200


def test_readiness_and_health_before_and_after_the_first_tick() -> None:
    client = Client()
    assert client.get("/readyz").status == 503
    assert client.get("/healthz").status == 503
    client.read()
    assert client.get("/readyz").status == 200
    assert client.get("/healthz").status == 200


def test_health_is_lost_after_three_missed_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(scrape_interval_seconds=10)
    client.read()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 29)
    assert client.get("/healthz").status == 200
    monkeypatch.setattr(time, "monotonic", lambda: now + 31)
    response = client.get("/healthz")
    assert response.status == 503
    assert b"host lane" in response.body
    assert b"31." in response.body


def test_health_is_only_about_the_host_lane() -> None:
    flags = ("cpu", "memory", "network", "disk", "power", "gpu")
    client = Client(**{f"enable_{name}": False for name in flags})
    assert client.get("/healthz").status == 200
    assert client.get("/readyz").status == 200


@pytest.mark.parametrize(
    ("wait", "header", "least", "most"),
    [
        (0.1, None, 0.1, 0.3),
        (0.1, "10", 0.1, 0.3),
        (10, "0.2", 0.1, 0.3),
        (0.1, "nonsense", 0.1, 0.3),
        (0.1, "nan", 0.1, 0.3),
        (0.1, "-1", 0.1, 0.3),
        (0, "10", 0, 0.05),
    ],
)
def test_a_scrape_waits_no_longer_than_half_of_its_time(
    wait: float, header: str | None, least: float, most: float
) -> None:
    client = Client(scrape_max_age_seconds=0, scrape_wait_seconds=wait)
    client.read()  # no thread reads after this: every scrape waits for nothing
    rung = threading.Event()

    def alarm(seconds: float) -> None:
        if seconds:
            timer = threading.Timer(seconds, lambda: (client.agent.store.expire(), rung.set()))
            timer.daemon = True
            timer.start()

    client.agent.store.alarm = alarm
    headers = {} if header is None else {"x_prometheus_scrape_timeout_seconds": header}
    start = time.monotonic()
    response = client.get(**headers)
    waited = time.monotonic() - start
    assert response.status == 200
    assert collectors(response) == EVERYTHING
    assert least <= waited < most


def test_a_fault_is_500_and_says_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*unused: object) -> None:
        raise RuntimeError("the secret of the fault")

    monkeypatch.setattr(client.agent.store, "page", fail)
    response = client.get()
    assert response.status == 500
    assert b"secret" not in response.body
    assert "the secret of the fault" in caplog.text
