"""Many clients of /events in one process: ``python -m benchmarks.followers PORT NUMBER``.

Each line on stdin is answered with what came since the last one, as JSON: statuses of the client
that got the fewest and of the one that got the most, and how old events were, in seconds.
"""

from __future__ import annotations

import json
import re
import resource
import select
import socket
import sys
import time

EVENT = re.compile(rb"event: (\w+)\nid: (\d+)\n")
#: Longer than the beginning of an event, which may come in two parts.
HEAD = 40
SIZE = 1 << 16


class Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        self.socket.setblocking(False)
        self.tail = b""
        self.statuses = 0


def main() -> None:
    port, number = map(int, sys.argv[1:])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    epoll = select.epoll()
    epoll.register(sys.stdin.fileno(), select.EPOLLIN)
    clients = {}
    for _ in range(number):
        client = Client(port)
        clients[client.socket.fileno()] = client
        epoll.register(client.socket.fileno(), select.EPOLLIN)
    ages: dict[str, list[float]] = {"status": [], "gpu": []}
    while True:
        for fd, _ in epoll.poll():
            if fd == sys.stdin.fileno():
                if not sys.stdin.readline():
                    return
                counts = [client.statuses for client in clients.values()]
                answer = {"fewest": min(counts), "most": max(counts), **ages}
                print(json.dumps(answer), flush=True)
                for client in clients.values():
                    client.statuses = 0
                ages = {"status": [], "gpu": []}
                continue
            client = clients[fd]
            data = client.socket.recv(SIZE)
            if not data:
                raise ConnectionError("a stream has ended")
            now = time.time()
            data = client.tail + data
            end = 0
            while (start := data.find(b"event: ", end)) >= 0:
                found = EVENT.match(data, start)
                if found is None:
                    break
                end = found.end()
                kind = found[1].decode()
                client.statuses += kind == "status"
                ages[kind].append(now - int(found[2]) / 1000)
            client.tail = data[max(end, len(data) - HEAD) :]


if __name__ == "__main__":
    main()
