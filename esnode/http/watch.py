"""Reads the web configuration again when it, or a file it names, has changed.

By looking at the files twice a second: that works on every file system, and with links that are put
in the place of others, as Kubernetes does it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from .. import web
from ..config import ConfigError
from ..web import Web
from . import tls

log = logging.getLogger(__name__)

#: Seconds between two looks.
PERIOD = 0.5

#: What tells one state of files from another.
State = tuple[tuple[int, ...], ...]


class Watch:
    """A web configuration as it is now: ``web``."""

    def __init__(self, path: str) -> None:
        """Reads it. Raises ConfigError."""
        self.path = path
        self.web = Web()
        self._files: list[Path] = []
        self.web = self._load()
        self._state = self._pending = state(self._files)
        self._stopped = threading.Event()

    def start(self, changed: Callable[[Web], None]) -> None:
        """Looks from now on, on a thread of its own, which calls ``changed``."""
        threading.Thread(target=self._run, args=(changed,), name="watch", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self, changed: Callable[[Web], None]) -> None:
        while not self._stopped.wait(PERIOD):
            try:
                if self.look():
                    changed(self.web)
            except Exception:
                log.exception("%s: cannot be watched", self.path)

    def look(self) -> bool:
        """Whether there is another valid configuration since the last look."""
        found = state(self._files)
        if found == self._state:
            self._pending = found
            return False
        if found != self._pending:  # someone may still be writing
            self._pending = found
            return False
        try:
            read = self._load()
        except ConfigError as error:
            log.error("%s; what was read before stays in force", error)
            return False
        finally:
            self._state = self._pending = state(self._files)
        if read == self.web:
            return False
        self.web = read
        log.info("%s: read again", self.path)
        return True

    def _load(self) -> Web:
        files: list[Path] = []
        try:
            read = web.load(self.path, files)
        finally:
            self._files = files
        if read.tls is not None and read.tls != self.web.tls:
            try:
                tls.attempt(read.tls)
            except ConfigError as error:
                raise ConfigError(f"{self.path}: {error}") from None
        return read


def state(files: Iterable[Path]) -> State:
    """The state of files; of one that cannot be looked at, nothing."""
    found: list[tuple[int, ...]] = []
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            found.append(())
        else:
            found.append(
                (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            )
    return tuple(found)
