"""`viddiff encode`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viddiff.cli import options
from viddiff.cli.files import opened_target
from viddiff.cli.printing import (
    notes_of_compiling,
    notes_of_errors,
    objects,
    path_text,
    print_json,
    print_notes,
    say,
    say_ended,
    sentence,
    size_text,
)
from viddiff.cli.progress import Watcher, target_values
from viddiff.cli.secrets import read_secret
from viddiff.cli.termination import check as check_termination
from viddiff.errors import TooLargeError

if TYPE_CHECKING:
    from viddiff.pipeline.adaptation import Adaptation
    from viddiff.pipeline.decoder_buffer import BufferReport
    from viddiff.pipeline.encode_file import Adapt
    from viddiff.pipeline.encode_job import EncodeJob, EncodeResult
    from viddiff.pipeline.quality_goal import GoalReport
    from viddiff.pipeline.status import Status


def _named_values(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Values by name."""
    if not all("=" in value for value in values):
        raise click.BadParameter("use NAME=VALUE")
    return dict(value.split("=", 1) for value in values)


@click.command("encode", cls=options.GroupedCommand)
@click.argument("source", metavar="IN", shell_complete=options.complete_file)
@click.argument("target", metavar="[OUT]", type=options.PATH, required=False)
@options.group(
    "Quality or size",
    *options.target_options,
)
@options.group(
    "Coding",
    options.preset_option,
    options.gop_option,
    options.low_delay_option,
    options.background_option,
    options.base_option,
    options.adapt_option,
    options.entropy_option,
)
@options.group(
    "Input",
    options.start_option,
    options.frames_option,
    options.deinterlace_option,
    options.crop_option,
    options.filters_option,
    options.fps_option,
    options.scale_option,
    options.map_option,
    options.audio_option,
    options.audio_language_option,
    options.drop_alpha_option,
    click.option(
        "--input-format",
        metavar="NAME",
        help="libav's name of the input format or device: v4l2, x11grab, rawvideo. IN need not be a file.",
    ),
    click.option(
        "--input-option",
        "input_options",
        multiple=True,
        callback=_named_values,
        metavar="NAME=VALUE",
        help="Option for libav's input (framerate=30). Repeat it for more.",
    ),
)
@options.group(
    "Output",
    options.force_option,
    click.option("--resume", is_flag=True, help="Continue the same encode after a crash or a full disk."),
    click.option(
        "--verify",
        is_flag=True,
        help="Decode the new file and compare every frame with the encoder's reconstruction, before the "
        "file gets its name. Not with --resume.",
    ),
    click.option(
        "--encrypt",
        is_flag=True,
        help="Encrypt with a passphrase, from --passphrase-file, VIDDIFF_PASSPHRASE or a prompt.",
    ),
    options.key_file_option,
    options.passphrase_file_option,
)
@options.group(
    "Machine",
    options.weights_option,
    options.device_option,
    options.engine_option,
    options.workers_option,
    options.progress_json_option,
    options.quiet_option,
)
def encode_command(
    source: str,
    target: Path | None,
    encrypt: bool,
    key_file: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
    quiet: bool,
    **choices: Any,
) -> None:
    """Encode a video to .vdf.

    IN is a file, - for stdin, a network address (rtsp://, udp://, http://) or a device. OUT is a file, or -
    for stdout. Without OUT, the file has the name of IN with the extension .vdf.

    \b
    Examples:
      viddiff encode holiday.mp4
      viddiff encode holiday.mp4 small.vdf --quality 24
      viddiff encode holiday.mp4 --min-vmaf 93 --max-encoded-percent 80
      viddiff encode rtsp://camera/1 - --low-delay | ssh host 'cat > 1.vdf'
      viddiff encode :0 screen.vdf --input-format x11grab
    """
    from viddiff.pipeline.encode_job import EncodeJob

    with options.usage_errors():
        sealed = encrypt or key_file is not None or passphrase_file is not None
        if sealed and choices["resume"]:
            raise ValueError("an encrypted file cannot be resumed")
        job = EncodeJob(source=source, target=opened_target(target), **choices)
        options.one_quality(job.has_target)
    job.check_files()
    if sealed:
        job = replace(job, secret=read_secret(key_file, passphrase_file, confirm=True))
    job.prepare()
    from viddiff.pipeline.encode_file import encode_file

    check_termination()
    stdout = job.output is None
    refusals, watching = _refusal_printed(job, as_json), Watcher(quiet, objects(as_json, stdout))
    with refusals, watching as watcher, notes_of_compiling(quiet), notes_of_errors(quiet):

        def watch(status: "Status") -> None:
            if status.latency is not None and (stdout or job.named is None) and not quiet:
                say(f"Latency: {status.latency} frames")
            watcher(status)

        result = encode_file(job, watch, adapt=_adapt_for(job))
    print_notes(result.notes, quiet)
    name = "stdout" if stdout else str(result.target)
    if as_json:
        print_json(_values(job, result), err=stdout)
    elif not quiet:
        say(
            f"{name}: {result.frames} frames, {size_text(result.size_bytes)}, "
            f"{result.bits_per_pixel:.4f} bits per pixel, {result.frames / result.seconds:.1f} fps"
            f"{f', quality {result.quality:.4g}' * job.has_target}"
            f"{_goal_text(result.quality_goal)}"
            f"{_buffer_text(result.buffer)}"
            f"{_network_text(result.adaptation)}"
            f"{', verified' * result.verified}"
        )
    if result.ended_by is not None:
        outcome = f"{name} is complete, with the first {result.frames} frames"
        click.get_current_context().exit(say_ended(result.ended_by, outcome))
    check_termination()


