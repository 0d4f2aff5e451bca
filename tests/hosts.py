"""Host trees, the fixtures' and hand-made ones, and what the agent's lanes read from them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from esnode._fast.table import Snapshot
from esnode.collectors import COLLECTORS
from esnode.collectors.base import Collector
from esnode.config import Config
from esnode.dialects import row_prefix
from esnode.host import Host
from esnode.sampler import Lane

from . import bighost

FIXTURES = Path(__file__).parent / "fixtures" / "hosts"
#: The lanes of devices, which one lane stands for here.
DEVICES = ("devices", "infiniband", "sensors")
HOSTS = ("small-vm", "old-kernel", "empty", "garbage", "bighost")

Rows = dict[str, float]


@contextmanager
def tree(name: str) -> Iterator[Path]:
    """The root of a fixture host."""
    if name != "bighost":
        yield FIXTURES / name
        return
    with TemporaryDirectory() as directory:
        bighost.write(Path(directory))
        yield Path(directory)


def config(root: Path, **keys: Any) -> Config:
    """A configuration whose host is the tree at ``root``: root/proc, root/sys, and root itself."""
    paths = {
        "path_procfs": f"{root}/proc",
        "path_sysfs": f"{root}/sys",
        "path_rootfs": str(root),
    }
    # GPUs are in no tree: they are this machine's, or those of a fake that is loaded.
    return Config(**{**paths, "enable_gpu": False, **keys})


def lane(root: Path, collectors: Sequence[type[Collector]] | str = "host", **keys: Any) -> Lane:
    """A lane of some collectors, or of all those of the lane of that name, on a tree."""
    settings = config(root, **keys)
    host = Host(settings.path_procfs, settings.path_sysfs, settings.path_rootfs)
    if isinstance(collectors, str):
        names = DEVICES if collectors == "devices" else (collectors,)
        collectors = [cls for cls in COLLECTORS if cls.lane in names]
    return Lane("host", [cls(host, settings) for cls in collectors], 5)


def rows(snapshot: Snapshot) -> Rows:
    """The rows that have a value, by ``name{labels}`` as the page spells them."""
    return {
        row_prefix(metric, labels).decode().rstrip(): value
        for metric, labels, value in snapshot.items()
    }


class Tree:
    """A host's files, and a lane that reads them; the lane is bound at the first reading."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.collectors: Sequence[type[Collector]] = ()
        self.keys: dict[str, Any] = {}
        self.lane: Lane | None = None

    def use(self, *collectors: type[Collector], **keys: Any) -> None:
        """Which collectors read the tree, with which configuration."""
        self.collectors, self.keys = collectors, keys

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Writes files by their path below the root; what is in the way is removed."""
        for name, text in files.items():
            path = self.root / name
            if path.is_dir():
                shutil.rmtree(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def remove(self, name: str) -> None:
        (self.root / name).unlink()

    def read(self, tick: bool = True) -> Rows:
        """One reading."""
        if self.lane is None:
            self.lane = lane(self.root, self.collectors, **self.keys)
        return rows(self.lane.read(tick))

    @property
    def errors(self) -> int:
        """What the collectors could not read up to now."""
        assert self.lane is not None
        return sum(part.errors for part in self.lane.parts)

    @property
    def up(self) -> bool:
        """Whether every collector could read its sources the last time."""
        assert self.lane is not None
        return all(part.up for part in self.lane.parts)
