"""``esnode-core tsdb``: looks into the local history, exports it and sends it on.

A path that an agent is writing to is read beside it, without the lock; what the agent has not
flushed yet, at most half a minute, is not there.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

import typer
import zstandard
from isal import igzip

from .. import catalog, config
from ..config import Arguments
from ..state import state_directory
from ..tsdb import backfill as sending
from ..tsdb import verify as checking
from ..tsdb.export import Export
from ..tsdb.layout import directory
from ..tsdb.select import SelectError, select
from ..tsdb.survey import survey

CALLED = ("--from", "--to", "--metrics", "--match")
FORMATS = ("prometheus", "openmetrics", "jsonl", "csv")

PATH = typer.Option(
    None, "--path", help="The history's directory; without it, that of the configuration."
)
FROM = typer.Option(None, "--from", help="First time: seconds, milliseconds or RFC 3339.")
METRICS = typer.Option([], "--metrics", help="Names between commas, * at a name's end for any.")
MATCH = typer.Option([], "--match", help="A series selector with = and !=; of several, any.")


def add(app: typer.Typer, arguments: Arguments) -> None:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="tsdb", help="Look into the local history; send it on.")

    def place(path: str | None) -> Path:
        """The history's directory. Raises ConfigError where there is none."""
        named = path or config.load(arguments, os.environ).config.local_tsdb_path
        found = directory(named, os.environ)
        if not found.is_dir():
            raise config.ConfigError(
                f"{found}: there is no history; name its directory with --path"
            )
        return found

    @group.command()
    def ls(path: str = PATH) -> None:
        """List the blocks: time covered, state, series, samples, bytes."""
        folder = place(path)
        typer.echo(
            f"{'from':<24} {'to':<24} {'state':<6} {'series':>7} {'samples':>10} {'bytes':>12}"
        )
        for _, sealed, found, size in survey(folder, warn):
            typer.echo(
                f"{shown(found.min_time):<24} {shown(found.max_time):<24}"
                f" {'sealed' if sealed else 'open':<6} {found.series:>7} {found.samples:>10}"
                f" {size:>12}"
            )

    @group.command()
    def stat(path: str = PATH) -> None:
        """Show bytes per sample and the time covered."""
        folder = place(path)
        blocks = list(survey(folder, warn))
        typer.echo(f"{'path':<17} {folder}")
        for title, some in (
            ("sealed", [found for found in blocks if found.sealed]),
            ("open", [found for found in blocks if not found.sealed]),
        ):
            samples = sum(found.summary.samples for found in some)
            size = sum(found.bytes for found in some)
            each = f", {size / samples:.2f} bytes a sample" if samples else ""
            typer.echo(f"{title:<17} {len(some)} blocks, {size} bytes, {samples} samples{each}")
        first = [t for found in blocks if (t := found.summary.min_time) is not None]
        last = [t for found in blocks if (t := found.summary.max_time) is not None]
        if first and last:
            hours = (max(last) - min(first)) / 3_600_000
            typer.echo(
                f"time covered      {shown(min(first))} to {shown(max(last))}, {hours:.2f} h"
            )

    @group.command()
    def verify(path: str = PATH) -> None:
        """Check every line, frame and index; exit code 1 where something is damaged."""
        problems = 0
        for problem in checking.verify(place(path)):
            typer.echo(f"{problem.path}: {problem.text}")
            problems += 1
        if problems:
            typer.echo(f"{problems} problems", err=True)
            raise typer.Exit(1)
        typer.echo("no damage")

    @group.command()
    def export(
        file: str = typer.Argument(..., help="The file to write; - for standard output."),
        start: str = FROM,
        to: str = typer.Option(None, "--to", help="Last time, which belongs to the range."),
        metrics: list[str] = METRICS,
        match: list[str] = MATCH,
        format: str = typer.Option("prometheus", help=f"One of {', '.join(FORMATS)}."),
        eof: bool = typer.Option(False, help="End jsonl with a mark, too."),
        path: str = PATH,
    ) -> None:
        """Write the samples of a range to FILE; compressed where it ends in .gz or .zst."""
        if format not in FORMATS:
            raise config.ConfigError(f"--format: {format!r}, allowed is {', '.join(FORMATS)}")
        folder = place(path)
        declared = {metric.name: metric for _, _, metric in catalog.metrics()}
        marked = eof or format != "jsonl"
        try:
            selection = select(start, to, metrics, match, CALLED)
            found = Export(folder, selection, format, declared, None, marked, warn)
        except SelectError as error:
            raise config.ConfigError(str(error)) from None
        if file == "-":
            for piece in found:
                sys.stdout.buffer.write(piece)
            return
        with written(Path(file)) as raw, compressed(raw, file) as out:
            for piece in progress(found):
                out.write(piece)
        size = f", {Path(file).stat().st_size} bytes" if Path(file).is_file() else ""
        typer.echo(f"{found.samples} samples{size}", err=True)

    @group.command()
    def backfill(
        to: str = typer.Option(..., "--to", help="Such as http://victoria:8428."),
        start: str = FROM,
        until: str = typer.Option(None, "--until", help="Last time, which belongs to the range."),
        metrics: list[str] = METRICS,
        match: list[str] = MATCH,
        resume: bool = typer.Option(
            False, "--resume", help="Go on where the last run to this server came to."
        ),
        attempts: int = typer.Option(10, min=1, help="Failures in a row before giving up."),
        path: str = PATH,
    ) -> None:
        """Send a range to a server that takes VictoriaMetrics' /api/v1/import."""
        folder = place(path)
        try:
            selection = select(start, until, metrics, match, ("--from", "--until", *CALLED[2:]))
        except SelectError as error:
            raise config.ConfigError(str(error)) from None
        target = sending.Target(to)
        cursor = sending.cursor_path(
            state_directory(os.environ), folder, target, sorted(metrics), sorted(match)
        )

        def told(done: int, windows: int, samples: int) -> None:
            typer.echo(f"{done} of {windows} blocks, {samples} samples", err=True)

        def failed(problem: str) -> None:
            typer.echo(f"{problem}; trying again", err=True)

        run = sending.Backfill(folder, target, selection, cursor, attempts, warn, told, failed)
        if resume:
            found = run.resume()
            where = f"goes on at {shown(run.selection.start)}"
            typer.echo(where if found else "no earlier run has sent this: sends all", err=True)
        run.run()
        typer.echo(f"sent {run.samples} samples to {target.shown}", err=True)