def _adapt_for(job: "EncodeJob") -> "Adapt | None":
    """What tunes a network, if one is wanted. It loads PyTorch."""
    if job.adapt is None:
        return None
    from viddiff.training.adaptation import adapt

    return adapt


def _network_text(adaptation: "Adaptation | None") -> str:
    """What the file's own network takes and is expected to save."""
    if adaptation is None or not adaptation.network:
        return ""
    saved = adaptation.saved_bytes
    expected = "" if saved is None else f", which saves about {size_text(saved)}"
    return f", own network of {size_text(adaptation.size_bytes)}{expected}"


def _goal_text(report: "GoalReport | None") -> str:
    """What was wanted, predicted and reached."""
    if report is None or report.reached is None or report.predicted is None:
        return ""
    from viddiff.pipeline.measures import BY_NAME

    return (
        f", {BY_NAME[report.measure].title} ({report.pool}) {report.reached:.2f}: "
        f"{report.wanted:g} wanted, {report.predicted:.2f} predicted"
    )


def _buffer_text(report: "BufferReport | None") -> str:
    """What keeping a decoder's buffer filled has cost."""
    if report is None:
        return ""
    coarser = f", {report.coarser_gops} GOPs coarser, down to quality {report.lowest_quality:.4g}"
    return f", buffer at least {report.least_filled:.0%} filled{coarser * bool(report.coarser_gops)}"


def _buffer_values(report: "BufferReport | None") -> dict[str, Any] | None:
    """The same as JSON values."""
    if report is None:
        return None
    filled, quality = round(report.least_filled, 4), round(report.lowest_quality, 2)
    return asdict(report) | {"least_filled": filled, "lowest_quality": quality}


@contextmanager
def _refusal_printed(job: "EncodeJob", as_json: bool) -> Iterator[None]:
    """Print a JSON object if the file would be too large. The error goes on."""
    try:
        yield
    except TooLargeError as error:
        if as_json:
            values = {
                "input": path_text(job.source_name),
                "too_large": sentence(error),
                "source_bytes": error.source,
                "most_bytes": error.most,
                "predicted_bytes": error.predicted,
                "coded_bytes": error.coded,
            }
            print_json(values)
        raise


def _values(job: "EncodeJob", result: "EncodeResult") -> dict[str, Any]:
    """The result as JSON values."""
    return {
        "input": path_text(job.source_name),
        "output": result.target or "-",
        "width": result.width,
        "height": result.height,
        "frames": result.frames,
        "keyframes": result.keyframes,
        "bytes": result.size_bytes,
        "key_bytes": result.key_bytes,
        "ledger": [asdict(row) for row in result.ledger],
        "bpp": result.bits_per_pixel,
        "quality": round(result.quality, 2),
        "preset": job.preset,
        "seconds": result.seconds,
        "fps": result.frames / result.seconds,
        "target": target_values(result.quality_goal),
        "predicted_bytes": result.predicted_bytes,
        "buffer": _buffer_values(result.buffer),
        "rate": None if result.rate is None else asdict(result.rate),
        "network": None if result.adaptation is None else result.adaptation.values(),
        "interrupted": result.ended_by is not None,
        "verified": result.verified,
    }
