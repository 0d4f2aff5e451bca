"""Slow, obvious readers of the kernel's files and messages, to compare the compiled ones with.

Only whole lines count: a last line without its newline was cut short, and its last number with it.
A number is digits, with at most one point between them; one that does not fit 64 bits is absent.
"""

from __future__ import annotations

import errno
import math
import re
import struct
from collections.abc import Iterable, Iterator

Cells = dict[int, bytes]

_NUMBER = re.compile(rb"([0-9]+)(?:\.([0-9]+))?")


def lines(text: bytes) -> list[bytes]:
    return text.split(b"\n")[:-1]


def fields(line: bytes) -> list[bytes]:
    return [field for field in line.replace(b"\t", b" ").split(b" ") if field]


def number(field: bytes) -> float | None:
    match = _NUMBER.fullmatch(field)
    if not match:
        return None
    whole, fraction = match[1], match[2] or b""
    units = int(whole + fraction)
    if units >= 2**64 or len(fraction) >= 20:
        return None
    return float(units) / 10.0 ** len(fraction)


def integer(field: bytes) -> int | None:
    return int(field) if field.isdigit() and int(field) < 2**64 else None


def keyed(text: bytes, key: int = 0) -> list[tuple[bytes, Cells]]:
    """(key, the other columns) of each line whose key is column ``key``."""
    rows = []
    for line in lines(text):
        cells = dict(enumerate(fields(line)))
        if key in cells:
            rows.append((cells.pop(key), cells))
    return rows


def before_last(text: bytes, mark: bytes) -> list[tuple[bytes, Cells]]:
    """(key, columns from 1) of each line whose key is all text before the last ``mark``."""
    rows = []
    for line in lines(text):
        name, _, rest = line.rpartition(mark)
        if name := name.strip(b" \t"):
            rows.append((name, dict(enumerate(fields(rest), 1))))
    return rows


def behind(rows: Iterable[tuple[bytes, Cells]], mark: bytes) -> list[tuple[bytes, Cells]]:
    """The rows with each column cut to what stands behind its first ``mark``, if anything does."""
    return [
        (name, {at: field.partition(mark)[2] or field for at, field in cells.items()})
        for name, cells in rows
    ]


def column(rows: Iterable[tuple[bytes, Cells]], key: bytes, at: int) -> float | None:
    """The number in a column of a key's line; of several such lines the last that has one."""
    found = None
    for name, cells in rows:
        if name == key and at in cells:
            value = number(cells[at])
            found = found if value is None else value
    return found


def total(
    rows: Iterable[tuple[bytes, Cells]], key: bytes, plus: Iterable[int], less: Iterable[int] = ()
) -> float | None:
    """The sum of some columns less others. The first must be there, the others may be missing;
    one that is no whole number, or less than nothing in all, spoils the line."""
    plus, less = list(plus), list(less)
    found = None
    for name, cells in rows:
        if name != key or min(plus) not in cells:
            continue
        more = [integer(cells[at]) for at in plus if at in cells]
        fewer = [integer(cells[at]) for at in less if at in cells]
        if None not in more + fewer:
            value = sum(n for n in more if n is not None) - sum(n for n in fewer if n is not None)
            found = float(value) if value >= 0 else found
    return found


def loadavg(text: bytes) -> list[float | None]:
    """The numbers of the first line."""
    return [number(field) for line in lines(text)[:1] for field in fields(line)]


def softnet(text: bytes) -> dict[int, list[int]] | None:
    """{CPU: (processed, dropped, squeezed)} of net/softnet_stat; None when a line is not of it."""
    cpus: dict[int, list[int]] = {}
    for n, line in enumerate(lines(text)):
        columns = fields(line)[:13]
        if len(columns) < 3 or not all(re.fullmatch(rb"[0-9a-fA-F]{1,8}", c) for c in columns):
            return None
        numbers = [int(column, 16) for column in columns]
        cpu = numbers[12] if len(numbers) > 12 else n
        if cpu in cpus or cpu >= 8192:
            return None
        cpus[cpu] = numbers[:3]
    return cpus if cpus and text.endswith(b"\n") else None


class Unwrapped:
    """A counter of 32 bits and what it has counted since it was first read, or reset."""

    def __init__(self, raw: int) -> None:
        self.raw = self.total = raw

    def advance(self, raw: int) -> None:
        step = (raw - self.raw) % 2**32
        self.total = self.total + step if step < 2**31 else raw
        self.raw = raw


class Softnet:
    """The sums of net/softnet_stat, reading after reading."""

    def __init__(self) -> None:
        self.cpus: dict[int, list[Unwrapped]] = {}

    def read(self, text: bytes) -> list[float] | None:
        found = softnet(text)
        if found is None:
            return None
        for number, columns in found.items():
            if number not in self.cpus:
                self.cpus[number] = [Unwrapped(raw) for raw in columns]
            for counter, raw in zip(self.cpus[number], columns, strict=True):
                counter.advance(raw)
        return [float(sum(cpu[i].total for cpu in self.cpus.values())) for i in range(3)]


