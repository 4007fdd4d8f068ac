"""Options of several commands, and how their values are parsed."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from viddiff.cli.files import PIPE
from viddiff.config import MAX_SIDE, Limits, Start, nominal_rate
from viddiff.encoder.presets import PRESETS
from viddiff.pipeline.quality_goal import POOLS

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


class _NewFile(click.Path):
    """A file to write, by a command that cannot write to stdout."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == PIPE:
            self.fail("this command does not write to stdout; ./- is a file with this name", param, ctx)
        return super().convert(value, param, ctx)


NEW_FILE = _NewFile(path_type=Path)
_TITLE = "viddiff_group"
"""Attribute of an option: the title of its group."""
_UNITS = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}


def _end(context: click.Context, option: click.Parameter, value: str | None) -> Start | None:
    return None if value is None else _start(context, option, value)


def _one_secret(context: click.Context, option: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a second secret. The option that stands first does not see the other one yet."""
    if value and (context.params.get("key_file") or context.params.get("passphrase_file")):
        raise click.UsageError("give either --key-file or --passphrase-file", context)
    return value


def _start(context: click.Context, option: click.Parameter, value: str) -> Start:
    if value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    found = re.fullmatch(r"(?:(\d{1,3}):)?([0-5]?\d):([0-5]\d(?:\.\d{1,9})?)", value, re.ASCII)
    if found is None:
        raise click.BadParameter("use a frame number, or a time as MM:SS or HH:MM:SS.mmm")
    hours, minutes, seconds = found.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)


def _fps(context: click.Context, option: click.Parameter, value: str | None) -> Fraction | None:
    if value is None:
        return None
    if re.fullmatch(r"\d{1,7}(\.\d{1,6}|/[1-9]\d{0,6})?", value, re.ASCII):
        rate = nominal_rate(Fraction(value)) if "." in value else Fraction(value)
        if 0 < rate <= 1000:
            return rate
    raise click.BadParameter("use a number up to 1000, such as 25, 29.97 or 30000/1001")


def _scale(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    found = re.fullmatch(r"(-1|\d{1,4})x(-1|\d{1,4})", value, re.ASCII)
    if found is None or found[1] == found[2] == "-1":
        raise click.BadParameter("use a width and a height, such as 640x360, 640x-1 or -1x360")
    return int(found[1]), int(found[2])


def _audio(context: click.Context, option: click.Parameter, value: str) -> str:
    """Check --audio, and drop the k of "64k"."""
    if value in ("copy", "none"):
        return value
    found = re.fullmatch(r"opus:(\d{1,3})k?", value)
    if found is None or not 6 <= int(found[1]) <= 510:
        raise click.BadParameter("use copy, none, or opus:6k to opus:510k")
    return f"opus:{int(found[1])}"


def amount(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """A number with a unit: 800k, 1.5M, 2G."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)([kmg]?)", value, re.IGNORECASE)
    if found is None or not (number := int(float(found[1]) * _UNITS[found[2].lower()])):
        raise click.BadParameter("use a number above 0, with k, M or G: 800k, 1.5M")
    return number


