"""What a controller may decide: which sets of metrics are on. Nothing is run, and nothing else of
the configuration is its to change.
"""

from __future__ import annotations

import msgspec

from ..config import Config
from ..sets import SETS, switches
from .protocol import Policy


def keys(decided: Policy | None) -> dict[str, bool]:
    """The keys that a policy sets."""
    found: dict[str, bool] = {}
    for name in SETS:
        on = getattr(decided.metric_sets, name) if decided else None
        if on is not None:
            found |= switches(name, on)
    return found


def over(config: Config, decided: Policy | None) -> Config:
    """A configuration in which a policy counts more."""
    return msgspec.structs.replace(config, **keys(decided))
