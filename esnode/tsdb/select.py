"""What an export is asked for: a range of time, names of metrics, series selectors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import msgspec

#: Milliseconds since 1970; a range without an end reaches to the ends of what is kept.
EARLIEST = 0
LATEST = 10**15
#: A number from here on is in milliseconds: as seconds it would be after the year 5000.
MILLISECONDS = 10**11

_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{0,9})?")
# The blank before an offset is a plus that was not encoded in a URL.
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?"
    r"(?:[Zz]|([-+ ])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_PATTERN = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\*?|\*")
_NAME = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*")
_MATCHER = re.compile(
    r"""\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*
    ("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)\s*""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    rb"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}|[0-3][0-7]{2}|.)",
    re.DOTALL,
)
_ESCAPES = dict(zip(b"abfnrtv\\\"'", b"\a\b\f\n\r\t\v\\\"'", strict=True))


class SelectError(ValueError):
    """A parameter that cannot be understood; the text begins with its name."""

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter}: {problem}")


class Matcher(msgspec.Struct, frozen=True):
    """One comparison of a selector. A label that a series does not have is the empty text."""

    label: str
    equal: bool
    value: str

    def holds(self, labels: dict[str, str]) -> bool:
        """Whether a series' labels, ``__name__`` among them, satisfy it."""
        return (labels.get(self.label, "") == self.value) == self.equal


class Selection(msgspec.Struct, frozen=True):
    """A range of time, both ends included, and the series in it.

    A series is wanted when its name is one of ``names`` or begins with one of ``prefixes`` (any
    name where both are empty), and all matchers of one of the ``selectors`` hold (or there are
    none).
    """

    start: int = EARLIEST
    end: int = LATEST
    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    selectors: tuple[tuple[Matcher, ...], ...] = ()

    @property
    def everything(self) -> bool:
        """Whether every series is wanted."""
        return not (self.names or self.prefixes or self.selectors)

    def named(self, name: str) -> bool:
        """Whether a series of this metric may be wanted."""
        if not (self.names or self.prefixes):
            return True
        return name in self.names or name.startswith(self.prefixes)

    def wanted(self, metric: bytes) -> bool:
        """Whether a series is wanted, by its metric object as a line has it."""
        if self.everything:
            return True
        labels = msgspec.json.decode(metric, type=dict[str, str])
        return self.named(labels.get("__name__", "")) and (
            not self.selectors
            or any(all(matcher.holds(labels) for matcher in chosen) for chosen in self.selectors)
        )


def select(
    start: str | None = None,
    end: str | None = None,
    metrics: Iterable[str] = (),
    match: Iterable[str] = (),
    called: tuple[str, str, str, str] = ("from", "to", "metrics", "match"),
) -> Selection:
    """The selection that texts ask for; ``called`` is what the parameters are called.

    metrics: lists of names between commas, ``*`` at a name's end stands for any letters. match:
    Prometheus series selectors. Raises SelectError.
    """
    first = EARLIEST if start is None else parse_time(called[0], start, late=True)
    last = LATEST if end is None else parse_time(called[1], end)
    # Within one millisecond a range may have nothing in it, which is no mistake.
    if start is not None and parse_time(called[0], start) > last:
        raise SelectError(called[0], f"{start} is after {called[1]}, {end}")
    patterns = [pattern for text in metrics for pattern in parse_patterns(called[2], text)]
    return Selection(
        first,
        last,
        frozenset(pattern for pattern in patterns if not pattern.endswith("*")),
        tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*")),
        tuple(parse_selector(called[3], text) for text in match),
    )


def parse_time(parameter: str, text: str, late: bool = False) -> int:
    """Milliseconds since 1970 of a text: of milliseconds, of seconds, or as RFC 3339 has it.

    What is finer than a millisecond is cut off, or with ``late`` rounded up. Raises SelectError.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        number = Decimal(text)
        exact = number if number >= MILLISECONDS else number * 1000
    elif match := _RFC3339.fullmatch(text):
        date, clock, fraction, sign, hours, minutes = match.groups()
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        try:
            moment = datetime.fromisoformat(f"{date}T{clock}+00:00")
            moment += offset if sign == "-" else -offset
        except (ValueError, OverflowError) as error:
            raise SelectError(parameter, f"{text!r}: {error}") from None
        seconds = (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(seconds=1)
        exact = (Decimal(seconds) + Decimal(fraction or 0)) * 1000
    else:
        raise SelectError(
            parameter,
            f"{text[:60]!r} is no time: give seconds or milliseconds since 1970, or RFC 3339 such"
            " as 2026-11-22T14:00:00Z",
        )
    found = math.ceil(exact) if late else math.floor(exact)
    if not EARLIEST <= found <= LATEST:
        raise SelectError(parameter, f"{text!r} is out of range")
    return found


def parse_patterns(parameter: str, text: str) -> list[str]:
    """The names between commas, each perhaps with ``*`` at its end. Raises SelectError."""
    patterns = [pattern.strip() for pattern in text.split(",")]
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise SelectError(
                parameter,
                f"{pattern[:60]!r} is no name of a metric, nor the beginning of one with * at its"
                " end",
            )
    return patterns


def parse_selector(parameter: str, text: str) -> tuple[Matcher, ...]:
    """The matchers of ``name{label="value",other!="value"}``. Raises SelectError.

    https://prometheus.io/docs/prometheus/latest/querying/basics/#time-series-selectors, without
    the matchers of regular expressions.
    """

    def wrong(problem: str) -> SelectError:
        return SelectError(parameter, f"{text[:200]!r}: {problem}")

    found = _NAME.match(text)
    assert found is not None  # it matches nothing at all, too
    matchers = [Matcher("__name__", True, found[1])] if found[1] else []
    rest = text[found.end() :]
    if rest:
        if not (rest.startswith("{") and rest.rstrip().endswith("}")):
            raise wrong('a selector is name{label="value",other!="value"}')
        rest = rest.rstrip()[1:-1]
    while rest.strip():
        found = _MATCHER.match(rest)
        if found is None:
            raise wrong(f"no matcher of a label: {rest.strip()[:60]!r}")
        label, operator, quoted = found.groups()
        if operator in ("=~", "!~"):
            raise wrong(f"{operator} is not supported, only = and !=")
        try:
            value = _unquote(quoted)
        except ValueError as error:
            raise wrong(str(error)) from None
        matchers.append(Matcher(label, operator == "=", value))
        rest = rest[found.end() :]
        if rest and not rest.startswith(","):
            raise wrong(f"a comma is missing before {rest[:60]!r}")
        rest = rest[1:]
    if not matchers:
        raise wrong("it selects nothing in particular")
    return tuple(matchers)


def _unquote(quoted: str) -> str:
    """A text without its quotes and escapes, which are those of Go. Raises ValueError."""
    if quoted[0] == "`":
        return quoted[1:-1]

    def plain(escape: re.Match[bytes]) -> bytes:
        code = escape[1]
        if len(code) == 1:
            if code[0] not in _ESCAPES:
                raise ValueError(f"\\{code.decode(errors='replace')} is no escape")
            return bytes((_ESCAPES[code[0]],))
        if code[:1] in b"uU":
            return chr(int(code[1:], 16)).encode()
        return bytes((int(code[1:], 16) if code[:1] == b"x" else int(code, 8),))

    return _ESCAPE.sub(plain, quoted[1:-1].encode()).decode()
