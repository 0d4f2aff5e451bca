"""Records every tick's snapshots: a queue in memory, and a thread that writes it to the blocks.

Whoever samples only puts a reference to an immutable snapshot into the queue. All that may take
long, rendering and the disk, is done by the recorder's own thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path

from .._fast.table import Snapshot
from ..logs import Heard
from . import block, reader, retention, runs, seal
from .age import Age
from .layout import AGE, INDEX, LOCK, NEW, OPEN, SEALED, name, size, starts, window

log = logging.getLogger(__name__)

#: Seconds between two flushes, and between two writings of an open block's index.
FLUSH = 30.0
DESCRIBE = 300.0
#: Bytes of snapshots that are held while the disk does not take them.
QUEUE = 32 << 20
#: Bytes that a snapshot takes besides its values.
SNAPSHOT = 128
#: A sealed block is so many times smaller than before, if not more; a tenth in practice.
SHRINKS = 4
#: Places of damage in a block that are logged, and that are counted.
TOLD = 20
PLACES = 2000
#: Seconds that the path may take to be had at the start, and the last flush at the end.
TAKING = 2.0
PATIENCE = 10.0
#: Seconds until what could not be sealed is tried again.
PAUSE = 300.0

#: The block that something is being done with step by step, unless it is only read.
Job = tuple[int | None, Generator[int, None, None]]


class Locked(Exception):  # noqa: N818  # says what is the case
    """Another agent records to this path; the text says which path."""


class Recorder:
    """Records to a path. Any thread may call it; ``start`` comes first.

    samples, dropped: how many were written, and how many never will be. errors: failed flushes and
    damage that was found. seconds: how long the last flush took. bytes, blocks: what is on the
    disk. oldest: the Unix time of its first sample. NaN: not known, or there is none.

    retention: seconds; budget: bytes that the files may have together; flush: seconds between two
    flushes; queue: bytes of snapshots to hold; clock: Unix time.
    """

    def __init__(
        self,
        path: Path,
        retention: float = 48 * 3600,
        budget: int = 2048 << 20,
        flush: float | None = None,
        queue: int = QUEUE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.retention = retention
        self.budget = budget
        self.interval = FLUSH if flush is None else flush
        self.room = queue
        self.clock = clock
        self.samples = 0
        self.dropped = 0
        self.errors = 0
        self.seconds = math.nan
        self.bytes = math.nan
        self.blocks = math.nan
        self.oldest = math.nan
        self._queue: deque[Snapshot] = deque()
        self._flight: Sequence[Snapshot] = ()
        self._size = 0
        self._window: int | None = None
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._wanted = 0
        self._done = 0
        self._stopping = False
        #: Whether the path was asked for, and who has it; whether nobody waits for that any more.
        self._asked = False
        self._refused: Locked | None = None
        self._late = False
        self._held: int | None = None
        self._ready = False
        self._open: dict[int, block.Open] = {}
        #: The windows that the last flush wrote to.
        self._recent: set[int] = set()
        #: Blocks whose index was not looked at since the start.
        self._unchecked: set[int] = set()
        self._job: Job | None = None
        #: Bytes that the job on a block writes, as far as one knows.
        self._reserved = 0
        self._age = Age(clock, retention, path / AGE)
        #: When a job on a block that has failed is to be tried again.
        self._later: dict[int | None, float] = {}
        #: Whether the last flush wrote all that there was.
        self._good = False
        self._described = time.monotonic()
        self._heard = Heard()
        #: Whether it was logged that nothing can be written.
        self._told = False
        #: The damage that was found, by the block's directory.
        self._places: dict[Path, set[str]] = {}
        self._thread: threading.Thread

    # What others call.

    def start(self) -> None:
        """Takes the path and starts. Raises Locked; a path that cannot be written is tried again
        with every flush, and one on a disk that hangs is not waited for."""
        self._asked, self._refused = False, None
        self._thread = threading.Thread(target=self._run, name="tsdb", daemon=True)
        self._thread.start()
        with self._lock:
            self._late = self._told = not self._wake.wait_for(lambda: self._asked, TAKING)
        if self._late:
            log.error("%s: the history cannot be written: the disk does not answer", self.path)
        elif self._refused:
            raise self._refused

    def add(self, snapshot: Snapshot) -> None:
        """Takes a tick's snapshot; the oldest ones are dropped where there is no room for it."""
        if not snapshot.present:
            return
        start = window(snapshot.unix_ms)
        with self._lock:
            self._queue.append(snapshot)
            self._size += cost(snapshot)
            while self._size > self.room and self._queue:
                oldest = self._queue.popleft()
                self._size -= cost(oldest)
                self.dropped += oldest.present
            if self._window is not None and start != self._window:  # a block has ended
                self._wanted += 1
                self._wake.notify_all()
            self._window = start

    def request(self) -> None:
        """Has the queue written soon."""
        with self._lock:
            self._wanted += 1
            self._wake.notify_all()

    def flush(self, timeout: float = PATIENCE) -> bool:
        """Writes what is in the queue now; whether that was done in time."""
        with self._lock:
            self._wanted += 1
            goal = self._wanted
            self._wake.notify_all()
            return self._wake.wait_for(lambda: self._done >= goal, timeout) and self._good

    def pending(self) -> dict[int, reader.Unwritten]:
        """What is not written yet, by the start of its window. To be asked for before the blocks
        are read, so that nothing is missed that is written in between. It holds the snapshots, and
        renders a line when it is read."""
        with self._lock:
            snapshots = [*self._flight, *self._queue]
        return {
            start: partial(runs.lines, found) for start, found in runs.by_window(snapshots).items()
        }

    def damaged(self, path: Path, text: str) -> None:
        """Counts and logs damage that somebody has met in a block's file, once for each place."""
        with self._lock:
            places = self._places.setdefault(path.parent, set())
            if text in places or len(places) >= PLACES:
                return
            places.add(text)
            self.errors += 1
            told = len(places)
        if told <= TOLD:
            log.warning("%s: %s", path, text)
        if told == TOLD:
            log.warning("%s: what else is damaged in it is only counted", path.parent)

    def stop(self, timeout: float = PATIENCE) -> None:
        """Writes what there is, and ends."""
        with self._lock:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive() or self._queue:
            log.error("%s: the newest samples could not be written", self.path)

    # What its thread does.

    def _begin(self) -> bool:
        """Takes the path; whether it is not another agent's, or nobody waits to hear that."""
        try:
            self._take()
        except Locked as error:
            self._refused = error
        except Exception as error:
            self._told |= self._fault(error)
        with self._lock:
            self._asked = True
            self._wake.notify_all()
            return self._refused is None or self._late

    def _run(self) -> None:
        if not self._begin():
            return
        due = time.monotonic()
        while True:
            with self._lock:
                wanted, stopping = self._wanted, self._stopping
            self._step()
            with self._lock:
                self._done = wanted
                self._wake.notify_all()
                if stopping:
                    break
            due += self.interval
            if due <= time.monotonic():
                due = time.monotonic() + self.interval
            self._tidy(due)
            with self._lock:
                self._wake.wait_for(self._called, due - time.monotonic())
        self._abandon()
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._age.save()
            os.close(self._held)

    def _called(self) -> bool:
        """Whether somebody has asked for a flush, or the end. The lock is held."""
        return self._stopping or self._wanted > self._done

    def _step(self) -> None:
        """Writes the queue, and does what else is due; nothing that fails ends the thread."""
        started = time.monotonic()
        self._good = False
        try:
            self._take()
            self._recover()
            self._prune()
            self._write()
            self._good = True
            if self._told:
                self._told = False
                log.info("%s: the history is written again", self.path)
            self.seconds = time.monotonic() - started
            if time.monotonic() - self._described >= DESCRIBE:
                self._prune()
                self._describe()
            self._measure()
        except Exception as error:
            self._told |= self._fault(error)

    def _take(self) -> None:
        """Makes the directory and locks it, unless that is done. Raises OSError, Locked."""
        if self._held is not None:
            return
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not for writing: that would be in the way of who makes the file system read-only.
        held = os.open(self.path / LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(held)
            if error.errno == errno.EWOULDBLOCK:
                raise Locked(f"{self.path}: another agent keeps its history there") from None
            raise
        self._held = held
        self._age.load()

    def _recover(self) -> None:
        """Puts the blocks in order that an agent before us has left."""
        if self._ready:
            return
        for start in starts(self.path):
            self._unchecked.add(start)
            try:
                cut = block.recover(self.path, start)
            except OSError as error:  # one block's trouble is not the others'
                self._fault(error)
            else:
                if cut:
                    self.damaged(
                        self.path / name(start) / OPEN,
                        f"a last line without its end, {cut} bytes, went",
                    )
        try:
            self._age.save()
        except OSError as error:
            self._fault(error)
        self._ready = True

    def _prune(self) -> None:
        """Makes room: for what is too old and what is too much, the oldest block goes first."""
        now = self.clock()
        current = window(int(now * 1000))
        found = retention.sizes(self.path)
        for start in retention.expired(found, self._age.now(), self.retention):
            self._remove(start)
            del found[start]
        ahead = (now + self.retention) * 1000
        room = self.budget - self._coming()
        if self._job and self._job[0] in retention.excess(found, room, current, ahead):
            self._later[self._job[0]] = time.monotonic() + PAUSE
            self._abandon()
            found = retention.sizes(self.path)
            room = self.budget
        # It is cut before it is as big as the budget: the copy has to fit in beside it.
        large = found.get(current, 0) > self.budget * 2 // 3
        for start in retention.excess(found, 0 if large else room, current, ahead):
            self._remove(start)
        if large:
            self._close(current)
            retention.trim(self.path, current, self.budget // 3)

    def _coming(self) -> int:
        """Bytes that a sealing is still to write."""
        if not self._job or self._job[0] is None:
            return 0
        return max(0, self._reserved - size(self.path / name(self._job[0]) / (SEALED + NEW)))

    def _reserve(self, start: int) -> bool:
        """Whether a block can be sealed within the budget, where what is older may go for it."""
        block = self.path / name(start)
        lines, sealed, described = (size(block / each) for each in (OPEN, SEALED, INDEX))
        self._reserved = lines // SHRINKS + sealed + described
        found = retention.sizes(self.path)
        newer = sum(found[each] for each in found if each >= start)
        return newer + self._reserved <= self.budget

    def _remove(self, start: int) -> None:
        self._abandon(start)
        self._close(start)
        try:
            retention.remove(self.path, start)
        except OSError as error:  # one block's trouble is not the others'
            self._fault(error)
            return
        self._places.pop(self.path / name(start), None)
        self._later.pop(start, None)
        log.info("%s: removed, for its age or the budget", self.path / name(start))

    def _tidy(self, due: float) -> None:
        """Seals what is finished, until a flush is due; half of the time it rests."""
        if not self._ready:
            return
        try:
            while job := self._job or self._next():
                started = time.monotonic()
                try:
                    written = next(job[1])
                except StopIteration:
                    self._job = None
                    self._measure()
                else:
                    if job[0] is not None and written > self._reserved:
                        self._reserved = written * 5 // 4
                        self._prune()
                spent = time.monotonic() - started
                with self._lock:
                    if self._wake.wait_for(self._called, min(spent, due - started)):
                        return
                if time.monotonic() >= due:
                    return
        except Exception as error:
            if self._job:
                self._later[self._job[0]] = time.monotonic() + PAUSE
                self._abandon()
            self._fault(error)

    def _next(self) -> Job | None:
        """Takes up the next job, if there is one. A block is finished when its window is not
        that of the clock and the last flush did not write to it."""
        now = time.monotonic()
        current = window(int(self.clock() * 1000))
        for start in starts(self.path):
            if now < self._later.get(start, now):
                continue
            directory = self.path / name(start)
            unchecked = start in self._unchecked
            lines = (directory / OPEN).exists()
            if start == current or start in self._recent:
                if not (unchecked and lines):
                    continue
                self._job = None, reader.check(directory / OPEN, self.damaged)
            elif lines:
                if not self._reserve(start):
                    continue
                self._close(start)
                self._job = start, seal.seal(self.path, start, self.damaged)
                self._prune()
            elif unchecked and (directory / SEALED).exists() and not seal.matches(directory):
                self._reserved = 0
                self._job = start, seal.rebuild(self.path, start, self.damaged)
            self._unchecked.discard(start)
            if self._job:
                break
        return self._job

    def _abandon(self, start: int | None = None) -> None:
        """Gives up the job, or the job on one block."""
        if self._job and start in (None, self._job[0]):
            self._job[1].close()
            self._job = None

    def _measure(self) -> None:
        """Takes the figures of what is on the disk."""
        found = retention.sizes(self.path)
        self.bytes = sum(found.values())
        self.blocks = len(found)
        first = next(iter(found), None)
        oldest = None if first is None else retention.oldest(self.path, first)
        self.oldest = math.nan if oldest is None else oldest

    def _write(self) -> None:
        """Writes the queue; what cannot be written goes back to it. Raises OSError."""
        with self._lock:
            self._flight = list(self._queue)
            self._queue.clear()
        left = runs.by_window(self._flight)
        self._recent = set(left)
        try:
            for start in list(left):
                written = 0

                def render_all(found: list[runs.Run] = left[start]) -> Iterator[bytes]:
                    nonlocal written
                    for run in found:
                        for text, samples in runs.texts(run):
                            written += samples
                            yield text

                self._block(start).append(render_all())
                del left[start]
                self.samples += written
        finally:
            kept = {id(snapshot) for found in left.values() for run in found for snapshot in run}
            with self._lock:
                self._queue.extendleft(
                    snapshot for snapshot in reversed(self._flight) if id(snapshot) in kept
                )
                self._flight = ()
                self._size = sum(map(cost, self._queue))

    def _block(self, start: int) -> block.Open:
        """The block of a window, to append to; that of another one stays for its index."""
        self._abandon(start)
        found = self._open.get(start)
        if found is None:
            found = self._open[start] = block.Open(self.path, start)
        return found

    def _close(self, start: int) -> None:
        """Lets go of what is known of an open block."""
        self._open.pop(start, None)

    def _describe(self) -> None:
        """Writes the indexes of the open blocks, and what the next agent has to know."""
        self._described = time.monotonic()
        for write in (*(each.describe for each in self._open.values()), self._age.save):
            try:
                write()
            except OSError as error:  # the lines are what counts
                self._fault(error)

    def _fault(self, error: Exception) -> bool:
        """Counts a failure, and logs it unless it was logged before; whether it did."""
        self.errors += 1
        message = f"{self.path}: the history cannot be written: {error}"
        if not self._heard.is_news(message):
            return False
        expected = isinstance(error, (OSError, Locked))
        log.error("%s", message, exc_info=None if expected else error)
        return True


def cost(snapshot: Snapshot) -> int:
    """The memory that a snapshot takes, in bytes."""
    return 8 * len(snapshot) + SNAPSHOT
