"""The fake of NVIDIA's library: built from csrc/fake_*.c, and scripted through ctypes.

`fake = Fake(library(), state=tmp_path / "nvml")` scripts this process and every child that has
`fake.environment()`, while they run. Values are in NVML's units; `None` is NOT_SUPPORTED.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "csrc" / name for name in ("fake_nvml.c", "fake_script.c")]
HEADERS = [ROOT / "csrc" / "nvml_abi.h", *sorted((ROOT / "csrc").glob("fake_*.h"))]
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-fPIC", "-Wall", "-Werror"]

ABSENT = 1 << 63
TOTAL = 0xFFFF_FFFF
NOBODY = 0xFFFF_FFFF  # an event's GPU and compute instance, where there is none

UNINITIALIZED, NOT_SUPPORTED = 1, 3
DRIVER_NOT_LOADED, GPU_IS_LOST, RESET_REQUIRED, LIB_RM_VERSION_MISMATCH = 9, 15, 16, 18
UNKNOWN = 999


def library(missing: Iterable[str] = (), flags: Sequence[str] = ()) -> Path:
    """The built libnvidia-ml.so.1, without the functions `missing`. Built once, below build/."""
    compiler = [os.environ.get("CC", "cc"), *FLAGS, *flags]
    what = hashlib.sha256("\0".join(compiler).encode())
    for source in [*SOURCES, *HEADERS]:
        what.update(source.read_bytes())
    objects = [
        build(what.hexdigest(), f"{source.stem}.o", [*compiler, "-c", source]) for source in SOURCES
    ]
    link = [*compiler, "-shared", "-Wl,-soname,libnvidia-ml.so.1", *objects]
    script = f"{{ local: {' '.join(f'{name};' for name in sorted(missing))} }};\n"
    what.update(script.encode())
    return build(what.hexdigest(), "libnvidia-ml.so.1", link, script if missing else "")


def build(key: str, name: str, command: Sequence[str | Path], script: str = "") -> Path:
    """What a compiler's command makes, with a linker's script of versions; made once."""
    built = ROOT / "build" / "fake_nvml" / key[:16] / name
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        mine = built.with_name(f"{os.getpid()}-{name}")
        versions = mine.with_suffix(".map")
        versions.write_text(script)
        more = [f"-Wl,--version-script={versions}"] if script else []
        subprocess.run([*command, *more, "-o", mine], check=True)
        versions.unlink()
        mine.replace(built)
    return built


@dataclass
class Mig:
    """An instance: its profile and GPU instance; the compute instance and first slice."""

    profile: str
    gi: int
    ci: int = 0
    start: int = 0


class Fake:
    """Scripts the fake at `path`, whose state is the file `state`, or this process's own."""

    def __init__(self, path: Path, state: Path | None = None) -> None:
        self.path, self.state = path, state
        self._c = ctypes.CDLL(str(path))
        self._c.fake_function.restype = ctypes.c_char_p
        self._c.fake_calls.restype = ctypes.c_uint64
        self._c.fake_gpm_samples.restype = ctypes.c_int64
        self.ask("attach", None if state is None else str(state).encode())
        self.functions: list[str] = []
        while name := self._c.fake_function(len(self.functions)):
            self.functions.append(name.decode())

    def ask(self, name: str, *arguments: object) -> None:
        if self._c[f"fake_{name}"](*arguments):
            raise ValueError(f"the fake knows no {name}{arguments}")

    def environment(self) -> dict[str, str]:
        """For a child that loads the library by name."""
        here = {"LD_LIBRARY_PATH": str(self.path.parent)}
        return here if self.state is None else here | {"FAKE_NVML_STATE": str(self.state)}

    def reset(self) -> None:
        """As it was at first, without GPUs; every process has to initialise again."""
        self._c.fake_reset()

    def set_gpus(self, models: Sequence[str]) -> None:
        for slot in range(16):
            self.remove(slot)
        for slot, model in enumerate(models):
            self.add(slot, model)

    def add(self, slot: int, model: str) -> None:
        self.ask("add", slot, model.encode())

    def remove(self, slot: int) -> None:
        self.ask("remove", slot)

    def gpu(self, slot: int) -> Gpu:
        return Gpu(self, slot)

    def option(self, name: str, value: int) -> None:
        self.ask("option", name.encode(), ctypes.c_uint64(value))

    def driver_version(self, text: str) -> None:
        self.ask("text", -1, -1, b"", text.encode())

    def reload(self, init: int = 0, stale: int = UNINITIALIZED) -> None:
        """The driver was unloaded: init answers `init`, and calls until then answer `stale`."""
        self._c.fake_driver(init, stale)

    def script(
        self,
        function: str | None = None,
        slot: int = -1,
        *,
        code: int = 0,
        times: int | None = None,
        sleep: float = 0,
        spin: float = 0,
        hang: bool = False,
    ) -> None:
        """What a function's calls (None: all) on a GPU (-1: all, and those of none) do.

        They answer `code` (`times` of them), sleep and spin for seconds, and hang until
        release(). It replaces what was said before; without arguments calls are as usual.
        """
        self.ask(
            "script",
            function and function.encode(),
            slot,
            code,
            (-1 if code else 0) if times is None else times,
            ctypes.c_int64(round(sleep * 1e9)),
            ctypes.c_int64(round(spin * 1e9)),
            hang,
        )

    def fail(self, function: str | None, code: int, times: int | None = None) -> None:
        self.script(function, code=code, times=times)

    def delay(self, function: str | None, seconds: float) -> None:
        self.script(function, sleep=seconds)

    def hang(self, function: str | None = None) -> None:
        self.script(function, hang=True)

    def release(self) -> None:
        self._c.fake_release()

    def calls(self) -> dict[tuple[str, int], int]:
        """The number of calls by function and slot; -1: calls that are for no GPU."""
        counts = {
            (name, slot): self._c.fake_calls(i, slot)
            for i, name in enumerate(self.functions)
            for slot in range(-1, 16)
        }
        return {key: count for key, count in counts.items() if count}

    def forget_calls(self) -> None:
        self._c.fake_forget_calls()

    def gpm_samples(self) -> int:
        """Those that were allocated and not freed."""
        return int(self._c.fake_gpm_samples())


