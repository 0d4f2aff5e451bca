"""What has happened to the GPUs: events of the driver and the kernel's log, each counted once.

The driver delivers many Xids both as an event and as a line of the kernel's log, and some in the
log only. An event of one source stands for one of the other of the same GPU and code that is at
most :data:`WINDOW` seconds away; so a thousand of both are a thousand, and a thousand of one too.

The counters and the last events are in a file, written by a thread of its own: a disk that is slow,
full or hung costs the file only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import re
import stat
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

FILE = "gpu-events.json"
VERSION = 1
#: Events that are kept, and seconds up to which two of different sources may be the same.
KEPT = 1000
WINDOW = 10.0
#: Seconds between two writings.
PAUSE = 1.0
#: What memory and file are bounded by: GPUs, codes of each, codes of the switches, seconds in which
#: events wait for their twin, of each GPU and code and of all in the file, bytes of the file.
GPUS, CODES, SWITCH_CODES, SECONDS, WAITING, SIZE = 256, 512, 4096, 600, 2000, 16 << 20
#: How many of the newest events are looked through for the one that a text belongs to.
RECENT = 100

_Key = TypeVar("_Key", int, str)

# Limits of what is read from the file.
Seconds = Annotated[float, Meta(ge=0, le=1e11)]
Code = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event: Unix time, who told of it, what it is, and which GPU (or switch) it is of.

    ``time`` is finite. ``pci`` is ``0000:3b:00``, see :func:`pci_address`; ``code`` an Xid's, an
    SXid's or the event's own datum; ``gi`` and ``ci`` are the MIG instance. Texts are UTF-8's.
    """

    time: Seconds
    source: Literal["nvml", "kernel"]
    kind: str
    uuid: str | None = None
    pci: str | None = None
    code: Code | None = None
    gi: Code | None = None
    ci: Code | None = None
    text: str = ""


class Position(NamedTuple):
    """How far the kernel's log has been read: the boot, and the last record's number."""

    boot: str
    sequence: int


class Counters(NamedTuple):
    """All that has been counted, by GPU: its UUID, or its PCI address while no more is known."""

    xids: dict[tuple[str, int], int]
    kinds: dict[tuple[str, str], int]
    sxids: dict[int, int]
    last_xid: dict[str, int]
    last_time: dict[str, float]


class _Gpu(msgspec.Struct, omit_defaults=True):
    """What is counted of one GPU; times are of its last Xid and last event, 0 without one."""

    xids: dict[Code, Count] = {}
    kinds: dict[str, Count] = {}
    last_xid: Code | None = None
    xid_time: Seconds = 0
    time: Seconds = 0


class _State(msgspec.Struct, omit_defaults=True):
    """What is in the file. ``waiting`` are events of the driver whose lines may yet be read: GPU,
    code, second, number."""

    boot: str = ""
    sequence: Annotated[int, Meta(ge=-1, le=2**62)] = -1
    names: dict[str, str] = {}
    gpus: dict[str, _Gpu] = {}
    sxids: dict[Code, Count] = {}
    waiting: list[tuple[str, Code, Count, Count]] = []
    events: list[Event] = []


class _File(msgspec.Struct):
    """The file: a damaged digit is seen by the sum."""

    version: int
    crc32: int
    state: msgspec.Raw


_DECODE_FILE = msgspec.json.Decoder(_File)
_DECODE_STATE = msgspec.json.Decoder(_State)

_ADDRESS = re.compile(
    r"(?:([0-9a-f]{4,8}):)?(?:00)?([0-9a-f]{2}):([01][0-9a-f])(?:\.[0-7])?", re.IGNORECASE
)


def pci_address(text: str) -> str | None:
    """A PCI address as ``0000:3b:00``, without the function, whatever the width of its domain and
    whether or not it has one; None for what is no address."""
    match = _ADDRESS.fullmatch(text)
    if not match:
        return None
    domain, bus, device = match.groups()
    return f"{int(domain or '0', 16):04x}:{bus.lower()}:{device.lower()}"


