"""managed.json: which controller this node answers to, and what is known of it.

The command writes it, and so does the running agent, which also notices what the command wrote.
Only its owner may read it, for it has the token. Both hold a lock on the directory while they read
and replace it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from ..config import Config, masked
from .protocol import ID, Policy

NAME = "managed.json"
NODE = "node-id"
DAMAGED = NAME + ".damaged"
#: Bytes that either file may have.
LARGEST = 64 << 10
VERSION = 1


class Unusable(OSError):  # noqa: N818  # says what is the case
    """A file that there is cannot be read, or does not say what it should; the text says which and
    why. ``is_damage``: whether it would stay so for everybody."""

    def __init__(self, message: str, is_damage: bool) -> None:
        super().__init__(message)
        self.is_damage = is_damage


class State(msgspec.Struct, frozen=True, kw_only=True):
    """``origin`` is who named the server. ``attached`` is false after ``disconnect``: the server is
    then the one of the configuration, which does not count until ``connect``."""

    version: int = VERSION
    server: str
    origin: Literal["command", "configuration"]
    attached: bool = True
    cluster_id: str | None = None
    node_id: str = ""
    ca_file: str | None = None
    #: What admits the node, and what the controller gave it instead.
    join_token: str | None = None
    token: str | None = None
    last_contact_unix_ms: int | None = None
    policy: Policy | None = None

    def __repr__(self) -> str:
        """Without the tokens: it may get into a message."""
        return f"State({self.server!r}, attached={self.attached})"


class Attached(NamedTuple):
    """Whom this node answers to, from whatever said so."""

    server: str
    cluster_id: str | None
    node_id: str | None
    ca_file: str | None
    join_token: str | None
    #: What managed.json has of it.
    state: State | None

    @property
    def shown(self) -> str:
        """The server, without credentials, if somebody has written some."""
        return masked(self.server.rpartition("@")[2])

    def __repr__(self) -> str:
        return f"Attached({self.server!r})"


def attached(state: State | None, config: Config | None) -> Attached | None:
    """Whom this node answers to; None when it is standalone.

    What a command said last counts more than the configuration: ``connect`` until ``disconnect``,
    and ``disconnect`` as long as the configuration names the same server.
    """
    server = config.managed_server if config else None
    if state is not None and state.attached and state.origin == "command":
        return Attached(
            *(state.server, state.cluster_id, state.node_id, state.ca_file, state.join_token), state
        )
    if not server or config is None:
        return None
    if state is not None and state.server == server and not state.attached:
        return None
    known = state if state is not None and state.attached and state.server == server else None
    return Attached(
        server,
        config.managed_cluster_id or (known.cluster_id if known else None),
        config.managed_node_id,
        config.managed_ca_file or None,
        config.managed_join_token,
        known,
    )


def load(directory: Path) -> State | None:
    """What the file says; None where there is none. Raises Unusable."""
    path = directory / NAME
    text = read(path)
    if text is None:
        return None
    try:
        state = msgspec.json.decode(text, type=State)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # which may cite a token
        raise Unusable(f"{path} is damaged", True) from None
    if state.version != VERSION:
        raise Unusable(f"{path} is of another version, {state.version}", True)
    return state


def read(path: Path) -> bytes | None:
    """A small file; None where there is none. Raises Unusable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unusable(f"{path} is no regular file", True)
            text = os.read(descriptor, LARGEST + 1)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Unusable:
        raise
    except OSError as error:
        damaged = not isinstance(error, PermissionError)
        raise Unusable(f"{path} cannot be read: {error.strerror}", damaged) from None
    if len(text) > LARGEST:
        raise Unusable(f"{path} is larger than {LARGEST >> 10} KiB", True)
    return text


def change(directory: Path, act: Callable[[State | None], State | None]) -> State | None:
    """Puts in the file's place what ``act`` makes of it: nothing when that is None. Raises
    OSError, and Unusable for a damaged one, which stays."""
    with locked(directory):
        before = load(directory)
        after = act(before)
        if after == before:
            return after
        if after is None:
            (directory / NAME).unlink(missing_ok=True)
        else:
            write(directory / NAME, msgspec.json.format(msgspec.json.encode(after)) + b"\n")
        return after


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Alone with the files of a directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, text: bytes) -> None:
    """Puts a file in the place of another one, at once or not at all, for its owner only. What root
    writes into the directory of a service's user is that user's. Raises OSError."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(
        aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            owner = path.parent.stat()
            if os.geteuid() == 0 and owner.st_uid != 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        aside.rename(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def put_aside(directory: Path) -> Path | None:
    """Takes a file that cannot be used out of the way, and keeps it. Raises OSError."""
    with locked(directory):
        try:
            load(directory)
        except Unusable:
            return (directory / NAME).rename(directory / DAMAGED)
    return None


def node_id(directory: Path) -> str:
    """The name that this node has made for itself, once. Raises OSError.

    Random, and not made from /etc/machine-id: images of machines and containers bring that along.
    """
    path = directory / NODE
    with locked(directory):
        text = read(path)
        found = (text or b"").decode(errors="replace").strip()
        if text is not None and not re.match(ID, found):
            raise Unusable(
                f"{path} is damaged: it is to have the node's id; without the file the node gets a"
                " new one",
                True,
            )
        if not found:
            found = str(uuid.uuid4())
            write(path, f"{found}\n".encode())
        return found
