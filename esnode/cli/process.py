"""Finds the running agent by the socket that it listens on, and sends it a signal."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import signal
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from .. import config
from ..state import state_directory

PROC = Path("/proc")
LISTEN = "0A"
#: The flag of a unix socket that listens, __SO_ACCEPTCON.
ACCEPTS = 1 << 16


class NoAgentError(OSError):
    """No agent can be told; the text says why and what to do."""


def send(host: str, port: int, number: signal.Signals) -> int:
    """Sends a signal to the agent that listens on an address; its process id. Raises NoAgentError.

    A host that begins with a slash is the path of a unix socket. A process that does not handle the
    signal would be ended by it: to such a one none is sent.
    """
    where = config.spell_address(host, port)
    sockets = dict(_listeners(host, port))
    if not sockets:
        raise NoAgentError(
            f"no agent listens on {where}: start one, or name the address of the running one"
            " with --listen-address before the command"
        )
    found = list(_owners(set(sockets)))
    if not found:
        raise NoAgentError(
            f"what listens on {where} belongs to another user (uid {min(sockets.values())}):"
            " run this as root, or as that user"
        )
    agents = [pid for pid in found if _is_agent(pid)]
    if not agents:
        raise NoAgentError(
            f"what listens on {where}, process {found[0]}, is not esnode-core: name the agent's"
            " address with --listen-address before the command"
        )
    pid = min(agents)
    if not _handles(pid, number):
        raise NoAgentError(
            f"the agent, process {pid}, does not take {number.name}: it collects no NVIDIA GPUs,"
            " or it is still starting"
        )
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise NoAgentError(f"the agent, process {pid}, has just ended") from None
    except PermissionError:
        raise NoAgentError(
            f"the agent, process {pid}, belongs to another user: run this as root"
        ) from None
    return pid


class Started:
    """How an agent was started that runs."""

    def __init__(self, pid: int) -> None:
        """Raises OSError where we may not see it, ConfigError where it is no agent's."""
        home = PROC / str(pid)
        words = [os.fsdecode(word) for word in (home / "cmdline").read_bytes().split(b"\0")[:-1]]
        pairs = (
            each.partition("=")
            for each in map(os.fsdecode, (home / "environ").read_bytes().split(b"\0"))
        )
        self.pid = pid
        self.environment = {name: text for name, _, text in pairs}
        self.arguments = config.parse_arguments(words[_begin(words) :])
        #: Where we see the files of its, whatever container it is in.
        self._root, self._cwd = home / "root", Path(os.readlink(home / "cwd"))  # noqa: PTH115

    @property
    def file(self) -> str | None:
        """The file of its configuration; None where it has none."""
        named = self.arguments.config or self.environment.get("ESNODE_CONFIG")
        if named:
            return str(self._cwd / Path(named).expanduser())
        places = (str(self._cwd / path) for path in config.FILES)
        return next((path for path in places if self._see(path).exists()), None)

    @property
    def state(self) -> Path:
        """The directory of what it keeps, which need not be there. Raises OSError."""
        home = self.environment.get("HOME", "")
        if not home:
            with contextlib.suppress(KeyError):  # a user without a name
                home = pwd.getpwuid(self.owner[0]).pw_dir
        where = str(state_directory({**self.environment, "HOME": home}, make=False))
        return Path(where) if self._root.samefile("/") else self._see(where)

    @property
    def owner(self) -> tuple[int, int]:
        """Its user and group. Raises OSError."""
        found = (PROC / str(self.pid)).stat()
        return found.st_uid, found.st_gid

    @property
    def config(self) -> config.Config:
        """Its configuration, as far as it is from its file, variables and flags. Raises
        ConfigError."""
        file = self.file and str(self._see(self.file))
        return config.load(
            msgspec.structs.replace(self.arguments, config=file or os.devnull), self.environment
        ).config

    def _see(self, path: str) -> Path:
        return Path(f"{self._root}{path}")

    def reads(self, path: Path) -> bool:
        """Whether a file is that of its configuration."""
        try:
            return self.file is not None and self._see(self.file).samefile(path)
        except OSError:
            return False

    def overrides(self, name: str) -> str | None:
        """The flag or the variable that it has for a key."""
        key = config.KEYS[name]
        if name in self.arguments.values:
            return f"--{key.flag}"
        return key.variable if key.variable in self.environment else None


def _begin(words: list[str]) -> int:
    """Where an agent's own words begin on its command line."""
    for at, word in enumerate(words):
        if word.rpartition("/")[2] == "esnode-core" or words[at - 1 : at + 1] == ["-m", "esnode"]:
            return at + 1
    return len(words)


def started(host: str, port: int) -> Started | None:
    """The agent that listens on an address; None where there is none that we may see. Raises
    OSError, ConfigError."""
    agents = [
        pid for pid in _owners({inode for inode, _ in _listeners(host, port)}) if _is_agent(pid)
    ]
    return Started(min(agents)) if agents else None


def _listeners(host: str, port: int) -> Iterator[tuple[str, int]]:
    """(inode, uid) of each socket that listens on an address; of a name, on its port."""
    if host.startswith("/"):
        yield from _unix_listeners(host)
        return
    try:
        wanted = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        wanted = None
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (PROC / table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            # sl local_address rem_address st queues timer retransmits uid timeout inode …
            fields = line.split()
            address, _, number = fields[1].partition(":")
            listens = fields[3] == LISTEN and int(number, 16) == port
            if listens and (wanted is None or _address(address) == wanted):
                yield fields[9], int(fields[7])


def _unix_listeners(path: str) -> Iterator[tuple[str, int]]:
    """(inode, the file's uid) of the socket that listens on a path."""
    for line in (PROC / "net/unix").read_text(errors="surrogateescape").splitlines()[1:]:
        # Num RefCount Protocol Flags Type St Inode Path
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == path and int(fields[3], 16) & ACCEPTS:
            try:
                yield fields[6], Path(path).stat().st_uid
            except OSError:  # its file was removed: nobody can connect any more
                continue


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as the kernel prints it: words of 32 bits in its own byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def _owners(inodes: set[str]) -> Iterator[int]:
    """The processes that hold one of some sockets open, of those that we may look into."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if any(os.readlink(file) in wanted for file in (entry / "fd").iterdir()):  # noqa: PTH115
                yield int(entry.name)
        except OSError:  # another user's, or it has ended
            continue


def _is_agent(pid: int) -> bool:
    """Whether a process is esnode-core: by that name, or as Python's module."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if any(word.rpartition(b"/")[2] == b"esnode-core" for word in words[:2]):
        return True
    return (b"-m", b"esnode") in pairwise(words)


def _handles(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    try:
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    except OSError:
        pass
    return False


class Holder(NamedTuple):
    """Who listens on a port; no process where it is another user's."""

    pid: int | None
    name: str
    uid: int
    is_agent: bool


def holder(port: int) -> Holder | None:
    """Who listens on a port of any address; None for nobody in this namespace."""
    sockets = dict(_listeners("", port))
    if not sockets:
        return None
    uid = min(sockets.values())
    found = sorted(_owners(set(sockets)))
    if not found:
        return Holder(None, "", uid, False)
    pid = next((each for each in found if _is_agent(each)), found[0])
    try:
        name = (PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        name = "it has just ended"
    return Holder(pid, name, uid, _is_agent(pid))
