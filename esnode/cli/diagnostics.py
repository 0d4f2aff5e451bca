"""``esnode-core diagnostics``: what can be read here and what not, why, and how to mend it.

It tries for itself what the agent would do, as the user who calls it, and asks a running agent how
that fares. It changes nothing, and opens neither the driver nor the local history.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import os
import pwd
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import typer
from msgspec.structs import replace

from .. import config
from .._fast import clock
from ..client import URL, Absent, Client, NoAnswer, Refused, Target, local, target
from ..collectors.base import Unavailable
from ..collectors.nvidia import driver, kernel_log
from ..collectors.nvidia.pci import PciDevices
from ..config import Arguments, Config, ConfigError, Settings
from ..host import Host
from ..status import Status
from ..tsdb import layout
from . import ask, process, screen
from .status import PATH

#: Seconds for each source to answer.
PATIENCE = 5.0
#: Descriptors below which an agent is short of them.
DESCRIPTORS = 4096
#: Seconds that a time may lie ahead before the clock counts as set back.
AHEAD = 5.0

Level = Literal["ok", "note", "wrong"]
STYLES = {"ok": "green", "note": "dim", "wrong": "red"}


class Finding(NamedTuple):
    """What was found of a subject; ``fix`` is a command or a setting."""

    subject: str
    level: Level
    text: str
    fix: str = ""


def add(app: typer.Typer, arguments: Arguments) -> None:
    @app.command("diagnostics")
    def show(
        json: bool = typer.Option(False, "--json", help="Print one JSON document."),
        url: str = ask.URL,
    ) -> int:
        """Say what can be read and what not, and how to mend it; exit code 1 where that is due."""
        found = list(findings(arguments, url))
        wrong = sum(finding.level == "wrong" for finding in found)
        if json:
            document = {"wrong": wrong, "findings": [finding._asdict() for finding in found]}
            ask.write(msgspec.json.encode(document).decode() + "\n")
        else:
            ask.write("".join(f"{line}\n" for line in lines(found, ask.is_colored())))
        return 1 if wrong else 0


def lines(found: Iterable[Finding], color: bool) -> Iterator[str]:
    """The findings for people."""
    count = dict.fromkeys(STYLES, 0)
    for subject, level, text, fix in found:
        count[level] += 1
        shown = level.upper() if level == "wrong" else level
        line: screen.Line = [(f"{shown:<6}", STYLES[level]), (f"{subject:<22} ", "bold")]
        yield screen.text([*line, (screen.clean(text), "")], color=color)
        if fix:
            yield f"{'':29}fix: {screen.clean(fix)}"
    yield f"{count['wrong']} wrong, {count['note']} to note, {count['ok']} in order"


def findings(arguments: Arguments, url: str | None) -> Iterator[Finding]:
    """All of them, in the order in which they are worth reading."""
    settings, found = configuration(arguments)
    yield from found
    try:
        named = url or os.environ.get(URL)
        client = Client(target(named)) if named else local(settings.config)
    except ConfigError as error:
        yield Finding("agent", "wrong", str(error), "correct it as it says")
        client = None
    status, found = running(client) if client else (None, [])
    yield from found
    yield from address(settings.config, status is not None)
    own = settings.config
    host = Host(own.path_procfs, own.path_sysfs, own.path_rootfs)
    yield from clocks(status)
    yield from descriptors()
    yield from history(settings.config)
    yield from nvidia(settings.config, host)
    yield from sources(settings)


def account(uid: int | None = None) -> str:
    """A user's name: of who runs this, by default."""
    number = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def group(user: str) -> str:
    """The name of a user's own group; that of the user where there is none."""
    with contextlib.suppress(KeyError):
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    return user


# ------------------------------------------------------------------------------ the agent


def configuration(arguments: Arguments) -> tuple[Settings, list[Finding]]:
    """The settings, which are the defaults where the configuration is not valid."""
    try:
        settings = config.load(arguments, os.environ)
    except ConfigError as error:
        wrong = Finding("configuration", "wrong", str(error), "correct it as it says")
        return Settings(Config()), [wrong]
    text = f"{settings.file} is valid" if settings.file else "no file: defaults, flags, environment"
    found = [Finding("configuration", "ok", text)]
    found += [Finding("configuration", "note", warning) for warning in settings.warnings]
    if path := settings.config.web_config_file:
        from .. import web

        try:
            web.load(path)
        except ConfigError as error:
            found.append(Finding("web configuration", "wrong", str(error), "correct it as it says"))
        else:
            found.append(Finding("web configuration", "ok", f"{path} is valid"))
    return settings, found


