"""The agent with a status each second and a GPU event every seven, where somebody follows.

The arguments are the agent's. Its own ticks are an hour apart: what is measured is the sending.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from esnode import config
from esnode.agent import Agent
from esnode.http.events import Streams

#: Bytes of the status of a node of eight GPUs.
STATUS = 20_000
PERIOD = 1.0
EVERY = 7


def publish(streams: Streams) -> None:
    text = "x" * STATUS
    for number in range(1 << 30):
        time.sleep(PERIOD - time.time() % PERIOD)
        if streams.listened:
            streams.publish("status", json.dumps({"number": number, "text": text}).encode())
        if number % EVERY == 0:
            streams.publish("gpu", b'{"kind":"xid","code":79}')


def main() -> int:
    flags = ["--scrape-interval", "1h", *sys.argv[1:]]
    agent = Agent(config.load(config.parse_arguments(flags), {}))
    threading.Thread(target=publish, args=(agent.application.streams,), daemon=True).start()
    return agent.run()


if __name__ == "__main__":
    sys.exit(main())
