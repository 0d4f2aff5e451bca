"""The time by which the history grows old: the clock's, but for a step forward until it has stood.

A clock that is set to another year for a minute must not cost the history of two days. What tells
a step from time that has passed is the kernel's boot time, which nobody sets: the clock may be
behind it at once, for that removes nothing, but is ahead of it only after it has been so for as
long as history is kept. So what was recorded in that time is never removed for its age.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from . import index

BOOT = Path("/proc/sys/kernel/random/boot_id")


class Kept(msgspec.Struct):
    """What a file says of it: the id of a boot, seconds since then, and the Unix time by which the
    history was as old as it was."""

    boot: str
    elapsed: float
    time: float


def boot_time() -> float:
    """Seconds since the machine has started, while it was suspended, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Age:
    """clock: Unix time; hold: seconds after which a step forward is believed; path: the file by
    which the next agent goes on. Without it, the clock is right at the start. After a restart of
    the machine, it is not known how long it was off: the clock may be as much ahead."""

    def __init__(
        self,
        clock: Callable[[], float],
        hold: float,
        path: Path,
        elapsed: Callable[[], float] = boot_time,
    ) -> None:
        self.clock = clock
        self.hold = hold
        self.path = path
        self.elapsed = elapsed
        self.boot = BOOT.read_text().strip() if BOOT.exists() else ""
        #: The time that is believed, less the boot time.
        self._offset = self.clock() - self.elapsed()
        #: Since when the clock is ahead of that, and the least that it was.
        self._since: float | None = None
        self._ahead = 0.0

    def load(self) -> None:
        """Goes on where the last agent has ended."""
        try:
            kept = msgspec.json.decode(self.path.read_bytes(), type=Kept)
        except (OSError, ValueError):
            return
        elapsed = kept.elapsed if kept.boot == self.boot else self.elapsed()
        self._offset = kept.time - elapsed

    def save(self) -> None:
        """Keeps it for the next agent. Raises OSError."""
        now = self.now()
        index.replace(self.path, msgspec.json.encode(Kept(self.boot, self.elapsed(), now)))

    def now(self) -> float:
        """The Unix time by which history is as old as it is."""
        elapsed = self.elapsed()
        offset = self.clock() - elapsed
        if offset <= self._offset:
            self._offset, self._since = offset, None
        elif self._since is None:
            self._since, self._ahead = elapsed, offset
        else:
            self._ahead = min(self._ahead, offset)
            if elapsed - self._since >= self.hold:
                self._offset, self._since = self._ahead, None
        return elapsed + self._offset
