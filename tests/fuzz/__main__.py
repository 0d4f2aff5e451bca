"""Feeds the readers with odd bytes, guided by what they reach: `make fuzz`.

python -m tests.fuzz TARGET|all [--seconds N] [--seed N] [FILE ...]: files are fed instead, once
each. To be run where the extensions have been built for it. Bytes that break something are left in
found/, those that reach new parts of a reader in corpus/.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tests.fuzz.target import Target

FOUND, CORPUS = Path("found"), Path("corpus")
LONGEST_WORD = 64  # that libFuzzer takes
OPTIONS = ("-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1")
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=64:malloc_context_size=5",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


def preload() -> NoReturn:
    """Starts this program again, with the sanitizers and libFuzzer before everything else."""
    atheris = importlib.util.find_spec("atheris")
    if atheris is None or atheris.origin is None:
        sys.exit("atheris is not installed")
    library = Path(atheris.origin).parents[1] / "asan_with_fuzzer.so"
    os.execve(
        sys.executable,
        [sys.executable, "-m", "tests.fuzz", *sys.argv[1:]],
        # The loader takes a space for the next library: the way from here may have none.
        {**os.environ, **SANITIZERS, "LD_PRELOAD": os.path.relpath(library)},
    )


def feed(target: Target, options: list[str]) -> None:
    """Runs libFuzzer in this process, and ends it."""
    import atheris

    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        path = Path(directory) / "file"
        atheris.Setup([sys.argv[0], *options], lambda data: target(data, path))
        atheris.Fuzz()


def run(
    name: str, target: Target, seconds: float, seed: int, files: Sequence[str]
) -> tuple[bool, str]:
    """Feeds a target in a process of its own. Whether it stood that, and what the process said."""
    from tests.fuzz.target import ACTS

    found, corpus = FOUND / name, CORPUS / name
    with tempfile.TemporaryDirectory() as directory:
        seeds, words = Path(directory) / "seeds", Path(directory) / "words"
        for folder in (found, corpus, seeds):
            folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(target.seeds()):
            (seeds / str(number)).write_bytes(data)
        short = [word for word in (*target.words, *ACTS) if len(word) <= LONGEST_WORD]
        words.write_text("".join(f'"{spelled(word)}"\n' for word in short))
        time = f"-max_total_time={max(1, round(seconds))}"
        limits = time, f"-max_len={target.longest}", f"-seed={seed}"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz", name, "--here"),
                *(*OPTIONS, f"-artifact_prefix={found}/"),
                *(files or (*limits, f"-dict={words}", corpus, seeds)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    with contextlib.suppress(OSError):
        found.rmdir()  # nothing was
    return done.returncode == 0, done.stdout


def spelled(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def summary(said: str) -> str:
    """One line of what libFuzzer says at its end."""
    numbers = []
    for word in (r"cov", r"corp", r"stat::number_of_executed_units", r"stat::average_exec_per_sec"):
        values = re.findall(rf"\b{word}: +(\d+)", said)
        numbers.append(values[-1] if values else "?")
    places, inputs, times, speed = numbers
    return f"{times:>9} times, {speed:>6}/s, {places:>5} places reached by {inputs:>4} inputs"


def main() -> int:
    if "LD_PRELOAD" not in os.environ:
        preload()
    from tests.fuzz.targets import TARGETS

    if "--here" in sys.argv:
        feed(TARGETS[sys.argv[1]], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0, help="the same bytes each time; 0: others")
    args = parser.parse_args()
    chosen = TARGETS if args.target == "all" else {args.target: TARGETS[args.target]}
    workers = min(len(os.sched_getaffinity(0)), len(chosen))
    seconds = args.seconds * workers / len(chosen)
    failed = False
    with ThreadPoolExecutor(workers) as pool:
        runs = {
            name: pool.submit(run, name, target, seconds, args.seed, args.files)
            for name, target in chosen.items()
        }
        for name, running in runs.items():
            stood, said = running.result()
            if not stood:
                failed = True
                print(re.sub(r"(?m)^#\d+\t.*\n", "", said))
            print(f"{name:18}{summary(said) if stood else 'failed, see above'}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
