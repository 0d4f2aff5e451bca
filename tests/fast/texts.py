"""Texts for the readers: what kernels write, damaged, and what no kernel would write."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

#: Field by field what a reader of digits may stumble over.
ODD = (
    b"0",
    b"00000000000000000000000000000000007",
    b"9007199254740993",
    b"18446744073709551615",
    b"18446744073709551616",
    b"184467440737095516150",
    b"9" * 400,
    b"-1",
    b"+1",
    b"1.5",
    b"1.",
    b".5",
    b".",
    b"1..5",
    b"1.2.3",
    b"0." + b"0" * 18 + b"1",
    b"0." + b"0" * 19 + b"1",
    b"1844674407370955161.5",
    b"1844674407370955161.6",
    b"0x1f",
    b"1e3",
    b"1_000",
    b"\xd9\xa3",
    b"\x00",
    b"1\x00",
    b"nan",
    b"1\r",
    b"1\x0b2",
    b"k" * 5000,
)

NUMBERS = st.one_of(
    st.integers(0, 2**66).map(lambda n: b"%d" % n),
    st.integers(0, 10**7).map(lambda n: b"%d.%02d" % divmod(n, 100)),
)


def fields(words: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """A field: mostly one of the file's own words or a number."""
    return st.one_of(
        st.sampled_from(list(words)),
        st.sampled_from(list(words)),
        NUMBERS,
        NUMBERS,
        st.sampled_from(ODD),
        st.binary(max_size=6),
    )


def made(words: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Lines of fields in any order, and now and then hundreds of columns or a last line cut."""
    blank = st.sampled_from([b" ", b" ", b"  ", b"\t"])
    field = fields(words)
    line = st.one_of(
        st.tuples(st.sampled_from(list(words)), st.lists(field, max_size=20)),
        st.tuples(field, st.lists(field, max_size=4)),
        st.tuples(st.sampled_from(list(words)), st.just([b"7"] * 300)),
    ).flatmap(lambda parts: blank.map(lambda b: b.join([parts[0], *parts[1]])))
    whole = st.lists(line, max_size=8).map(lambda lines: b"".join(x + b"\n" for x in lines))
    return st.tuples(whole, st.one_of(st.just(b""), line)).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn, text: bytes, words: Sequence[bytes]) -> bytes:
    """A kernel's text with some fields replaced, lines doubled, moved or lost, and cut anywhere."""
    lines = text.splitlines(keepends=True)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        act = draw(st.sampled_from(["field", "field", "double", "move", "lose", "short"]))
        if act == "field":
            parts = lines[at].split(b" ")
            parts[draw(st.integers(0, len(parts) - 1))] = draw(fields(words))
            lines[at] = b" ".join(parts)
        elif act == "double":
            lines.insert(draw(st.integers(0, len(lines))), lines[at])
        elif act == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
        elif act == "short":
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))] + b"\n"
        elif len(lines) > 1:
            lines.pop(at)
    text = b"".join(lines)
    return text[: draw(st.one_of(st.just(len(text)), st.integers(0, len(text))))]


def texts(sample: bytes, words: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """All of the above, and bytes without any sense."""
    return st.one_of(damaged(sample, words), made(words), st.binary(max_size=200))
