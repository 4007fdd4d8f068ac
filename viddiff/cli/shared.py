"""What the commands have in common: options, output files, devices."""

import contextlib
import io
import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeVar, cast

import click

from viddiff.config import Limits, Start
from viddiff.errors import SecretError, VerificationError, ViddiffError
from viddiff.pipeline.worker_pool import prepare

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from viddiff.container.part_file import PartFile
    from viddiff.container.sealing import Secret

Command = TypeVar("Command", bound=Callable[..., Any])
Check = Callable[[Path], None]
"""Looks at a file that is written but has no name yet; VerificationError keeps it from getting one."""
PATH = click.Path(path_type=Path)
PIPE = "-"
"""IN or OUT that is stdin or stdout."""
_JOINERS = "\u200c\u200d"
"""Not printable by themselves, but scripts and emoji need them."""


def _start(context: click.Context, option: click.Parameter, value: str) -> Start:
    if value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    found = re.fullmatch(r"(?:(\d{1,3}):)?([0-5]?\d):([0-5]\d(?:\.\d{1,9})?)", value, re.ASCII)
    if found is None:
        raise click.BadParameter("it is the number of a frame, or a time as MM:SS or HH:MM:SS.mmm")
    hours, minutes, seconds = found.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)


def _fps(context: click.Context, option: click.Parameter, value: str | None) -> Fraction | None:
    if value is None:
        return None
    if re.fullmatch(r"\d{1,7}(\.\d{1,6}|/[1-9]\d{0,6})?", value, re.ASCII):
        rate = Fraction(value)
        exact = Fraction(ceil(rate) * 1000, 1001)  # of 23.976, 29.97, 59.94
        rate = exact if "." in value and abs(rate - exact) < Fraction(1, 200) else rate
        if 0 < rate <= 1000:
            return rate
    raise click.BadParameter("it is a number up to 1000, such as 25, 29.97 or 30000/1001")