class Journal:
    """Counts events, keeps the last :data:`KEPT`, and writes both to a file.

    Any thread may call it. No call waits for the disk but :meth:`start`, :meth:`flush` and
    :meth:`close`, and these no longer than they are told.
    """

    def __init__(
        self, directory: Path | None, heard: Callable[[Event], None] = lambda _: None
    ) -> None:
        """``directory`` is where the file is; without one nothing outlives the process. ``heard``
        is called with each event that is counted, on the thread that adds it."""
        self.directory = directory
        self.heard = heard
        #: What is wrong with the file at present; one line that names it.
        self.problem: str | None = None
        #: Grows with all that changes the counters.
        self.changes = 0
        self._changed = threading.Condition()
        self._names: dict[str, str] = {}
        self._gpus: dict[str, _Gpu] = {}
        self._sxids: dict[int, int] = {}
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._position: Position | None = None
        #: Seconds and numbers of events without a twin, by source, GPU and code.
        self._waiting: dict[tuple[str, str, int], deque[list[int]]] = {}
        self._thread: threading.Thread | None = None
        self._loaded = False
        self._late = False
        self._asked = 0
        self._done = 0
        self._hurried = False
        self._closing = False
        self._ended = False
        self._lock = -1
        self._set_aside = False

    # What is counted.

    def add(self, events: Iterable[Event], position: Position | None = None) -> int:
        """Counts events, and notes how far the kernel's log has been read with them; how many were
        new, not the twin of one that had been told by the other source. Asks for a writing."""
        new = []
        with self._changed:
            before = self._position
            taken = 0
            for event in events:
                taken += 1
                if self._take(event):
                    new.append(self._events[-1])
            if position is not None:
                self._position = position
            self.changes += bool(taken)
            moved = position is not None and (before is None or before.boot != position.boot)
            if taken or moved:
                self._ask()
        for event in new:
            self.heard(event)
        return len(new)

    def name(self, gpus: Mapping[str, str]) -> None:
        """Says which UUID is at which PCI address. What was counted by address goes to the UUID."""
        with self._changed:
            if all(self._names.get(pci) == uuid for pci, uuid in gpus.items()):
                return
            if len(self._names) + len(gpus) > GPUS:
                self._names.clear()
            self._names |= dict(list(gpus.items())[:GPUS])
            for pci, uuid in gpus.items():
                self._rename(pci, uuid)
            self.changes += 1
            self._ask()

    @property
    def position(self) -> Position | None:
        """How far the kernel's log has been read; None if it never was."""
        with self._changed:
            return self._position

    @property
    def events(self) -> list[Event]:
        """The last events, oldest first."""
        with self._changed:
            return list(self._events)

    def counters(self) -> Counters:
        """A copy of the counters. :attr:`changes` says whether it is worth it."""
        with self._changed:
            gpus = self._gpus.items()
            return Counters(
                {(name, code): n for name, gpu in gpus for code, n in gpu.xids.items()},
                {(name, kind): n for name, gpu in gpus for kind, n in gpu.kinds.items()},
                dict(self._sxids),
                {name: gpu.last_xid for name, gpu in gpus if gpu.last_xid is not None},
                {name: gpu.time for name, gpu in gpus},
            )

    def _take(self, event: Event) -> bool:
        """Counts one event, unless it is a twin."""
        if event.kind == "sxid":
            if event.code is not None:
                _increment(self._sxids, event.code, SWITCH_CODES)
            self._events.append(event)
            return True
        uuid = event.uuid or self._names.get(event.pci or "")
        if uuid != event.uuid:
            event = msgspec.structs.replace(event, uuid=uuid)
        name = uuid or event.pci
        is_xid = event.kind == "xid" and event.code is not None
        if name is not None and is_xid and self._is_twin(event, name):
            self._complete(event)
            return False
        self._events.append(event)
        if name is None or (name not in self._gpus and len(self._gpus) >= GPUS):
            return True
        gpu = self._gpus.setdefault(name, _Gpu())
        _increment(gpu.kinds, event.kind, CODES)
        gpu.time = max(gpu.time, event.time)
        if is_xid and event.code is not None:
            _increment(gpu.xids, event.code, CODES)
            if event.time >= gpu.xid_time:
                gpu.last_xid, gpu.xid_time = event.code, event.time
        return True

    def _is_twin(self, event: Event, name: str) -> bool:
        """Whether an event waits that the other source has told; else this one waits from now on.

        Each source tells in order of time, so what is too old for this event is too old for all
        that follow.
        """
        assert event.code is not None
        other = "kernel" if event.source == "nvml" else "nvml"
        twins = self._waiting.get((other, name, event.code))
        while twins and twins[0][0] + 1 + WINDOW < event.time:
            twins.popleft()
        if twins and twins[0][0] <= event.time + WINDOW:
            twins[0][1] -= 1
            if not twins[0][1]:
                twins.popleft()
            return True
        key = event.source, name, event.code
        if key not in self._waiting and len(self._waiting) >= GPUS * CODES // 16:
            self._waiting.clear()
        own = self._waiting.setdefault(key, deque(maxlen=SECONDS))
        second = math.floor(event.time)
        if own and second < own[-1][0] - WINDOW:  # the clock was set back
            own.clear()
        if own and own[-1][0] >= second:
            own[-1][1] += 1
        else:
            own.append([second, 1])
        return False

    def _complete(self, event: Event) -> None:
        """Gives the text of a line to the event that the driver told without one."""
        if not event.text:
            return
        for index in range(len(self._events) - 1, max(-1, len(self._events) - 1 - RECENT), -1):
            known = self._events[index]
            if (
                not known.text
                and (known.kind, known.uuid, known.code) == ("xid", event.uuid, event.code)
                and abs(known.time - event.time) <= WINDOW + 1
            ):
                self._events[index] = msgspec.structs.replace(
                    known, text=event.text, pci=known.pci or event.pci
                )
                return

    def _rename(self, pci: str, uuid: str) -> None:
        old = self._gpus.pop(pci, None)
        if old is not None:
            gpu = self._gpus.setdefault(uuid, _Gpu())
            for code, number in old.xids.items():
                gpu.xids[code] = gpu.xids.get(code, 0) + number
            for kind, number in old.kinds.items():
                gpu.kinds[kind] = gpu.kinds.get(kind, 0) + number
            if old.last_xid is not None and old.xid_time >= gpu.xid_time:
                gpu.last_xid, gpu.xid_time = old.last_xid, old.xid_time
            gpu.time = max(gpu.time, old.time)
            for index, event in enumerate(self._events):
                if event.uuid is None and event.pci == pci and event.kind != "sxid":
                    self._events[index] = msgspec.structs.replace(event, uuid=uuid)
        for source, name, code in list(self._waiting):
            if name == pci:
                twins = self._waiting.pop((source, name, code))
                self._waiting.setdefault((source, uuid, code), twins)

    # The file.

    def start(self, timeout: float = 1.0) -> str | None:
        """Reads the file, before anything is counted, and lets it be written from now on. What is
        wrong with the file, or that the disk has not answered in ``timeout`` seconds; counting then
        begins at 0."""
        if self.directory is None:
            return None
        self._thread = threading.Thread(target=self._run, name="gpu-events", daemon=True)
        self._thread.start()
        with self._changed:
            if not self._changed.wait_for(lambda: self._loaded, timeout):
                self._late = True
                self.problem = f"{self.directory}: the disk does not answer"
            return self.problem

    def flush(self, timeout: float) -> bool:
        """Asks for a writing and waits for it; whether all is in the file."""
        if self._thread is None:
            return self.directory is None
        with self._changed:
            self._ask()
            wanted = self._asked
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._done >= wanted or self._ended, timeout)
            return self._done >= wanted and self.problem is None

    def close(self, timeout: float) -> bool:
        """Writes a last time; whether all is in the file."""
        end = time.monotonic() + timeout
        written = self.flush(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(0.0, end - time.monotonic()))
        return written

    def _ask(self) -> None:
        """Asks for a writing; what is asked while one is going on is one more. The lock is held."""
        self._asked += 1
        self._changed.notify_all()

    def _run(self) -> None:
        """The thread: reads once, then writes when asked to."""
        state, problem = self._read()
        with self._changed:
            if not self._late:
                self._restore(state)
                self.problem = problem
            self._set_aside = problem is not None or self._late
            self._loaded = True
            self._changed.notify_all()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked != self._done or self._closing)
                if self._asked == self._done:
                    self._ended = True
                    break
                asked = self._asked
                content = self._encode()
            try:
                self._write(content)
                problem = None
            except OSError as error:
                problem = f"{self.directory}/{FILE}: cannot be written: {error.strerror or error}"
            with self._changed:
                self.problem = problem
                self._done = asked
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._hurried or self._closing, PAUSE)
                self._hurried = False
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _restore(self, state: _State) -> None:
        self._names = state.names
        self._gpus = state.gpus
        self._sxids = state.sxids
        self._events.extend(state.events)
        if state.boot:
            self._position = Position(state.boot, state.sequence)
        for name, code, second, number in state.waiting:
            key = "nvml", name, code
            self._waiting.setdefault(key, deque(maxlen=SECONDS)).append([second, number])
        self.changes += 1

    def _encode(self) -> bytes:
        waiting = [
            (name, code, second, number)
            for (source, name, code), twins in self._waiting.items()
            for second, number in twins
            if source == "nvml"
        ]
        waiting.sort(key=lambda entry: entry[2])
        boot, sequence = self._position or ("", -1)
        state = _State(
            boot=boot,
            sequence=sequence,
            names=self._names,
            gpus=self._gpus,
            sxids=self._sxids,
            waiting=waiting[-WAITING:],
            events=list(self._events),
        )
        text = msgspec.json.encode(state)
        return msgspec.json.encode(_File(VERSION, zlib.crc32(text), msgspec.Raw(text)))

    def _read(self) -> tuple[_State, str | None]:
        """The file's state, and what is wrong with it. That it is missing is not; its directory is
        made."""
        assert self.directory is not None
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            return _State(), f"events are not kept: {self.directory}: {error.strerror}"
        path = f"{self.directory}/{FILE}"
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return _State(), f"{path}: is not a regular file; counting begins at 0"
                content = file.read(SIZE + 1)
        except FileNotFoundError:
            return _State(), None
        except OSError as error:
            return _State(), f"{path}: {error.strerror}; counting begins at 0"
        try:
            found = _DECODE_FILE.decode(content)
            if found.version > VERSION:
                return _State(), f"{path}: is of a newer version; counting begins at 0"
            text = bytes(found.state)
            if len(content) > SIZE or found.version != VERSION or found.crc32 != zlib.crc32(text):
                raise ValueError
            return _DECODE_STATE.decode(text), None
        except (ValueError, RecursionError, msgspec.MsgspecError):
            return _State(), f"{path}: is damaged, or not ours; counting begins at 0"

    def _write(self, content: bytes) -> None:
        """Replaces the file: at each moment the old one or the new one is there, and whole. What
        could not be read is kept beside it, as ``….old``. Raises OSError."""
        assert self.directory is not None
        self._take_lock()
        path = f"{self.directory}/{FILE}"
        new = f"{path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)  # noqa: PTH108
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if self._set_aside:
            with contextlib.suppress(OSError):
                os.replace(path, f"{path}.old")  # noqa: PTH105
            self._set_aside = False
        os.replace(new, path)  # noqa: PTH105
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _take_lock(self) -> None:
        """Sees to it that one agent writes, until it ends. Raises OSError."""
        if self._lock >= 0:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(f"{self.directory}/{FILE}.lock", flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise OSError(errno.EBUSY, "another agent writes it") from None
        except OSError:
            os.close(descriptor)
            raise
        self._lock = descriptor


def _increment(counters: dict[_Key, int], key: _Key, limit: int) -> None:
    """Counts up, unless there are too many keys already."""
    if key in counters or len(counters) < limit:
        counters[key] = counters.get(key, 0) + 1