class Gpu:
    """The GPU in a slot, or its MIG instance of an index."""

    def __init__(self, fake: Fake, slot: int, instance: int = -1) -> None:
        self.fake, self.slot, self.instance = fake, slot, instance

    def set(self, name: str, value: int | None) -> None:
        number = ctypes.c_uint64(ABSENT if value is None else value)
        self.fake.ask("set", self.slot, self.instance, name.encode(), number)

    def get(self, name: str) -> int:
        value = ctypes.c_uint64()
        self.fake.ask("get", self.slot, self.instance, name.encode(), ctypes.byref(value))
        return value.value

    def text(self, name: str, text: bytes | str) -> None:
        text = text.encode() if isinstance(text, str) else text
        self.fake.ask("text", self.slot, self.instance, name.encode(), text)

    def feature(self, name: str, on: bool) -> None:
        self.fake.ask("feature", self.slot, name.encode(), on)

    def field(
        self, field: int, value: int = 0, scope: int = TOTAL, code: int = 0, type: int = -1
    ) -> None:
        """A field's value, or its error; `scope` is a link. A double comes from an integer."""
        self.fake.ask("field", self.slot, field, scope, ctypes.c_uint64(value), code, type)

    def metric(self, metric: int, value: float, code: int = 0) -> None:
        number = ctypes.c_double(value)
        self.fake.ask("metric", self.slot, self.instance, metric, number, code)

    def fail(self, function: str | None, code: int, times: int | None = None) -> None:
        self.fake.script(function, self.slot, code=code, times=times)

    def delay(self, function: str | None, seconds: float) -> None:
        self.fake.script(function, self.slot, sleep=seconds)

    def hang(self, function: str | None = None) -> None:
        self.fake.script(function, self.slot, hang=True)

    def usual(self, function: str | None = None) -> None:
        """Its calls are as usual again."""
        self.fake.script(function, self.slot)

    def lose(self, code: int = GPU_IS_LOST) -> None:
        self.fake.ask("condition", self.slot, code)

    def recover(self) -> None:
        self.fake.ask("condition", self.slot, 0)

    def remove(self) -> None:
        self.fake.remove(self.slot)

    def mig(self, instances: Sequence[Mig | None] | None) -> None:
        """MIG mode with these instances, by index, None being a hole; or without MIG mode."""
        for index in range(7):
            self.fake.ask("mig_remove", self.slot, index)
        for name in ("mig_mode", "mig_pending"):
            self.set(name, instances is not None)
        for index, mig in enumerate(instances or ()):
            if mig is not None:
                about = (mig.gi, mig.ci, mig.profile.encode(), mig.start)
                self.fake.ask("mig_add", self.slot, index, *about)

    def instance_at(self, index: int) -> Gpu:
        return Gpu(self.fake, self.slot, index)

    def event(
        self, type: int, data: int = 0, gi: int = NOBODY, ci: int = NOBODY, times: int = 1
    ) -> None:
        numbers = ctypes.c_uint64(type), ctypes.c_uint64(data)
        self.fake.ask("event", self.slot, *numbers, gi, ci, times)

    def sample(self, ring: int, microseconds: int, value: int) -> None:
        """An entry of a ring: 0 power, 1 utilisation."""
        numbers = ctypes.c_uint64(microseconds), ctypes.c_uint64(value)
        self.fake.ask("sample", self.slot, ring, *numbers)

    def processes(
        self,
        compute: Iterable[tuple[int, int]] = (),
        graphics: Iterable[tuple[int, int]] = (),
    ) -> None:
        """The processes now, each a pid and its bytes."""
        self.fake.ask("no_processes", self.slot)
        for kind, rows in enumerate((compute, graphics)):
            for pid, memory in rows:
                number = ctypes.c_uint64(memory)
                self.fake.ask("process", self.slot, kind, pid, number, NOBODY, NOBODY)
