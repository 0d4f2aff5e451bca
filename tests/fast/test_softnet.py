"""The reader of net/softnet_stat, against the plain-Python oracle."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esnode._fast.procfs import MALFORMED
from esnode._fast.softnet import Softnet
from esnode._fast.table import Table
from tests import oracle
from tests.fast.texts import texts

Values = list[float] | None

SAMPLE = (
    b"00015c73 00020e76 F0000769 00000000 00000000 00000000 00000000 00000000 00000000 00000000 "
    b"00000000 00000000 00000000 00000000 00000000\n"
    b"01663fb2 00000000 0109a4 00000000 00000000 00000000 00000000 00000000 00000000 00000000 "
    b"00000000 00000000 00000001 00000000 00000000\n"
)
WORDS = (b"0", b"1", b"00000002", b"7fffffff", b"80000000", b"ffffffff", b"1fff", b"2000")


class Bound:
    """The reader on a file in a directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "softnet_stat"
        self.path.write_bytes(b"")
        self.table = Table([])
        self.slots = [self.table.hidden() for _ in range(3)]
        self.reader = Softnet(self.table, self.path, *self.slots)

    def read(self, text: bytes) -> Values:
        """The sums; None when the reader says that the text is malformed."""
        self.path.write_bytes(text)
        self.table.begin(True)
        flags = self.reader.read()
        values = [self.table.get(slot) for slot in self.slots]
        if flags:
            assert flags == MALFORMED
            assert all(map(math.isnan, values))
            return None
        return values


def lines(*cpus: tuple[int, int, int, int]) -> bytes:
    """(number, processed, dropped, squeezed) of each CPU, as newer kernels write them."""
    return b"".join(
        b"%08x %08x %08x " % tuple(raw) + b"00000000 " * 9 + b"%08x 00000000 00000000\n" % number
        for number, *raw in cpus
    )


#: Texts of a few CPUs whose counters take large steps.
RAW = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))
CPUS = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 300, 8191, 8192]), RAW, RAW, RAW), min_size=1, max_size=4
).map(lambda cpus: lines(*cpus))


@pytest.fixture
def softnet(tmp_path: Path) -> Bound:
    return Bound(tmp_path)


def test_readings_agree_with_the_oracle(tmp_path: Path) -> None:
    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(CPUS, CPUS, texts(SAMPLE, WORDS)), max_size=8))
    def compare(readings: list[bytes]) -> None:
        bound, expected = Bound(tmp_path), oracle.Softnet()
        for text in readings:
            assert bound.read(text) == expected.read(text), text

    compare()


def test_the_kernels_own_file(softnet: Bound) -> None:
    path = Path("/proc/net/softnet_stat")
    if not path.exists():
        pytest.skip(f"{path} is not there")
    text = path.read_bytes()
    assert softnet.read(text) == oracle.Softnet().read(text) is not None


def test_values_of_the_file(softnet: Bound) -> None:
    assert softnet.read(SAMPLE) == [89203 + 23478194, 134774, 4026533737 + 68004]


def test_an_older_kernels_lines_count_as_the_cpus(softnet: Bound) -> None:
    old = b"00000005 00000001 00000002 00000000 00000000 00000000 00000000 00000000 00000000\n"
    assert softnet.read(old + old.replace(b"5", b"6")) == [11, 2, 4]
    assert softnet.read(old.replace(b"5", b"7") + old.replace(b"5", b"9")) == [16, 2, 4]


def test_a_counter_that_starts_over_goes_on(softnet: Bound) -> None:
    top = 2**32
    assert softnet.read(lines((0, top - 1, 0, 1), (1, 5, 5, 5))) == [top + 4, 5, 6]
    assert softnet.read(lines((0, 3, 0, 1), (1, 6, 5, 5))) == [top + 9, 5, 6]
    assert softnet.read(lines((0, top - 9, 0, 1), (1, 6, 5, 5))) == [top - 3, 5, 6], "a reset"


def test_a_cpu_that_goes_offline_keeps_what_it_counted(softnet: Bound) -> None:
    assert softnet.read(lines((0, 10, 1, 0), (1, 20, 2, 0), (2, 30, 3, 0))) == [60, 6, 0]
    assert softnet.read(lines((0, 11, 1, 0), (2, 31, 3, 0))) == [62, 6, 0]
    assert softnet.read(lines((2, 32, 3, 0))) == [63, 6, 0]
    assert softnet.read(lines((0, 12, 1, 0), (1, 25, 2, 0), (2, 32, 3, 0))) == [69, 6, 0]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"1 2 3",
        b"1 2\n",
        b"1 2 3\n1 2 g\n",
        b"1 2 3\n\n",
        b"1 2 100000000\n",
        b"1 2 000000003\n",
        b"1 2 -3\n",
        b"1 2 0x3\n",
        lines((0, 1, 2, 3), (0, 1, 2, 3)),
        lines((8192, 1, 2, 3)),
        lines((0, 9, 9, 9)) + lines((1, 9, 9, 9))[:-1],
        lines((0, 9, 9, 9)).replace(b"00000000 00000000\n", b"x y\n").replace(b" x", b"x"),
    ],
)
def test_a_malformed_line_costs_the_reading_and_nothing_else(softnet: Bound, text: bytes) -> None:
    assert softnet.read(lines((0, 1, 2, 3), (1, 4, 5, 6))) == [5, 7, 9]
    assert softnet.read(text) is None
    assert softnet.read(lines((0, 2, 2, 3), (1, 4, 5, 6))) == [6, 7, 9]


def test_what_is_no_readable_file_raises_and_costs_nothing_else(softnet: Bound) -> None:
    assert softnet.read(lines((0, 1, 2, 3))) == [1, 2, 3]
    softnet.path.unlink()
    with pytest.raises(FileNotFoundError) as error:
        softnet.reader.read()
    assert error.value.filename == softnet.reader.file.path == str(softnet.path)
    os.mkfifo(softnet.path)
    with pytest.raises(OSError):
        softnet.reader.read()
    softnet.path.unlink()
    assert softnet.read(lines((0, 2, 2, 3))) == [2, 2, 3]


def test_slots_that_are_none_are_refused(tmp_path: Path) -> None:
    table = Table([])
    with pytest.raises(IndexError):
        Softnet(table, tmp_path, table.hidden(), table.hidden(), 2)
