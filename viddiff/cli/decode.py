"""`viddiff decode`."""

import contextlib
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import click

from viddiff.cli import shared
from viddiff.config import Start


@click.command("decode")
@click.argument("source", metavar="IN.vdf", type=shared.PATH)
@click.argument("target", metavar="[OUT]", type=shared.PATH, required=False)
@click.option("--lossless", is_flag=True, help="Store the frames exactly: FFV1 in .mkv.")
@click.option("--strict", is_flag=True, help="Stop at the first fault, without output, instead of repairing.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["mkv", "mp4", "y4m"]),
    help="What OUT is to be.  [default: what its name says; mkv for -]",
)
@click.option(
    "--follow", is_flag=True, help="Decode a file that is still being written, up to its end when that comes."
)
@shared.combined(
    shared.start_option,
    shared.frames_option,
    shared.fps_option,
    shared.scale_option,
    shared.weights_option,
    shared.device_option,
    shared.workers_option,
    shared.max_pixels_option,
    shared.max_frames_option,
    shared.key_file_option,
    shared.passphrase_file_option,
    shared.force_option,
    shared.progress_json_option,
    shared.quiet_option,
)
def decode_command(
    source: Path,
    target: Path | None,
    lossless: bool,
    strict: bool,
    form: str | None,
    follow: bool,
    start: Start,
    frames: int | None,
    fps: Fraction | None,
    scale: tuple[int, int] | None,
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

    OUT is IN with the extension .mp4 (.mkv with --lossless) unless it is given. IN and OUT may be -, stdin
    and stdout.

    \b
    Examples:
      viddiff decode holiday.vdf
      viddiff decode holiday.vdf part.y4m --start 100 --frames 50
      viddiff decode holiday.vdf - | ffplay -
      viddiff decode holiday.vdf part.mp4 --start 00:10 --frames 50 --scale 640x-1
    """
    stdin, stdout = str(source) == shared.PIPE, target is not None and str(target) == shared.PIPE
    piped = stdin or source.is_fifo()
    if piped and target is None:
        raise click.UsageError(f"name OUT, for {source} has no name to make one of")
    if follow and (piped or key_file or passphrase_file):
        raise click.UsageError("--follow is for a file, and one that is not encrypted")
    if lossless and form == "mp4":
        raise click.UsageError("an .mp4 cannot be lossless; mkv and y4m can")
    form = form or ("mkv" if stdout else None)
    target = target or source.with_suffix(f".{form}" if form else ".mkv" if lossless else ".mp4")
    if not piped:
        shared.check_source(source)
    shared.check_target(target, None if piped else source, force)
    if not (piped or follow):
        shared.prepare_processes(workers)

    from viddiff.cli.progress import Progress
    from viddiff.container.read_options import ReadOptions
    from viddiff.container.track_file import TrackFile
    from viddiff.interleave import Interleaver
    from viddiff.media.filters import Changes, change_frames
    from viddiff.media.video_writer import VideoWriter
    from viddiff.pipeline.output import uninterrupted
    from viddiff.pipeline.parallel_decode import decode_video
    from viddiff.pipeline.resources import Resources
    from viddiff.pipeline.streaming import Follower, decode_stream

    started = time.monotonic()
    resources = Resources(weights, shared.pick_device(device), workers)
    limits, interrupted = shared.limits_of(max_pixels, max_frames), False
    with contextlib.ExitStack() as stack:
        others: TrackFile
        if piped or follow:
            options = ReadOptions(strict, limits)
            opened = (
                contextlib.closing(cast(BinaryIO, Follower(source)))
                if follow
                else shared.stream_in(source, key_file, passphrase_file, strict)
            )
            file = stack.enter_context(opened)
            video, others = decode_stream(file, resources, start, frames, options)
        else:
            options = ReadOptions(strict, limits, shared.file_key(source, key_file, passphrase_file))
            file, again = (stack.enter_context(options.open(source)) for _ in range(2))
            video = decode_video(file, source, resources, start, frames, options)
            others = TrackFile(again, None if strict else lambda fault: None, options.limits, start)
        changes = Changes(fps, scale)
        info = changes.of(replace(video.info, frame_count=video.frame_count))
        interleaver = Interleaver(others.extras, others, start > 0, frames is not None)
        out = shared.Stdout() if stdout else None
        writer = VideoWriter(
            cast(BinaryIO, out) if out else target, info, lossless, interleaver, form and f".{form}"
        )
        progress = Progress("decode", info.frame_count, quiet, objects=shared.objects(as_json, stdout))
        with writer, progress:
            try:
                changed = change_frames(video.frames, video.info, changes, limits.frames)
                for count, frame in enumerate(changed, 1):
                    with uninterrupted():
                        writer.write(frame)
                    progress.update(count, writer.size_bytes)
            except KeyboardInterrupt:
                if not progress.frames or not (piped or follow):
                    raise
                interrupted = True
                interleaver.cut_short()
    seconds = time.monotonic() - started
    shared.print_notes(writer.notes, quiet)
    if as_json:
        shared.print_json(
            {
                "input": str(source),
                "output": str(target),
                "width": info.width,
                "height": info.height,
                "frames": progress.frames,
                "bytes": target.stat().st_size if out is None else writer.size_bytes,
                "seconds": seconds,
                "fps": progress.frames / seconds,
                "lost_frames": [list(span) for span in video.damage.lost],
                "faults": video.damage.faults,
            },
            err=stdout,
        )
    elif not quiet:
        name = "stdout" if stdout else target
        click.echo(f"{name}: {progress.frames} frames, {progress.frames / seconds:.1f} fps", err=True)
    if video.damage:
        click.echo(f"Warning: {shared.printable(str(video.damage))}", err=True)
    if interrupted:
        click.echo(f"Interrupted: {target} is complete, with what had come", err=True)
    if interrupted or video.damage:
        click.get_current_context().exit(130 if interrupted else 3)
