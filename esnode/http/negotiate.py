"""What a client prefers, from Accept and Accept-Encoding (RFC 9110, section 12.5), and the headers
that say what it gets."""

from __future__ import annotations

from functools import lru_cache

from ..dialects import OPENMETRICS, TEXT, Dialect
from .response import LONGEST, Headers, Request

#: In order of our preference between equals.
ENCODINGS = ("zstd", "gzip", "identity")


def _choices(header: str) -> list[tuple[str, dict[str, str], float]]:
    """(value, parameters, quality) of each choice of a header; quality is 0..1."""
    choices = []
    for part in header.split(","):
        value, *rest = (piece.strip() for piece in part.split(";"))
        parameters = {}
        for piece in rest:
            name, _, text = piece.partition("=")
            parameters[name.strip().lower()] = text.strip().strip('"')
        try:
            quality = min(max(float(parameters.pop("q", "1")), 0.0), 1.0)
        except ValueError:
            quality = 0.0
        choices.append((value.lower(), parameters, quality))
    return choices


@lru_cache(maxsize=256)
def dialect(accept: str) -> Dialect:
    """OpenMetrics for a client that prefers it, else the text format."""
    best: tuple[float, Dialect] = (0.0, TEXT)
    for value, parameters, quality in _choices(accept):
        if value == "application/openmetrics-text":
            known = parameters.get("version", "1.0.0") == "1.0.0"
            found = OPENMETRICS if known else None
        else:
            found = TEXT if value in ("text/plain", "text/*", "*/*") else None
        if found is not None and quality > best[0]:
            best = quality, found
    return best[1]


@lru_cache(maxsize=256)
def encoding(accept_encoding: str) -> str:
    """The encoding with the highest quality; ours, between equals; identity when in doubt."""
    quality = {value: q for value, _, q in _choices(accept_encoding)}
    anything = quality.get("*", 0.0)
    ranked = [
        (quality.get(name, anything if name != "identity" else 0.0), -i, name)
        for i, name in enumerate(ENCODINGS)
    ]
    best = max(ranked)
    return best[2] if best[0] > 0 else "identity"


def encoding_of(request: Request) -> str:
    """The encoding of the answer to a request."""
    return encoding((request.headers.get("accept-encoding") or "")[:LONGEST])


def headers(encoding: str, *others: tuple[str, str], vary: str = "accept-encoding") -> Headers:
    """The headers of an answer that is in some encoding."""
    found = [*others, ("vary", vary)]
    return found if encoding == "identity" else [*found, ("content-encoding", encoding)]
