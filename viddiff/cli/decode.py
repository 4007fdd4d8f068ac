"""`viddiff decode`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from viddiff.cli import options
from viddiff.cli.files import PIPE, opened_target
from viddiff.cli.printing import (
    notes_of_compiling,
    objects,
    print_json,
    print_notes,
    printable,
    say,
    say_ended,
)
from viddiff.cli.progress import Watcher
from viddiff.cli.secrets import read_secret, secret_for
from viddiff.cli.termination import check as check_termination
from viddiff.errors import ViddiffError

if TYPE_CHECKING:
    from viddiff.container.sealing import Secret
    from viddiff.pipeline.decode_job import DecodeJob, DecodeResult


@click.command("decode", cls=options.GroupedCommand, short_help="Decode a .vdf to a video.")
@click.argument("source", metavar="IN.vdf", type=options.PATH)
@click.argument("target", metavar="[OUT]", type=options.PATH, required=False)
@options.group(
    "Output",
    click.option("--lossless", is_flag=True, help="Store the frames exactly: FFV1 in .mkv."),
    click.option(
        "--format",
        "form",
        type=click.Choice(["mkv", "mp4", "mov", "webm", "y4m"]),
        help="Format of OUT.  [default: by its name; mkv for -]",
    ),
    options.show_base_option,
    options.start_option,
    options.frames_option,
    options.fps_option,
    options.scale_option,
    options.force_option,
)
@options.group(
    "Input",
    click.option("--strict", is_flag=True, help="Stop at the first fault, without output."),
    click.option(
        "--follow", is_flag=True, help="Decode a file that is still being written, until it is complete."
    ),
    options.max_pixels_option,
    options.max_frames_option,
    options.key_file_option,
    options.passphrase_file_option,
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
def decode_command(
    source: Path,
    target: Path | None,
    max_pixels: int | None,
    max_frames: int | None,
    key_file: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
    quiet: bool,
    **choices: Any,
) -> None:
    """Decode a .vdf to .mp4, .mkv, .mov (H.264), .webm (AV1), .mkv (FFV1, --lossless) or .y4m (raw).

    Frames lost to damage are shown as the frame before. The exit code is 3 then.

    IN may be - for stdin, OUT - for stdout. Without OUT, the file has the name of IN with the extension .mp4
    (.mkv with --lossless).

    \b
    Examples:
      viddiff decode holiday.vdf
      viddiff decode holiday.vdf part.y4m --start 100 --frames 50
      viddiff decode holiday.vdf - | ffplay -
      viddiff decode holiday.vdf part.mp4 --start 00:10 --frames 50 --scale 640x-1
    """
    from viddiff.pipeline.decode_job import DecodeJob

    with options.usage_errors():
        if choices["follow"] and (key_file or passphrase_file):
            raise ValueError("--follow is for a file that is not encrypted")
        job = DecodeJob(
            source=_opened_source(source),
            target=opened_target(target),
            limits=options.limits_of(max_pixels, max_frames),
            **choices,
        )
    job.check_files()
    job = replace(job, secret=_secret(job, key_file, passphrase_file))
    from viddiff.pipeline.decode_file import decode_file

    check_termination()
    stdout = job.output is None
    with Watcher(quiet, objects(as_json, stdout)) as watcher, notes_of_compiling(quiet):
        result = decode_file(job, watcher)
    print_notes(result.notes, quiet)
    name = "stdout" if stdout else str(result.target)
    if as_json:
        print_json({"input": source, **_values(result)}, err=stdout)
    elif not quiet:
        say(f"{name}: {result.frames} frames, {result.frames / result.seconds:.1f} fps")
    if result.damage:
        say(f"Warning: {printable(result.damage)}")
    if result.ended_by is not None:
        outcome = f"{name} is complete up to this point"
        click.get_current_context().exit(say_ended(result.ended_by, outcome))
    if result.damage:
        click.get_current_context().exit(3)


def _opened_source(source: Path) -> Path | BinaryIO:
    """The source to open; stdin for "-"."""
    if str(source) != PIPE:
        return source
    if sys.stdin is None:
        raise ViddiffError("stdin is closed")
    return cast(BinaryIO, sys.stdin.buffer)


def _secret(job: "DecodeJob", key_file: Path | None, passphrase_file: Path | None) -> "Secret | None":
    """Secret of the source. The user is asked only if the source is encrypted."""
    if job.named is not None and not job.follow:
        return secret_for(job.named, key_file, passphrase_file)
    if key_file is None and passphrase_file is None:
        return None
    return read_secret(key_file, passphrase_file, confirm=False)


def _values(result: "DecodeResult") -> dict[str, Any]:
    """The result as JSON values."""
    return {
        "output": result.target or "-",
        "width": result.width,
        "height": result.height,
        "frames": result.frames,
        "bytes": result.size_bytes,
        "seconds": result.seconds,
        "fps": result.frames / result.seconds,
        "lost_frames": [list(span) for span in result.lost_frames],
        "faults": list(result.faults),
    }
