"""``esnode-core server`` and ``disconnect``: which controller this node answers to.

What is to be known is in the directory of the agent's state: of the one that runs here, else of
this process's own environment.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import typer

from .. import config, control
from ..config import KEYS, Arguments, Config, ConfigError, Settings
from ..control import managed, policy
from ..control.managed import Attached, State, Unusable
from ..control.protocol import TOKEN as ALLOWED
from ..sets import switches
from ..state import state_directory
from ..status import Managed

VARIABLE = KEYS["managed_join_token"].variable
#: Who may see and change what the agent keeps.
WHO = "run this as root, or as the agent's user"

ADDRESS = typer.Option(
    "", metavar="HOST:PORT", help="The controller; without it, the managed_server of the file."
)
TOKEN = typer.Option(
    "", help=f"What admits the node. Better in a file, or in {VARIABLE}: others may see this one."
)
TOKEN_FILE = typer.Option("", metavar="FILE", help="A file with the token; -: standard input.")
CLUSTER = typer.Option("", metavar="ID", help="The cluster; without it, the one of the token.")
CA_FILE = typer.Option(
    "", metavar="FILE", help="Authorities of the controller's certificate; else the system's."
)
OFFLINE = typer.Option(
    False, "--offline", help="Only keep it; the agent connects when the controller can be reached."
)


class Impossible(OSError):  # noqa: N818  # says what is the case
    """It cannot be done; the text says why, and what to do."""


def add(app: typer.Typer, arguments: Arguments) -> None:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="server", help="Have a controller, ESNODE-Pulse, manage this node.")

    @group.command("connect")
    def _connect(
        address: str = ADDRESS,
        token: str = TOKEN,
        token_file: str = TOKEN_FILE,
        cluster_id: str = CLUSTER,
        ca_file: str = CA_FILE,
        offline: bool = OFFLINE,
    ) -> None:
        """Register this node with a controller; from then on it is managed."""
        if token:
            control.hide(token)
        connect(arguments, address, secret(token, token_file), cluster_id, ca_file, offline)

    @group.command("status")
    def _status() -> None:
        """Show the controller, the ids of cluster and node, the last contact, and the state."""
        typer.echo(status(arguments), nl=False)

    @group.command("disconnect")
    def _disconnect() -> None:
        """Make this node standalone again."""
        disconnect(arguments)

    @app.command("disconnect")
    def _disconnect_too() -> None:
        """Make this node standalone again; the same as `server disconnect`."""
        disconnect(arguments)


class Place:
    """Where the state of the agent is that is meant, and what it is configured to."""

    def __init__(self, arguments: Arguments) -> None:
        """Raises ConfigError, OSError."""
        from .configure import running

        self.agent = running(arguments)
        self.config: Config | None = None
        if self.agent:
            self.directory: Path = self.agent.state
            self.config = self.agent.config
        else:
            self.directory = state_directory(os.environ, make=False)
            self.config = config.load(arguments, os.environ).config

    def make(self) -> Path:
        """The directory, made where it is missing, as the agent would. Raises OSError."""
        if not self.directory.exists():
            self.directory.mkdir(mode=0o700, parents=True)
            if self.agent and os.geteuid() == 0:
                os.chown(self.directory, *self.agent.owner)
        return self.directory

    def load(self) -> State | None:
        """What is kept; a damaged one is put aside. Raises OSError."""
        try:
            return managed.load(self.directory)
        except Unusable as error:
            if not error.is_damage:
                raise
            aside = managed.put_aside(self.directory)
            typer.echo(f"note: {error}: it is now {aside}", err=True)
            return None

    def unseen(self, arguments: Arguments) -> str | None:
        """Why nothing can be done about an agent that answers as managed, and whose state is not
        ours to see; None where there is no such one."""
        from ..client import NoAnswer

        try:
            told = None if self.agent else asked(arguments, here=True)
        except (NoAnswer, ConfigError):
            return None
        if told is None or told.server is None:
            return None
        return (
            f"this node is managed by ESNODE-Pulse on {told.server}, as its agent says, which is"
            f" another user's: {WHO}"
        )

    @property
    def join_token(self) -> str | None:
        """The configuration's token; one on a command line is hidden from us, too."""
        if self.agent and (self.agent.overrides("managed_join_token") or "").startswith("--"):
            return None
        return self.config.managed_join_token if self.config else None

    @property
    def follower(self) -> str:
        """Who takes up what is kept, as a sentence."""
        if self.agent:
            return f"The agent that runs, process {self.agent.pid}, takes this up within seconds."
        return f"No agent is seen to run here: one that keeps its state in {self.directory} will."