def running(client: Client) -> tuple[Status | None, list[Finding]]:
    """What a running agent says; an agent that is not there is no fault."""
    subject = "agent"
    try:
        status = ask.status(client.get(PATH), client)
    except Refused as error:
        return None, [Finding(subject, "wrong", str(error), "see docs/command-line.md")]
    except Absent as error:
        return None, [Finding(subject, "note", str(error))]
    except NoAnswer as error:
        fix = "systemctl restart esnode-core, if it hangs"
        return None, [Finding(subject, "wrong", str(error), fix)]
    text = f"version {status.agent.version} answers on {client.agent.shown}"
    found = [Finding(subject, "ok", f"{text}, up {screen.span(status.agent.uptime_seconds)}")]
    if not status.healthy:
        fix = "look into its log: journalctl -u esnode-core"
        found.append(Finding(subject, "wrong", "it does not read this node as it should", fix))
    holder = None if client.agent.unix else process.holder(client.agent.port)
    user = account(holder.uid) if holder else "its user"
    for each in status.agent.collectors:
        if each.enabled and each.up is False:
            reason = each.reason or "it does not say why"
            level: Level = "wrong" if _FORBIDDEN.search(reason) else "note"
            found.append(Finding(f"agent: {each.name}", level, reason, fix_of(reason, user)))
    return status, found


def address(settings: Config, answered: bool) -> Iterator[Finding]:
    """Whether the address can be listened on, or who has it."""
    subject = "listen_address"
    try:
        where = target(settings.listen_address)
    except ConfigError as error:
        yield Finding(subject, "wrong", str(error))
        return
    if where.unix:
        yield from unix(subject, where, answered)
        return
    host, port = config.parse_address(settings.listen_address)
    shown = settings.listen_address
    try:
        family, kind, _, _, bound = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(bound)
            probe.listen()
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        if number != errno.EADDRINUSE:
            fix = "set listen_address to one of this node's, such as 0.0.0.0:9100"
            if number == errno.EACCES:
                fix = (
                    "set listen_address to a port from 1024 on; or"
                    " AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit"
                )
            yield Finding(subject, "wrong", f"{shown}: {getattr(error, 'strerror', error)}", fix)
            return
    else:
        yield Finding(subject, "ok", f"{shown} is free")
        return
    holder = process.holder(port)
    if holder is None:
        yield Finding(subject, "note", f"{shown} is taken by a process of another namespace")
    elif holder.is_agent:
        yield Finding(subject, "ok", f"{shown} is served by esnode-core, process {holder.pid}")
    elif holder.pid is None and answered:
        yield Finding(subject, "ok", f"{shown} is served by an agent of uid {holder.uid}")
    else:
        who = f"process {holder.pid} ({holder.name})" if holder.pid else f"uid {holder.uid}"
        fix = "end that process, or set listen_address to another port"
        yield Finding(subject, "wrong", f"{shown} is taken by {who}", fix)


def unix(subject: str, where: Target, answered: bool) -> Iterator[Finding]:
    """Whether a socket can be made at a path."""
    directory = Path(where.unix).parent
    if answered:
        yield Finding(subject, "ok", f"{where.shown} is served")
    elif not directory.is_dir():
        yield Finding(subject, "wrong", f"{directory}: no such directory", f"mkdir {directory}")
    elif not os.access(directory, os.W_OK | os.X_OK):
        text = f"{directory}: {account()} may not write there"
        yield Finding(subject, "wrong", text, f"chown {account()} {directory}")
    else:
        yield Finding(subject, "ok", f"{where.shown} can be made")


# ------------------------------------------------------------------------------ the node


def clocks(status: Status | None) -> Iterator[Finding]:
    """Whether the clock is kept right, and was not set back."""
    subject = "clock"
    fix = "timedatectl set-ntp true, or start chronyd"
    try:
        offset, error, synchronized = clock.read()
    except OSError as problem:
        text = f"adjtimex: {problem.strerror}"
        yield Finding(subject, "wrong", text, "let the container's seccomp profile pass adjtimex")
    else:
        about = f"it may be off by {error:.3g} s, {offset * 1000:.3g} ms are being corrected"
        if synchronized:
            yield Finding(subject, "ok", f"something keeps it right: {about}")
        else:
            yield Finding(subject, "wrong", "nothing keeps it right", fix)
    read = status.last_scrape_unix_ms if status else None
    if read is not None and read / 1000 > time.time() + AHEAD:
        text = f"the agent's last reading is {screen.span(read / 1000 - time.time())} in the future"
        yield Finding(subject, "wrong", f"{text}: it was set back", fix)


