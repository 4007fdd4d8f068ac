"""`viddiff thumbnail`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viddiff.cli import options
from viddiff.cli.printing import notes_of_compiling, print_json, print_notes, say, size_text, time_text
from viddiff.cli.secrets import secret_for

if TYPE_CHECKING:
    from viddiff.pipeline.thumbnail import ThumbnailResult


@click.command("thumbnail", short_help="Write a keyframe of a .vdf as a picture.")
@click.argument("source", metavar="IN.vdf", type=options.PATH)
@click.argument("target", metavar="OUT", type=options.NEW_FILE)
@options.combined(
    options.time_option,
    options.width_option,
    options.weights_option,
    options.max_pixels_option,
    options.max_frames_option,
    options.key_file_option,
    options.passphrase_file_option,
    options.force_option,
    options.json_option,
    options.quiet_option,
)
def thumbnail_command(
    source: Path,
    target: Path,
    max_pixels: int | None,
    max_frames: int | None,
    key_file: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
    quiet: bool,
    **choices: Any,
) -> None:
    """Write a picture of a .vdf: the keyframe nearest to a time, as players show it.

    OUT is a .avif, .jpg or .png. A .png is exact. Only one frame is decoded, on the CPU.

    \b
    Examples:
      viddiff thumbnail holiday.vdf holiday.avif
      viddiff thumbnail holiday.vdf beach.jpg --time 01:30 --width 320
    """
    from viddiff.pipeline.thumbnail import ThumbnailJob, make_thumbnail

    with options.usage_errors():
        limits = options.limits_of(max_pixels, max_frames)
        job = ThumbnailJob(source=source, target=target, limits=limits, **choices)
    job.check_files()
    job = job.with_secret(secret_for(source, key_file, passphrase_file))
    with notes_of_compiling(quiet):
        result = make_thumbnail(job)
    print_notes(result.notes, quiet)
    if as_json:
        print_json({"input": source, **_values(result)})
    elif not quiet:
        say(
            f"{target}: frame {result.frame} at {time_text(result.time_s)}, "
            f"{result.width}x{result.height}, {size_text(result.size_bytes)}"
        )


def _values(result: "ThumbnailResult") -> dict[str, Any]:
    """The result as JSON values."""
    return {
        "output": result.target,
        "frame": result.frame,
        "time": result.time_s,
        "width": result.width,
        "height": result.height,
        "bytes": result.size_bytes,
    }
