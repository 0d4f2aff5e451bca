"""Changes keys of the configuration's file, and keeps all else of it: comments, order, spacing."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Comment, Table, Whitespace

from .. import config
from ..config import ConfigError

#: Of a file that is made: readable by all, as what is in /etc; one with a secret by its owner only.
MODE = 0o644
MODE_SECRET = 0o600


class NotWritten(OSError):  # noqa: N818  # says what is the case
    """The file cannot be written; the text says which, why, and what to do."""


def target(named: str | None, environment: Mapping[str, str]) -> Path:
    """The file to change: the one in use, or, where there is none, the one of the system, which is
    made. Raises ConfigError."""
    return Path(config.find_file(named, environment) or config.FILES[-1])


def change(path: Path, values: Mapping[str, Any]) -> None:
    """Sets keys; None takes a key out. The file is replaced at once or not at all; through a link,
    the one that it leads to. It keeps mode, owner and extended attributes.

    Raises ConfigError where the file is not valid, or would not be; NotWritten.
    """
    real = Path(os.path.realpath(path))
    try:
        # Held until the file is replaced: two that change it at once must not undo each other.
        directory = open_directory(real.parent)
    except OSError as error:
        raise refusal(path, error) from None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        before = read(real)
        after = edited(before or b"", str(path), values)
        if after != before:
            replace(real, before is not None, after, MODE_SECRET if secret(values) else MODE)
            os.fsync(directory)
    except OSError as error:
        raise refusal(path, error) from None
    finally:
        os.close(directory)


def secret(values: Mapping[str, Any]) -> bool:
    """Whether some of these keys are secrets."""
    return not config.SECRETS.isdisjoint(values)


def open_directory(path: Path) -> int:
    """A descriptor of a directory, which is made where it is missing. Raises OSError."""
    path.mkdir(mode=0o755, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def read(path: Path) -> bytes | None:
    """What is in a file; None for one that is not there. Raises OSError, also for one that is not
    to be written: that a directory lets us replace it does not make it ours to change."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "it is no regular file")
    os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    return path.read_bytes()


def edited(before: bytes, path: str, values: Mapping[str, Any]) -> bytes:
    """The text of a file with other values. Raises ConfigError."""
    known = config.document(before, path)
    text = before.decode()
    # tomlkit ends the lines that it adds with a line feed alone.
    crlf = "\r\n" in text and text.count("\r\n") == text.count("\n")
    if crlf:
        text = text.replace("\r\n", "\n")
    open_ended = bool(text) and not text.endswith("\n")  # as it stays
    try:
        parsed = tomlkit.parse(text + "\n" * open_ended)
        put(parsed, values)
        text = tomlkit.dumps(parsed)
    except TOMLKitError as error:
        raise ConfigError(f"{path}: cannot be changed: {str(error).splitlines()[0]}") from None
    text = text[:-1] if open_ended else text
    after = (text.replace("\n", "\r\n") if crlf else text).encode()
    config.check(config.document(after, path), path)
    for name, value in values.items():
        enter(known, name, value)
    if config.document(after, path) != known:  # rather nothing than something else
        raise ConfigError(f"{path}: cannot be changed without changing more: edit it by hand")
    return after


def put(document: tomlkit.TOMLDocument, values: Mapping[str, Any]) -> None:
    """Sets keys of a document, and takes out those whose value is None."""
    fresh = []
    for name, value in values.items():
        table, _, last = name.rpartition(".")
        if table and table not in document and value is not None:
            document[table] = tomlkit.table()
        place: Any = document.get(table, {}) if table else document
        if value is None:
            place.pop(last, None)
        elif table or last in place:
            place[last] = tomlkit.value(config.spell(value))
        else:
            fresh.append((tomlkit.key(last), tomlkit.value(config.spell(value))))
    # Before the first table, and before the comment and the blank lines that lead to it. Last, for
    # the document cannot be asked for its keys after this.
    body: Any = document.body
    at = next((i for i, (_, each) in enumerate(body) if is_table(each)), len(body))
    if at == len(body):
        for key, item in fresh:
            document.append(key, item)
        return
    while at and isinstance(body[at - 1][1], Comment):
        at -= 1
    while at and isinstance(body[at - 1][1], Whitespace):
        at -= 1
    for _, item in fresh:
        item.trivia.trail = "\n"
    body[at:at] = fresh


def is_table(item: Any) -> bool:
    """Whether an item of a document begins a table; one of dotted keys begins none."""
    return isinstance(item, AoT) or (isinstance(item, Table) and not item.is_super_table())


def enter(values: dict[str, Any], name: str, value: Any) -> None:
    """What :func:`put` does, in plain dictionaries."""
    table, _, last = name.rpartition(".")
    if value is None:
        (values.get(table, {}) if table else values).pop(last, None)
    elif table:
        values.setdefault(table, {})[last] = value
    else:
        values[last] = value


def replace(path: Path, exists: bool, text: bytes, mode: int) -> None:
    """Puts a file with another text in the place of one. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            if exists:
                found = path.stat()
                os.fchown(file.fileno(), found.st_uid, found.st_gid)
                shutil.copystat(path, fresh)  # mode and extended attributes, such as SELinux's
                os.utime(fresh)
            else:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def refusal(path: Path, error: OSError) -> NotWritten:
    """Why a file cannot be written, in a line."""
    where = path if os.path.islink(path) is False else f"{path} -> {os.path.realpath(path)}"  # noqa: PTH114
    hint = ""
    if isinstance(error, PermissionError):
        hint = "; run this as its owner or as root, or name another file with --config"
    elif error.errno:
        hint = "; change it where it is from, or name another file with --config"
    return NotWritten(f"{where}: cannot be written: {error.strerror}{hint}")
