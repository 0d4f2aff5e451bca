"""``esnode-core xid``: what the driver's error codes mean."""

from __future__ import annotations

import re

import typer

from .. import config, xids
from ..config import Arguments


def add(app: typer.Typer, arguments: Arguments) -> None:
    app.command()(xid)


def xid(code: str = typer.Argument("", help="A number; without it, all are listed.")) -> None:
    """Say what an Xid means and what to do about it."""
    if not code:
        typer.echo(xids.listing(), nl=False)
        return
    if not re.fullmatch(r"[0-9]{1,9}", code) or int(code) not in xids.XIDS:
        raise config.ConfigError(
            f"xid {code[:20]}: not in the catalogue; `esnode-core xid` lists what is"
        )
    typer.echo(xids.describe(int(code)), nl=False)
