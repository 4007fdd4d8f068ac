"""`viddiff encode`."""

import contextlib
import re
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import click

from viddiff.cli import shared
from viddiff.config import Start, start_text
from viddiff.encoder.presets import PRESETS
from viddiff.errors import ViddiffError

if TYPE_CHECKING:
    from viddiff.container.format import Chunk, Header


def _audio(context: click.Context, option: click.Parameter, value: str) -> str:
    """Check --audio, and drop the k of "64k"."""
    if value in ("copy", "none"):
        return value
    found = re.fullmatch(r"opus:(\d{1,3})k?", value)
    if found is None or not 6 <= int(found[1]) <= 510:
        raise click.BadParameter("it is copy, none, or opus:6k to opus:510k")
    return f"opus:{int(found[1])}"


def _options(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Values by name."""
    if not all("=" in value for value in values):
        raise click.BadParameter("it is a name, = and a value")
    return dict(value.split("=", 1) for value in values)


@click.command("encode")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="[OUT]", type=shared.PATH, required=False)
@click.option(
    "--quality",
    type=click.IntRange(0, 63),
    default=32,
    show_default=True,
    help="0 (smallest file) to 63 (best picture).",
)
@click.option(
    "--gop",
    type=click.IntRange(1, 1024),
    default=128,
    show_default=True,
    help="Most frames from one keyframe to the next.",
)
@click.option(
    "--low-delay", is_flag=True, help="Predict from the past alone: no frame waits for a later one."
)
@click.option(
    "--entropy",
    type=click.Choice(["ans", "huffman"]),
    default="ans",
    show_default=True,
    help="Entropy coder; huffman gives larger files.",
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="default",
    show_default=True,
    help="What encoding may cost; slower gives smaller files.",
)
@click.option(
    "--audio",
    callback=_audio,
    default="copy",
    show_default=True,
    metavar="copy|opus:N|none",
    help="Copy the sound, encode it with N kbit/s (opus:64k; 6 to 510) or leave it out.",
)
@click.option(
    "--encrypt",
    is_flag=True,
    help="Encrypt, with a passphrase that is asked for unless a file or VIDDIFF_PASSPHRASE holds it.",
)
@click.option(
    "--resume", is_flag=True, help="Go on with what is there of the same encode after a crash or a full disk."
)
@click.option(
    "--verify",
    is_flag=True,
    help="Decode what was written and compare every frame with the encoder's reconstruction before the file "
    "gets its name. Not with --resume: what an earlier run coded has no reconstruction in this one.",
)
@click.option(
    "--input-format",
    metavar="NAME",
    help="What IN is, by libav's name of it (v4l2, x11grab, lavfi, rawvideo); IN need not be a file then.",
)
@click.option(
    "--input-option",
    "input_options",
    multiple=True,
    callback=_options,
    metavar="NAME=VALUE",
    help="An option of libav for IN (framerate=30); may be given several times.",
)
@click.option(
    "--drop-alpha", is_flag=True, help="Lose an alpha channel, which is not coded, rather than end."
)
@shared.combined(
    shared.key_file_option,
    shared.passphrase_file_option,
    shared.start_option,
    shared.frames_option,
    shared.fps_option,
    shared.scale_option,
    shared.weights_option,
    shared.device_option,
    shared.workers_option,
    shared.force_option,
    shared.progress_json_option,
    shared.quiet_option,
)
def encode_command(
    source: str,
    target: Path | None,
    quality: int,
    gop: int,
    low_delay: bool,
    entropy: str,
    preset: str,
    audio: str,
    encrypt: bool,
    resume: bool,
    verify: bool,
    input_format: str | None,
    input_options: dict[str, str],
    drop_alpha: bool,
    key_file: Path | None,
    passphrase_file: Path | None,
    start: Start,
    frames: int | None,
    fps: Fraction | None,
    scale: tuple[int, int] | None,
    weights: Path | None,
    device: str,
    workers: int | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Encode a video to .vdf.

    OUT is IN with the extension .vdf unless it is given. IN and OUT may be -, stdin and stdout. IN may be an
    address (rtsp://, udp://, http://), too, or a device.

    \b
    Examples:
      viddiff encode holiday.mp4
      viddiff encode holiday.mp4 small.vdf --quality 24
      viddiff encode rtsp://camera/1 - --low-delay | ssh host 'cat > 1.vdf'
      viddiff encode :0 screen.vdf --input-format x11grab
    """
    from viddiff.media.demuxer import Demuxer, is_live

    if verify and resume:
        raise click.UsageError("--verify needs the whole reconstruction, which --resume does not have")
    live, stdout = is_live(source, input_format), str(target) == shared.PIPE
    if live and target is None:
        raise click.UsageError(f"name OUT, for {source} has no name to make one of")
    if resume and (live or stdout):
        raise click.UsageError("--resume is for a file out of a file: a pipe or a device cannot begin again")
    if verify and stdout:
        raise click.UsageError("--verify is for a file: what went through a pipe cannot be read again")
    target = target or Path(source).with_suffix(".vdf")
    if not live:
        shared.check_source(Path(source))
    shared.check_target(target, None if live else Path(source), force)

    if key_file and passphrase_file:
        raise click.UsageError("give either --key-file or --passphrase-file")
    secret = None
    if encrypt or key_file or passphrase_file:
        if resume:
            raise click.UsageError("an encrypted file cannot be resumed")
        secret = shared.read_secret(key_file, passphrase_file, confirm=True)

    if not live:
        shared.prepare_processes(workers)
    from viddiff.cli.progress import Progress
    from viddiff.container.interleaving_writer import InterleavingWriter
    from viddiff.container.part_file import PartFile
    from viddiff.encoder.options import EncodeOptions
    from viddiff.interleave import Interleaver
    from viddiff.media.filters import Changes
    from viddiff.media.track_reader import TrackReader
    from viddiff.media.video_reader import VideoReader
    from viddiff.pipeline.output import Output
    from viddiff.pipeline.parallel_encode import encode_video
    from viddiff.pipeline.resources import Resources

    options = EncodeOptions(quality, gop, low_delay, entropy, preset)
    resources = Resources(weights, shared.pick_device(device), workers)
    changes = Changes(fps, scale)

    def check(written: Path) -> None:
        """Decode what was written and compare it with the reconstruction."""
        from viddiff.pipeline.verify import verify as verify_file

        key = None if secret is None else shared.key_of(written, secret)
        objects = shared.objects(as_json, stdout)
        with Progress("verify", summary.frames, quiet, objects=objects) as progress:
            verify_file(written, summary.gops, resources, key, progress.update)

    with (
        Demuxer(source, input_format, input_options) as demuxer,
        VideoReader(demuxer, start, frames, changes=changes, drop_alpha=drop_alpha) as reader,
        TrackReader(demuxer, audio) as others,
        contextlib.ExitStack() as stack,
    ):
        done: Iterable[Chunk] = ()
        wanted = check if verify else None
        pipe = shared.Stdout() if stdout else None
        if pipe is not None:
            out = cast(BinaryIO, pipe)
        elif secret is None and not live:
            seen = Path(source).stat()
            job = {**vars(options), "audio": audio, "start": start_text(start), "frames": frames}
            job |= {"fps": fps and str(fps), "scale": scale, "drop_alpha": drop_alpha}
            job |= {"bytes": seen.st_size, "modified": seen.st_mtime_ns}
            part = PartFile(target, job, resume)
            out, done = stack.enter_context(shared.resumable_file(part, quiet, wanted)), part.done()
        else:
            out = stack.enter_context(shared.complete_file(target, wanted))
        out = stack.enter_context(shared.sealed(out, secret))
        info = reader.info
        interleaver = Interleaver(others.extras, others, start > 0, frames is not None)
        count = None if frames is None else info.frame_count or frames
        started = time.monotonic()
        objects = shared.objects(as_json, stdout)
        with Progress("encode", info.frame_count, quiet, objects=objects) as progress:

            def open_output(header: "Header") -> Output:
                if (live or stdout) and not quiet:
                    click.echo(f"Latency: {options.latency(header.base)} frames", err=True)
                writer = InterleavingWriter(out, header, interleaver, count)
                return Output(writer, lambda s: progress.update(s.frames, s.size_bytes))

            summary = encode_video(reader, resources, options, open_output, done)
        if not summary.frames:
            raise ViddiffError(f"{source} has no frame {start_text(start)}")
        seconds = time.monotonic() - started
        shared.print_notes([*reader.notes, *others.notes], quiet)
    summary.size_bytes = pipe.size_bytes if pipe else target.stat().st_size
    name = "stdout" if stdout else str(target)
    bpp = 8 * summary.size_bytes / (summary.frames * info.width * info.height)
    if as_json:
        shared.print_json(
            {
                "input": source,
                "output": str(target),
                "width": info.width,
                "height": info.height,
                "frames": summary.frames,
                "keyframes": summary.keyframes,
                "bytes": summary.size_bytes,
                "key_bytes": summary.key_bytes,
                "bpp": bpp,
                "quality": quality,
                "preset": preset,
                "seconds": seconds,
                "fps": summary.frames / seconds,
                "interrupted": summary.interrupted,
                "verified": verify,
            },
            err=stdout,
        )
    elif not quiet:
        click.echo(
            f"{name}: {summary.frames} frames, {shared.size_text(summary.size_bytes)}, "
            f"{bpp:.4f} bits per pixel, {summary.frames / seconds:.1f} fps{', verified' * verify}",
            err=True,
        )
    if summary.interrupted:
        click.echo(f"Interrupted: {name} is complete, with the first {summary.frames} frames", err=True)
        click.get_current_context().exit(130)
