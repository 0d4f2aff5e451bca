"""A FUSE file system that answers statfs, late if asked to, and holds files that answer as they are
told; stopped, it hangs. Needs root.

Its server is a process of its own that dies with ours: the kernel lets go of who waits for it only
when nobody holds its descriptor any more. ``python -m tests.collectors.fuse POINT DELAY``.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import os
import select
import signal
import stat
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from errno import EACCES, ENOENT, ENOSYS, EPERM
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
MS_NOSUID_NODEV = 6
MNT_DETACH = 2
#: Requests of linux/fuse.h that are understood, and those that want no answer.
LOOKUP, GETATTR, OPEN, READ, STATFS, RELEASE, INIT = 1, 3, 14, 15, 17, 18, 26
OPENDIR, READDIR, RELEASEDIR = 27, 28, 29
UNANSWERED = (2, 36, 42)
FOPEN_DIRECT_IO = 1
HEADER = 40

#: What it says of itself: blocks, free, available, files, files free, block size.
FIGURES = (1000, 400, 300, 50, 20, 4096)

#: A file's text, the errno of its reading, or that it hangs.
HANGS = None
Answer = bytes | int | None


class FileSystem:
    """Mounted while the context lasts. Raises OSError where that is not possible."""

    def __init__(self, point: Path, delay: float = 0) -> None:
        self.point = point
        self.delay = delay

    def __enter__(self) -> FileSystem:
        command = [sys.executable, "-m", __spec__.name, str(self.point), str(self.delay)]
        self.server = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        answer = self._line()
        if answer != "mounted":
            self.server.wait(5)
            raise OSError(answer or "the server does not start")
        return self

    def __exit__(self, *unused: object) -> None:
        self.server.kill()
        self.server.communicate(timeout=5)
        LIBC.umount2(os.fsencode(self.point), MNT_DETACH)

    def stop(self) -> None:
        """Nothing is answered from now on."""
        self.server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.server.send_signal(signal.SIGCONT)

    def hold(self, files: Mapping[str, Answer]) -> None:
        """Holds these files from now on, by their path; whoever waits for one is answered."""
        self._ask(dict(files))

    def opens(self) -> Counter[str]:
        """How often each file has been opened up to now."""
        return Counter(ast.literal_eval(self._ask("opens")))

    def _ask(self, words: object) -> str:
        assert self.server.stdin is not None
        print(repr(words), file=self.server.stdin, flush=True)
        return self._line()

    def _line(self) -> str:
        assert self.server.stdout is not None
        return self.server.stdout.readline().strip()


def mount(point: str) -> int:
    """Mounts the file system; the descriptor its requests come from."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if LIBC.mount(b"test", os.fsencode(point), b"fuse", MS_NOSUID_NODEV, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), point)
    return fd


class Failure(Exception):  # noqa: N818  # says what is the case
    """A request is answered with an errno."""


class Server:
    """Answers the kernel's requests, one after the other; a reading that hangs is put aside."""

    def __init__(self, fd: int, delay: float) -> None:
        self.fd = fd
        self.delay = delay
        self.files: dict[str, Answer] = {}
        self.opens: Counter[str] = Counter()
        #: The path of each node; the kernel knows them by their number, the first is 1.
        self.nodes = [""]
        self.hanging: list[tuple[int, str]] = []

    def serve(self) -> None:
        """Until the file system is unmounted, or nobody is there any more to tell it something."""
        while True:
            ready, _, _ = select.select([self.fd, sys.stdin], [], [])
            if self.fd in ready:
                self.request(os.read(self.fd, 1 << 17))
            if sys.stdin in ready:
                line = sys.stdin.readline()
                if not line:
                    return
                self.told(ast.literal_eval(line))

    def told(self, words: dict[str, Answer] | str) -> None:
        if isinstance(words, dict):
            self.files = words
            hanging, self.hanging = self.hanging, []
            for unique, path in hanging:
                self.read(unique, path)
        print(dict(self.opens), flush=True)

    def request(self, request: bytes) -> None:
        _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
        path = self.nodes[node - 1] if node else ""
        if opcode == READ:
            self.read(unique, path, *struct.unpack_from("<8xQ", request, HEADER))
        elif opcode not in UNANSWERED:
            try:
                self.answer(unique, self.body(opcode, path, request[HEADER:]))
            except Failure as failure:
                self.answer(unique, b"", failure.args[0])

    def answer(self, unique: int, body: bytes, error: int = 0) -> None:
        with contextlib.suppress(FileNotFoundError):  # who asked has gone
            os.write(self.fd, struct.pack("<IiQ", 16 + len(body), -error, unique) + body)

    def body(self, opcode: int, path: str, words: bytes) -> bytes:
        if opcode == INIT:
            return struct.pack("<II56x", 7, 31)
        if opcode == STATFS:
            time.sleep(self.delay)
            *counts, size = FIGURES
            return struct.pack("<5Q3I28x", *counts, size, 255, size)
        if opcode == LOOKUP:
            name = words.partition(b"\0")[0].decode(errors="surrogateescape")
            return self.entry(f"{path}/{name}".lstrip("/"))
        if opcode == GETATTR:
            return struct.pack("<16x") + self.attributes(path)
        if opcode == OPEN:
            self.opens[path] += 1
            if self.files.get(path, ENOENT) in (EACCES, EPERM):
                raise Failure(self.files[path])
        if opcode in (OPEN, OPENDIR):
            return struct.pack("<QI4x", 0, FOPEN_DIRECT_IO)
        if opcode == READDIR:
            (offset,) = struct.unpack_from("<8xQ", words)
            return self.listing(path) if offset == 0 else b""
        if opcode in (RELEASE, RELEASEDIR):
            return b""
        raise Failure(ENOSYS)

    def is_directory(self, path: str) -> bool:
        return not path or any(name.startswith(f"{path}/") for name in self.files)

    def attributes(self, path: str) -> bytes:
        if self.is_directory(path):
            mode = stat.S_IFDIR | 0o755
        elif path in self.files:
            mode = stat.S_IFREG | 0o444
        else:
            raise Failure(ENOENT)
        node = self.nodes.index(path) + 1
        return struct.pack("<QQ44xII20x", node, 4096, mode, 1)

    def entry(self, path: str) -> bytes:
        if path not in self.nodes:
            self.nodes.append(path)
        attributes = self.attributes(path)
        return struct.pack("<QQ24x", self.nodes.index(path) + 1, 0) + attributes

    def listing(self, path: str) -> bytes:
        below = [name.removeprefix(f"{path}/") for name in self.files if self.is_in(name, path)]
        names = dict.fromkeys(name.partition("/")[0].encode() for name in below)
        return b"".join(
            struct.pack("<QQII", 1, at, len(name), 0) + name + bytes(-len(name) % 8)
            for at, name in enumerate(names, 1)
        )

    @staticmethod
    def is_in(name: str, path: str) -> bool:
        return not path or name.startswith(f"{path}/")

    def read(self, unique: int, path: str, offset: int = 0) -> None:
        """Answers a reading now, or puts it aside."""
        answer = self.files.get(path, ENOENT)
        if answer is HANGS:
            self.hanging.append((unique, path))
        elif isinstance(answer, int):
            self.answer(unique, b"", answer)
        else:
            self.answer(unique, answer[offset : offset + 4096])


def main(point: str, delay: str) -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        fd = mount(point)
    except OSError as error:
        print(error, flush=True)
        return
    print("mounted", flush=True)
    Server(fd, float(delay)).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