quality_option = click.option(
    "--quality",
    type=click.IntRange(0, 63),
    default=32,
    show_default=True,
    help="0 (smallest file) to 63 (best picture).",
)
target_options = (
    quality_option,
    click.option(
        "--min-vmaf",
        type=float,
        metavar="N",
        help="Find the smallest quality whose frames have this VMAF (93).",
    ),
    click.option("--min-psnr", type=float, metavar="DB", help="The same for PSNR, 6:1:1 of Y, U and V (40)."),
    click.option(
        "--min-xpsnr", type=float, metavar="DB", help="The same for XPSNR, 6:1:1 of Y, U and V (40)."
    ),
    click.option(
        "--pool",
        type=click.Choice(list(POOLS)),
        help="What of the frames has to reach it: mean, harmonic mean or 5th percentile.  [default: mean]",
    ),
    click.option(
        "--size",
        callback=amount,
        metavar="BYTES",
        help="Find the quality that gives a file of at most this size (700M, 1.5G), sound and all.",
    ),
    click.option(
        "--bitrate",
        callback=amount,
        metavar="BITS",
        help="Find the quality that gives at most this many bits a second (800k, 2M), sound and all. Streams "
        "get about as many, in one pass.",
    ),
    click.option(
        "--maxrate",
        callback=amount,
        metavar="BITS",
        help="Lower the quality of GOPs so that a decoder that gets this many bits a second (2M) always has "
        "its frames in time. With --bufsize.",
    ),
    click.option(
        "--bufsize", callback=amount, metavar="BITS", help="Size of the decoder's buffer (4M), in bits."
    ),
    click.option(
        "--max-encoded-percent",
        type=float,
        metavar="N",
        help="Give up if the file would be larger than this percentage of its source (80). `encode` has exit "
        "code 4 then.",
    ),
)
gop_option = click.option(
    "--gop",
    type=click.IntRange(1, 1024),
    default=128,
    show_default=True,
    help="Longest distance between keyframes, in frames.",
)
low_delay_option = click.option(
    "--low-delay", is_flag=True, help="Predict from past frames only: no frame waits for a later one."
)
background_option = click.option(
    "--no-background",
    "background",
    flag_value=False,
    default=True,
    help="Give each GOP a keyframe of its own, also where the camera stands still.",
)
base_option = click.option(
    "--base",
    type=click.Choice(["av1", "none"]),
    help="What carries the frames: an AV1 stream, which networks enhance, or networks that predict them.  "
    "[default: av1, or what --weights are for]",
)
adapt_option = click.option(
    "--adapt",
    type=float,
    metavar="MINUTES",
    help="Train the networks on this video first, for so long, and carry them in the file if that makes it "
    "smaller. Pays for long videos.",
)
entropy_option = click.option(
    "--entropy",
    type=click.Choice(["ans", "huffman"]),
    default="ans",
    show_default=True,
    help="Entropy coder; huffman gives larger files.",
)
preset_option = click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="default",
    show_default=True,
    help="How much work to do. Slower presets give smaller files.",
)
audio_option = click.option(
    "--audio",
    callback=_audio,
    default="copy",
    show_default=True,
    metavar="copy|opus:N|none",
    help="Copy the sound, encode it as Opus with N kbit/s (opus:64k; 6 to 510), or omit it.",
)


