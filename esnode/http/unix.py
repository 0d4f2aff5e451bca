"""A unix socket to listen on: its file's mode, what a dead agent left, and its end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

#: Seconds in which a live agent takes a connection; it does at once.
TAKEN = 1.0


class Listener(socket.socket):
    """A unix socket whose file goes when it is closed, if it is still its own."""

    def __init__(self, path: str, mode: int, backlog: int) -> None:
        """Listens. Raises OSError; EADDRINUSE where another process listens, or no socket is."""
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.path = path
        self.identity: tuple[int, int] | None = None
        try:
            with _alone(Path(path).parent):
                _remove_stale(path)
                self.bind(path)
                self.identity = _identity(path)
                # Until it listens nobody can connect, whatever the mode was for a moment.
                Path(path).chmod(mode)
                self.listen(backlog)
            self.setblocking(False)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self.identity is not None:
            with contextlib.suppress(OSError):
                if _identity(self.path) == self.identity:
                    Path(self.path).unlink()
            self.identity = None
        super().close()


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keeps other agents out: of two that find a dead one's socket, one would remove the other's.

    Raises OSError with EADDRINUSE where there is another one.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    """Removes a socket that nobody listens on any more. Raises OSError when somebody does."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(TAKEN)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except FileNotFoundError:
            return
        except (BlockingIOError, TimeoutError):  # it has too many clients: it lives
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
