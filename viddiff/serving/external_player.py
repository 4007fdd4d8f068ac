"""Play a `.vdf` in another player, which gets the decoded video with sound through a pipe."""

import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from viddiff.errors import ViddiffError
from viddiff.pipeline.decode_file import decode_file
from viddiff.pipeline.decode_job import DecodeJob, DecodeResult

PLAYERS = {
    "mpv": ("--force-media-title={name}", "-"),
    "ffplay": ("-hide_banner", "-loglevel", "warning", "-autoexit", "-window_title", "{name}", "-i", "-"),
    "vlc": ("--play-and-exit", "--meta-title={name}", "-"),
}
"""Arguments of each player, which reads Matroska from stdin."""


class PlayerError(ViddiffError):
    """There is no such player, or it has failed."""


def player_job(source: Path, **options: Any) -> DecodeJob:
    """A decode for a player, with options of `DecodeJob`. Raises ValueError if one is out of range."""
    return DecodeJob(source=source, form="mkv", **options)


def play_in(player: str, job: DecodeJob) -> DecodeResult | None:
    """Play `job` of `player_job` in a player, one of PLAYERS, until both have ended.

    Returns None if the player ended first. Raises PlayerError and what `decode_file` raises.
    """
    program = shutil.which(player)
    if program is None:
        raise PlayerError(f"{player} is not installed: --player names one of {', '.join(PLAYERS)}")
    name = job.named.name if job.named is not None else job.source_name
    command = [program, *(part.format(name=name) for part in PLAYERS[player])]
    result = None
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0) as process:
        try:
            with suppress(BrokenPipeError):  # the viewer has closed it
                result = decode_file(replace(job, target=cast(BinaryIO, process.stdin)))
            with suppress(OSError):
                cast(BinaryIO, process.stdin).close()
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
    if code:
        raise PlayerError(f"{player} has failed, with exit code {code}")
    return result
