"""What a node and its controller tell each other: docs/reference/managed-protocol.md.

Keys that are not known are skipped, so that either side may be the newer one. What is out of the
bounds given here counts as no answer.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

#: Goes up when a message changes its meaning, not for a new key. It is in every path, too.
VERSION = 1

#: Names of nodes and clusters, and tokens, which are sent in a header.
ID = r"\A[!-~]([ -~]{0,198}[!-~])?\Z"
TOKEN = r"\A[!-~]{1,4096}\Z"
Id = Annotated[str, Meta(pattern=ID)]
Token = Annotated[str, Meta(pattern=TOKEN)]
Version = Annotated[int, Meta(ge=0, le=2**53)]
#: Seconds between two heartbeats.
Period = Annotated[float, Meta(ge=1, le=3600)]
PERIOD = 30.0


class Register(Struct, frozen=True):
    """PUT /v1/nodes/NODE. ``cluster_id`` is null where the node joins the one of its token."""

    protocol: int
    node_id: str
    cluster_id: str | None
    hostname: str
    version: str


class Registered(Struct, frozen=True):
    """Its answer. ``token``: what the node is to show from now on, instead of the one it joined
    with."""

    node_id: Id
    cluster_id: Id
    heartbeat_seconds: Period = PERIOD
    token: Token | None = None
    policy_version: Version = 0


class Digest(Struct, frozen=True):
    """The state of a node in a few values of the newest document of /status. None is not known."""

    tick_unix_ms: int | None
    healthy: bool
    load_avg_1m: float | None
    cpu_util_percent: float | None
    mem_total_bytes: int | None
    mem_used_bytes: int | None
    node_power_watts: float | None
    degradation_score: float | None
    gpus: int | None
    gpus_up: int | None


class Heartbeat(Struct, frozen=True):
    """POST /v1/nodes/NODE/heartbeat. ``status`` is null while there is no document.
    ``policy_version`` is the one that is applied, 0 for none."""

    protocol: int
    node_id: str
    cluster_id: str | None
    unix_ms: int
    version: str
    policy_version: int
    status: Digest | None


class Acknowledged(Struct, frozen=True):
    """Its answer. A ``token`` takes the place of the one that was shown."""

    node_id: Id
    heartbeat_seconds: Period = PERIOD
    token: Token | None = None
    policy_version: Version = 0


class Sets(Struct, frozen=True, forbid_unknown_fields=True):
    """Which metric sets are on; null leaves one as the configuration has it."""

    host: bool | None = None
    gpu: bool | None = None
    power: bool | None = None
    app: bool | None = None


class Policy(Struct, frozen=True):
    """GET /v1/nodes/NODE/policy. All that a controller may decide."""

    version: Version
    metric_sets: Sets = Sets()
