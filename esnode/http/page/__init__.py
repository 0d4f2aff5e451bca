"""The page at ``/``: one document with its style and script, made of the files beside this one."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Source(NamedTuple):
    """The document but for what an agent adds, and the policy under which a browser runs it."""

    text: str
    policy: str


@cache
def source() -> Source:
    """What the files make. Scripts and styles that are not ours do not run: ours are named by their
    digests."""
    text = (HERE / "page.html").read_text()
    digests = {}
    for mark, name in (("{{style}}", "page.css"), ("{{script}}", "page.js")):
        part = (HERE / name).read_text()
        text = text.replace(mark, part)
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        digests[mark] = f"'sha256-{digest}'"
    policy = (
        f"default-src 'none'; script-src {digests['{{script}}']}; style-src {digests['{{style}}']};"
        " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )
    return Source(text, policy)


def document(version: str, paths: Iterable[str]) -> bytes:
    """The page of an agent, with links to its other routes for who has no use for the rest; they
    are relative, for a proxy may have it below another path."""
    links = "".join(
        f'<li><a href="{html.escape(path[1:])}">{html.escape(path)}</a></li>' for path in paths
    )
    text = (
        source().text.replace("{{links}}", links, 1).replace("{{version}}", html.escape(version), 1)
    )
    return text.encode()
