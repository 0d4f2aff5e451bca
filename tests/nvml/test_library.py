"""collectors/nvidia/driver.py and _fast/library.pyx: finding NVML, and libraries that are none.

The libraries and an extension that is linked to NVML are made here. What is loaded stays, so that
each of the cases that load one is a process of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from esnode._fast.library import open_library
from esnode.collectors.base import Refused, Unavailable
from esnode.collectors.nvidia import driver
from esnode.host import Host
from tests.hosts import Tree
from tests.process import descriptors

ROOT = Path(__file__).parents[2]
NAME = "libnvidia-ml.so.1"
SONAME = f"-Wl,-soname,{NAME}"
FUNCTIONS = re.findall(r"(REQUIRED|OPTIONAL)\((nvml\w+),", (ROOT / "csrc/nvml_abi.h").read_text())
REQUIRED = [name for kind, name in FUNCTIONS if kind == "REQUIRED"]

#: The stand-in of the extension: `number` is what its NVML says of itself.
EXTENSION = """
#include <Python.h>
extern int nvmlInit_v2(void), nvmlDeviceGetUUID(void);
static int fill(PyObject *module) {
    return PyModule_AddIntConstant(module, "number", nvmlInit_v2() + 0 * nvmlDeviceGetUUID());
}
static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "linked", .m_slots = slots};
PyMODINIT_FUNC PyInit_linked(void) { return PyModuleDef_Init(&module); }
"""

Make = Callable[..., Path]


def cc(*words: str | Path) -> None:
    done = subprocess.run(["cc", "-shared", "-fPIC", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the stand-in, and of a library that conforms to link it to."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler to build the libraries with")
    home = tmp_path_factory.mktemp("linked")
    (home / "nvml.c").write_text(source([name for _, name in FUNCTIONS]))
    cc("-o", home / "conforming.so", home / "nvml.c", SONAME, "-DNUMBER=1")
    (home / "linked.c").write_text(EXTENSION)
    include = "-I" + sysconfig.get_path("include")
    needed = ("-Wl,--no-as-needed", home / "conforming.so")
    cc("-o", home / "linked.so", home / "linked.c", include, *needed)
    return home


def source(functions: Sequence[str]) -> str:
    return "".join(f"int {name}(void) {{ return NUMBER; }}\n" for name in functions)


@pytest.fixture
def make(linked: Path, tmp_path: Path) -> Make:
    """Makes a library below the test's directory: its number, functions and SONAME."""

    def make(
        path: str, number: int = 1, functions: Sequence[str] | None = None, soname: str = SONAME
    ) -> Path:
        library = tmp_path / path
        library.parent.mkdir(parents=True, exist_ok=True)
        text = tmp_path / "source.c"
        text.write_text(source([name for _, name in FUNCTIONS] if functions is None else functions))
        cc("-o", library, text, f"-DNUMBER={number}", *([soname] if soname else []))
        return library

    return make


