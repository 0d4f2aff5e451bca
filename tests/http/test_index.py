"""The page at ``/`` as it is sent."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
import zstandard
from isal import isal_zlib

from esnode.http.page import document
from esnode.web import Web

from .test_app import Client


@pytest.fixture(scope="module")
def client() -> Client:
    client = Client(scrape_interval_seconds=3600)
    client.read()
    client.agent.rounds.close()
    client.agent.rounds.ask = client.agent.recent.ask = client.agent.recent.answer
    return client


def test_it_is_small_and_complete(client: Client) -> None:
    plain = client.get("/").body.decode()
    for encoding, decode in (
        ("gzip", lambda body: isal_zlib.decompress(body, wbits=31)),
        ("zstd", zstandard.ZstdDecompressor().decompress),
    ):
        answer = client.get("/", accept_encoding=encoding)
        assert dict(answer.headers)["content-encoding"] == encoding
        assert decode(answer.body).decode() == plain
        assert len(answer.body) < 60_000
    # Nothing is loaded from elsewhere.
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", plain)
    assert not re.search(r"@import|url\(|import\(", plain)
    assert "{{" not in plain


def test_only_what_is_ours_runs(client: Client) -> None:
    answer = client.get("/")
    headers = dict(answer.headers)
    policy = dict(
        each.strip().partition(" ")[::2] for each in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    text = answer.body.decode()
    for tag in ("style", "script"):
        (part,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not re.search(r"""\s(on\w+|style)=""", text)
    assert headers["x-frame-options"] == "deny"


def test_a_policy_of_the_operators_own_stays() -> None:
    client = Client()
    own = ("content-security-policy", "default-src 'self'")
    web = Web(headers=(own,))
    client.agent.application.protect(web)
    policies = [pair for pair in client.get("/").headers if pair[0] == own[0]]
    assert policies == []  # the server adds the operator's to every answer


def test_the_script_makes_no_html() -> None:
    text = document("1", ())
    for word in (b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write", b"eval("):
        assert word not in text


def test_what_an_agent_adds_is_escaped() -> None:
    text = document("<1>", ["/a&b", '/"><script>'])
    assert b"ESNODE-Core &lt;1&gt;." in text
    assert b'<a href="a&amp;b">/a&amp;b</a>' in text
    assert text.count(b"<script>") == 1


def test_the_last_minutes(client: Client) -> None:
    plain = client.get("/recent")
    assert dict(plain.headers)["content-type"] == "application/json"
    assert len(json.loads(plain.body)["unix_ms"]) >= 1
    packed = client.get("/recent", accept_encoding="gzip")
    assert isal_zlib.decompress(packed.body, wbits=31) == plain.body
    assert client.get("/recent", "POST").status == 405
