"""`viddiff serve`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viddiff.cli import options
from viddiff.cli.printing import notes_of_compiling, print_json, print_notes, say
from viddiff.cli.secrets import secret_of_all
from viddiff.cli.termination import check as check_termination

if TYPE_CHECKING:
    from viddiff.serving.server import Server

_LOOK_EVERY_S = 1.0
"""Seconds between looks whether a signal has come."""


@click.command("serve", short_help="Serve a page that plays .vdf files, on this machine.")
@click.argument("files", metavar="FILE.vdf...", type=options.PATH, nargs=-1, required=True)
@options.combined(
    options.port_option,
    options.show_base_option,
    options.weights_option,
    options.device_option,
    options.engine_option,
    options.max_pixels_option,
    options.max_frames_option,
    options.key_file_option,
    options.passphrase_file_option,
    options.json_option,
    options.quiet_option,
)
def serve_command(files: tuple[Path, ...], as_json: bool, **choices: Any) -> None:
    """Play .vdf files in browsers on this machine: a page that plays and seeks, with sound.

    Prints the address of the page, and serves it until Ctrl-C. Frames are decoded when they are watched, and
    sent as H.264. Nothing is written to disk.

    \b
    Examples:
      viddiff serve holiday.vdf
      viddiff serve *.vdf --port 8080
    """

    def begin(server: "Server") -> None:
        if as_json:
            print_json({"inputs": files, "address": server.address})
        else:
            say(server.address)
            say("Press Ctrl-C to end.")

    serve(files, begin, **choices)


def serve(
    files: tuple[Path, ...],
    begin: Callable[["Server"], None],
    port: int,
    max_pixels: int | None,
    max_frames: int | None,
    key_file: Path | None,
    passphrase_file: Path | None,
    quiet: bool,
    **choices: Any,
) -> None:
    """Serve files until Ctrl-C. begin: called once, when the server answers. Raises ViddiffError, OSError."""
    from viddiff.pipeline.job_values import check_source
    from viddiff.serving.movie import Movie, PlayOptions
    from viddiff.serving.server import Server

    with options.usage_errors():
        reading = PlayOptions(limits=options.limits_of(max_pixels, max_frames), **choices)
    for file in files:
        check_source(file, str(file))
    reading = reading.with_secret(secret_of_all(files, key_file, passphrase_file, encrypt=False))
    check_termination()
    with notes_of_compiling(quiet):
        movies = [Movie(file, reading, lambda note: print_notes([note], quiet)) for file in files]
        movies[0].prepare()  # the others when they are watched
    with Server(movies, port) as server:
        try:
            begin(server)
            while True:  # a signal that comes just before a wait would not end one without an end
                time.sleep(_LOOK_EVERY_S)
        except KeyboardInterrupt:
            pass  # the way to end it