@pytest.fixture
def run(linked: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs lines in a process of its own, in which `load` looks for NVML and for the stand-in, and
    the usual places are the directories `places`; what it prints."""

    def run(lines: str, places: Sequence[Path] = (), path: Path | None = None) -> str:
        head = f"""
import sys
from esnode.collectors.base import Refused, Unavailable
from esnode.collectors.nvidia import driver
sys.path.insert(0, {str(linked)!r})
driver.PLACES = {tuple(map(str, places))!r}
def load(library=""):
    try:
        return driver.load(str(library), "linked").number
    except Unavailable as error:
        return type(error).__name__ + ": " + str(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", head + lines],
            cwd=ROOT,
            env={**os.environ, "LD_LIBRARY_PATH": str(path or "")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


Run = Callable[..., str]


def test_the_search_goes_key_loader_places(make: Make, run: Run, tmp_path: Path) -> None:
    key = make("key/any-name.so", 10)
    make(f"loader/{NAME}", 20)
    make(f"first/{NAME}", 30)
    make(f"second/{NAME}", 40)
    places = [tmp_path / "not-there", tmp_path / "first", tmp_path / "second"]
    everything = {"places": places, "path": tmp_path / "loader"}
    assert run(f"print(load({str(key)!r}))", **everything) == "10"
    assert run("print(load())", **everything) == "20"
    assert run("print(load())", places=places) == "30"


def test_a_key_that_leads_nowhere_is_not_replaced_by_another(
    make: Make, run: Run, tmp_path: Path
) -> None:
    make(f"loader/{NAME}", 20)
    wrong = tmp_path / "wrong.so"
    said = run(f"print(load({str(wrong)!r}))", path=tmp_path / "loader")
    assert said == f"Unavailable: {wrong}: No such file or directory"


def test_a_relative_path_is_below_the_working_directory(make: Make, run: Run) -> None:
    library = make(NAME, 50)
    assert run(f"import os; os.chdir({str(library.parent)!r}); print(load({NAME!r}))") == "50"


@pytest.mark.parametrize("soname", ["", "-Wl,-soname,libother.so.7"])
def test_a_library_serves_whatever_its_soname_is(
    soname: str, make: Make, run: Run, tmp_path: Path
) -> None:
    library = make("mine.so", 60, soname=soname)
    make(f"loader/{NAME}", 20)
    lines = f"print(load({str(library)!r}), load({str(library)!r}))"
    assert run(lines) == "60 60"
    assert run(lines, path=tmp_path / "loader") == "60 60"


def test_a_driver_that_is_installed_later_is_found(make: Make, run: Run, tmp_path: Path) -> None:
    late = make("late.so", 70)
    lines = f"""
import os
print(load())
os.mkdir({str(tmp_path / "place")!r})
os.symlink("broken", {str(tmp_path / "place" / NAME)!r})
print(load())
os.replace({str(late)!r}, {str(tmp_path / "place" / NAME)!r})
print(load(), load(), sys.modules["linked"].number)
"""
    place = tmp_path / "place"
    assert run(lines, places=[place]).splitlines() == [
        f"Unavailable: {NAME}: neither the loader nor {place} has it",
        f"Unavailable: {place}/{NAME}: No such file or directory",
        "70 70 70",
    ]


def test_one_that_appears_on_the_loaders_path_is_found(
    make: Make, run: Run, tmp_path: Path
) -> None:
    late = make("late.so", 80)
    (tmp_path / "loader").mkdir()
    lines = f"""
import os
print(load()[:11])
os.replace({str(late)!r}, {str(tmp_path / "loader" / NAME)!r})
print(load())
"""
    assert run(lines, path=tmp_path / "loader").splitlines() == ["Unavailable", "80"]


def test_a_useless_library_of_the_loaders_is_named_and_passed_over(
    make: Make, run: Run, tmp_path: Path
) -> None:
    make(f"loader/{NAME}", functions=["nothing"])
    make(f"place/{NAME}", 90)
    assert run("print(load())", places=[tmp_path / "place"], path=tmp_path / "loader") == "90"
    said = run("print(load())", path=tmp_path / "loader")
    assert said.startswith(f"Unavailable: {NAME}: ")
    assert "undefined symbol: nvml" in said
    (tmp_path / "loader" / NAME).write_text("not a library")
    assert "file too short" in run("print(load())", path=tmp_path / "loader")


def test_the_first_of_the_places_that_serves(make: Make, run: Run, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / NAME).write_text("not a library")
    make(f"other/{NAME}", functions=["something"])
    make(f"right/{NAME}", 100)
    wrong = [tmp_path / "text", tmp_path / "other"]
    assert run("print(load())", places=[*wrong, tmp_path / "right"]) == "100"
    assert run("print(load())", places=wrong) == (
        f"Unavailable: {wrong[0]}/{NAME}: not an ELF file;"
        f" {wrong[1]}/{NAME}: not NVML: it has no nvmlInit_v2"
    )


def test_without_the_extension(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"^no\.such: No module named 'no'$"):
        driver.load("", "no.such")


def refusal(library: Path) -> str:
    """What is said of a library, again and again, which leaves no descriptor open."""
    before = descriptors()
    said = set()
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            driver.load(str(library), "no.such")
        said.add(str(caught.value))
    assert descriptors() <= before
    (message,) = said
    assert len(message.splitlines()) == 1
    path, _, cause = message.partition(": ")
    assert path == str(library)
    return cause


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_library_that_lacks_a_required_function(missing: str, make: Make) -> None:
    library = make("lib.so", functions=[name for name in REQUIRED if name != missing])
    assert refusal(library) == f"not NVML: it has no {missing}"
    assert str(library) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("functions", [["tanh2"], []])
def test_a_library_that_is_not_nvml(functions: list[str], make: Make) -> None:
    assert refusal(make("lib.so", functions=functions)) == "not NVML: it has no nvmlInit_v2"


def test_a_library_without_symbols(make: Make, tmp_path: Path) -> None:
    if shutil.which("strip") is None:
        pytest.skip("there is no strip")
    library = make("lib.so")
    (tmp_path / "hidden.c").write_text("static int nothing;")
    cc("-o", library, tmp_path / "hidden.c", "-nostdlib", "-s")
    assert refusal(library) == "not NVML: it has no nvmlInit_v2"


def test_a_library_that_needs_another_that_is_not_there(make: Make, tmp_path: Path) -> None:
    needed = make("libneeded.so", soname="-Wl,-soname,libneeded.so.3")
    library = tmp_path / "lib.so"
    cc("-o", library, tmp_path / "source.c", "-DNUMBER=1", "-Wl,--no-as-needed", needed)
    assert refusal(library).startswith("libneeded.so.3: cannot open shared object file")


def test_a_library_of_another_architecture(make: Make) -> None:
    library = make("lib.so")
    whole = library.read_bytes()
    ours = os.uname().machine
    others = {3: "i386", 22: "machine 22"} | ({62: "x86_64"} if ours != "x86_64" else {})
    others |= {183: "aarch64"} if ours != "aarch64" else {}
    for number, name in others.items():
        library.write_bytes(whole[:18] + struct.pack("=H", number) + whole[20:])
        assert refusal(library) == f"a library for {name}, and this is {ours}"
    library.write_bytes(whole[:4] + b"\1" + whole[5:])
    assert refusal(library) == f"a library for {ours} (32 bits), and this is {ours}"


def test_files_that_are_no_libraries(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for text in (b"", b"\x7fELF", b"\x7fELF\2\1\1", b"text" * 100, b"/* GNU ld script */\n" * 9):
        file.write_bytes(text)
        assert refusal(file) == "not an ELF file"
    assert refusal(Path(sys.executable).resolve()) != ""


def test_a_library_that_is_cut_short_or_spoilt(make: Make) -> None:
    """Where the loader would end the process by SIGBUS."""
    library = make("lib.so")
    whole = library.read_bytes()
    for size in (64, 100, 1000, len(whole) // 4):
        library.write_bytes(whole[:size])
        assert refusal(library) == "the file is cut short"
    library.write_bytes(whole[:54] + b"\0\0" + whole[56:])  # the size of a segment's entry
    assert refusal(library) == "not an ELF file"
    library.write_bytes(whole[:32] + b"\xff" * 8 + whole[40:])  # where they are
    assert refusal(library)


@pytest.mark.parametrize("kind", ["directory", "fifo", "loop", "device", "below-a-file"])
def test_what_is_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(kind)
    elif kind == "device":
        path = Path("/dev/null")
    else:
        path.touch()
        path = path / NAME
    assert refusal(path) == {
        "directory": "Is a directory",
        "loop": "Too many levels of symbolic links",
        "below-a-file": "Not a directory",
    }.get(kind, "not a regular file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_library_that_we_may_not_read(make: Make) -> None:
    library = make("lib.so")
    library.chmod(0)
    assert refusal(library) == "Permission denied"
    with pytest.raises(Refused):
        driver.load(str(library))


def test_a_path_with_odd_bytes(make: Make, run: Run, tmp_path: Path) -> None:
    library = make("lib.so", 110)
    odd = tmp_path / "\udcff \u00e9.so"
    library.rename(odd)
    assert run(f"print(load({str(odd)!a}))") == "110"
    cut = tmp_path / "\udcff-cut.so"
    cut.write_bytes(odd.read_bytes()[:1000])
    assert refusal(cut) == "the file is cut short"


def test_the_extension_alone(tmp_path: Path) -> None:
    missing = tmp_path / "missing.so"
    with pytest.raises(OSError, match="cannot open shared object file"):
        open_library(os.fsencode(missing))
    with pytest.raises(TypeError):
        open_library(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({}, None),
        ({"sys/module/nvidia/version": "550.54.15\n"}, "550.54.15"),
        (
            {
                "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module "
                " 535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:  gcc version 12.3.0\n"
            },
            "535.129.03",
        ),
        (
            {
                "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for"
                " aarch64  580.95  Release Build  (root@6.8.0)\nGCC version:  gcc 12.3.0\n"
            },
            "580.95",
        ),
        # A container's copy is older than the module.
        (
            {
                "sys/module/nvidia/version": "570.1.2",
                "proc/driver/nvidia/version": "NVRM version: x  550.54.15  y",
            },
            "570.1.2",
        ),
        ({"sys/module/nvidia/version": "", "proc/driver/nvidia/version": "odd"}, None),
    ],
)
def test_the_version_of_the_kernels_module(
    files: dict[str, str], version: str | None, tmp_path: Path
) -> None:
    tree = Tree(tmp_path)
    tree.write(files)
    assert driver.kernel_version(Host(f"{tmp_path}/proc", f"{tmp_path}/sys")) == version