def _scale(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    found = re.fullmatch(r"(-1|\d{1,4})x(-1|\d{1,4})", value, re.ASCII)
    if found is None or found[1] == found[2] == "-1":
        raise click.BadParameter("it is a width and a height such as 640x360, 640x-1 or -1x360")
    return int(found[1]), int(found[2])


weights_option = click.option(
    "--weights", type=PATH, metavar="FILE", help="Weights to use.  [default: the released ones]"
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the networks run; the result is the same.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
progress_json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON objects on stdout: progress every second, unless --quiet, and at the end the result.",
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress and no notes.")
key_file_option = click.option(
    "--key-file", type=PATH, metavar="FILE", help="Key that encrypts or decrypts the .vdf: 32 random bytes."
)
passphrase_file_option = click.option(
    "--passphrase-file",
    type=PATH,
    metavar="FILE",
    help="Passphrase that does so.  [default: VIDDIFF_PASSPHRASE, or a prompt]",
)
force_option = click.option("--force", "-f", is_flag=True, help="Overwrite the output if it exists.")
start_option = click.option(
    "--start",
    callback=_start,
    default="0",
    show_default=True,
    metavar="N|TIME",
    help="First frame: its number from 0, or a time after the first frame, as [HH:]MM:SS[.mmm].",
)
fps_option = click.option(
    "--fps",
    callback=_fps,
    metavar="N",
    help="Leave out or repeat frames for N in a second, such as 25, 30000/1001 or 29.97, which means that.",
)
scale_option = click.option(
    "--scale",
    callback=_scale,
    metavar="WxH",
    help="Scale to this size, before rotation; -1 for one side keeps the shape.",
)
frames_option = click.option(
    "--frames", type=click.IntRange(1), metavar="N", help="Number of frames.  [default: all]"
)
max_pixels_option = click.option(
    "--max-pixels",
    type=click.IntRange(1),
    metavar="N",
    help="Refuse files of larger frames, in luma samples.  [default: 9437184, 4096x2304]",
)
max_frames_option = click.option(
    "--max-frames", type=click.IntRange(1), metavar="N", help="Refuse longer files.  [default: 10000000]"
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Processes; the result is the same for any number.  [default: as many as pay]",
)


def combined(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in this order in the help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def check_source(source: Path) -> None:
    """Refuse what is no file. Raises ViddiffError."""
    if not source.is_file():
        raise ViddiffError(f"{source} {'is not a file' if source.exists() else 'does not exist'}")


def check_target(target: Path, source: Path | None, force: bool) -> None:
    """Refuse what would lose a file or fail after much work; source: the input, if that is a file. Raises
    ViddiffError.
    """
    if str(target) == PIPE:
        if sys.stdout.isatty():
            raise ViddiffError("stdout is a terminal, which is no place for video")
        return
    if target.exists():
        if source is not None and target.samefile(source):
            raise ViddiffError(f"{source} cannot be its own output")
        if target.is_dir():
            raise ViddiffError(f"{target} is a folder")
        if not force:
            raise ViddiffError(f"{target} exists; --force overwrites it")
    elif not target.parent.is_dir():
        raise ViddiffError(f"the folder {target.parent} does not exist")


class Stdout(io.RawIOBase):
    """stdout for data: what is written leaves at once."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return sys.stdout.buffer.fileno()

    def write(self, data: "ReadableBuffer", /) -> int:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        self.size_bytes += memoryview(data).nbytes
        return memoryview(data).nbytes


@contextlib.contextmanager
def stream_in(
    source: Path, key_file: Path | None, passphrase_file: Path | None, strict: bool
) -> Iterator[BinaryIO]:
    """stdin or a named pipe with a .vdf in it, decrypted if there is a key. Raises SecretError."""
    from viddiff.container.sealing import SealedReader, unlock

    with contextlib.ExitStack() as stack:
        stdin = str(source) == PIPE
        file = cast(BinaryIO, sys.stdin.buffer) if stdin else stack.enter_context(open(source, "rb"))
        if key_file is not None or passphrase_file is not None:
            key = unlock(file, read_secret(key_file, passphrase_file, confirm=False))
            file = cast(BinaryIO, SealedReader(file, key, lenient=not strict))
        yield file


@contextlib.contextmanager
def complete_file(target: Path, check: Check | None) -> Iterator[BinaryIO]:
    """A binary file that appears as `target` if neither the block nor `check` raises, or not at all."""
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
        if check is not None:
            check(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def sealed(file: BinaryIO, secret: "Secret | None") -> Iterator[BinaryIO]:
    """`file`, with all that is written to it encrypted if there is a secret."""
    from viddiff.container.sealing import SealedWriter

    if secret is None:
        yield file
        return
    writer = SealedWriter(file, secret)
    yield cast(BinaryIO, writer)
    writer.finish()


@contextlib.contextmanager
def resumable_file(part: "PartFile", quiet: bool, check: Check | None) -> Iterator[BinaryIO]:
    """A file that appears under its name if neither the block nor `check` raises; otherwise its whole GOPs
    stay, to be gone on with, unless they failed the check.
    """
    command = "the same command with --resume" if check is None else "the same with --resume, not --verify,"
    try:
        yield cast(BinaryIO, part)
        if check is not None:
            check(part.path)
        part.complete()
    except VerificationError:
        part.discard()
        raise
    except BaseException:
        if part.leave():
            print_notes([f"what is coded is kept; {command} goes on with it"], quiet)
        raise


def read_secret(key_file: Path | None, passphrase_file: Path | None, confirm: bool) -> "Secret":
    """The key, or the passphrase from its file, the environment or the terminal. Raises SecretError."""
    from viddiff.container.sealing import KEY_BYTES, Secret

    if key_file is not None:
        with open(key_file, "rb") as file:
            key = file.read(KEY_BYTES + 1)
        if len(key) != KEY_BYTES:
            raise SecretError(f"{key_file} is no key, which has {KEY_BYTES} bytes")
        return Secret(key, passphrase=False)
    if passphrase_file is not None:
        with open(passphrase_file, "rb") as file:
            words = file.read(4096).removesuffix(b"\n").removesuffix(b"\r")
    elif "VIDDIFF_PASSPHRASE" in os.environ:
        words = os.fsencode(os.environ["VIDDIFF_PASSPHRASE"])
    elif sys.stdin.isatty():
        words = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True).encode()
    else:
        raise SecretError(
            "a passphrase is needed: set VIDDIFF_PASSPHRASE, give --passphrase-file, or run in a terminal"
        )
    if not words:
        raise SecretError("the passphrase is empty")
    return Secret(words, passphrase=True)


def file_key(source: Path, key_file: Path | None, passphrase_file: Path | None) -> bytes | None:
    """What decrypts `source`; None if it is not encrypted. Raises SecretError and BitstreamError."""
    from viddiff.container.sealing import unlock, wants

    with open(source, "rb") as file:
        wanted = wants(file)
        if not wanted and key_file is None and passphrase_file is None:
            return None
        if wanted == "key file" and key_file is None:
            raise SecretError(f"{source} is encrypted and needs its --key-file")
        return unlock(file, read_secret(key_file, passphrase_file, confirm=False))


def key_of(sealed: Path, secret: "Secret") -> bytes:
    """What decrypts `sealed`. Raises SecretError if `secret` does not, and BitstreamError."""
    from viddiff.container.sealing import unlock

    with open(sealed, "rb") as file:
        return unlock(file, secret)


def limits_of(pixels: int | None, frames: int | None) -> Limits:
    """What --max-pixels and --max-frames ask for."""
    default = Limits()
    return Limits(pixels or default.pixels, frames or default.frames)


def pick_device(name: str) -> str:
    """ "cpu" or "cuda". Raises ViddiffError if there is no such device."""
    import torch

    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ViddiffError("no CUDA device is available")
    return "cuda" if found and name != "cpu" else "cpu"


def prepare_processes(workers: int | None) -> None:
    """Begin to load what other processes will need, before this one loads it."""
    if workers != 1 and (os.cpu_count() or 1) > 1:
        prepare("viddiff.pipeline.parallel_encode", "viddiff.pipeline.parallel_decode")


def print_json(values: dict[str, Any], err: bool = False) -> None:
    """One JSON object on a line of stdout; of stderr where data goes to stdout."""
    click.echo(json.dumps(values), err=err)


def objects(as_json: bool, stdout: bool) -> TextIO | None:
    """Where JSON goes, if it is asked for; stdout: whether data goes there."""
    return (sys.stderr if stdout else sys.stdout) if as_json else None


def printable(text: str) -> str:
    """`text`, which may come from a hostile file, on one line and without what commands a terminal."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() or c in _JOINERS else "\N{REPLACEMENT CHARACTER}" for c in line)


def print_notes(notes: Iterable[str], quiet: bool) -> None:
    """What the user should know of, on stderr."""
    for note in () if quiet else notes:
        click.echo(f"Note: {printable(note)}", err=True)


def size_text(size: float) -> str:
    """1234567 as "1.23 MB"."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
