"""Logging to standard error, as text or JSON lines; what is said all the time, once."""

from __future__ import annotations

import logging
import sys
import time

import msgspec

TRACE = 5
LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}
_NAMES = {level: name for name, level in LEVELS.items()}
#: Different messages of one source that are logged, and seconds without one after which it is
#: logged again: what comes back a day later is news.
MESSAGES = 100
QUIET = 3600.0


def _when(record: logging.LogRecord) -> str:
    return (
        f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{record.msecs:03.0f}Z"
    )


def _printable(letter: str) -> str:
    """A letter, or an escape for one that would break the line."""
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode()


class Text(logging.Formatter):
    """``time LEVEL module: message``."""

    def format(self, record: logging.LogRecord) -> str:
        level = _NAMES.get(record.levelno, record.levelname.lower())
        message = "".join(map(_printable, record.getMessage()))
        text = f"{_when(record)} {level.upper():<5} {record.name}: {message}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class Json(logging.Formatter):
    """One object a line: time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _when(record),
            "level": _NAMES.get(record.levelno, record.levelname.lower()),
            "logger": record.name,
            "message": record.getMessage().encode("utf-8", "backslashreplace").decode(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


class Heard:
    """What one source has had to say, so that what it says all the time is logged once."""

    def __init__(self) -> None:
        #: When each message was last heard, in monotonic seconds.
        self._last: dict[str, float] = {}

    def is_news(self, message: str) -> bool:
        """Whether a message is to be logged."""
        now = time.monotonic()
        last = self._last.get(message)
        if last is None and len(self._last) >= MESSAGES:
            return False
        self._last[message] = now
        return last is None or now - last > QUIET


def setup(level: str, form: str) -> None:
    """Sends the log of the process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)
    # Other people's debug output is not ours to show.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
