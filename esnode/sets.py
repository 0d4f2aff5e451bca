"""Sets of metrics: which keys turn each on and off."""

from __future__ import annotations

#: Which keys turn a set on. What has to be asked for, such as detail, is no set's.
SETS = {
    "host": ("enable_cpu", "enable_memory", "enable_disk", "enable_network"),
    "gpu": ("enable_gpu",),
    "power": ("enable_power",),
    "app": ("enable_app",),
}
#: What is turned off with a set, and not on with it.
WITH = {"gpu": ("enable_gpu_amd",)}


def switches(name: str, on: bool) -> dict[str, bool]:
    """The keys to set, to turn a set or ``all`` of them on or off."""
    names = SETS if name == "all" else (name,)
    keys = [key for each in names for key in (*SETS[each], *(() if on else WITH.get(each, ())))]
    return dict.fromkeys(keys, on)
