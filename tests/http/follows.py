"""A server of events that is told what to publish: ``python -m tests.http.follows WHERE [LIMITS]``.

WHERE is a port of the loopback or the path of a socket. LIMITS is JSON: attributes of Streams, and
in capitals of its module. Each line of the standard input is JSON, too: [kind, data, how often,
seconds between]. It is answered with a line about the streams.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
import threading
import time

from esnode.config import Config
from esnode.http import events, server
from esnode.http.app import Application
from esnode.store import Store


def obey(streams: events.Streams) -> None:
    """Does what the standard input says."""
    for line in sys.stdin:
        kind, data, times, pause = json.loads(line)
        for number in range(times):
            if number:
                time.sleep(pause)
            if kind:
                text = data if isinstance(data, str) else json.dumps(data)
                streams.publish(kind, text.replace("NUMBER", str(number)).encode())
        answer = {
            "clients": len(streams),
            "listened": streams.listened,
            "dropped": streams.dropped,
            "stopped": streams.stopped,
            "asked": streams.asked,
            "cpu": time.process_time(),
        }
        print(json.dumps(answer), flush=True)


async def main(address: str, limits: dict[str, float]) -> None:
    for name in [name for name in limits if name.isupper()]:
        setattr(events, name, limits.pop(name))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    store = Store(1, 0.05, lambda _: None)
    application = Application(store, Config(), "0", {})
    streams = application.streams
    streams.asked = 0

    def ask() -> None:
        streams.asked += 1

    streams.ask = ask
    for name, value in limits.items():
        setattr(streams, name, value)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        obey(streams)
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=work, daemon=True).start()
    if address.isdecimal():
        listener = server.listen("127.0.0.1", int(address))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen(100)
        listener.setblocking(False)
    print("ready", flush=True)
    await server.serve(application, listener, stop)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