def refusal(arguments: Arguments) -> str | None:
    """Why tuning the agent by hand is refused; None where it is not."""
    try:
        place = Place(arguments)
    except (ConfigError, OSError):  # of a file that is still to be made, or mended
        return control.refusal()
    return control.refusal(place.config, place.directory) or place.unseen(arguments)


def decided(arguments: Arguments, settings: Settings) -> Settings:
    """A configuration with the sets of metrics as the agent that runs here has them, where that is
    ours to see: by its own flags and variables, and by what the controller has decided."""
    try:
        place = Place(arguments)
        found = managed.attached(managed.load(place.directory), place.config)
    except (ConfigError, OSError):
        return settings
    values, origins = {}, {}
    for key in switches("all", False) if place.agent else ():
        if origin := place.agent.overrides(key):
            values[key] = getattr(place.config, key)
            origins[key] = f"{origin} of the agent"
    what = policy.keys(found.state.policy if found and found.state else None)
    return msgspec.structs.replace(
        settings,
        config=msgspec.structs.replace(settings.config, **{**values, **what}),
        origins={**settings.origins, **origins, **dict.fromkeys(what, "the controller")},
    )


def secret(token: str, file: str) -> str | None:
    """The token of an option, or else of the environment; None where there is none. Raises
    ConfigError."""
    if token and file:
        raise ConfigError("--token and --token-file exclude each other")
    where = "--token" if token else VARIABLE
    token = token or os.environ.get(VARIABLE, "")
    if file:
        where = "standard input" if file == "-" else file
        try:
            token = written(file)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{where}: cannot be read: {reason}") from None
        if not token:
            raise ConfigError(f"{where}: there is no token in it")
    if token and not re.match(ALLOWED, token):
        raise ConfigError(f"{where}: a token is up to 4096 printable ASCII letters without spaces")
    return token or None


def written(file: str) -> str:
    """What is in a file, or is typed, which is not shown then. Raises OSError, RuntimeError."""
    if file == "-" and os.isatty(0):
        from getpass import getpass

        try:
            return getpass("Token, not shown as it is typed: ").strip()
        except EOFError:
            return ""
    with (
        os.fdopen(os.dup(0), "rb") if file == "-" else Path(file).expanduser().open("rb")
    ) as source:
        return source.read(8192).decode(errors="replace").strip()


def connect(
    arguments: Arguments,
    address: str,
    token: str | None,
    cluster_id: str,
    ca_file: str,
    offline: bool,
) -> None:
    """Registers with a controller, and keeps what it said. Raises ConfigError, OSError."""
    from ..control.controller import Controller
    from ..control.wire import Trouble, Wire

    ours = config.load(arguments, os.environ).config
    place = Place(arguments)
    known = place.config or ours
    server = address or known.managed_server or ours.managed_server
    if not server:
        raise ConfigError("server connect: --address HOST:PORT is missing")
    ca = str(Path(ca_file).expanduser().absolute()) if ca_file else known.managed_ca_file
    wire = Wire(server, ca or None)
    with explained(place):
        before = place.load()
        now = managed.attached(before, known)
        if now and now.server != server:
            raise Impossible(
                f"this node is managed by {now.shown}: `esnode-core disconnect` detaches it"
            )
        if now is None and (reason := place.unseen(arguments)):
            raise Impossible(reason)
        directory = place.make()
        node = known.managed_node_id or managed.node_id(directory)
        old = now.state if now and now.state else State(server=server, origin="command")
        join = token or old.join_token or place.join_token or ours.managed_join_token
        state = State(
            server=server,
            origin="command",
            cluster_id=cluster_id or known.managed_cluster_id or old.cluster_id,
            node_id=node,
            ca_file=ca or old.ca_file,
            join_token=join,
            token=None if token else old.token,
            last_contact_unix_ms=old.last_contact_unix_ms,
            policy=old.policy,
        )
        if not offline:
            controller = Controller(wire, node, state.cluster_id, state.token or join)
            try:
                answer = controller.register()
            except Trouble as error:
                raise Impossible(
                    f"not connected: {error}; nothing was changed. With --offline it is kept for"
                    " the agent to try again"
                ) from None
            state = msgspec.structs.replace(
                state,
                cluster_id=answer.cluster_id,
                token=None if controller.token == join else controller.token,
                last_contact_unix_ms=round(time.time() * 1000),
            )
        managed.change(directory, lambda _: state)
    if offline:
        typer.echo(
            f"kept, without contact: {server}, node id {node}. Not connected:"
            " `esnode-core server status` says when it is."
        )
    else:
        typer.echo(f"connected to {server}: cluster {state.cluster_id}, node id {node}")
    typer.echo(place.follower)


