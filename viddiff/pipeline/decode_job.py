"""Options of a decode, and its result."""

import os
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from viddiff.config import Limits, Start
from viddiff.media.authorship import written_by_viddiff
from viddiff.media.video_writer import CONTAINERS, LOSSLESS
from viddiff.pipeline.job_values import among, check_common, check_files, with_suffix
from viddiff.pipeline.output_file import OutputFile, where

if TYPE_CHECKING:
    from viddiff.codec.enhancer import EngineName
    from viddiff.container.sealing import Secret

FORMATS = tuple(suffix[1:] for suffix in CONTAINERS)
"""What a decode writes, by extension without the dot."""


@dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """Options of a decode. Raises ValueError if one is out of range or two exclude each other."""

    source: str | os.PathLike[str] | BinaryIO
    """A path, or an open file, which is read from front to back."""
    target: str | os.PathLike[str] | BinaryIO | None = None
    """A path, or an open file with a descriptor. None: the source's path with the extension of `form`."""
    lossless: bool = False
    """Store the exact frames: FFV1 in .mkv. .y4m is always exact."""
    strict: bool = False
    """Stop at the first fault, without output, instead of replacing lost frames."""
    base_only: bool = False
    """Show the frames of an AV1 base as they are, without networks."""
    form: str | None = None
    """One of FORMATS. None: by the target's name, or mkv."""
    follow: bool = False
    """Decode a file that is still being written, until it is complete."""
    start: Start = 0
    """First frame: its number, or seconds after the first frame as a Fraction."""
    frames: int | None = None
    """Largest number of frames. None: all."""
    fps: Fraction | None = None
    """New frame rate."""
    scale: tuple[int, int] | None = None
    """New width and height. -1 for one of them keeps the shape."""
    weights: str | os.PathLike[str] | None = None
    """A weights file or folder, or the first digits of a hash. None: the weights that the source names."""
    device: str = "auto"
    """"auto", "cpu" or "cuda"."""
    engine: "EngineName | None" = None
    """"compiled" or "torch": what computes the networks that enhance an AV1 base. None: by the device."""
    workers: int | None = None
    """Number of processes. None: automatic. The frames are the same for any number."""
    limits: Limits = field(default_factory=Limits)
    """Largest video to decode."""
    secret: "Secret | None" = field(default=None, repr=False)
    """Secret of an encrypted source."""
    force: bool = False
    """Replace the target if viddiff has written it."""

    def __post_init__(self) -> None:
        check_common(self)
        if self.form is not None:
            among("format", self.form, FORMATS)
        if self.target is None and not self.named:
            raise ValueError(f"name OUT: {self.source_name} has no file name to derive it from")
        if self.follow and (not self.named or self.secret is not None):
            raise ValueError("--follow needs a file that is not encrypted")
        if self.base_only and self.engine is not None:
            raise ValueError("--base-only runs no network: leave out --engine")
        if self.lossless and self.form is not None and f".{self.form}" not in LOSSLESS:
            raise ValueError(f"{self.form} cannot be lossless; mkv and y4m can")

    @cached_property
    def named(self) -> Path | None:
        """The source as a path, if it is a file that can be read again."""
        if not isinstance(self.source, str | os.PathLike) or Path(self.source).is_fifo():
            return None
        return Path(self.source)

    @property
    def source_name(self) -> str:
        """Name of the source for messages."""
        return os.fspath(self.source) if isinstance(self.source, str | os.PathLike) else "stdin"

    @property
    def live(self) -> bool:
        """Whether frames are decoded as they arrive."""
        return self.named is None or self.follow

    @property
    def suffix(self) -> str | None:
        """Extension for `form`. None: by the target's name."""
        if self.form is not None:
            return f".{self.form}"
        return None if self.output else ".mkv"

    @cached_property
    def output(self) -> OutputFile | None:
        """The file to write. None if the target is an open file."""
        if isinstance(self.target, str | os.PathLike):
            path = Path(self.target)
        elif self.target is None and self.named is not None:
            usual = ".mkv" if self.lossless else ".mp4"
            path = with_suffix(self.named, f".{self.form}" if self.form else usual)
        else:
            return None
        return OutputFile(where(path), self.force, written_by_viddiff, "a video that viddiff has written")

    def check_files(self) -> None:
        """Raises ViddiffError if the source does not exist, or if writing the target would lose a file."""
        check_files([] if self.named is None else [self.source_name], self.output)


@dataclass(frozen=True)
class DecodeResult:
    """Result of a decode."""

    target: Path | None
    """The file. None for an open file."""
    width: int
    """Width in luma samples."""
    height: int
    """Height in luma samples."""
    frames: int
    size_bytes: int | None
    """Size of the file. None for an open file that libav writes to."""
    seconds: float
    """Wall clock time."""
    lost_frames: tuple[tuple[int, int], ...] = ()
    """Lost frames, shown as the frame before: first and last number of each stretch."""
    faults: tuple[str, ...] = ()
    """Faults of the source, one sentence each."""
    damage: str = ""
    """The damage in one line for people. Empty if there is none."""
    notes: tuple[str, ...] = ()
    """Notes for the user."""
    ended_by: BaseException | None = None
    """The signal that ended a live decode early. The file is complete."""