class Link:
    """What is known of an interface."""

    def __init__(self) -> None:
        self.name = b""
        self.operstate = 0
        self.address = b""
        self.mtu = self.carrier_changes = math.nan

    def identity(self) -> tuple[bytes, int, bytes]:
        """What is news when it is another."""
        return self.name, self.operstate, self.address


class Links:
    """The interfaces by number, from the kernel's messages that answer the first request."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.complete = self.changed = False

    def take(self, datagram: bytes) -> None:
        """Takes in the messages of a datagram. Raises OSError."""
        while len(datagram) >= 16:
            size, kind, flags, sequence = struct.unpack_from("=IHHI", datagram)
            if not 16 <= size <= len(datagram):
                raise OSError(errno.EBADMSG, "the size of a message")
            self._message(kind, flags, sequence == 1, datagram[16:size])
            datagram = datagram[(size + 3) // 4 * 4 :]

    def _message(self, kind: int, flags: int, answer: bool, body: bytes) -> None:
        interrupted = answer and flags & 0x10
        if kind in (16, 17):  # RTM_NEWLINK, RTM_DELLINK
            if len(body) < 16:
                raise OSError(errno.EBADMSG, "a link without its number")
            family, index = struct.unpack_from("=Bxxxi", body)
            if interrupted:
                raise OSError(errno.EAGAIN, "the dump is inconsistent")
            if family == 0 and kind == 16:
                self._put(index, body[16:])
            elif family == 0:
                self.changed |= self.links.pop(index, None) is not None
        elif answer and kind in (2, 3):  # NLMSG_ERROR, NLMSG_DONE
            code = struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
            if code:
                raise OSError(-code if -4096 < code < 0 else errno.EBADMSG, "the kernel's")
            if interrupted:
                raise OSError(errno.EAGAIN, "the dump is inconsistent")
            self.complete |= kind == 3

    def _put(self, index: int, body: bytes) -> None:
        link = self.links.get(index) or Link()
        found = dict(self._attributes(body))  # of several the last counts
        before = link.identity()
        link.name = found.get(3, link.name)[:15].partition(b"\0")[0]
        link.address = found.get(1, link.address)[:32]
        link.operstate = found.get((16, 1), bytes([link.operstate]))[0]
        for kind, name in ((4, "mtu"), (35, "carrier_changes")):
            if (kind, 4) in found:
                setattr(link, name, float(int.from_bytes(found[kind, 4][:4], "little")))
        self.changed |= index not in self.links or link.identity() != before
        self.links[index] = link

    def _attributes(self, body: bytes) -> Iterator[tuple[int | tuple[int, int], bytes]]:
        """(kind, data) of each; of those that are numbers ((kind, size), data), if it has it."""
        while len(body) >= 4:
            size, kind = struct.unpack_from("=HH", body)
            if not 4 <= size <= len(body):
                raise OSError(errno.EBADMSG, "the size of an attribute")
            data, kind = body[4:size], kind & 0x3FFF
            least = {16: 1, 4: 4, 35: 4}.get(kind, 0)
            if not least:
                yield kind, data
            elif len(data) >= least:
                yield (kind, least), data
            body = body[(size + 3) // 4 * 4 :]


def pairs(text: bytes) -> dict[bytes, float]:
    """{title + name: value} of a file whose lines alternate between names and values."""
    found: dict[bytes, float] = {}
    whole = lines(text)
    for names, values in zip(whole[::2], whole[1::2], strict=False):
        above, below = fields(names), fields(values)
        if above and below and above[0] == below[0]:
            for name, field in zip(above[1:], below[1:], strict=False):
                value = integer(field)
                if value is not None:
                    found[above[0] + name] = float(value)
    return found


def news(
    rows: Iterable[tuple[bytes, Cells]], start: bytes, shape: Iterable[int]
) -> dict[bytes, None]:
    """The keys, in order, that begin with ``start`` and have digits in all columns of ``shape``,
    whatever their size."""
    shape = list(shape)
    return {
        name: None
        for name, cells in rows
        if name.startswith(start) and all(_NUMBER.fullmatch(cells.get(at, b"")) for at in shape)
    }


def single(text: bytes, signed: bool = False, state: bool = False) -> tuple[float | None, bool]:
    """The number of a file of one value, and whether the file is such a one: it is without a number
    as well where it says N/A, or a number below zero that is not to be. ``state``: the number
    stands before a colon."""
    word = text.strip(b" \t\n\0")
    if len(text) >= 512:
        return None, False
    if word.startswith(b"N/A"):
        return None, True
    if state:
        word = word.partition(b":")[0]
    value = number(word.removeprefix(b"-"))
    if value is None or not word.startswith(b"-"):
        return value, value is not None
    return (-value if signed else None), True


def digits(text: str) -> int:
    """How many a number has, but for its exponent and zeros at its ends."""
    return len(text.split("e")[0].replace(".", "").replace("-", "").strip("0"))
