"""`viddiff compare`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viddiff.cli import options
from viddiff.cli.printing import notes_of_compiling, objects, print_json, print_notes, printable, say
from viddiff.cli.progress import Watcher
from viddiff.cli.secrets import secret_for
from viddiff.cli.termination import check as check_termination

if TYPE_CHECKING:
    from viddiff.comparison.results import Comparison
    from viddiff.container.sealing import Secret

_READING = ("weights", "device", "engine", "workers")
"""Options of `Reading`."""


def _names(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Words between commas."""
    if value is None:
        return None
    return tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))


@click.command("compare", short_help="Compare videos with a reference, frame by frame.")
@click.argument("reference", metavar="REF", type=options.PATH)
@click.argument("files", metavar="FILE...", type=options.PATH, nargs=-1, required=True)
@click.option(
    "--metrics",
    callback=_names,
    metavar="NAME,...",
    help="Of psnr, ssim, xpsnr and vmaf; psnr is always measured.  [default: all; vmaf if there is one]",
)
@click.option("--csv", type=options.NEW_FILE, metavar="FILE.csv", help="Write the scores of every frame.")
@click.option(
    "--html",
    type=options.NEW_FILE,
    metavar="FILE.html",
    help="Write a report: one file with curves and the worst frames. Needs matplotlib.",
)
@click.option(
    "--against",
    callback=_names,
    metavar="NAME,...",
    help="Also encode REF with x264, x265 or svtav1 at several qualities, for curves and BD-rates.",
)
@click.option(
    "--gop",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Longest distance between keyframes for --against.  [default: as the first .vdf, or 128]",
)
@click.option("--scale", is_flag=True, help="Scale files of another size to the size of REF.")
@click.option(
    "--stored-times",
    is_flag=True,
    help="Match frames by the times in the files, not from their first frames.",
)
@options.combined(
    options.weights_option,
    options.device_option,
    options.engine_option,
    options.workers_option,
    options.max_pixels_option,
    options.max_frames_option,
    options.key_file_option,
    options.passphrase_file_option,
    options.force_option,
    options.progress_json_option,
    options.quiet_option,
)
def compare_command(
    reference: Path,
    files: tuple[Path, ...],
    key_file: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
    quiet: bool,
    **choices: Any,
) -> None:
    """Compare videos with a reference, frame by frame: .vdf files or any media files.

    Frames are matched by time. What one video has and the other has not is said, and counts in no score. The
    exit code is 3 then.

    \b
    Examples:
      viddiff compare holiday.mp4 holiday.vdf
      viddiff compare holiday.mp4 q*.vdf --html report.html --against x265
      viddiff compare holiday.mp4 other.mkv --csv frames.csv --metrics psnr,ssim
    """
    from viddiff.comparison.compare_job import CompareJob
    from viddiff.comparison.inputs import Reading

    limits = options.limits_of(choices.pop("max_pixels"), choices.pop("max_frames"))
    reading = Reading(limits=limits, **{name: choices.pop(name) for name in _READING})
    choices["against"] = choices["against"] or ()
    with options.usage_errors():
        job = CompareJob(reference=reference, files=files, reading=reading, **choices)
    job.check_files()
    secret = _secret((reference, *files), key_file, passphrase_file)
    job = replace(job, reading=replace(reading, secret=secret))
    from viddiff.cli.comparison_table import plain, table
    from viddiff.comparison.compare_files import compare_files

    check_termination()
    with Watcher(quiet, objects(as_json, stdout=False)) as watcher, notes_of_compiling(quiet):
        comparison = compare_files(job, watcher)
    _say_remarks(comparison, quiet)
    if as_json:
        print_json(plain(comparison))
    else:
        click.echo(table(comparison))
    if not comparison.complete:
        click.get_current_context().exit(3)


def _say_remarks(comparison: "Comparison", quiet: bool) -> None:
    """Say what stands beside the scores: warnings of files that do not match, notes of all others."""
    print_notes(comparison.notes, quiet)
    for file in comparison.files:
        remarks = [f"{file.video.path}: {remark}" for remark in (*file.differences, *file.notes)]
        if file.complete:
            print_notes(remarks, quiet)
        else:
            for remark in remarks:
                say(f"Warning: {printable(remark)}")


def _secret(paths: tuple[Path, ...], key_file: Path | None, passphrase_file: Path | None) -> "Secret | None":
    """Secret of the files. The user is asked only if one is encrypted."""
    found = (secret_for(path, key_file, passphrase_file) for path in paths)
    return next((secret for secret in found if secret is not None), None)
