"""A FUSE file system that answers statvfs, late if asked to; stopped, it hangs. Needs root.

Its server is a process of its own that dies with ours: the kernel lets go of who waits for it only
when nobody holds its descriptor any more. ``python -m tests.collectors.fuse POINT DELAY``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
MS_NOSUID_NODEV = 6
MNT_DETACH = 2
ENOSYS = 38
#: Requests of linux/fuse.h that are understood.
STATFS, INIT = 17, 26

#: What it says of itself: blocks, free, available, files, files free, block size.
FIGURES = (1000, 400, 300, 50, 20, 4096)


class FileSystem:
    """Mounted while the context lasts. Raises OSError where that is not possible."""

    def __init__(self, point: Path, delay: float = 0) -> None:
        self.point = point
        self.delay = delay

    def __enter__(self) -> FileSystem:
        command = [sys.executable, "-m", __spec__.name, str(self.point), str(self.delay)]
        root = Path(__file__).parents[2]
        self.server = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        answer = self.server.stdout.readline().strip()
        if answer != "mounted":
            self.server.wait(5)
            raise OSError(answer or "the server does not start")
        return self

    def __exit__(self, *unused: object) -> None:
        self.server.kill()
        self.server.wait(5)
        assert self.server.stdout is not None
        self.server.stdout.close()
        LIBC.umount2(os.fsencode(self.point), MNT_DETACH)

    def stop(self) -> None:
        """Nothing is answered from now on."""
        self.server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.server.send_signal(signal.SIGCONT)


def mount(point: str) -> int:
    """Mounts the file system; the descriptor its requests come from."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if LIBC.mount(b"test", os.fsencode(point), b"fuse", MS_NOSUID_NODEV, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), point)
    return fd


def serve(fd: int, delay: float) -> None:
    """Answers until the file system is unmounted."""
    *counts, size = FIGURES
    figures = struct.pack("<5Q3I28x", *counts, size, 255, size)
    while True:
        request = os.read(fd, 1 << 17)
        _, opcode, unique = struct.unpack_from("<IIQ", request)
        body = b""
        if opcode == INIT:
            body = struct.pack("<II56x", 7, 31)
        elif opcode == STATFS:
            time.sleep(delay)
            body = figures
        error = 0 if body else -ENOSYS
        os.write(fd, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


def main(point: str, delay: str) -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        fd = mount(point)
    except OSError as error:
        print(error, flush=True)
        return
    print("mounted", flush=True)
    serve(fd, float(delay))


if __name__ == "__main__":
    main(*sys.argv[1:])
