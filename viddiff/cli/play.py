"""`viddiff play`."""

import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viddiff.cli import options
from viddiff.cli.printing import notes_of_compiling, print_notes, printable, say
from viddiff.cli.secrets import secret_for
from viddiff.cli.serve import serve
from viddiff.cli.termination import check as check_termination
from viddiff.config import Start

if TYPE_CHECKING:
    from viddiff.serving.server import Server


@click.command("play")
@click.argument("file", metavar="FILE.vdf", type=options.PATH)
@click.option(
    "--player",
    type=click.Choice(["mpv", "ffplay", "vlc"]),
    help="Play it in this player instead of a browser.",
)
@click.option("--no-browser", is_flag=True, help="Print the address of the page, and open no browser.")
@options.combined(
    options.start_option,
    options.port_option,
    options.show_base_option,
    options.weights_option,
    options.device_option,
    options.engine_option,
    options.max_pixels_option,
    options.max_frames_option,
    options.key_file_option,
    options.passphrase_file_option,
    options.quiet_option,
)
def play_command(
    file: Path, player: str | None, no_browser: bool, start: Start, port: int, **choices: Any
) -> None:
    """Play a .vdf in the browser, or in another player.

    The browser shows a page that this command serves until Ctrl-C, as `serve` does.

    \b
    Examples:
      viddiff play holiday.vdf
      viddiff play holiday.vdf --start 01:30
      viddiff play holiday.vdf --player mpv
    """
    if player is None:

        def begin(server: "Server") -> None:
            _open(f"{server.address}#t={server.movies[0].seconds_at(start):.3f}", not no_browser)

        serve((file,), begin, port=port, **choices)
        return
    if no_browser or port:
        raise click.UsageError("--no-browser and --port are for the page, which --player does not use")
    _play_in(player, file, start=start, **choices)


def _open(address: str, in_browser: bool) -> None:
    say(address)
    if in_browser and not webbrowser.open(address):
        say("Note: no browser was found; open this address in one")
    say("Press Ctrl-C to end.")


def _play_in(
    player: str,
    file: Path,
    max_pixels: int | None,
    max_frames: int | None,
    key_file: Path | None,
    passphrase_file: Path | None,
    quiet: bool,
    **choices: Any,
) -> None:
    """Play a file in a player, until it ends or Ctrl-C is pressed."""
    from viddiff.pipeline.job_values import check_source
    from viddiff.serving.external_player import play_in, player_job

    with options.usage_errors():
        job = player_job(file, limits=options.limits_of(max_pixels, max_frames), **choices)
    check_source(file, str(file))
    job = replace(job, secret=secret_for(file, key_file, passphrase_file))
    check_termination()
    try:
        with notes_of_compiling(quiet):
            result = play_in(player, job)
    except KeyboardInterrupt:
        return  # the way to end it
    if result is None:
        return
    print_notes(result.notes, quiet)
    if result.damage:
        say(f"Warning: {printable(result.damage)}")
        click.get_current_context().exit(3)
