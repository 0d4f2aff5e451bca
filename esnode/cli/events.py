"""``esnode-core events``: what happened on the node, and what happens."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import msgspec
import typer

from .. import config
from ..client import Client, Message, NoAnswer, Refused
from ..config import Arguments
from . import ask, screen

PATH = "/events"
KINDS = ("gpu", "degradation", "status")
#: Seconds between two attempts to come back, and the longest that an agent may ask for.
RETRY = 1.0
LONGEST = 30.0
#: Statuses of an agent that may take us later: too many clients, or one that is ending.
LATER = (429, 503)


def add(app: typer.Typer, arguments: Arguments) -> None:
    @app.command("events")
    def show(
        since: str = typer.Option(
            None, "--since", help="From when: how long ago, such as 1h, or seconds, or RFC 3339."
        ),
        follow: bool = typer.Option(False, "--follow", "-f", help="Go on with those that come."),
        kinds: str = typer.Option(
            "gpu,degradation", "--kinds", help=f"Between commas: {', '.join(KINDS)}."
        ),
        json: bool = typer.Option(False, "--json", help="Print each as a line of JSON."),
        url: str = ask.URL,
    ) -> None:
        """Print what the agent remembers of GPU errors and degradation, or follow it."""
        wanted = kinds.split(",")
        for kind in wanted:
            if kind not in KINDS:
                raise config.ConfigError(f"--kinds {kind}: allowed is {', '.join(KINDS)}")
        if "status" in wanted and not follow:
            raise config.ConfigError("--kinds status: goes with --follow; see esnode-core status")
        start = None if since is None else moment(since, time.time())
        client = ask.agent(arguments, url)
        try:
            for message in messages(client, wanted, start, follow):
                shown = raw(message) if json else line(message, ask.is_colored())
                if shown:
                    ask.write(shown + "\n")
        except KeyboardInterrupt:
            if not follow:
                raise


def moment(text: str, now: float) -> int:
    """Unix milliseconds of how long ago, of a time in seconds or milliseconds, or of RFC 3339.
    Raises ConfigError."""
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return round(float(text) * 1000)
    if re.fullmatch(r"\d{12,14}", text):
        return int(text)
    ago = config.parse_duration(text)
    if isinstance(ago, float) and 0 <= ago < 1e9:
        return max(0, round((now - ago) * 1000))
    try:
        when = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        return max(0, round(when.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise config.ConfigError(
            f"--since {text[:40]}: allowed is how long ago, such as 90s or 1h30m, seconds or"
            " milliseconds since 1970, or a time such as 2026-11-22T14:00:00Z"
        ) from None


def messages(
    client: Client, kinds: list[str], since: int | None, follow: bool
) -> Iterator[Message]:
    """Events in order; with ``follow`` for ever, each once, also when the agent is started anew."""
    query: dict[str, Any] = {"kinds": ",".join(kinds)}
    if since is not None:
        query["since"] = since
    if not follow:
        yield from client.events(f"{PATH}?{urlencode({**query, 'follow': 'false'})}")
        return
    started = round(time.time() * 1000)
    last = ""
    ever = lost = False

    def opened() -> None:
        nonlocal ever, lost
        if lost:
            typer.echo("esnode-core: the agent is back", err=True)
        ever, lost = True, False

    while True:
        try:
            for message in client.events(f"{PATH}?{urlencode(query)}", last, opened):
                last = message.id or last
                query.pop("since", None)  # from now on it is the id that counts
                yield message
            problem = f"the agent on {client.agent.shown} ended the stream"
        except NoAnswer as error:
            refused = error.status if isinstance(error, Refused) else None
            if refused not in LATER if refused else not ever:
                raise  # it will not have us, or there is none to begin with
            problem = str(error)
        if not lost:
            typer.echo(f"esnode-core: {problem}; trying again", err=True)
        lost = True
        if not last:
            query.setdefault("since", started)
        time.sleep(min(max(RETRY, client.retry / 1000), LONGEST))


def raw(message: Message) -> str:
    """An event with its id and kind as a line of JSON; empty for data that is none."""
    try:
        data = msgspec.Raw(msgspec.json.format(message.data, indent=-1))
    except msgspec.DecodeError:
        return ""
    number = int(message.id) if message.id else None
    found = {"id": number, "event": message.kind, "data": data}
    return msgspec.json.encode(found).decode(errors="replace")


def line(message: Message, color: bool) -> str:
    """An event in a line for people; empty for data that cannot be understood."""
    try:
        data = msgspec.json.decode(message.data)
        when = data.get("unix_ms") or data.get("last_scrape_unix_ms") or int(message.id)
        shown = f"{screen.moment(int(when)):%Y-%m-%d %H:%M:%SZ}"
        shapes = {"gpu": gpu, "degradation": degradation, "status": status, "gap": gap}
        pieces = shapes[message.kind](data)
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return ""
    cleaned = [(screen.clean(text), style) for text, style in pieces]
    return screen.text([(f"{shown}  ", "dim"), *cleaned], color=color)


def gpu(data: dict[str, Any]) -> screen.Line:
    where = f"GPU {data['gpu']}" if data.get("gpu") is not None else data.get("pci_bus_id")
    code, kind = data.get("code"), str(data.get("kind"))
    name = {"xid": "Xid", "sxid": "SXid"}.get(kind, kind)
    about = data.get("meaning") or data.get("text") or ""
    todo = str(data.get("action") or "").rstrip(".")
    serious = kind == "xid" and screen.action(code) in screen.SERIOUS
    found: screen.Line = [(f"{where or 'a GPU'}  ", "bold")]
    found.append((name if code is None else f"{name} {code}", "red" if serious else "yellow"))
    found.append((f"  {about}" if about else "", ""))
    found.append((f"  ({todo})" if todo else "", ""))
    return found


def degradation(data: dict[str, Any]) -> screen.Line:
    labels = " ".join(f"{key}={value}" for key, value in (data.get("labels") or {}).items())
    if data["degraded"]:
        word: tuple[str, str] = ("degraded", "red")
    else:
        word = ("well again", "green")
    name = " ".join(part for part in (str(data["flag"]), labels) if part)
    reason = data.get("reason") or ""
    found: screen.Line = [(f"{name}  ", "bold"), word]
    found.append((f"  {reason}" if reason else "", ""))
    if data.get("score") is not None:
        found.append((f"  (score {data['score']:g})", "dim"))
    return found


def gap(data: dict[str, Any]) -> screen.Line:
    """What an agent says that no longer has, or never had, what happened in a time."""
    first, last = (screen.moment(data[f"{each}_unix_ms"]) for each in ("after", "until"))
    text = f"not known: what happened from {first:%Y-%m-%d %H:%M:%SZ} to {last:%Y-%m-%d %H:%M:%SZ}"
    return [(text, "yellow")]


def status(data: dict[str, Any]) -> screen.Line:
    return [
        (f"{data.get('hostname') or screen.DASH}  ", "bold"),
        (f"cpu {screen.percent(data.get('cpu_util_percent'))}", ""),
        (f"  load {screen.number(data.get('load_avg_1m'), digits=2)}", ""),
        (f"  score {screen.number(data.get('degradation_score'), digits=1)}", ""),
    ]
