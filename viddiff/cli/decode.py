"""`viddiff decode`."""

import time
from pathlib import Path

import click

from viddiff.cli import shared


@click.command("decode")
@click.argument("source", metavar="IN.vdf", type=shared.PATH)
@click.argument("target", metavar="[OUT]", type=shared.PATH, required=False)
@click.option("--lossless", is_flag=True, help="Store the frames exactly: FFV1 in .mkv.")
@click.option("--strict", is_flag=True, help="Stop at the first fault, without output, instead of repairing.")
@shared.combined(
    shared.start_option,
    shared.frames_option,
    shared.weights_option,
    shared.device_option,
    shared.workers_option,
    shared.max_pixels_option,
    shared.max_frames_option,
    shared.key_file_option,
    shared.passphrase_file_option,
    shared.force_option,
    shared.json_option,
    shared.quiet_option,
)
def decode_command(
    source: Path,
    target: Path | None,
    lossless: bool,
    strict: bool,
    start: int,
    frames: int | None,
    weights: Path | None,
    device: str,
    workers: int | None,
    max_pixels: int | None,
    max_frames: int | None,
    key_file: Path | None,
    passphrase_file: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Decode a .vdf to .mp4 or .mkv (H.264), .mkv (FFV1, --lossless) or .y4m (raw).

    Frames that damage has cost are shown as the one before; the exit code is 3 then.

    OUT is IN with the extension .mp4 (.mkv with --lossless) unless it is given.

    \b
    Examples:
      viddiff decode holiday.vdf
      viddiff decode holiday.vdf part.y4m --start 100 --frames 50
    """
    target = target or source.with_suffix(".mkv" if lossless else ".mp4")
    shared.check_paths(source, target, force)

    from viddiff.access import ReadOptions
    from viddiff.interleave import Interleaver
    from viddiff.parallel import Machine, decode_video
    from viddiff.progress import Progress
    from viddiff.trackfile import TrackFile
    from viddiff.video import VideoWriter

    started = time.monotonic()
    machine = Machine(weights, shared.pick_device(device), workers)
    key = shared.file_key(source, key_file, passphrase_file)
    options = ReadOptions(strict, shared.limits_of(max_pixels, max_frames), key)
    with options.open(source) as file, options.open(source) as again:
        video = decode_video(file, source, machine, start, frames, options)
        others = TrackFile(again, None if strict else lambda fault: None, options.limits)
        interleaver = Interleaver(others.extras, others, start > 0, frames is not None)
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
                "lost_frames": [list(span) for span in video.damage.lost],
                "faults": video.damage.faults,
            }
        )
    elif not quiet:
        click.echo(f"{target}: {progress.frames} frames, {progress.frames / seconds:.1f} fps", err=True)
    if video.damage:
        click.echo(f"Warning: {video.damage}", err=True)
        click.get_current_context().exit(3)
