"""A controller as seen from the node: the calls of the protocol."""

from __future__ import annotations

import re
import socket
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from .. import __version__
from ..config import ConfigError
from .protocol import (
    ID,
    TOKEN,
    VERSION,
    Acknowledged,
    Digest,
    Heartbeat,
    Policy,
    Register,
    Registered,
)
from .wire import Trouble, Wire

T = TypeVar("T", bound=msgspec.Struct)


class Controller:
    """Calls raise Trouble, or Refused, which is one."""

    def __init__(self, wire: Wire, node_id: str, cluster_id: str | None, token: str | None) -> None:
        """Raises ConfigError for what cannot be sent."""
        for name, text in (("node", node_id), ("cluster", cluster_id)):
            if text is not None and not re.match(ID, text):
                raise ConfigError(
                    f"a {name}'s id has 1 to 200 printable ASCII letters, and no space at its ends"
                )
        if token and not re.match(TOKEN, token):
            raise ConfigError("a token has up to 4096 printable ASCII letters, and no space")
        self.wire = wire
        self.node_id = node_id
        self.cluster_id = cluster_id
        self.token = token
        self.path = f"/v{VERSION}/nodes/{quote(node_id, safe='')}"

    def register(self) -> Registered:
        """Makes this node known; as often as one likes. Takes the token of the answer."""
        message = Register(
            VERSION, self.node_id, self.cluster_id, socket.gethostname(), __version__
        )
        answer = self._call("PUT", "", Registered, message)
        self._same(answer.node_id)
        if self.cluster_id is not None and answer.cluster_id != self.cluster_id:
            raise Trouble(
                f"{self.wire.server} is of cluster {answer.cluster_id}, and this node is to be in"
                f" {self.cluster_id}"
            )
        self.cluster_id = answer.cluster_id
        self.token = answer.token or self.token
        return answer

    def heartbeat(self, unix_ms: int, policy_version: int, status: Digest | None) -> Acknowledged:
        """Says that this node lives, and how it is. Takes the token of the answer."""
        message = Heartbeat(
            *(VERSION, self.node_id, self.cluster_id, unix_ms, __version__),
            *(policy_version, status),
        )
        answer = self._call("POST", "/heartbeat", Acknowledged, message)
        self._same(answer.node_id)
        self.token = answer.token or self.token
        return answer

    def policy(self) -> Policy:
        return self._call("GET", "/policy", Policy)

    def leave(self) -> None:
        """Says that this node is not to be managed any more."""
        self.wire.ask("DELETE", self.path, self.token)

    def _call(self, method: str, path: str, kind: type[T], message: Any = None) -> T:
        body = None if message is None else msgspec.json.encode(message)
        text = self.wire.ask(method, self.path + path, self.token, body)
        try:
            return msgspec.json.decode(text, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Trouble(
                f"{self.wire.server} does not answer as the protocol has it: is it a controller?"
            ) from None

    def _same(self, node_id: str) -> None:
        if node_id != self.node_id:
            raise Trouble(f"{self.wire.server} answers for another node")
