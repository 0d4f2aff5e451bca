"""A server whose exports are made up: ``python -m tests.http.streams PORT``.

An export's range says what it is: as many pieces as ``from`` has seconds; ``to`` may be one of the
times below.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

from esnode.config import Config
from esnode.http import server
from esnode.http.app import Application
from esnode.store import Store
from esnode.tsdb.select import SelectError, Selection

PIECE = b"0123456789abcde\n" * 4096
FAILS_AT_ONCE = "7000000000"
REFUSED = "6000000000"
FAILS_AT_THE_END = "8000000000"


def export(selection: Selection, form: str, eof: bool) -> Iterator[bytes]:
    pieces, fails = selection.start // 1000, str(selection.end // 1000)
    if fails == REFUSED:
        raise SelectError("from", "refused")
    if fails == FAILS_AT_ONCE:
        raise OSError("fails at once")
    for _ in range(pieces):
        yield PIECE
    if fails == FAILS_AT_THE_END:
        raise OSError("fails at the end")
    yield b"# EOF\n"


async def main(port: int) -> None:
    store = Store(1, 0.05, lambda _: None)
    application = Application(store, Config(), "0", {}, export)
    stop = asyncio.Event()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ending = asyncio.ensure_future(reader.read())
    ending.add_done_callback(lambda _: stop.set())
    print("ready", flush=True)
    await server.serve(application, server.listen("127.0.0.1", port), stop)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