def disconnect(arguments: Arguments) -> None:
    """Makes the node standalone, and tells the controller if that can be reached. Raises
    ConfigError, OSError."""
    place = Place(arguments)
    with explained(place):
        before = place.load()
        now = managed.attached(before, place.config)
        if now is None:
            if reason := place.unseen(arguments):
                raise Impossible(reason)
            typer.echo("this node is standalone: there is nothing to disconnect")
            return
        named = place.config.managed_server if place.config else None
        rest = State(server=named, origin="command", attached=False) if named else None
        managed.change(place.make(), lambda _: rest)
    typer.echo(f"this node is standalone: {now.shown} does not manage it any more")
    if named:
        typer.echo(
            "note: managed_server is still in the configuration; it does not count until"
            " `esnode-core server connect`, or until it names another one",
            err=True,
        )
    typer.echo(place.follower)
    if problem := farewell(now, place):
        typer.echo(f"note: the controller was not told: {problem}", err=True)


def farewell(left: Attached, place: Place) -> str | None:
    """Tells a controller that the node has left it; why it could not be told."""
    from ..control.controller import Controller
    from ..control.wire import Wire

    state = left.state
    token = (state.token if state else None) or left.join_token
    node = left.node_id or (state.node_id if state else "")
    try:
        node = node or managed.node_id(place.directory)
        Controller(Wire(left.server, left.ca_file), node, left.cluster_id, token).leave()
    except (OSError, ConfigError) as error:
        return str(error)
    return None


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """Says of what may not be read or written what to do."""
    try:
        yield
    except PermissionError as error:
        raise Impossible(f"{error.filename or place.directory}: {error.strerror}: {WHO}") from None
    except Unusable as error:
        if error.is_damage:
            raise
        raise Impossible(f"{error}: {WHO}") from None


def status(arguments: Arguments) -> str:
    """What is known of the controller, from the agent, else from what is kept."""
    from ..client import Absent, NoAnswer

    place = Place(arguments)
    told, state = None, None
    problem: Exception = Absent()
    try:
        told = asked(arguments)
    except (NoAnswer, ConfigError) as error:
        problem = error
    try:
        state = managed.load(place.directory)
    except Unusable as error:  # which is not put aside for having been looked at
        if error.is_damage:
            raise Impossible(
                f"{error}: the node is standalone; `esnode-core server connect` and `disconnect`"
                " put the file aside"
            ) from None
        if told is None or told.server is None:
            raise Impossible(f"{error}: {WHO}") from None
    now = managed.attached(state, place.config)
    if told and told.server:
        rows = [told.server, told.cluster_id, told.node_id, when(told.last_contact_unix_ms)]
        return table([*rows, told.state])
    if now is None:
        known = told or place.agent or isinstance(problem, Absent)
        return table([None] * 4 + ["standalone" if known else f"unknown: {problem}"])
    kept = now.state
    text = "not taken up by the agent yet" if told else f"unknown: {problem}"
    last = kept.last_contact_unix_ms if kept else None
    node = now.node_id or (kept.node_id if kept else None)
    return table([now.shown, now.cluster_id, node, when(last), text])


class _Document(msgspec.Struct):
    managed: Managed


def asked(arguments: Arguments, here: bool = False) -> Managed:
    """What the agent says of its controller, or the one of this node where another is named by a
    variable. Raises NoAnswer, ConfigError."""
    from ..client import NoAnswer, local
    from . import ask

    client = (
        local(config.load(arguments, os.environ).config) if here else ask.agent(arguments, None)
    )
    document = client.get("/status")
    try:
        return msgspec.json.decode(document, type=_Document).managed
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NoAnswer(f"{client.agent.shown} answers without it: is it an agent?") from None


def when(unix_ms: int | None) -> str | None:
    """A time, and how long ago it was."""
    if unix_ms is None:
        return "never"
    seconds = max(0, round(time.time() - unix_ms / 1000))
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_ms / 1000))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{text} ({seconds // size} {unit} ago)"
    return f"{text} ({seconds} s ago)"


def table(values: list[Any]) -> str:
    """The lines of a status; what is not known is a dash."""
    names = ("server", "cluster ID", "node ID", "last contact", "state")
    return "".join(
        f"{name + ':':<14} {'-' if value is None else value}\n"
        for name, value in zip(names, values, strict=True)
    )
