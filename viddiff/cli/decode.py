"""`viddiff decode`."""

import time
from pathlib import Path

import click

from viddiff.cli import shared


@click.command("decode")
@click.argument("source", metavar="IN.vdf", type=shared.PATH)
@click.argument("target", metavar="[OUT]", type=shared.PATH, required=False)
@click.option("--lossless", is_flag=True, help="Store the frames exactly: FFV1 in .mkv.")
@shared.combined(
    shared.start_option,
    shared.frames_option,
    shared.weights_option,
    shared.device_option,
    shared.workers_option,
    shared.force_option,
    shared.json_option,
    shared.quiet_option,
)
def decode_command(
    source: Path,
    target: Path | None,
    lossless: bool,
    start: int,
    frames: int | None,
    weights: Path | None,
    device: str,
    workers: int | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Decode a .vdf to .mp4 or .mkv (H.264), .mkv (FFV1, --lossless) or .y4m (raw).

    OUT is IN with the extension .mp4 (.mkv with --lossless) unless it is given.

    \b
    Examples:
      viddiff decode holiday.vdf
      viddiff decode holiday.vdf part.y4m --start 100 --frames 50
    """
    target = target or source.with_suffix(".mkv" if lossless else ".mp4")
    shared.check_paths(source, target, force)

    from viddiff.interleave import Interleaver
    from viddiff.parallel import Machine, decode_video
    from viddiff.progress import Progress
    from viddiff.trackfile import TrackFile
    from viddiff.video import VideoWriter

    started = time.monotonic()
    machine = Machine(weights, shared.pick_device(device), workers)
    with open(source, "rb") as file, open(source, "rb") as again:
        video = decode_video(file, source, machine, start, frames)
        others = TrackFile(again)
        interleaver = Interleaver(others.extras, others.packets(), start > 0, frames is not None)
        with (
            VideoWriter(target, video.info, lossless, interleaver) as writer,
            Progress("decode", video.frame_count, quiet) as progress,
        ):
            for count, frame in enumerate(video.frames, 1):
                writer.write(frame)
                progress.update(count)
    seconds = time.monotonic() - started
    shared.print_notes(writer.notes, quiet)
    if as_json:
        shared.print_json(
            {
                "input": str(source),
                "output": str(target),
                "width": video.info.width,
                "height": video.info.height,
                "frames": progress.frames,
                "bytes": target.stat().st_size,
                "seconds": seconds,
                "fps": progress.frames / seconds,
            }
        )
    elif not quiet:
        click.echo(f"{target}: {progress.frames} frames, {progress.frames / seconds:.1f} fps", err=True)
