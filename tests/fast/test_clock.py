"""adjtimex, against the same call through ctypes."""

import ctypes

from esnode._fast import clock

STA_UNSYNC, STA_NANO = 0x40, 0x2000
TIME_ERROR = 5


class Timex(ctypes.Structure):
    """struct timex of adjtimex(2), as far as the tick; the kernel writes 208 bytes."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance")),
        ("rest", ctypes.c_char * 256),
    )


def expected() -> tuple[float, float, bool]:
    state = Timex()
    answer = ctypes.CDLL(None).adjtimex(ctypes.byref(state))
    unit = 1_000_000_000 if state.status & STA_NANO else 1_000_000
    synchronized = answer != TIME_ERROR and not state.status & STA_UNSYNC
    return state.offset / unit, state.maxerror / 1_000_000, synchronized


def test_values_are_those_of_the_call() -> None:
    for _ in range(20):
        before = expected()
        values = clock.read()
        if expected() == before:
            assert values == before
            assert [type(value) for value in values] == [float, float, bool]
            return
    raise AssertionError("the clock's state does not keep still")
