"""`viddiff batch`."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from viddiff.cli import options
from viddiff.cli.printing import (
    notes_of_compiling,
    objects,
    path_text,
    print_json,
    print_notes,
    printable,
    say,
    size_text,
)
from viddiff.cli.progress import Watcher
from viddiff.cli.termination import check as check_termination

if TYPE_CHECKING:
    from viddiff.pipeline.batch.job import BatchSummary, Outcome, Progress
    from viddiff.pipeline.batch.run import Execute
    from viddiff.pipeline.batch.servers.place import Place
    from viddiff.pipeline.batch.units import Shard

SOME_FAILED = 3
"""Exit code if some units have failed."""
_OWN = ("min_age", "older_than", "delete_source", "shard", "concat", "watch", "poll")
"""Options of the batch itself. The others are those of every encode."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(context: click.Context, option: click.Parameter, value: str | None) -> float:
    """Seconds of "60s", "15m", "12h" or "7d"."""
    if value is None:
        return 0.0
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", value, re.ASCII)
    if found is None:
        raise click.BadParameter("use a number with s, m, h or d: 60s, 15m, 12h, 7d")
    return float(found[1]) * _UNITS[found[2]]


def _interval(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    return None if value is None else _duration(context, option, value)


def _shard(context: click.Context, option: click.Parameter, value: str | None) -> "Shard":
    from viddiff.pipeline.batch.units import Shard

    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", value or "0/1", re.ASCII)
    if found is None:
        raise click.BadParameter("use I/N, such as 0/4 to 3/4")
    try:
        return Shard(int(found[1]), int(found[2]))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("batch", cls=options.GroupedCommand)
@click.argument("sources", metavar="SRC...", nargs=-1, required=True, shell_complete=options.complete_file)
@click.argument("out", metavar="OUT", type=click.Path())
@options.group(
    "Batch",
    click.option(
        "--min-age",
        callback=_duration,
        default="60s",
        show_default=True,
        metavar="TIME",
        help="Leave files alone that were changed less than this ago (60s, 15m, 12h, 7d) or that grow: they "
        "may still be written. 0s takes all.",
    ),
    click.option(
        "--older-than",
        callback=_duration,
        metavar="TIME",
        help="Only files that were changed longer ago than this.",
    ),
    click.option(
        "--weights-map",
        type=options.PATH,
        metavar="FILE",
        help="TOML file with weights for folders and globs. --weights serves the others.",
    ),
    click.option(
        "--verify",
        is_flag=True,
        help="Decode each new file and compare every frame with the encoder's reconstruction, before the "
        "file gets its name. A file that was cut off starts again.",
    ),
    click.option(
        "--delete-source",
        is_flag=True,
        help="Delete a source when its file is verified and recorded, unless there is a note about it. "
        "Implies --verify.",
    ),
    click.option(
        "--shard",
        callback=_shard,
        metavar="I/N",
        help="Do part I (from 0) of N. The parts of several machines are complete and do not overlap.",
    ),
    click.option(
        "--concat",
        callback=_interval,
        metavar="TIME",
        help="Join the recordings of a camera, which lie in one folder: one file for each hour (1h), day "
        "(24h), and so on. A gap begins a new file.",
    ),
    click.option(
        "--watch",
        is_flag=True,
        help="Go on: take up new and changed files until Ctrl-C or SIGTERM ends it, with exit code 0.",
    ),
    click.option(
        "--poll",
        callback=_interval,
        metavar="TIME",
        help="With --watch, look for new files this often, for network file systems, which report no "
        "changes.",
    ),
    click.option(
        "--ray",
        metavar="ADDRESS",
        help="Encode the files side by side on a Ray cluster: auto, local, or HOST:PORT. All its nodes need "
        "SRC and OUT. --workers is the number of CPUs for each file (1).",
    ),
    click.option(
        "--scratch",
        type=options.PATH,
        metavar="FOLDER",
        help="With OUT on a server: folder on this machine for work in progress and the manifest.  "
        "[default: one for this OUT in ~/.cache/viddiff/batch]",
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing."),
)
@options.group("Quality or size", *options.target_options)
@options.group(
    "Coding",
    options.preset_option,
    options.gop_option,
    options.low_delay_option,
    options.background_option,
    options.base_option,
    options.entropy_option,
)
@options.group(
    "Input",
    options.deinterlace_option,
    options.crop_option,
    options.filters_option,
    options.fps_option,
    options.scale_option,
    options.map_option,
    options.audio_option,
    options.audio_language_option,
    options.drop_alpha_option,
)
@options.group(
    "Machine",
    options.weights_option,
    options.device_option,
    options.engine_option,
    options.workers_option,
    options.progress_json_option,
    options.quiet_option,
)
def batch_command(
    sources: tuple[str, ...],
    out: str,
    weights_map: Path | None,
    ray: str | None,
    scratch: Path | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **choices: Any,
) -> None:
    """Encode many videos to a tree of .vdf files.

    SRC is a folder, a file, a glob in quotes, or @FILE, which lists these, one a line. The tree below a
    folder is mirrored in OUT: door/a.mp4 becomes door/a.mp4.vdf. What is done is skipped, so the same command
    goes on where it was ended. OUT/manifest.jsonl records what was done. SRC and OUT may be on servers: s3://
    and sftp://.

    \b
    Examples:
      viddiff batch footage archive
      viddiff batch footage archive --older-than 7d --delete-source
      viddiff batch footage archive --min-vmaf 93 --max-encoded-percent 80
      viddiff batch 'footage/*/*.mkv' @more.txt archive --weights-map all.toml
      viddiff batch footage archive --concat 1h --watch
      viddiff batch s3://bucket/cameras s3://bucket/archive
      viddiff batch footage archive --shard $SLURM_ARRAY_TASK_ID/8
    """
    from viddiff.pipeline.batch.job import BatchJob
    from viddiff.pipeline.batch.servers.place import Place, is_remote
    from viddiff.pipeline.batch.weights_map import WeightsMap
    from viddiff.pipeline.encode_job import EncodeJob

    with options.usage_errors():
        own = {name: choices.pop(name) for name in _OWN}
        if own["watch"] and dry_run:
            raise ValueError("--dry-run looks once: leave --watch out")
        choices["verify"] = choices["verify"] or own["delete_source"]
        target, remote = _target(out, scratch)
        for source in filter(is_remote, sources):
            Place.parse(source)
        encode = EncodeJob(source="", target=target, **choices)
        options.one_quality(encode.has_target)
        weights = WeightsMap.read(weights_map) if weights_map else WeightsMap()
        job = BatchJob(sources=sources, target=target, remote=remote, encode=encode, weights=weights, **own)
    if not dry_run:
        job.encode.prepare()
        if remote is not None:
            print_notes([f"work and manifest are in {target}"], quiet)
    from viddiff.pipeline.batch.run import run_batch

    check_termination()
    with (
        _watched(job.watch),
        _Printer(as_json, quiet) as printer,
        notes_of_compiling(quiet),
        _executing(None if dry_run else ray) as execute,
    ):
        summary = run_batch(job, printer.report, printer.watch, dry_run, execute)
        printer.finish(summary)
    check_termination()
    if summary.failures:
        click.get_current_context().exit(SOME_FAILED)


def _target(out: str, scratch: Path | None) -> "tuple[Path, Place | None]":
    """The folder of the manifest, and OUT if it is on a server. Raises ValueError, OutputError."""
    from viddiff.pipeline.batch.scratch import scratch_folder
    from viddiff.pipeline.batch.servers.place import Place, is_remote

    if is_remote(out):
        place = Place.parse(out)
        return scratch or scratch_folder(place), place
    if scratch is not None:
        raise ValueError("--scratch is for an OUT on a server: work is in OUT otherwise")
    return Path(out), None


@contextmanager
def _executing(ray: str | None) -> "Iterator[Execute | None]":
    """What encodes the units elsewhere."""
    if ray is None:
        yield None
        return
    from viddiff.pipeline.batch.ray_cluster import on_ray

    with on_ray(ray) as execute:
        yield execute


@contextmanager
def _watched(watch: bool) -> Iterator[None]:
    """End the command with exit code 0 if a signal ends it while it watches."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not watch:
            raise
        click.get_current_context().exit(0)


class _Printer:
    """Shows how a batch goes."""

    def __init__(self, as_json: bool, quiet: bool) -> None:
        from viddiff.pipeline.batch.job import BatchSummary

        self._as_json, self._quiet = as_json, quiet
        self._objects: TextIO | None = objects(as_json, False)
        self._so_far = BatchSummary()
        self._watcher: Watcher | None = None
        self._progress: Progress | None = None
        self._began = self._encoding_began = time.monotonic()

    def __enter__(self) -> "_Printer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end_bar()
        by_signal = kind is not None and not issubclass(kind, Exception)
        if by_signal or (kind is not None and self._so_far.count):
            self._finish(self._so_far, interrupted=True)

    def watch(self, progress: "Progress") -> None:
        """Show the progress of a unit."""
        if self._progress is None:
            self._encoding_began = time.monotonic()
        if self._progress is None or self._progress.unit != progress.unit:
            self._end_bar()
            about = {
                "source": path_text(str(progress.unit.source)),
                "unit": progress.number,
                "units": progress.count,
            }
            prefix = f"{progress.number}/{progress.count} {printable(progress.unit.name)}: "
            self._watcher = Watcher(self._quiet, self._objects, prefix, about)
            self._watcher.__enter__()
        self._progress = progress
        assert self._watcher is not None
        self._watcher(progress.status)

    def report(self, outcome: "Outcome") -> None:
        """Show the outcome of a unit."""
        self._end_bar()
        self._so_far.add(outcome)
        if self._as_json:
            print_json(_values(outcome))
        name, record = outcome.unit.name, outcome.record
        if self._quiet or self._as_json:
            return
        if outcome.state == "failed":
            say(_failure(outcome))
        elif outcome.state == "done" and record is not None:
            print_notes([f"{name}: {note}" for note in record.notes], self._quiet)
            say(f"{self._place()}{printable(name)}: {_result(outcome)}{self._left(outcome)}")
        elif outcome.state == "too_large":
            say(printable(f"{name}: not worth it: {outcome.reason}"))
        elif outcome.state == "joined" and record is not None:
            say(printable(f"{name}: {_joined(outcome)}"))
        elif outcome.state in ("planned", "waiting"):
            say(printable(f"{outcome.state}: {name}" + (f": {outcome.reason}" if outcome.reason else "")))
        elif outcome.deleted or outcome.reason:
            say(printable(f"{name}: {'source deleted' if outcome.deleted else outcome.reason}"))

    def finish(self, summary: "BatchSummary") -> None:
        """Show the totals."""
        self._finish(summary, interrupted=False)

    def _finish(self, summary: "BatchSummary", interrupted: bool) -> None:
        if self._as_json:
            print_json(_totals(summary, interrupted, time.monotonic() - self._began))
        if not self._quiet:
            ignored = [f"{count} {name or 'without one'}" for name, count in summary.ignored.items()]
            print_notes([f"left out by extension: {', '.join(ignored)}"] if ignored else [], self._quiet)
            say(_counts(summary, interrupted))
        for outcome in summary.failures:
            say(_failure(outcome))

    def _end_bar(self) -> None:
        if self._watcher is not None:
            self._watcher.__exit__()
            self._watcher = None

    def _place(self) -> str:
        at = self._progress
        return f"{at.number}/{at.count} " if at is not None else ""

    def _left(self, outcome: "Outcome") -> str:
        """How long the other units take, if the bytes of all sources take equally long."""
        at = self._progress
        if at is None or at.number == at.count:
            return ""
        done = at.done_bytes + (outcome.size or 0)
        seconds = (time.monotonic() - self._encoding_began) * (at.all_bytes - done) / max(done, 1)
        return f", about {_time_text(seconds)} left"


def _result(outcome: "Outcome") -> str:
    record = outcome.record
    assert record is not None
    size = f"{size_text(outcome.size or 0)} to {size_text(record.bytes or 0)}"
    deleted = f"; {'source deleted' if outcome.deleted else outcome.reason}"
    return (
        f"{record.frames} frames, {size} in {_time_text(record.seconds)}{', verified' * record.verified}"
        f"{deleted * bool(outcome.deleted or outcome.reason)}"
    )


def _joined(outcome: "Outcome") -> str:
    record = outcome.record
    assert record is not None
    reason = "sources deleted" if outcome.deleted else outcome.reason
    number = len(record.recordings)
    return (
        f"{number} recording{'s' * (number > 1)} joined, {_time_text(record.duration or 0)}, "
        f"{size_text(record.bytes or 0)}{', verified' * record.verified}{f'; {reason}' if reason else ''}"
    )


def _failure(outcome: "Outcome") -> str:
    """A failure on one line, which names the source once."""
    source, reason = str(outcome.unit.source), outcome.reason
    return f"Failed: {printable(reason if source in reason else f'{source}: {reason}')}"


def _counts(summary: "BatchSummary", interrupted: bool) -> str:
    """The totals in one sentence."""
    counts = [
        (summary.done, "done"),
        (summary.joined, "files joined"),
        (summary.planned, "to do"),
        (summary.skipped, "done before"),
        (summary.too_large, "not worth it"),
        (summary.waiting, "left for later"),
        (len(summary.failures), "failed"),
        (summary.unjoined, "to be joined when their period is over"),
    ]
    text = ", ".join(f"{count} {word}" for count, word in counts if count) or "nothing to do"
    if summary.done:
        text += f"; {size_text(summary.source_bytes)} became {size_text(summary.output_bytes)}"
    return f"Ended early: {text}; the same command goes on" if interrupted else f"Batch: {text}"


def _time_text(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def _values(outcome: "Outcome") -> dict[str, Any]:
    """An outcome as JSON values."""
    record = outcome.record
    return {
        "source": path_text(str(outcome.unit.source)),
        "output": path_text(record.output if record is not None else outcome.unit.output),
        "state": outcome.state,
        "reason": outcome.reason or None,
        "size": outcome.size,
        "bytes": record and record.bytes,
        "frames": record and record.frames,
        "seconds": record and record.seconds,
        "sha256": record and record.sha256,
        "weights": record and record.weights,
        "verified": record is not None and record.verified,
        "deleted": outcome.deleted,
        "notes": list(record.notes) if record else [],
        "recordings": [path_text(recording.source) for recording in record.recordings] if record else [],
    }


def _totals(summary: "BatchSummary", interrupted: bool, seconds: float) -> dict[str, Any]:
    """The totals as JSON values."""
    return {
        "done": summary.done,
        "skipped": summary.skipped,
        "waiting": summary.waiting,
        "planned": summary.planned,
        "too_large": summary.too_large,
        "joined": summary.joined,
        "unjoined": summary.unjoined,
        "failed": len(summary.failures),
        "failures": [
            {"source": path_text(str(failure.unit.source)), "reason": failure.reason}
            for failure in summary.failures
        ],
        "ignored": sum(summary.ignored.values()),
        "size": summary.source_bytes,
        "bytes": summary.output_bytes,
        "seconds": round(seconds, 3),
        "interrupted": interrupted,
    }
