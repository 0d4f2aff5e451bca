"""The running agent's side of managed mode: notices whom the node answers to, and keeps in touch.

A thread looks at managed.json. While there is a controller another one asks it, which may hang as
it likes: nothing waits for it, and a new one takes its place when something else is to be done.
What needs TLS is loaded by that one only.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .. import status
from ..config import Config, ConfigError
from ..state import state_directory
from . import managed, policy
from .managed import Attached, State, Unusable
from .protocol import PERIOD, Digest, Policy

if TYPE_CHECKING:
    from .controller import Controller

log = logging.getLogger(__name__)

#: Seconds between two looks at the file.
LOOK = 2.0
#: Seconds for the first look, before anything else: a disk that hangs holds up no start.
FIRST_LOOK = 2.0
#: Seconds to wait after a failure, at first and at most; each wait is twice the one before, and
#: some random part of it is left out, so that nodes that lost a controller together come back one
#: by one.
FIRST = 2.0
MOST = 300.0
#: Seconds within which all nodes of a cluster that was switched on call.
SPREAD = 1.0
#: Seconds for which a new last contact need not be on the disk.
KEPT = 60.0
#: Seconds for the document of /status.
DOCUMENT = 2.0
#: What says that the node, or its token, is not known, and that it is to be made known again.
UNKNOWN = frozenset({401, 403, 404, 409, 410})


class Control:
    """Whom the node answers to is known from the start on; nobody is asked before it.

    To be set: ``document`` calls its argument with the newest document of /status, now or later;
    ``changed`` is called when :meth:`over` makes another configuration.
    """

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self.config = config
        self.document: Callable[[Callable[[bytes], None]], object] = lambda answer: None
        self.changed: Callable[[], object] = lambda: None
        self.policy: Policy | None = None
        self.session: Session | None = None
        #: Held while the file is read or written.
        self.lock = threading.Lock()
        try:
            self.directory: Path | None = state_directory(environ, make=False)
        except OSError:
            self.directory = None
        self._started = False
        self._stopping = False
        self._awake = threading.Event()
        self._seen: tuple[object, Config | None] = None, None
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._first = threading.Thread(target=self._look, name="control", daemon=True)
        self._first.start()
        self._first.join(FIRST_LOOK)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the threads; one that hangs is left behind."""
        self._stopping = True
        self._awake.set()
        if self.session:
            self.session.end()
        if self._thread.ident:
            self._thread.join(timeout=0.2)

    def configure(self, config: Config) -> None:
        """Takes another configuration."""
        self.config = config
        self._awake.set()

    def over(self, config: Config) -> Config:
        """A configuration with what the controller has decided."""
        return policy.over(config, self.policy)

    def block(self) -> status.Managed:
        """What /status says of it."""
        session = self.session
        if session is None:
            return status.Managed(None, None, None, None, None)
        return status.Managed(
            session.attached.shown,
            session.cluster_id,
            session.node_id,
            session.last_contact,
            session.state,
        )

    def take(self, decided: Policy | None) -> None:
        """Takes what a controller has decided, or that there is none."""
        before, self.policy = self.policy, decided
        if policy.keys(before) != policy.keys(decided):
            self.changed()

    def _run(self) -> None:
        self._first.join()
        self._started = True
        if self.session:
            self.session.start()
        while not self._stopping:
            try:
                self._look()
            except Exception:
                log.exception("managed mode stays as it was")
            self._awake.wait(LOOK)
            self._awake.clear()

    def _look(self) -> None:
        now = self._stamp(), self.config
        if now == self._seen:
            return
        with self.lock:
            self._seen = self._stamp(), now[1]
            state = None
            try:
                state = managed.load(self.directory) if self.directory else None
                found = managed.attached(state, self.config)
            except Unusable as error:
                log.error("%s: the node is standalone", error)
                found = None
            session = self.session
            if session and session.known == state and session.is_for(found):
                return
            if session:
                session.end()
                log.info("no longer managed by %s", session.attached.shown)
            self.session = Session(self, found, state) if found else None
        if self.session:
            log.info("managed by %s", self.session.attached.shown)
            if self._started:
                self.session.start()
        kept = self.session.kept.policy if self.session else None
        self.take(kept)

    @property
    def is_behind(self) -> bool:
        """Whether the file is not the one that was last looked at."""
        return self._seen[0] != self._stamp()

    def _stamp(self) -> object:
        """What is another when the file is."""
        try:
            found = (self.directory / managed.NAME).lstat() if self.directory else None
        except OSError:
            return None
        return found and (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Session:
    """What there is between this node and one controller.

    state: ``connecting`` until the first answer; then ``connected``, ``unreachable`` where there
    is none that can be used, or ``refused``. last_contact: Unix milliseconds of the last answer.
    known: what the file is known to have.
    """

    def __init__(self, control: Control, attached: Attached, known: State | None) -> None:
        self.control = control
        self.attached = attached
        self.known = known
        self.kept = attached.state or State(server=attached.server, origin="configuration")
        self.state = "connecting"
        self.node_id = attached.node_id or self.kept.node_id or None
        self.cluster_id = attached.cluster_id
        self.last_contact = self.kept.last_contact_unix_ms
        self._tokens = [each for each in (self.kept.token, attached.join_token) if each]
        self._period = PERIOD
        self._registered = False
        self._controller: Controller | None = None
        self._written = -KEPT
        self._complained: set[str] = set()
        self._asked: queue.SimpleQueue[bytes] | None = None
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Has the thread end; nothing that it does counts from now on."""
        self._gone.set()
        if self._controller:
            self._controller.wire.close()

    def is_for(self, found: Attached | None) -> bool:
        """Whether it is what another look at the file and the configuration asks for."""
        mine = self.attached
        return found is not None and (
            (found.server, found.ca_file, found.join_token)
            == (mine.server, mine.ca_file, mine.join_token)
            and found.node_id in (mine.node_id, self.node_id)
            and found.cluster_id in (mine.cluster_id, self.cluster_id)
        )

    def _run(self) -> None:
        failures = 0
        wait = random.uniform(0, SPREAD)
        while not self._gone.wait(wait):
            known = self._registered
            try:
                self._exchange()
            except (OSError, ConfigError) as error:  # Trouble is the first
                self._failed(error)
                # One that has come back and knows us no more is there: it is asked again soon.
                failures = 1 if known and not self._registered else failures + 1
            except Exception:
                failures += 1
                log.exception("the controller could not be asked")
            else:
                failures = 0
            wait = pause(failures) if failures else self._period * random.uniform(0.9, 1.1)

    def _exchange(self) -> None:
        """Makes this node known, where it is not, and sends a heartbeat. Raises Trouble, OSError,
        ConfigError."""
        controller = self._controller = self._controller or self._reach()
        if not self._registered:
            registered = controller.register()
            self._registered = True
            self.cluster_id = registered.cluster_id
            self._period = registered.heartbeat_seconds
            self._heard(controller)
        held = self.control.policy
        version = held.version if held else 0
        answer = controller.heartbeat(round(time.time() * 1000), version, self._digest())
        self._period = answer.heartbeat_seconds
        self._heard(controller)
        if answer.policy_version != version:
            self._decide(controller)

    def _reach(self) -> Controller:
        """The controller, of whom nothing is asked yet."""
        from .controller import Controller
        from .wire import Wire

        wire = Wire(self.attached.server, self.attached.ca_file)
        if self.node_id is None:
            if self.control.directory is None:
                raise ConfigError("there is no directory for this node's id: set managed_node_id")
            try:
                self.control.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.node_id = managed.node_id(self.control.directory)
            except Unusable:
                raise
            except OSError as error:
                raise ConfigError(
                    f"{error.filename or self.control.directory}: {error.strerror}, so this node's"
                    " id cannot be kept: let the agent's user write there, or set managed_node_id"
                ) from None
        self._keep(self.kept.token)
        token = self._tokens[0] if self._tokens else None
        return Controller(wire, self.node_id, self.cluster_id, token)

    def _heard(self, controller: Controller) -> None:
        """There was an answer."""
        if self._gone.is_set():
            return
        self.last_contact = round(time.time() * 1000)
        if self.state != "connected":
            log.info(
                *("connected to %s as %s of cluster %s", self.attached.shown, self.node_id),
                self.cluster_id,
            )
            self.state = "connected"
        join = self.attached.join_token
        token = None if controller.token == join else controller.token
        self._tokens = [each for each in (token, join) if each]
        if (token, self.cluster_id) != (self.kept.token, self.kept.cluster_id) or (
            time.monotonic() - self._written > KEPT
        ):
            self._keep(token)

    def _failed(self, error: Exception) -> None:
        """There was none, or a bad one: which is no wonder where a command has just told it that
        the node leaves."""
        from .wire import Refused, Untrusted

        status = error.status if isinstance(error, Refused) else 0
        refused = status in UNKNOWN
        if refused:
            self._registered = False
            # The node's own token may have been withdrawn, or the one it joined with is spent.
            if status in (401, 403):
                self._tokens.reverse()
            if self._controller and self._tokens:
                self._controller.token = self._tokens[0]
        if isinstance(error, Untrusted):  # its authority's file may be another by then
            self._controller = None
        state = "refused" if refused else "unreachable"
        if self._gone.is_set() or self.control.is_behind:
            return
        level = logging.DEBUG if self.state == state else logging.WARNING
        log.log(level, "the controller is not heard: %s", error)
        self.state = state

    def _decide(self, controller: Controller) -> None:
        """Asks what the controller has decided, and does so."""
        try:
            decided = controller.policy()
        except OSError as error:
            self._complain(f"the policy stays as it was: {error}")
            return
        if self._gone.is_set() or decided == self.control.policy:
            return
        log.info("policy %d of the controller", decided.version)
        self.control.take(decided)
        self._keep(self.kept.token)

    def _keep(self, token: str | None) -> None:
        """Writes what is known to the file, unless a command has put another in its place."""
        directory = self.control.directory
        self._written = time.monotonic()
        self.kept = msgspec.structs.replace(
            self.kept,
            cluster_id=self.cluster_id,
            node_id=self.node_id or "",
            ca_file=self.attached.ca_file,
            token=token,
            last_contact_unix_ms=self.last_contact,
            policy=self.control.policy,
        )
        if directory is None:
            return
        with self.control.lock:
            if self._gone.is_set():
                return
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                found = managed.change(
                    directory, lambda before: self.kept if before == self.known else before
                )
            except Unusable:  # which is said when it is looked at
                return
            except OSError as error:
                self._complain(f"what is known of the controller is not kept: {error}")
                return
            if found == self.kept:
                self.known = found

    def _digest(self) -> Digest | None:
        """The node's state; None where it is not to be had now."""
        if self._asked is None or not self._asked.empty():  # what came late is too old
            self._asked = queue.SimpleQueue()
            self.control.document(self._asked.put)
        try:
            document = self._asked.get(timeout=DOCUMENT)
        except queue.Empty:  # not asked for again until it has come
            return None
        self._asked = None
        return digest(document)

    def _complain(self, text: str) -> None:
        if text not in self._complained and len(self._complained) < 100:
            self._complained.add(text)
            log.warning("%s", text)


def pause(failures: int) -> float:
    """Seconds to wait after so many failures on end."""
    most: float = min(MOST, FIRST * 2 ** min(failures - 1, 20))
    return random.uniform(most / 2, most)


class _Gpu(msgspec.Struct):
    up: bool | None


class _Document(msgspec.Struct):
    """What a digest has of the document of /status."""

    last_scrape_unix_ms: int | None
    healthy: bool
    load_avg_1m: float | None
    cpu_util_percent: float | None
    mem_total_bytes: int | None
    mem_used_bytes: int | None
    node_power_watts: float | None
    degradation_score: float | None
    gpus: list[_Gpu] | None


def digest(document: bytes) -> Digest:
    """The digest of a document of /status."""
    found = msgspec.json.decode(document, type=_Document)
    gpus = found.gpus
    return Digest(
        found.last_scrape_unix_ms,
        found.healthy,
        found.load_avg_1m,
        found.cpu_util_percent,
        found.mem_total_bytes,
        found.mem_used_bytes,
        found.node_power_watts,
        found.degradation_score,
        None if gpus is None else len(gpus),
        None if gpus is None else sum(gpu.up is True for gpu in gpus),
    )
