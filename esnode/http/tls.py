"""TLS as granian takes it: by paths, read once. Tried out first, in a process of its own.

Its library ends the whole process, without an exception, when it does not like a certificate or a
key; and it knows fewer kinds than OpenSSL does. An agent that runs must not die of a new one.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ..config import ConfigError
from ..web import InMemory, Tls

#: Seconds that the trial may take; it takes a fifth of one.
PATIENCE = 60.0
#: Turns of the event loop after which granian has read its files: two, and some.
TURNS = 20
_REASON = re.compile(r"Err` value: (?:General\()?\"?([^\n\")]+)")


class Files:
    """What granian is to read. After so many ``turns`` of the event loop it has."""

    turns = TURNS

    def __init__(self, tls: Tls) -> None:
        self.files = [InMemory(data) for data in tls[:3] if data is not None]
        paths = (file.path for file in self.files)
        #: Granian would make it itself, but read the files once more for that.
        self.context = context(tls.required, tls.minimum, *paths)

    def close(self) -> None:
        for file in self.files:
            file.close()
        self.files = []


def context(
    required: bool, minimum: str, certificate: str, key: str, ca: str | None = None
) -> tuple[Any, ...]:
    """Granian's ``ssl_ctx``."""
    return True, certificate, key, None, minimum, ca, [], required


def attempt(tls: Tls) -> None:
    """Raises ConfigError where granian would not start with it."""
    files = Files(tls)
    descriptors = [file.descriptor for file in files.files]
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, tls.minimum, *map(str, descriptors)],
            cwd="/",  # where we are may be anybody's, and -m looks there first
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "RUST_BACKTRACE": "0"},
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "it takes too long"
        raise ConfigError(f"tls_server_config: cannot be tried out: {reason}") from None
    finally:
        files.close()
    if done.returncode:
        found = _REASON.search(done.stderr.decode("utf-8", "replace"))
        raise ConfigError(
            "tls_server_config: the TLS library refuses it"
            + (f": {found[1]}" if found else "")
            + "; certificates are X.509 of version 3, keys are RSA of 2048 to 4096 bits, ECDSA on"
            " P-256 or P-384, or Ed25519"
        )


def main(words: Sequence[str]) -> None:
    """The trial: starts a server to which nobody comes; the process ends with 0 if that works."""
    from granian._granian import SocketHolder
    from granian.constants import HTTPModes, Interfaces
    from granian.server import embed

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    minimum, *descriptors = words
    server: Any = embed.Server(
        main,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
    )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("")
    listener.setblocking(False)

    def take() -> None:
        holder: Any = SocketHolder
        server._shd = holder(listener.detach(), True, 1)

    server._init_shared_socket = take
    paths = (f"/proc/self/fd/{descriptor}" for descriptor in descriptors)
    server.ssl_ctx = context(len(descriptors) > 2, minimum, *paths)

    async def serve() -> None:
        serving = asyncio.ensure_future(server.serve())
        for _ in range(TURNS):
            await asyncio.sleep(0)
        os._exit(serving.done())

    asyncio.run(serve())


if __name__ == "__main__":
    main(sys.argv[1:])
