"""csrc/num.h, through the encoder: the shortest text that reads back exactly."""

import math
import struct
import subprocess
import sys
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from esnode._fast.encode import text_of
from tests.oracle import digits

CSRC = Path(__file__).parents[2] / "csrc"


@settings(max_examples=5000)
@given(st.floats(allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(1.7976931348623157e308)
@example(2.2250738585072014e-308)
@example(9007199254740993.0)
@example(1e21)
@example(1e22)
@example(123456789012345680000.0)
@example(0.1)
@example(0.00001)
@example(0.000001)
def test_reads_back_and_is_as_short_as_python(value: float) -> None:
    text = text_of(value).decode()
    assert float(text) == value
    assert digits(text) == digits(repr(value))


@given(st.integers(0, 2**64 - 1))
def test_every_bit_pattern(bits: int) -> None:
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    text = text_of(value).decode()
    if math.isfinite(value):
        assert float(text) == value
    elif math.isnan(value):
        assert text == "NaN"
    else:
        assert text == ("+Inf" if value > 0 else "-Inf")


def test_spelling() -> None:
    assert text_of(0) == b"0"
    assert text_of(-0.0) == b"0"
    assert text_of(-1.5) == b"-1.5"
    assert text_of(123456789) == b"123456789"
    assert text_of(1e20) == b"100000000000000000000"
    assert text_of(1e21) == b"1e+21"
    assert text_of(1.5e-7) == b"1.5e-07"
    assert text_of(0.0001) == b"0.0001"


def test_table_of_powers_is_what_its_script_writes() -> None:
    written = subprocess.run(
        [sys.executable, CSRC / "pow10.py"], capture_output=True, text=True, check=True
    ).stdout
    assert written == (CSRC / "pow10.h").read_text()