def descriptors() -> Iterator[Finding]:
    """How many files the agent may open: it raises the soft limit to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = hard != resource.RLIM_INFINITY and hard < DESCRIPTORS
    yield Finding(
        "open files",
        "wrong" if few else "ok",
        f"the hard limit is {'none' if hard == resource.RLIM_INFINITY else hard}",
        "LimitNOFILE=65536 in the unit; ulimit -Hn 65536 in a shell" if few else "",
    )


def history(settings: Config) -> Iterator[Finding]:
    """Whether the local history can be written, and has the room that it is given."""
    subject = "local history"
    if not settings.enable_local_tsdb:
        yield Finding(subject, "note", "it is off: enable_local_tsdb is false")
        return
    try:
        path = layout.directory(settings.local_tsdb_path, os.environ)
        above = next(each for each in (path, *path.parents) if each.exists())
        room = os.statvfs(above)
        used = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        starts = layout.starts(path)
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        yield Finding(subject, "wrong", text, "set local_tsdb_path to a directory")
        return
    user = account()
    if not above.is_dir():
        yield Finding(subject, "wrong", f"{above}: not a directory", "set local_tsdb_path")
        return
    if not os.access(above, os.W_OK | os.X_OK):
        fix = f"mkdir -p {path} && chown {user} {path}"
        yield Finding(subject, "wrong", f"{above}: {user} may not write there", fix)
        return
    free, budget = room.f_bavail * room.f_frsize, settings.local_tsdb_max_disk_mb << 20
    about = f"{path}: {screen.size(used)} of {screen.size(budget)}, {screen.size(free)} free"
    if free < budget - used:
        fits = max(1, (used + free) * 9 // 10 >> 20)
        fix = f"esnode-core config set local_tsdb_max_disk_mb={fits}, or free the disk"
        yield Finding(subject, "wrong", f"{about}: less than it may grow", fix)
    else:
        yield Finding(subject, "ok", about)
    if starts and starts[-1] / 1000 > time.time() + AHEAD:
        text = "its newest block begins in the future: the clock was set back"
        yield Finding(subject, "wrong", text, "set the clock right; then esnode-core tsdb ls")


# ------------------------------------------------------------------------------ NVIDIA


def nvidia(settings: Config, host: Host) -> Iterator[Finding]:
    """The GPUs on the bus, the kernel's module, the library, and the devices."""
    subject = "nvidia"
    if not settings.enable_gpu:
        yield Finding(subject, "note", "GPUs are not collected: enable_gpu is false")
        return
    addresses = PciDevices(host).look()
    count = len(addresses or ())
    known = "there is no PCI bus" if addresses is None else f"{count} GPUs are on the PCI bus"
    expected = settings.expected_gpus
    if expected is not None and count < expected and addresses is not None:
        fix = f"lspci -d 10de: ; or set expected_gpus to {count}"
        yield Finding(f"{subject}: bus", "wrong", f"{known}, {expected} are expected", fix)
    else:
        yield Finding(f"{subject}: bus", "ok" if count else "note", known)
    wanted = bool(count or expected)
    module = driver.kernel_version(host)
    if module is not None:
        yield Finding(f"{subject}: module", "ok", f"version {module}")
    elif wanted:
        yield Finding(f"{subject}: module", "wrong", "it is not loaded", "modprobe nvidia")
    else:
        yield Finding(f"{subject}: module", "note", "it is not loaded")
    try:
        driver.load(settings.nvml_library)
    except Unavailable as error:
        fix = (
            "install the driver's libraries; in a container set NVIDIA_DRIVER_CAPABILITIES=utility;"
            " or name the library with nvml_library"
        )
        level: Level = "wrong" if wanted or settings.nvml_library else "note"
        yield Finding(f"{subject}: NVML", level, str(error), fix if level == "wrong" else "")
    else:
        yield from library(f"{subject}: NVML", module)
    if module is not None:
        yield from devices(f"{subject}: devices", host)
    if settings.enable_gpu_events:
        yield from messages(host)


def library(subject: str, module: str | None) -> Iterator[Finding]:
    """Which library was found, and whether it is of the same version as the kernel's module."""
    path = mapped(driver.NAME)
    match = re.search(r"\.so\.(\d+\.\d+(?:\.\d+)*)$", path)
    if module and match and match[1] != module:
        text = f"{path} is of version {match[1]}, the kernel's module of {module}"
        yield Finding(
            subject, "wrong", text, "reboot; or unload the nvidia modules and load them anew"
        )
    else:
        yield Finding(subject, "ok", path)