def shown(unix_ms: int | None) -> str:
    """A time as RFC 3339 has it; a dash for none."""
    if unix_ms is None:
        return "-"
    moment = datetime.fromtimestamp(unix_ms / 1000, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def warn(path: Path, text: str) -> None:
    typer.echo(f"{path}: left out: {text}", err=True)


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """The file to write. A regular one gets its name when it is whole, and what is half written
    goes, also when we are told to end; a device or a pipe is written as it is."""
    mode = path.stat().st_mode if path.exists() else None
    whole = mode is None or stat.S_ISREG(mode)
    if whole:
        path = path.resolve()  # what a link points to is replaced, not the link
    aside = path.with_name(f"{path.name}.{os.getpid()}.part") if whole else path
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, leave)
    try:
        with aside.open("xb" if whole else "wb") as out:
            if whole and mode is not None:
                os.fchmod(out.fileno(), stat.S_IMODE(mode))
            yield out
        if whole:
            aside.rename(path)
    except BaseException as error:
        if whole:
            aside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(f"{path}: {error.strerror or error}") from None
        raise


def leave(number: int, _: object) -> None:
    """Ends as a signal wants it, by way of all that is to be tidied up."""
    sys.exit(128 + number)


def compressed(out: BinaryIO, called: str) -> AbstractContextManager[BinaryIO]:
    """What to write to a file with, compressed as its name says."""
    gzip: Any = igzip  # it has no types
    found: AbstractContextManager[BinaryIO] = nullcontext(out)
    if called.endswith(".gz"):
        found = gzip.GzipFile(None, "wb", 1, out)
    elif called.endswith(".zst"):
        found = zstandard.ZstdCompressor(level=3).stream_writer(out, closefd=False)
    return found


def progress(export: Export) -> Iterator[bytes]:
    """The pieces of an export; on a terminal, with a bar of the samples that are done."""
    if not sys.stderr.isatty():
        yield from export
        return
    length = max(1, estimate(export))
    with typer.progressbar(length=length, file=sys.stderr) as bar:
        for piece in export:
            bar.update(min(export.samples, length - 1) - bar.pos)
            yield piece
        bar.update(length - bar.pos)


def estimate(export: Export) -> int:
    """About how many samples an export has, by the indexes."""
    found = 0.0
    wanted = export.selection
    for block in export.blocks:
        index = block.index
        if index is None or index.min_time is None or index.max_time is None:
            continue
        samples = sum(each.samples for name, each in index.metrics.items() if wanted.named(name))
        first, last = max(index.min_time, wanted.start), min(index.max_time, wanted.end)
        found += samples * max(0, last - first + 1) / (index.max_time - index.min_time + 1)
    return round(found)
