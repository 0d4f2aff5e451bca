"""The console: how long a redraw takes, and the time from its start to its first screen."""

from __future__ import annotations

import io
import os
import pty
import select
import statistics
import struct
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl

from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from esnode.console import terminal
from esnode.console.session import Services, Session
from esnode.console.view import MENU, SCREENS, View
from tests.console import scenes
from tests.fakenvml import Fake, library

from .figures import Bench, Row, seconds, within
from .servers import agent

#: Part of the first screen, and how long to wait for it.
FIRST = b"Select one"
PATIENCE = 20.0


def console_redraw(bench: Bench) -> Iterator[Row]:
    """What a new document with 16 GPUs costs on each screen, all values of the node changed; of the
    screens the slowest counts."""
    for width, height in scenes.SIZES:
        times = {screen: redraws(screen, width, height, bench) for screen in (MENU, *SCREENS)}
        slowest = max(times, key=times.__getitem__)
        what = f"console: a redraw with 16 GPUs on {width}x{height}, the slowest screen"
        yield within(what, seconds, times[slowest], 30e-3)
        yield Row(f"  of all screens, the median; {slowest} is the slowest",
                  seconds(statistics.median(times.values())))  # fmt: skip


def redraws(screen: str, width: int, height: int, bench: Bench) -> float:
    """The median of redraws, from the document to the bytes for the terminal."""
    last = scenes.status("busy")
    services = Services("", lambda: last, list, lambda: ([], ""), lambda *_: "", lambda *_: "")
    session = Session(services, View(screen=screen))
    session.seen = scenes.seen("busy")
    found = []
    with create_pipe_input() as keys:
        output = Vt100_Output(io.StringIO(), lambda: Size(height, width), term="xterm-256color")
        app = terminal.application(session, keys, output, {})
        for tick in range(bench.effort.rounds // 4 + 2):
            gpus = [
                scenes.replace(gpu, util_percent=float(tick * 7 % 100), power_watts=100.0 + tick)
                for gpu in last.gpus or ()
            ]
            document = scenes.replace(
                last, last_scrape_unix_ms=tick, cpu_util_percent=tick % 100.0, gpus=gpus
            )
            start = time.perf_counter()
            session.seen.take(document)
            app.renderer.render(app, app.layout)
            found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def console_start(bench: Bench) -> Iterator[Row]:
    """From the start of the process to its first screen, and to the first one with values."""
    fake = Fake(library(), state=bench.directory / "nvml-console")
    fake.set_gpus(["H100"] * 16)
    with agent("--nvml-library", str(fake.path), more=fake.environment()) as ours:
        address = f"127.0.0.1:{ours.port}"
        found = [started(address) for _ in range(bench.effort.starts + 1)][1:]
    fake.reset()
    first, values = (statistics.median(each) for each in zip(*found, strict=True))
    yield within("console: start to the first screen", seconds, first, 0.5)
    yield Row("  to the first values of 16 GPUs", seconds(values))


def started(address: str) -> tuple[float, float]:
    """Seconds to the first screen, and to values on it. Raises RuntimeError."""
    start = time.perf_counter()
    pid, handle = pty.fork()
    if not pid:
        os.environ["TERM"] = "xterm-256color"
        words = [sys.executable, "-m", "esnode", "--listen-address", address, "cli"]
        os.execv(sys.executable, words)
    ioctl(handle, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    drawn, first = b"", 0.0
    try:
        while (passed := time.perf_counter() - start) < PATIENCE:
            if select.select([handle], [], [], 0.01)[0]:
                drawn += os.read(handle, 1 << 16)
            if not first and FIRST in drawn:
                first = passed
            if b"GPUs, " in drawn:
                return first, passed
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(handle)
    raise RuntimeError("the console shows no values")


FIGURES = (console_redraw, console_start)
