"""A server of the page that is told what the page is to show: ``python -m tests.http.stage PORT``.

Each line of the standard input is a JSON object whose keys are what to do: ``show`` a node with so
many ``gpus`` and ``mig`` instances, ``hostile`` or not, of some ``tick``; ``patch`` keys of it;
``past``: with so many points before; ``ahead``: by a clock that is so many seconds ahead; ``send``
a [kind, data] to those that follow; ``most``: so many may follow. It is answered with a line.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from typing import Any

import msgspec

from esnode.config import Config
from esnode.http import server
from esnode.http.app import Application
from esnode.recent import Recent
from esnode.store import Store

from ..nodes import document, point
from ..running import free_port

#: Seconds between two ticks of what is shown.
INTERVAL = 5


class Stage:
    """The server as a process; a context manager. It can be ended and started again."""

    def __init__(self, **first: Any) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}/"
        self.first = first

    def __enter__(self) -> Stage:
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.kill()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.http.stage", str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.tell(**self.first)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def tell(self, **what: Any) -> None:
        """Has it do something, and waits until it is done."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer == "done\n", answer


class Play:
    """What is shown."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.recent = Recent(INTERVAL)
        self.status = b"{}"
        application.streams.ask = lambda: application.streams.publish("status", self.status)
        application.document = lambda answer, fail: answer(self.status)
        application.recent = lambda answer: answer(msgspec.json.encode(self.recent.document()))

    def do(self, what: dict[str, Any]) -> None:
        streams = self.application.streams
        if "most" in what:
            streams.most = what["most"]
        if (show := what.get("show")) is not None:
            now = int(time.time() * 1000) + 1000 * show.pop("ahead", 0)
            patch = show.pop("patch", {})
            tick, past = show.pop("tick", 0), show.pop("past", 0)
            for ago in range(past, 0, -1):
                old = document(tick - ago, now - 1000 * INTERVAL * ago, **show)
                self.recent.add(point({**old, **patch}))
            found = {**document(tick, now, **show), **patch, "last_scrape_unix_ms": now}
            self.recent.add(point(found))
            self.status = msgspec.json.encode(found)
            streams.publish("status", self.status)
        if "send" in what:
            kind, data = what["send"]
            streams.publish(kind, msgspec.json.encode(data))


async def main(port: int) -> None:
    application = Application(Store(1, 0.05, lambda _: None), Config(), "0.1.0", {})
    play = Play(application)
    listener = server.listen("127.0.0.1", port)

    def obey() -> None:
        for line in sys.stdin:
            try:
                play.do(json.loads(line))
                print("done", flush=True)
            except Exception as error:  # or who has told it would wait for ever
                print(repr(error), flush=True)

    threading.Thread(target=obey, daemon=True).start()
    await server.serve(application, listener, asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
