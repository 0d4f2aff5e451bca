"""The node's power from a BMC that fake_ipmi.c plays; test_ipmi.py runs this below it."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import random
import struct
import time
from collections.abc import Iterator

import pytest

from esnode._fast.ipmi import Power
from tests.process import SANITIZED, descriptors, resident

PATH = os.environ["FAKE_IPMI"]
LONGEST = 512

ACTIVE = 0x40


class Bmc(ctypes.Structure):
    """The script of fake_ipmi.c, and what it has seen."""

    _fields_ = (
        ("after", ctypes.c_int),
        ("strays", ctypes.c_int),
        ("open_error", ctypes.c_int),
        ("poll_error", ctypes.c_int),
        ("send_error", ctypes.c_int),
        ("receive_error", ctypes.c_int),
        ("requests", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_int),
        ("answer", ctypes.c_ubyte * LONGEST),
    )

    def say(self, answer: bytes) -> None:
        """What the BMC answers from now on."""
        self.size = len(answer)
        ctypes.memmove(self.answer, answer, len(answer))


def reading(watts: int, code: int = 0, group: int = 0xDC, state: int = ACTIVE) -> bytes:
    """An answer: least, most and average, the time and the period are not what is asked for."""
    return struct.pack("<BBHHHHIIB", code, group, watts, 2, 9999, 555, 1718000000, 1000, state)


def expected(answer: bytes) -> float | None:
    """The oracle."""
    if len(answer) < 19 or answer[:2] != b"\x00\xdc" or answer[18] // 64 % 2 == 0:
        return None
    return float(int.from_bytes(answer[2:4], "little")) or None


@pytest.fixture
def bmc() -> Iterator[Bmc]:
    fake = Bmc.in_dll(ctypes.CDLL(os.environ["FAKE_IPMI_LIBRARY"]), "fake_ipmi")
    ctypes.memset(ctypes.byref(fake), 0, ctypes.sizeof(fake))
    fake.say(reading(350))
    yield fake
    ctypes.memset(ctypes.byref(fake), 0, ctypes.sizeof(fake))


def asked(power: Power) -> float | None:
    """One round."""
    power.ask()
    return power.answer()


def test_it_is_the_power_now_in_watts(bmc: Bmc) -> None:
    power = Power(PATH)
    assert power.answer() is None, "nothing was asked"
    assert asked(power) == 350
    bmc.say(reading(0x1234))
    assert power.answer() == 350, "until the next answer"
    assert asked(power) == 0x1234
    bmc.say(reading(65535))
    assert asked(power) == 65535
    assert bmc.requests == 3


def test_the_device_is_opened_so_that_nothing_waits_and_no_child_has_it(bmc: Bmc) -> None:
    power = Power(PATH)
    assert power.path == PATH
    assert bmc.flags & os.O_ACCMODE == os.O_RDWR
    assert bmc.flags & os.O_NONBLOCK
    assert bmc.flags & os.O_CLOEXEC


def test_a_slow_answer_is_taken_when_it_has_come(bmc: Bmc) -> None:
    power = Power(PATH)
    assert asked(power) == 350
    bmc.after = 4
    bmc.say(reading(360))
    power.ask()
    assert [power.answer() for _ in range(6)] == [350, 350, 350, 350, 360, 360]


def test_one_request_at_a_time(bmc: Bmc) -> None:
    power = Power(PATH)
    bmc.after = -1
    for _ in range(10):
        assert asked(power) is None
    assert bmc.requests == 1


def test_an_answer_that_never_comes_is_given_up(bmc: Bmc) -> None:
    power = Power(PATH, timeout=0.05)
    bmc.after = -1
    assert asked(power) is None
    bmc.after = 0
    time.sleep(0.06)
    assert asked(power) == 350
    assert bmc.requests == 2


def test_an_answer_to_a_request_that_was_given_up_is_not_taken(bmc: Bmc) -> None:
    power = Power(PATH, timeout=0)
    bmc.after = 2
    power.ask()
    bmc.say(reading(360))
    power.ask()  # the first poll
    assert [power.answer() for _ in range(5)] == [None, None, None, 360, 360]
    assert bmc.requests == 2


def test_an_answer_that_lies_there_is_taken_before_it_is_given_up(bmc: Bmc) -> None:
    power = Power(PATH, timeout=0)
    power.ask()
    bmc.after = -1
    power.ask()
    assert power.answer() == 350


def test_a_reading_grows_old(bmc: Bmc) -> None:
    power = Power(PATH, max_age=0.5)
    assert asked(power) == 350
    bmc.after = -1
    assert asked(power) == 350
    time.sleep(0.51)
    assert power.answer() is None


def test_its_age_counts_from_when_it_was_asked_for(bmc: Bmc) -> None:
    """It may have come right then, and lain there."""
    power = Power(PATH, max_age=0.05)
    power.ask()
    time.sleep(0.06)
    assert power.answer() is None
    assert power.answer() is None
    power.ask()
    assert bmc.requests == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xc1",
        b"\xc3",
        b"\xc1\xdc",
        b"\xd5\xdc",
        reading(350, code=0xC1),
        reading(350, code=0xD5),
        reading(350, code=0xFF),
        reading(350, group=0xDD),
        reading(350, group=0),
        reading(350)[:-1],
        reading(350)[:4],
        reading(350, state=0),
        reading(350, state=0xFF & ~ACTIVE),
        reading(0),
    ],
    ids=bytes.hex,
)
def test_an_answer_without_a_reading_takes_the_last_one_away(bmc: Bmc, answer: bytes) -> None:
    power = Power(PATH)
    assert asked(power) == 350
    bmc.say(answer)
    assert asked(power) is None
    assert power.answer() is None
    bmc.say(reading(340))
    assert asked(power) == 340


@pytest.mark.parametrize("more", [1, 200, 253, 254, 493])
def test_an_answer_may_be_longer(bmc: Bmc, more: int) -> None:
    """Beyond 272 bytes the kernel cuts it, and says EMSGSIZE."""
    power = Power(PATH)
    bmc.say(reading(350) + bytes(more))
    assert asked(power) == 350
    assert asked(power) == 350
    assert bmc.requests == 2


def test_any_bytes_are_a_reading_or_none(bmc: Bmc) -> None:
    chance = random.Random(1)
    power = Power(PATH)
    for _ in range(3000):
        answer = bytearray(reading(chance.randrange(65536)))
        for _ in range(chance.randrange(3)):
            answer[chance.choice((0, 1, 2, 3, 18))] = chance.randrange(256)
        answer = answer[: chance.choice((19, 19, 19, chance.randrange(19)))]
        bmc.say(bytes(answer))
        assert asked(power) == expected(bytes(answer)), answer.hex()
    for size in range(LONGEST + 1):
        answer = bytearray(chance.randbytes(size))
        bmc.say(bytes(answer))
        assert asked(power) == expected(bytes(answer)), answer.hex()


@pytest.mark.parametrize("strays", [1, 2, 50])
def test_other_messages_are_thrown_away(bmc: Bmc, strays: int) -> None:
    power = Power(PATH)
    bmc.strays = strays
    assert asked(power) == 350
    assert asked(power) == 350


def test_a_flood_of_messages_holds_nothing_up(bmc: Bmc) -> None:
    power = Power(PATH)
    bmc.strays = 250
    assert asked(power) is None
    assert power.answer() is None
    assert power.answer() == 350


@pytest.mark.parametrize(
    ("where", "error"),
    [("send_error", errno.EIO), ("receive_error", errno.EIO), ("poll_error", errno.EBADF)],
)
def test_a_device_that_fails_is_named(bmc: Bmc, where: str, error: int) -> None:
    power = Power(PATH)
    setattr(bmc, where, error)
    with pytest.raises(OSError) as caught:
        asked(power)
    assert (caught.value.errno, caught.value.filename) == (error, PATH)


def test_a_request_that_could_not_be_sent_is_not_waited_for(bmc: Bmc) -> None:
    power = Power(PATH)
    bmc.send_error = errno.EBUSY
    with pytest.raises(OSError, match="busy"):
        power.ask()
    bmc.send_error = 0
    assert asked(power) == 350


def test_a_device_that_goes_away_and_comes_back(bmc: Bmc) -> None:
    power = Power(PATH)
    assert asked(power) == 350
    bmc.send_error = errno.ENODEV
    for _ in range(2):
        with pytest.raises(OSError, match="No such device"):
            power.ask()
    bmc.open_error = errno.ENODEV
    with pytest.raises(OSError, match="No such device") as caught:
        Power(PATH)
    assert caught.value.filename == PATH
    bmc.open_error = bmc.send_error = 0
    power = Power(PATH)
    assert power.answer() is None
    assert asked(power) == 350


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EINTR])
def test_a_message_that_is_not_there_after_all_is_waited_for(bmc: Bmc, error: int) -> None:
    power = Power(PATH)
    bmc.receive_error = error
    assert asked(power) is None
    bmc.receive_error = 0
    assert power.answer() == 350


@pytest.mark.parametrize("after", [-1, 0, 3])
def test_nothing_waits(bmc: Bmc, after: int) -> None:
    """Not for a millisecond: a thousand rounds are over in less than as many."""
    power = Power(PATH, timeout=0)
    bmc.after = after
    bmc.strays = 5
    start = time.monotonic()
    for _ in range(1000):
        asked(power)
    assert time.monotonic() - start < 1


def test_nothing_is_leaked(bmc: Bmc) -> None:
    """Readings, refusals, failures and devices opened anew."""

    def use(rounds: int) -> None:
        power = Power(PATH, timeout=0)
        for i in range(rounds):
            bmc.say(reading(1 + i % 1000, code=0xC1 if i % 7 == 0 else 0))
            bmc.after = (0, 0, 2, -1)[i % 4]
            bmc.strays = i % 3
            bmc.send_error = errno.EIO if i % 5 == 0 else 0
            try:
                asked(power)
            except OSError:
                power = Power(PATH, timeout=0)
            if i % 11 == 0:
                bmc.open_error = errno.ENODEV
                with pytest.raises(OSError):
                    Power(PATH)
                bmc.open_error = 0

    use(2000)
    gc.collect()
    before, memory = descriptors(), resident()
    use(10_000)
    gc.collect()
    assert descriptors() == before
    assert SANITIZED or resident() - memory < 256 * 1024
