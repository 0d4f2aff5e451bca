"""Who may ask: bearer tokens, and users with passwords of which only bcrypt hashes are known.

A token is long and random, so it is compared at once. bcrypt takes some 50 ms on purpose: a thread
of its own does it, the addresses that wait take turns, and what was right is remembered, by a keyed
hash. So neither a flood of wrong passwords nor a slow hash holds up who has asked before.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ..web import Web
from .response import LONGEST, NO_STORE, TEXT_PLAIN, Refusal, Request, Respond, Response

log = logging.getLogger(__name__)

REALM = "esnode-core"
#: Right passwords that are remembered; and attempts that wait, of one address and of all.
REMEMBERED = 256
WAITING_EACH = 8
WAITING = 256
#: bcrypt looks at no more of a password, and neither do the tools that made the hash.
BCRYPT_BYTES = 72
#: Seconds between two lines in the log about requests that were turned away.
TELL = 60.0

#: Calls the function when the request may be answered.
Go = Callable[[], None]


class Rules(NamedTuple):
    """One state of the configuration."""

    users: dict[str, bytes]
    #: What a user is checked against that there is not.
    decoys: tuple[bytes, ...]
    #: Keyed hashes: of one length, whatever the tokens' is.
    tokens: tuple[bytes, ...]
    refusal: Response


class Attempt(NamedTuple):
    """A password that is to be checked."""

    key: bytes
    user: str
    password: bytes
    peer: str
    respond: Respond
    go: Go


class Access:
    """Lets requests through that bear valid credentials. Any thread may call it."""

    def __init__(self, web: Web, verify: Callable[[bytes, bytes], bool] | None = None) -> None:
        """``verify`` says whether a password has a hash; None is bcrypt."""
        self.verify = verify
        self.refused = 0
        self._secret = os.urandom(32)
        #: The user and the hash that a right header belongs to, by its keyed hash.
        self._known: dict[bytes, tuple[str, bytes]] = {}
        #: Attempts by address, in the order in which the addresses take turns.
        self._waiting: dict[str, deque[Attempt]] = {}
        self._count = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._told = -TELL
        self._untold = 0
        self.take(web)

    def take(self, web: Web) -> None:
        """Takes over another configuration; passwords that are still right stay known."""
        challenges = []
        if web.tokens:
            challenges.append(("www-authenticate", f'Bearer realm="{REALM}"'))
        if web.users:
            challenges.append(("www-authenticate", f'Basic realm="{REALM}", charset="UTF-8"'))
        self.rules = Rules(
            web.users,
            tuple(sorted(web.users.values())),
            tuple(self._digest(token) for token in web.tokens),
            Response(
                401,
                [TEXT_PLAIN, NO_STORE, *challenges],
                b"credentials are missing or wrong\n",
            ),
        )

    def check(self, request: Request, respond: Respond, go: Go) -> None:
        """Calls ``go`` when the credentials are right, now or later on another thread; else
        responds. Raises Refusal."""
        rules = self.rules
        header = request.headers.get("authorization") or ""
        scheme, _, text = header.partition(" ")
        scheme = scheme.lower()
        if len(header) > LONGEST:
            pass
        elif scheme == "bearer" and rules.tokens:
            found = self._digest(text.strip())
            # All of them, so that the time does not tell which.
            if sum(hmac.compare_digest(found, token) for token in rules.tokens):
                go()
                return
        elif scheme == "basic" and rules.users:
            key = self._digest(header)
            if self._is_known(key):
                go()
                return
            if credentials := parse(text):
                user, password = credentials
                self._put(Attempt(key, user, password, peer(request), respond, go))
                return
        self._refuse(peer(request), respond)

    def _digest(self, text: str) -> bytes:
        data = text.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(data, key=self._secret, digest_size=32).digest()

    def _is_known(self, key: bytes) -> bool:
        user, stored = self._known.get(key, ("", b""))
        return bool(stored) and self.rules.users.get(user) == stored

    def _refuse(self, peer: str, respond: Respond) -> None:
        self.refused += 1
        self._untold += 1
        now = time.monotonic()
        if now - self._told >= TELL:
            self._told = now
            count, self._untold = self._untold, 0
            requests = "a request" if count == 1 else f"{count} requests"
            log.warning(
                "%s without valid credentials; the last from %s", requests, peer or "a unix socket"
            )
        respond(self.rules.refusal)

    def _put(self, attempt: Attempt) -> None:
        """Has an attempt wait for its turn. Raises Refusal when there are too many."""
        with self._changed:
            mine = self._waiting.get(attempt.peer, ())
            if len(mine) >= WAITING_EACH or self._count >= WAITING:
                raise Refusal(
                    429, "too many passwords wait to be checked; try again", ("retry-after", "1")
                )
            self._waiting.setdefault(attempt.peer, deque()).append(attempt)
            self._count += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="access", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _next(self) -> Attempt:
        """The next attempt, of the address whose turn it is."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            address = next(iter(self._waiting))
            queue = self._waiting.pop(address)
            attempt = queue.popleft()
            if queue:
                self._waiting[address] = queue  # behind the others
            self._count -= 1
            return attempt

    def _run(self) -> None:
        while True:
            attempt = self._next()
            began = time.monotonic()
            right = False
            try:
                right = self._is_right(attempt)
            except Exception:
                log.exception("a password could not be checked")
            took = time.monotonic() - began
            try:
                if right:
                    attempt.go()
                else:
                    self._refuse(attempt.peer, attempt.respond)
            except Exception:
                log.exception("a request failed")
            if not right:
                time.sleep(took)  # so that a flood of wrong ones costs half of a core, not all

    def _is_right(self, attempt: Attempt) -> bool:
        """Whether a password is its user's. Of a user that there is not, it takes as long."""
        if self._is_known(attempt.key):  # since it began to wait
            return True
        rules = self.rules
        if not rules.users:  # since then, too
            return False
        stored = rules.users.get(attempt.user)
        # Always the same decoy for the same name, or its time would tell it from a user.
        number = int.from_bytes(self._digest(attempt.user)[:8], "little") % len(rules.decoys)
        right = self._bcrypt(attempt.password, stored or rules.decoys[number])
        if not right or stored is None:
            return False
        with self._changed:
            while len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[attempt.key] = attempt.user, stored
        return True

    def _bcrypt(self, password: bytes, stored: bytes) -> bool:
        if self.verify is None:
            import bcrypt  # only where there are passwords

            self.verify = bcrypt.checkpw
        return self.verify(password[:BCRYPT_BYTES], stored)


def parse(text: str) -> tuple[str, bytes] | None:
    """User and password of basic authentication (RFC 7617); None if it is none."""
    try:
        data = base64.b64decode(text.strip(), validate=True)
        user, colon, password = data.partition(b":")
        name = user.decode()
    except (binascii.Error, ValueError):
        return None
    # bcrypt's would end at the NUL: another password.
    return None if not colon or b"\0" in password else (name, password)


def peer(request: Request) -> str:
    """The address that a request is from, without its port; empty on a unix socket."""
    return request.client.rpartition(":")[0]
