"""The page: its size, how soon it shows values, what it costs the browser, and its ring."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from esnode.http.page import document
from esnode.recent import SPAN
from esnode.store import Page
from tests import bighost
from tests.browser import CHROMIUM, Browser
from tests.fakenvml import Fake, Mig, library

from .figures import FULL, Bench, Row, megabytes, seconds, within
from .servers import Server
from .servers import agent as server
from .status import big

#: Ticks of the page whose browser is measured: one a second.
TICK = "1s"
MIG = [Mig("1g.10gb", 7 + i, start=i) for i in range(7)]
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

#: Has the page tell when it has painted its first values, in milliseconds since it was asked for.
STOPWATCH = """
new MutationObserver((_, observer) => {
  const value = document.querySelector('[data-v=memory]');
  if (!value || value.textContent.startsWith('\u2013')) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.painted = performance.now(); }));
}).observe(document, {subtree: true, childList: true, characterData: true});
"""


def kilobytes(value: float) -> str:
    return f"{value / 1e3:.1f} kB"


def percent(value: float) -> str:
    return f"{100 * value:.2g} % of a core"


@contextmanager
def node(bench: Bench, root: Path) -> Iterator[Server]:
    """An agent of a host of 256 cores with 16 GPUs of 7 MIG instances each."""
    bighost.write(root)
    fake = Fake(library(), state=bench.directory / "nvml-page")
    fake.set_gpus(["H100"] * 16)
    for slot in range(16):
        fake.gpu(slot).mig(MIG)
    paths = ("--path-procfs", f"{root}/proc", "--path-sysfs", f"{root}/sys")
    flags = ("--nvml-library", str(fake.path), "--enable-gpu-mig", "--scrape-interval", TICK)
    with server(*paths, "--path-rootfs", str(root), *flags, more=fake.environment()) as ours:
        yield ours
    fake.reset()


def spent(process: int) -> float:
    """Seconds of CPU of a process and all below it."""
    children: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
        used[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
    total, waiting = 0.0, [process]
    while waiting:
        each = waiting.pop()
        total += used.get(each, 0)
        waiting += children.get(each, [])
    return total


def page_size(bench: Bench) -> Iterator[Row]:
    """The page as it is sent."""
    page = Page(document("0.1.0", ["/metrics", "/status", "/recent"]), 0)
    yield within("page, as gzip", kilobytes, len(page.encoded("gzip")), 60e3)
    yield Row("  as zstd", kilobytes(len(page.encoded("zstd"))))
    yield Row("  as it is", kilobytes(len(page.body)))


def page_browser(bench: Bench) -> Iterator[Row]:
    """The page in a browser, of 16 GPUs with 7 MIG instances each, once a second."""
    if not CHROMIUM:
        yield Row("page, in a browser", remark="skipped: no chromium")
        return
    watched = 60 if bench.effort is FULL else 15
    with TemporaryDirectory() as root, node(bench, Path(root)) as ours, Browser() as browser:
        url = f"http://127.0.0.1:{ours.port}/"
        times = []
        for _ in range(1 + bench.effort.starts):
            page = browser.page()
            page.ask("Page.addScriptToEvaluateOnNewDocument", source=STOPWATCH)
            page.open(url)
            page.wait("window.painted")
            times.append(page.run("window.painted") / 1e3)
            page.close()
        yield within("page, to the first values", seconds, statistics.median(times[1:]), 0.3)
        yield Row("  in a browser that has just started", seconds(times[0]))
        time.sleep(3)
        idle = spent(browser.process.pid)
        time.sleep(10)
        idle = (spent(browser.process.pid) - idle) / 10
        page = browser.page(1440, 1000)
        page.open(url)
        page.wait("document.querySelectorAll('.card').length === 16")
        time.sleep(5)
        before, tasks = spent(browser.process.pid), page.figures()["TaskDuration"]
        time.sleep(watched)
        used = (spent(browser.process.pid) - before) / watched
        tasks = (page.figures()["TaskDuration"] - tasks) / watched
        page.close()
    yield within("page, the browser at 1 Hz with 16 GPUs", percent, used, 0.03)
    yield Row("  of that, the page's own thread", percent(tasks))
    yield Row("  the browser without the page", percent(idle))


def page_ring(bench: Bench) -> Iterator[Row]:
    """The 15 minutes that the agent keeps, of the same host, with a tick a second."""
    with big(bench, scrape_interval_seconds=1) as agent:
        agent.read()
        agent.read()
        recent, costs = agent.recent, []
        for tick in range(1, int(SPAN / recent.step) + bench.effort.ticks):
            start = time.perf_counter()
            point = agent.view.point()
            recent.add(point._replace(unix_ms=point.unix_ms + int(1000 * recent.step * tick)))
            costs.append(time.perf_counter() - start)
        start = time.perf_counter()
        data = msgspec.json.encode(recent.document())
        made = time.perf_counter() - start
    size = recent.size + len(data)
    yield within("ring of 15 minutes, 16 GPUs", megabytes, size, 2e6)
    yield Row(f"  a point, every {recent.step:g} s", seconds(statistics.median(costs)))
    yield Row("  /recent, while somebody asks", seconds(made))
    yield Row("  /recent, as gzip", kilobytes(len(Page(data, 0).encoded("gzip"))))


FIGURES = (page_size, page_browser, page_ring)
