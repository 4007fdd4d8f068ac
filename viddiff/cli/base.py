"""`viddiff base`."""

from pathlib import Path

import click

from viddiff.cli import options
from viddiff.cli.printing import print_json, print_notes, say
from viddiff.cli.secrets import key_for
from viddiff.errors import ViddiffError


@click.command("base", short_help="Take the AV1 base out of a .vdf, for any player.")
@click.argument("source", metavar="IN.vdf", type=options.PATH)
@click.argument("target", metavar="[OUT]", type=options.NEW_FILE, required=False)
@options.combined(
    options.key_file_option,
    options.passphrase_file_option,
    options.force_option,
    options.json_option,
    options.quiet_option,
)
def base_command(
    source: Path,
    target: Path | None,
    key_file: Path | None,
    passphrase_file: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Take the AV1 base out of a .vdf, without decoding: a file that any player shows.

    OUT is a .mp4 or .mkv. Without OUT, the file has the name of IN with the extension .mp4.

    \b
    Example:
      viddiff base holiday.vdf
    """
    from viddiff.container.read_options import ReadOptions
    from viddiff.media.authorship import written_by_viddiff
    from viddiff.media.base_writer import FORMATS
    from viddiff.pipeline.extract_base import extract_base
    from viddiff.pipeline.job_values import check_files
    from viddiff.pipeline.output_file import OutputFile, where

    target = target or source.with_suffix(".mp4")
    if target.suffix.lower() not in FORMATS:
        raise ViddiffError(f"{target} has an unknown extension: use {' or '.join(FORMATS)}")
    output = OutputFile(where(target), force, written_by_viddiff, "a video that viddiff has written")
    check_files([source], output)
    reading = ReadOptions(strict=True, key=key_for(source, key_file, passphrase_file))
    with output.claim():
        frames, notes = extract_base(source, output, reading)
    print_notes(notes, quiet)
    size = output.path.stat().st_size
    if as_json:
        print_json({"input": source, "output": target, "frames": frames, "bytes": size})
    elif not quiet:
        say(f"{target}: {frames} frames, {size} bytes")