def mapped(name: str) -> str:
    """The path of a library that is loaded into this process."""
    short = name.rpartition(".")[0]
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        path = line.split(maxsplit=5)[-1]
        if path.rpartition("/")[2].startswith(short):
            return path
    return name


def devices(subject: str, host: Host) -> Iterator[Finding]:
    """Whether the driver's devices can be opened."""
    names = ["nvidiactl", *(path.name for path in Path(host.devfs).glob("nvidia[0-9]*"))]
    paths = [host.dev(name) for name in sorted(names)]
    absent = [path for path in paths if not Path(path).exists()]
    closed = [
        path for path in paths if path not in absent and not os.access(path, os.R_OK | os.W_OK)
    ]
    if absent or len(paths) == 1:
        text = f"{absent[0] if absent else host.dev('nvidia0')}: no such device"
        yield Finding(
            subject, "wrong", text, "nvidia-modprobe -c 0 -u, or give them to the container"
        )
    elif closed:
        text = f"{closed[0]}: {account()} may not read and write it"
        yield Finding(subject, "wrong", text, f"chmod a+rw {' '.join(closed)}")
    else:
        yield Finding(subject, "ok", f"{len(paths) - 1} of GPUs")


def messages(host: Host) -> Iterator[Finding]:
    """Whether the kernel's log can be read, from which come Xids that the driver does not tell."""
    try:
        kernel_log.KernelLog(host).close()
    except Unavailable as error:
        yield Finding("kernel log", "wrong", str(error), fix_of(str(error), account()))
    else:
        yield Finding("kernel log", "ok", f"{host.dev('kmsg')} is read")


# ------------------------------------------------------------------------------ sources


_FORBIDDEN = re.compile(r"Permission denied|Operation not permitted|EACCES|EPERM")
_PATH = re.compile(r"(/[^\s:]+(?::\d+[^\s:]*)*)")

#: What mends a trouble, by what its text has; {path} is its first path, {user} the agent's.
FIXES = (
    ("energy_uj.*denied", "chgrp {group} {path} && chmod g+r {path}; for good see docs/power.md"),
    ("/dev/ipmi.*denied", "chgrp {group} {path} && chmod g+rw {path}; for good see docs/power.md"),
    (
        "/dev/kmsg.*(EPERM|EACCES)",
        "sysctl kernel.dmesg_restrict=0; or AmbientCapabilities=CAP_SYSLOG in the unit",
    ),
    ("adjtimex", "let the container's seccomp profile pass adjtimex"),
    ("cpu_frequency is off", "esnode-core config set cpu_frequency=true"),
    ("(denied|not permitted|EACCES|EPERM)", "run the agent as root, or let {user} read {path}"),
)


def fix_of(reason: str, user: str) -> str:
    """What mends it; empty where nothing does."""
    found = next((fix for pattern, fix in FIXES if re.search(pattern, reason)), "")
    path = _PATH.search(reason)
    return found.format(path=path[1] if path else "it", user=user, group=group(user))


def sources(settings: Settings) -> Iterator[Finding]:
    """Each collector's sources, read once as the agent reads them. The GPUs' were looked at."""
    from ..agent import Agent

    logging.getLogger("esnode").addHandler(logging.NullHandler())  # it is told here
    # The driver is not opened for this, and no history written.
    own = replace(settings.config, enable_gpu=False, enable_local_tsdb=False)
    agent = Agent(replace(settings, config=own))
    threads = []
    for sampler in agent.samplers:
        thread = threading.Thread(target=quietly, args=(sampler.read,), daemon=True)
        thread.start()
        threads.append(thread)
    end = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    user = account()
    for name, enabled in agent.enabled.items():
        if not enabled and name != "gpu":
            yield Finding(name, "note", "it is off in the configuration")
    for lane in agent.lanes.values():
        was_read = agent.store.lanes[lane.name].snapshot is not None
        for part in lane.parts:
            subject = part.name
            kind = type(part.collector).__name__.lower()
            if kind != subject:
                subject = f"{part.name}: {kind}"
            reason = part.reason or ""
            if not was_read:
                text = reason or f"no answer within {PATIENCE:g} s"
                yield Finding(
                    subject, "wrong", text, "look for a device or mount that hangs: dmesg"
                )
            elif part.up:
                yield Finding(subject, "ok", f"{user} can read it")
            elif part.absent:
                yield Finding(subject, "note", reason, fix_of(reason, user))
            else:
                yield Finding(subject, "wrong", reason, fix_of(reason, user))


def quietly(read: Callable[[bool], None]) -> None:
    """Reads; what goes wrong shows in what was not read."""
    try:
        read(True)
    except Exception:
        return
