"""The page at ``/`` in a real browser: what it shows, loses, finds again, and how it reads."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from esnode.status import Status

from . import browser, fakenvml, running
from .browser import CHROMIUM, Browser, Page, until
from .fakenvml import Fake, Mig
from .http.stage import Stage
from .nodes import HOSTILE

DASH = "\u2013"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

LIVE = "document.querySelector('[data-v=link]').innerText === 'Live'"
#: Where axe.min.js of the npm package axe-core is, to have it look at the page, too.
AXE = os.environ.get("ESNODE_AXE", "")

XID = {
    "unix_ms": 0,
    "kind": "xid",
    "gpu": "1",
    "uuid": "GPU-1",
    "pci_bus_id": "0000:2a:00.0",
    "code": 79,
    "meaning": "GPU has fallen off the bus",
    "action": "reset the GPU",
    "text": "NVRM: Xid 79",
    "source": "driver",
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Page]:
    page = chromium.page()
    yield page
    page.close()


def show(page: Page, stage: Stage) -> None:
    """Opens the page, and waits until it is live and has its charts."""
    page.open(stage.address)
    page.wait(LIVE)
    page.wait(
        "document.querySelector('[data-chart=cpu_util_percent] path.first').hasAttribute('d')"
    )


def card(page: Page, number: int) -> str:
    text = page.run(f"document.querySelectorAll('.card')[{number}].innerText")
    assert isinstance(text, str)
    return text.replace("\u00a0", " ")


def texts(page: Page) -> str:
    """All that the page says, also where it is folded."""
    text = page.run("document.body.textContent.replaceAll(document.scripts[0].textContent, '')")
    assert isinstance(text, str)
    return text.replace("\u00a0", " ")


def is_narrow(page: Page) -> bool:
    """Whether all of the page can be read without moving it sideways."""
    return bool(page.run("document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize(("gpus", "mig"), [(0, 0), (8, 0), (16, 7)])
def test_the_values_of_a_node(gpus: int, mig: int, tab: Page) -> None:
    patch = {"cpu_util_percent": 41.6, "mem_used_bytes": 3 << 38, "mem_total_bytes": 1 << 40}
    with Stage(show={"gpus": gpus, "mig": mig, "patch": patch}) as stage:
        show(tab, stage)
        assert tab.text("h1") == "dgx-07"
        assert tab.text("[data-v=cpu]") == "42\u00a0%"
        assert tab.text("[data-v=memory_more]").startswith("768\u00a0GiB of 1.0\u00a0TiB")
        assert tab.run("document.querySelectorAll('.card').length") == gpus
        more = tab.text("[data-v=gpus_more]")
        assert more.startswith(f"{gpus} of {gpus} up" if gpus else "No GPU")
        if gpus:
            assert "of 700 W" in card(tab, gpus - 1)
            assert "of 80.0 GiB" in card(tab, gpus - 1)
        if mig:
            assert f"{mig} MIG instances" in card(tab, 3)
            tab.run("document.querySelector('[data-v=unfold]').click()")
            assert tab.run("document.querySelectorAll('.mig tbody tr').length") == gpus * mig
            assert "1g.10gb" in card(tab, gpus - 1)
        stage.tell(show={"gpus": max(gpus - 1, 0), "patch": {"cpu_util_percent": 7.25}})
        tab.wait("document.querySelector('[data-v=cpu]').innerText.startsWith('7.')")
        assert tab.run("document.querySelectorAll('.card').length") == max(gpus - 1, 0)
        assert tab.complaints == []


def test_it_opens_with_the_last_15_minutes(tab: Page) -> None:
    with Stage(show={"gpus": 2, "past": 180}) as stage:
        show(tab, stage)
        places = """[...document.querySelectorAll('%s path.first')].map(path =>
            [path.getBBox().x, path.getBBox().width])"""
        for selector in (".tile", ".card"):
            tab.wait(f"document.querySelector('{selector}').scrollIntoView() || true")
            tab.wait(f"{places % selector}.some(([x, width]) => x < 2 && width > 295)")


def test_a_clock_that_is_put_back_does_not_stop_the_charts(tab: Page) -> None:
    path = "document.querySelector('[data-chart=cpu_util_percent] path.first').getAttribute('d')"
    with Stage(show={"gpus": 1, "past": 180, "ahead": 3600}) as stage:
        show(tab, stage)
        tab.wait(f"{path}.length > 500")
        stage.tell(show={"gpus": 1})
        tab.wait(f"{path}.length < 50 && {path}.startsWith('M300 ')")
        assert tab.complaints == []


def test_a_tab_that_nobody_sees_draws_once_when_it_is_seen_again(
    tab: Page, chromium: Browser
) -> None:
    with Stage(show={"gpus": 1, "past": 20}) as stage:
        show(tab, stage)
        other = chromium.page()
        other.ask("Page.bringToFront")
        tab.wait("document.hidden")
        tab.run("frames_asked = 0; requestAnimationFrame = () => { frames_asked++; }")
        for minute in range(1, 6):  # a night has thousands, all of which the tab would draw at once
            stage.tell(show={"gpus": 1, "ahead": 60 * minute, "patch": {"cpu_cores": minute}})
        tab.wait("document.querySelector('[data-v=load]').innerText.startsWith('5 CPUs')")
        assert tab.run("frames_asked") <= 1
        other.close()


def test_a_tab_that_nobody_sees_leaves_its_place_to_others(tab: Page, chromium: Browser) -> None:
    with Stage(show={"gpus": 1, "patch": {"cpu_cores": 11}}, most=1) as stage:
        show(tab, stage)
        other = chromium.page()
        other.ask("Page.bringToFront")
        other.open(stage.address)
        other.wait("document.getElementById('lost').innerText.includes('it is refused')")
        tab.run("{ const now = Date.now, ahead = 60e3; Date.now = () => now() + ahead; }")
        other.wait(LIVE)
        other.close()
        stage.tell(show={"gpus": 1, "patch": {"cpu_cores": 12}})
        assert tab.text("[data-v=load]").startswith("11 CPUs")
        tab.ask("Page.bringToFront")
        tab.wait("document.querySelector('[data-v=load]').innerText.startsWith('12 CPUs')")
        tab.wait(LIVE)


def test_what_is_not_known_is_a_dash(tab: Page) -> None:
    keep = {"last_scrape_unix_ms", "schema_version", "mode", "healthy", "agent", "last_errors"}
    keep |= {"degradation_reasons", "tsdb", "managed", "orchestrator", "gpus"}
    patch = {key: None for key in Status.__struct_fields__ if key not in keep}
    with Stage(show={"gpus": 1, "patch": patch}) as stage:
        show(tab, stage)
        assert tab.text("[data-v=cpu]") == tab.text("[data-v=power]") == tab.text("h1") == DASH
        assert tab.text("[data-v=memory_more]") == f"{DASH} of {DASH} · swap {DASH} of {DASH}"
        assert tab.text("[data-v=verdict]") == "Not known yet"
        for word in ("NaN", "undefined", "null", "Infinity", "Invalid"):
            assert word not in texts(tab)
        ports = [{"device": "mlx5_0", "port": "1", "up": None}]
        patch |= {"interfaces": [{"iface": "eth0", "up": None}], "infiniband": ports}
        stage.tell(show={"gpus": 1, "patch": {**patch, "gpus": None}})
        tab.wait("document.querySelector('[data-v=gpus_more]').innerText.includes('not read')")
        assert tab.text("[data-v=net_more]").endswith(f"{DASH} of 1 interface up")
        assert tab.text("[data-v=ib_more]") == f"{DASH} of 1 port active"
        patch["interfaces"] = [{"iface": "lo", "up": None}, {"iface": "eth0", "up": True}]
        stage.tell(show={"gpus": 1, "patch": {**patch, "gpus": None}})
        tab.wait(
            "document.querySelector('[data-v=net_more]').innerText.endsWith('1 of 1 interface up')"
        )
        assert tab.complaints == []


def test_hostile_names_are_texts(tab: Page) -> None:
    with Stage(show={"gpus": 2, "mig": 2, "hostile": True}) as stage:
        show(tab, stage)
        stage.tell(send=["gpu", {**XID, "meaning": HOSTILE, "action": HOSTILE, "kind": HOSTILE}])
        labels = {HOSTILE: HOSTILE}
        stage.tell(send=["degradation", {"flag": HOSTILE, "labels": labels, "reason": HOSTILE}])
        tab.wait("document.querySelectorAll('.events li').length === 2")
        tab.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        time.sleep(0.3)
        assert tab.text("h1").startswith("<img src=x onerror=")
        assert tab.run("document.title").startswith("<img")
        counts = "['img', 'script', 'svg:not(.chart)', 'b:not([data-v])', 'iframe'].map("
        found = tab.run(f"{counts}each => document.querySelectorAll(each).length)")
        assert found == [0, 1, 0, 0, 0]
        tab.resize(390, 844)
        assert is_narrow(tab)
        assert tab.complaints == []


def test_what_is_not_ours_does_not_run(tab: Page) -> None:
    with Stage(show={"gpus": 0}) as stage:
        show(tab, stage)
        tab.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"bad=1\">')")
        assert until(lambda: any("Content Security Policy" in each for each in tab.complaints))
        assert tab.run("typeof bad") == "undefined"
        assert tab.run("fetch('https://example.com/').then(() => 1, () => 0)") == 0


def test_a_stream_that_is_lost_is_found_again(tab: Page) -> None:
    with Stage(show={"gpus": 1, "patch": {"cpu_cores": 11}}) as stage:
        show(tab, stage)
        stage.tell(send=["gpu", XID])
        tab.wait("document.querySelectorAll('.events li').length === 1")
        assert "GPU has fallen off the bus" in tab.text(".events")
        assert "What to do: reset the GPU" in tab.text(".events")
        tab.run("still = 1")
        stage.kill()
        tab.wait("!document.getElementById('lost').hidden")
        assert tab.text("[data-v=link]") == "Not live"
        assert "lost" in tab.text("#says")
        assert tab.text("[data-v=load]").startswith("11 CPUs")
        stage.first["show"] = {"gpus": 1, "patch": {"cpu_cores": 12}}
        stage.start()
        tab.wait(LIVE)
        tab.wait("document.querySelector('[data-v=load]').innerText.startsWith('12 CPUs')")
        assert tab.run("document.getElementById('lost').hidden")
        assert tab.run("still") == 1  # it was not loaded again
        stage.tell(send=["gpu", {**XID, "code": 48}])
        tab.wait("document.querySelectorAll('.events li').length >= 2")
        shown = tab.run(
            "[...document.querySelectorAll('.events li strong')].map(each => each.innerText)"
        )
        assert [text for text in shown if text.startswith("Xid")] == ["Xid 48", "Xid 79"]


def test_only_what_happens_is_told_as_news(tab: Page) -> None:
    """To a screen reader; whatever the clocks say."""
    with Stage(show={"gpus": 1}) as stage:
        stage.tell(send=["gpu", {**XID, "unix_ms": 4e12}])
        show(tab, stage)
        tab.wait("document.querySelectorAll('.events li').length === 1")
        assert tab.text("#says") == ""

        def is_told() -> bool:
            stage.tell(send=["gpu", XID])
            return "Xid 79" in tab.text("#says")

        assert until(is_told, pause=0.5)


def test_an_agent_that_was_restarted(tab: Page) -> None:
    """The charts keep what they had, and learn how far apart ticks are now."""
    path = "document.querySelector('[data-chart=cpu_util_percent] path.first').getAttribute('d')"
    asked = "performance.getEntriesByType('resource').filter(e => e.name.endsWith('/recent'))"
    with Stage(show={"gpus": 1, "past": 180}) as stage:
        show(tab, stage)
        tab.wait(f"{path}.length > 500")
        stage.kill()
        stage.first["show"] = {"gpus": 1, "patch": {"cpu_cores": 12}}
        stage.start()
        tab.wait("document.querySelector('[data-v=load]').innerText.startsWith('12 CPUs')")
        tab.wait(f"{asked}.length === 2")
        stage.tell(show={"gpus": 1, "ahead": 10, "patch": {"cpu_cores": 13}})
        tab.wait("document.querySelector('[data-v=load]').innerText.startsWith('13 CPUs')")
        tab.run("new Promise(requestAnimationFrame)")
        assert tab.run(f"{path}.length > 500")


def test_a_stream_that_is_refused_is_asked_for_again(tab: Page) -> None:
    with Stage(show={"gpus": 1, "patch": {"cpu_cores": 11}}, most=0) as stage:
        tab.open(stage.address)
        tab.wait("document.getElementById('lost').innerText.includes('it is refused')")
        assert tab.text("[data-v=quiet]") == DASH
        tab.wait("document.querySelector('[data-v=load]').innerText.startsWith('11 CPUs')")
        stage.tell(show={"gpus": 1, "patch": {"cpu_cores": 12}})
        tab.wait("document.querySelector('[data-v=load]').innerText.startsWith('12 CPUs')")
        stage.tell(most=10)
        tab.wait(LIVE)
        tab.wait("document.querySelector('[data-v=quiet]').innerText.startsWith('None since')")


def test_a_stream_that_is_silent_is_opened_anew(tab: Page) -> None:
    with Stage(show={"gpus": 1}) as stage:
        show(tab, stage)
        tab.run("{ const now = Date.now, ahead = 60e3; Date.now = () => now() + ahead; }")
        tab.wait("document.getElementById('says').innerText === 'Live again'")


def test_a_slow_network(tab: Page) -> None:
    limits: dict[str, Any] = {"offline": False, "latency": 300, "downloadThroughput": 40_000}
    tab.ask("Network.emulateNetworkConditions", uploadThroughput=20_000, **limits)
    with Stage(show={"gpus": 16, "mig": 7, "past": 180}) as stage:
        show(tab, stage)
        tab.wait("document.querySelectorAll('.card').length === 16")
        assert tab.complaints == []


@pytest.mark.parametrize(("width", "zoom"), [(320, 100), (390, 200), (1280, 200), (2560, 100)])
def test_it_fits_any_width(width: int, zoom: int, tab: Page) -> None:
    with Stage(show={"gpus": 16, "mig": 7, "past": 20}) as stage:
        tab.resize(width, 800)
        show(tab, stage)
        stage.tell(send=["gpu", XID])
        tab.run(f"document.documentElement.style.fontSize = '{zoom}%'")
        tab.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        tab.wait("document.querySelectorAll('.mig tbody tr').length === 112")
        assert is_narrow(tab)
        assert tab.run(SQUEEZED) == []
        # Nothing is cut off, but for what can be scrolled by keyboard.
        assert tab.run(CUT) == []


#: Values for which there are no six letters a line.
SQUEEZED = """[...document.querySelectorAll('.card dd:not(.spark)')].filter(each => each.clientWidth
    && each.clientWidth < 6 * parseFloat(getComputedStyle(each).fontSize))
    .map(each => each.outerHTML)"""

CUT = """[...document.querySelectorAll('body *')].filter(each =>
    each.clientWidth && each.scrollWidth > each.clientWidth + 1
    && getComputedStyle(each).overflowX !== 'auto' && getComputedStyle(each).overflowX !== 'visible'
    && !each.closest('.hidden, svg')).map(each => each.outerHTML.slice(0, 200))"""

#: The least contrast of texts against what is behind them (WCAG 2.2, 1.4.3).
CONTRAST = """(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = color => { const [r, g, b] = parse(color).map(each => {
    each /= 255; return each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = node => { for (; node; node = node.parentElement) {
    const color = getComputedStyle(node).backgroundColor;
    if ((parse(color)[3] ?? 1) > 0) return color; } return 'rgb(255, 255, 255)'; };
  let least = [99, ''];
  for (const node of document.querySelectorAll('body *')) {
    if (!node.checkVisibility() || ![...node.childNodes].some(each => each.data?.trim())) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least[0]) least = [ratio, node.outerHTML.slice(0, 100)];
  }
  return least;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_read_by_everybody(scheme: str, chromium: Browser) -> None:
    reasons = {"degradation_score": 5, "degradation_reasons": ["GPU 1: too hot"]}
    page = chromium.page(prefers_color_scheme=scheme)
    with Stage(show={"gpus": 4, "mig": 2, "past": 20, "patch": reasons}) as stage:
        show(page, stage)
        stage.tell(send=["gpu", XID])
        page.wait("document.querySelectorAll('.events li').length === 1")
        page.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        ratio, where = page.run(CONTRAST)
        assert ratio >= 4.5, where
        nodes = page.tree()
        roles = [node["role"]["value"] for node in nodes]
        for role in ("main", "banner", "contentinfo", "navigation"):
            assert roles.count(role) == 1, role
        assert browser.names(nodes, "navigation") == ["On this page"]
        assert {"State", "Node", "GPUs", "Recent events", "Agent"} <= {
            *browser.names(nodes, "region")
        }
        for role in ("region", "article", "button", "link", "table", "heading"):
            named = browser.names(nodes, role)
            assert role == "table" or all(named), role
        levels = page.run(
            "[...document.querySelectorAll('h1, h2, h3')].filter(each => each.checkVisibility())"
            ".map(each => Number(each.tagName[1]))"
        )
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(b - a <= 1 for a, b in pairwise(levels))
        live = (
            "[...document.querySelectorAll('[aria-live], [role=status], [role=log], [role=alert]')]"
        )
        assert page.run(f"{live}.length") == 1
        if AXE:
            page.run(f"{Path(AXE).read_text()}; 0")
            violations = page.run("axe.run().then(found => found.violations)")
            assert not violations, json.dumps(violations, indent=1)[:4000]
    page.close()


def test_the_keyboard_reaches_everything(tab: Page) -> None:
    with Stage(show={"gpus": 2, "mig": 2}) as stage:
        show(tab, stage)
        focus = "document.activeElement"
        tab.key("Tab", 9)
        assert tab.run(f"{focus}.className") == "skip"
        assert tab.run(f"{focus}.getBoundingClientRect().left") >= 0
        seen = set()
        for _ in range(60):
            tab.key("Tab", 9)
            seen.add(tab.run(f"{focus}.tagName + ' ' + {focus}.innerText"))
            style = tab.run(f"getComputedStyle({focus}).outlineStyle")
            assert style == "solid" or tab.run(f"{focus} === document.body")
        assert {text.split()[0] for text in seen} >= {"A", "SUMMARY", "BUTTON"}
        assert sum(text.startswith("SUMMARY More") for text in seen) == 1
        assert any("2 MIG instances" in text for text in seen)


def test_it_does_not_grow(tab: Page) -> None:
    with Stage(show={"gpus": 8, "mig": 7, "past": 180}) as stage:
        show(tab, stage)
        tab.run("document.querySelectorAll('details').forEach(each => each.open = true)")

        def after(ticks: int, first: int) -> dict[str, float]:
            for tick in range(ticks):
                stage.tell(show={"gpus": 8, "mig": 7, "tick": first + tick})
            stage.tell(show={"gpus": 8, "mig": 7, "patch": {"cpu_cores": first}})
            tab.wait(f"document.querySelector('[data-v=load]').innerText.startsWith('{first} ')")
            tab.ask("HeapProfiler.collectGarbage")
            return tab.figures()

        before, later = after(20, 100), after(60, 200)
        assert later["Nodes"] <= before["Nodes"] + 10
        assert later["JSEventListeners"] == before["JSEventListeners"]
        assert later["JSHeapUsedSize"] < before["JSHeapUsedSize"] + 1_000_000


@pytest.mark.skipif("ESNODE_SOAK" not in os.environ, reason="`make soak` watches it for an hour")
def test_it_does_not_grow_in_an_hour(
    tab: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(fakenvml.library(), tmp_path / "nvml")
    fake.set_gpus(["H100"] * 16)
    for name, text in fake.environment().items():
        monkeypatch.setenv(name, text)
    flags = ("--nvml-library", str(fakenvml.library()), "--scrape-interval", "1s")
    with running.Agent(*flags) as agent:
        tab.open(f"http://{agent.address}/")
        tab.wait(LIVE)
        figures, resident = [], []
        for quarter in range(4):  # the first 15 minutes fill the charts and the agent's ring
            for minute in range(15):
                for slot in range(16):
                    fake.gpu(slot).set("power_usage", 200_000 + 1000 * (quarter * 15 + minute))
                time.sleep(60)
            tab.ask("HeapProfiler.collectGarbage")
            figures.append(tab.figures())
            resident.append(agent.memory)
        assert figures[-1]["Nodes"] <= figures[0]["Nodes"] + 10
        assert figures[-1]["JSHeapUsedSize"] < figures[0]["JSHeapUsedSize"] + 1_000_000
        assert resident[-1] < resident[0] + (2 << 20)
        assert tab.run(LIVE) and tab.complaints == []


def test_the_page_of_a_real_agent(
    tab: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(fakenvml.library(), tmp_path / "nvml")
    fake.set_gpus(["H100"] * 8)
    for slot in range(8):
        fake.gpu(slot).set("power_usage", (200 + 50 * slot) * 1000)
    fake.gpu(2).mig([Mig("1g.10gb", 7), Mig("3g.40gb", 2, start=4)])
    for name, text in fake.environment().items():
        monkeypatch.setenv(name, text)
    flags = (
        "--nvml-library",
        str(fakenvml.library()),
        "--scrape-interval",
        "600s",
        "--enable-gpu-mig",
    )
    with running.Agent(*flags) as agent:
        tab.open(f"http://{agent.address}/")
        tab.wait(LIVE)
        status = json.loads(agent.get("/status").body)
        assert tab.text("h1") == status["hostname"]
        assert tab.text("[data-v=facts]").startswith(f"Linux {status['kernel']}")
        loads = ", ".join(f"{status[f'load_avg_{minutes}m']:,.2f}" for minutes in (1, 5, 15))
        assert tab.text("[data-v=load]") == f"{status['cpu_cores']} CPUs · load {loads}"
        assert len(status["gpus"]) == 8
        for number, gpu in enumerate(status["gpus"]):
            text = card(tab, number)
            limit = f"{gpu['power_limit_watts']:,.0f} W"
            assert f"{gpu['power_watts']:,.0f} of {limit}" in text
            assert f"{gpu['temperature_celsius']:.0f} °C" in text
        assert "2 MIG instances" in card(tab, 2)
        recent = json.loads(agent.get("/recent").body)
        assert [each["power_watts"] for each in recent["gpus"]] == [
            [gpu["power_watts"]] for gpu in status["gpus"]
        ]
        assert tab.complaints == []


def test_the_browsers_own_login(tab: Page, tmp_path: Path) -> None:
    stored = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{alice: {stored}}}\n")
    with Guarded("--web-config-file", str(tmp_path / "web.yml")) as agent:
        tab.user = "alice", "right"
        tab.ask("Fetch.enable", handleAuthRequests=True)
        tab.open(f"http://{agent.address}/")
        tab.wait(LIVE)
        tab.wait("document.querySelector('[data-v=memory]').innerText !== '\u2013'")
        assert tab.complaints == []
        # With them in the address, too.
        tab.ask("Fetch.disable")
        tab.open(f"http://alice:right@{agent.address}/")
        tab.wait(LIVE)


def test_an_agent_that_asks_for_a_password_from_now_on(tab: Page, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{'t' * 32}\n")
    (tmp_path / "tokens").chmod(0o600)
    (tmp_path / "web.yml").write_text("bearer_token_file: tokens\n")
    with running.Agent() as agent:
        tab.open(f"http://{agent.address}/")
        tab.wait(LIVE)
    with Guarded("--web-config-file", str(tmp_path / "web.yml"), port=agent.port):
        tab.wait("document.getElementById('lost').innerText.includes('password or a token')")


class Guarded(running.Agent):
    """An agent that lets in who has a password."""

    def ready(self) -> bool:
        try:
            return self.get("/healthz").status == 200
        except OSError:
            return False
