"""`viddiff cut`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viddiff.cli import options
from viddiff.cli.printing import print_json, print_notes, say, size_text, time_text
from viddiff.cli.secrets import secret_of_all

if TYPE_CHECKING:
    from viddiff.pipeline.cut_file import CutResult


@click.command("cut", short_help="Cut a part out of a .vdf, without decoding.")
@click.argument("source", metavar="IN.vdf", type=options.PATH)
@click.argument("target", metavar="OUT.vdf", type=options.NEW_FILE)
@options.combined(
    options.start_option,
    options.end_option,
    options.frames_option,
    options.encrypt_output_option,
    options.key_file_option,
    options.passphrase_file_option,
    options.force_option,
    options.json_option,
    options.quiet_option,
)
def cut_command(
    source: Path,
    target: Path,
    encrypt: bool,
    key_file: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
    quiet: bool,
    **choices: Any,
) -> None:
    """Cut a part out of a .vdf, without decoding: every frame stays as it is.

    The part consists of whole GOPs: it begins at the keyframe at or before --start, and ends where the GOP
    of its last frame ends.

    \b
    Examples:
      viddiff cut holiday.vdf beach.vdf --start 01:30 --end 02:10
      viddiff cut holiday.vdf beach.vdf --start 2250 --frames 1000
    """
    from viddiff.pipeline.cut_file import CutJob, cut_file

    with options.usage_errors():
        job = CutJob(source=source, target=target, **choices)
    job.check_files()
    job = job.with_secret(secret_of_all([source], key_file, passphrase_file, encrypt), encrypt)
    result = cut_file(job)
    print_notes(_notes(result), quiet)
    if as_json:
        print_json({"input": source, **_values(result)})
    elif not quiet:
        say(
            f"{target}: {result.frames} frames from {time_text(result.start_s)} to "
            f"{time_text(result.end_s)}, {size_text(result.size_bytes)}"
        )


def _notes(result: "CutResult") -> list[str]:
    """What the user should know of the part."""
    notes = []
    if result.unasked:
        when, number = time_text(result.start_s), result.first_frame
        notes.append(f"the part begins at {when}, with frame {number}, the keyframe before --start")
    if result.uncovered:
        notes.append("the part is not encrypted, though the input is; --encrypt encrypts it")
    return notes


def _values(result: "CutResult") -> dict[str, Any]:
    """The result as JSON values."""
    return {
        "output": result.target,
        "first_frame": result.first_frame,
        "frames": result.frames,
        "keyframes": result.keyframes,
        "start": result.start_s,
        "end": result.end_s,
        "bytes": result.size_bytes,
    }