def _languages(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    return () if value is None else tuple(value.split(","))


map_option = click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="TRACKS",
    help="Take only these tracks, as in ffmpeg: v, a, s, t, or one of them (a:0). Repeat it for more.  "
    "[default: all]",
)
audio_language_option = click.option(
    "--audio-lang",
    callback=_languages,
    metavar="LIST",
    help="Take only sound of these languages: eng,deu.  [default: all]",
)
drop_alpha_option = click.option(
    "--drop-alpha", is_flag=True, help="Remove an alpha channel instead of ending with an error."
)
weights_option = click.option(
    "--weights",
    type=PATH,
    metavar="FILE",
    help="Weights: a file, a name of released ones, the first digits of their hash or, to decode, a folder "
    "to look in.  "
    "[default: VIDDIFF_WEIGHTS, or the released ones]",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the networks run. The result is the same.",
)
engine_option = click.option(
    "--engine",
    type=click.Choice(["compiled", "torch"]),
    help="What runs the networks that enhance an AV1 base: code compiled for this CPU, or PyTorch. The "
    "result is the same.  [default: compiled on a CPU, torch on CUDA]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
progress_json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON on stdout: progress every second (unless --quiet), then the result.",
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress and no notes.")
key_file_option = click.option(
    "--key-file",
    type=PATH,
    callback=_one_secret,
    metavar="FILE",
    help="Key file of an encrypted .vdf: 32 random bytes.",
)
passphrase_file_option = click.option(
    "--passphrase-file",
    type=PATH,
    callback=_one_secret,
    metavar="FILE",
    help="File with the passphrase of an encrypted .vdf.  [default: VIDDIFF_PASSPHRASE, or a prompt]",
)
encrypt_output_option = click.option(
    "--encrypt",
    is_flag=True,
    help="Encrypt OUT, with the key or passphrase that encrypted inputs have.",
)
force_option = click.option("--force", "-f", is_flag=True, help="Overwrite an output that viddiff has made.")
start_option = click.option(
    "--start",
    callback=_start,
    default="0",
    show_default=True,
    metavar="N|TIME",
    help="First frame: a number from 0, or a time [HH:]MM:SS[.mmm] after the first frame.",
)
end_option = click.option(
    "--end",
    callback=_end,
    metavar="N|TIME",
    help="First frame after the part, in the same way.  [default: the end of the file]",
)
time_option = click.option(
    "--time",
    callback=_start,
    default="0",
    show_default=True,
    metavar="N|TIME",
    help="A frame: a number from 0, or a time [HH:]MM:SS[.mmm] after the first frame.",
)
width_option = click.option(
    "--width",
    type=click.IntRange(1, MAX_SIDE),
    metavar="N",
    help="Width of the picture. The shape stays.  [default: as coded]",
)
fps_option = click.option(
    "--fps",
    callback=_fps,
    metavar="N",
    help="Change the frame rate (25, 30000/1001) by leaving out or repeating frames. 29.97 means 30000/1001.",
)
scale_option = click.option(
    "--scale",
    callback=_scale,
    metavar="WxH",
    help="Scale to this size (before rotation). 640x-1 and -1x360 keep the shape.",
)


def _crop(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[int, int, int, int] | None:
    """A part of the picture: WxH+X+Y."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})\+(\d{1,5})\+(\d{1,5})", value)
    if found is None:
        raise click.BadParameter("use WxH+X+Y, such as 1280x720+320+0")
    width, height, left, top = map(int, found.groups())
    return width, height, left, top


deinterlace_option = click.option(
    "--deinterlace",
    type=click.Choice(["none", "auto", "all"]),
    default="none",
    show_default=True,
    help="Make frames of the fields of interlaced video: of those that are marked (auto), or of all.",
)
crop_option = click.option(
    "--crop",
    callback=_crop,
    metavar="WxH+X+Y",
    help="Keep this part of the picture (before rotation), X and Y from the upper left corner.",
)
filters_option = click.option(
    "--vf",
    metavar="CHAIN",
    help="Apply libav's filters, as in ffmpeg: atadenoise,hue=s=1.2. They act after --crop.",
)
frames_option = click.option(
    "--frames", type=click.IntRange(1), metavar="N", help="Number of frames.  [default: all]"
)
max_pixels_option = click.option(
    "--max-pixels",
    type=click.IntRange(1),
    metavar="N",
    help="Refuse files with larger frames, in luma samples.  [default: 9437184, 4096x2304]",
)
max_frames_option = click.option(
    "--max-frames", type=click.IntRange(1), metavar="N", help="Refuse longer files.  [default: 10000000]"
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Number of processes. The result is the same.  [default: automatic]",
)
port_option = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port of the page on this machine.  [default: any free one]",
)
show_base_option = click.option(
    "--base-only", is_flag=True, help="Show the frames of an AV1 base as they are, without networks."
)


def combined(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order of the help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class GroupedCommand(click.Command):
    """A command whose help shows options in groups, see `group`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups in order. Options of no group are the last."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            if not isinstance(option, click.Option):
                continue
            if (row := option.get_help_record(ctx)) is not None:
                rows.setdefault(getattr(option, _TITLE, "Other"), []).append(row)
        for title, group_rows in rows.items():
            with formatter.section(title):
                formatter.write_dl(group_rows)


def group(title: str, *options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, which help shows together."""

    def decorate(command: Command) -> Command:
        before = len(getattr(command, "__click_params__", ()))
        command = combined(*options)(command)
        for option in command.__click_params__[before:]:  # type: ignore[attr-defined]
            setattr(option, _TITLE, title)
        return command

    return decorate


def complete_file(context: click.Context, option: click.Parameter, begun: str) -> list[CompletionItem]:
    """Let the shell complete file names."""
    return [CompletionItem(begun, type="file")]


@contextmanager
def usage_errors() -> Iterator[None]:
    """Show a ValueError about the user's choices as wrong use."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def one_quality(searched: bool) -> None:
    """Raises ValueError if --quality is given although it is searched for."""
    given = click.get_current_context().get_parameter_source("quality")
    if searched and given is ParameterSource.COMMANDLINE:
        raise ValueError("give either --quality or a target, such as --size or --min-vmaf")


def limits_of(pixels: int | None, frames: int | None) -> Limits:
    """Limits from --max-pixels and --max-frames."""
    default = Limits()
    return Limits(pixels or default.pixels, frames or default.frames)
