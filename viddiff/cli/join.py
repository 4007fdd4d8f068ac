"""`viddiff join`."""

from pathlib import Path

import click

from viddiff.cli import options
from viddiff.cli.printing import print_json, print_notes, say, size_text, time_text
from viddiff.cli.secrets import secret_of_all


@click.command("join")
@click.argument("files", metavar="FILE.vdf... OUT.vdf", type=options.NEW_FILE, nargs=-1, required=True)
@options.combined(
    options.encrypt_output_option,
    options.key_file_option,
    options.passphrase_file_option,
    options.force_option,
    options.json_option,
    options.quiet_option,
)
def join_command(
    files: tuple[Path, ...],
    encrypt: bool,
    key_file: Path | None,
    passphrase_file: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Join .vdf files end to end, without decoding.

    The files must be alike: the same size, colour, rate, weights and kinds of tracks. Tags and attachments
    are those of the first one. The last name is that of the file to write.

    \b
    Example:
      viddiff join morning.vdf noon.vdf evening.vdf day.vdf
    """
    from viddiff.pipeline.join_files import JoinJob, join_files

    sources, target = files[:-1], files[-1]
    with options.usage_errors():
        job = JoinJob(sources=sources, target=target, force=force)
    job.check_files()
    job = job.with_secret(secret_of_all(sources, key_file, passphrase_file, encrypt), encrypt)
    result = join_files(job)
    if result.uncovered:
        print_notes(["the output is not encrypted, though an input is; --encrypt encrypts it"], quiet)
    if as_json:
        print_json(
            {
                "inputs": list(sources),
                "output": result.target,
                "frames": result.frames,
                "keyframes": result.keyframes,
                "seconds": result.seconds,
                "bytes": result.size_bytes,
            }
        )
    elif not quiet:
        say(
            f"{target}: {len(sources)} files, {result.frames} frames, {time_text(result.seconds)}, "
            f"{size_text(result.size_bytes)}"
        )
