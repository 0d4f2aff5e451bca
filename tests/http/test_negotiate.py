"""What a client prefers, by the headers that real clients send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esnode.http import negotiate

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_3_TEXT_FIRST = (
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.3,*/*;q=0.1"
)
PROTOBUF_FIRST = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
    "q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("", "text"),
        ("*/*", "text"),
        (BROWSER, "text"),
        ("text/plain", "text"),
        ("application/json", "text"),
        ("application/openmetrics-text", "openmetrics"),
        ("Application/OpenMetrics-Text; Version=1.0.0", "openmetrics"),
        ('application/openmetrics-text; version="1.0.0"', "openmetrics"),
        ("application/openmetrics-text;version=1.0.0;charset=utf-8", "openmetrics"),
        (PROMETHEUS_2, "openmetrics"),
        (PROMETHEUS_3, "openmetrics"),
        (PROMETHEUS_3_TEXT_FIRST, "text"),
        (PROTOBUF_FIRST, "openmetrics"),
        ("application/openmetrics-text;version=0.0.1", "text"),
        ("application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5", "text"),
        ("application/openmetrics-text;q=0", "text"),
        ("application/openmetrics-text;q=0,*/*", "text"),
        ("application/openmetrics-text;q=0.4,text/plain;q=0.5", "text"),
        ("text/plain;q=0.4 , application/openmetrics-text ; q=0.5", "openmetrics"),
        ("application/openmetrics-text;q=much", "text"),
        (",;,=;q,,text/plain;;q=", "text"),
    ],
)
def test_the_format(accept: str, name: str) -> None:
    assert negotiate.dialect(accept).name == name


@pytest.mark.parametrize(
    ("accept_encoding", "name"),
    [
        ("", "identity"),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=1, zstd;q=0.5", "gzip"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.000, zstd;q=0", "identity"),
        ("*", "zstd"),
        ("*;q=0", "identity"),
        ("zstd;q=0, *", "gzip"),
        ("zstd;q=0, gzip;q=0, *", "identity"),
        ("identity", "identity"),
        ("identity;q=1, gzip;q=0.5", "identity"),
        ("identity;q=0.5, gzip;q=1", "gzip"),
        ("identity;q=0", "identity"),
        ("br", "identity"),
        ("deflate;q=1, gzip;q=0.1", "gzip"),
        ("gzip;q=high", "identity"),
        ("gzip;q=nan", "identity"),
        (" , ;q=1,gzip", "gzip"),
    ],
)
def test_the_encoding(accept_encoding: str, name: str) -> None:
    assert negotiate.encoding(accept_encoding) == name


KNOWN = ["gzip", "zstd", "*", "*/*", "text/plain", "application/openmetrics-text", "version=1.0.0"]
ODD = ["q=", "q=0", "q=1", "q=nan", "q=-inf", "q=1e999", ";", ",", "=", '"', " ", "\xff", "é"]
PIECES = st.sampled_from([*KNOWN, *ODD])


@given(st.lists(PIECES, max_size=12).map("".join))
def test_any_header_gives_something_that_we_speak(header: str) -> None:
    assert negotiate.dialect(header).name in ("text", "openmetrics")
    assert negotiate.encoding(header) in negotiate.ENCODINGS
