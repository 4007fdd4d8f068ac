"""What a user can choose about a decode, and what comes of it."""

import os
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from viddiff.config import Limits, Start
from viddiff.media.authorship import written_by_viddiff
from viddiff.pipeline.job_values import among, check_common, check_source, with_suffix
from viddiff.pipeline.output_file import OutputFile, where

if TYPE_CHECKING:
    from viddiff.container.sealing import Secret

_FORMATS = ("mkv", "mp4", "y4m")


@dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """All choices of a decode. ValueError if one is out of range or two of them exclude each other."""

    source: str | os.PathLike[str] | BinaryIO
    """A path, or an open file, which is read front to back."""
    target: str | os.PathLike[str] | BinaryIO | None = None
    """A path, or an open file with a descriptor; None: the source's path with the extension of `form`."""
    lossless: bool = False
    """Store the frames exactly: as FFV1 in .mkv; .y4m does so anyway."""
    strict: bool = False
    """Stop at the first fault, without output, instead of showing frames that damage has cost as others."""
    form: str | None = None
    """"mkv", "mp4" or "y4m"; None: what the target's name says, or mkv."""
    follow: bool = False
    """Decode a file that is still being written, up to its end when that comes."""
    start: Start = 0
    """The first frame: its number, or seconds after the first as a Fraction."""
    frames: int | None = None
    """How many frames at most; None: all."""
    fps: Fraction | None = None
    """Frames per second to change to."""
    scale: tuple[int, int] | None = None
    """Width and height to change to; -1 for one of them keeps the shape."""
    weights: str | os.PathLike[str] | None = None
    """A file of weights, a folder of them, or the first digits of their hash; None: those that the source was
    made with, if they are found."""
    device: str = "auto"
    """"auto", "cpu" or "cuda"."""
    workers: int | None = None
    """Processes; None: as many as pay. The frames are the same for any number."""
    limits: Limits = field(default_factory=Limits)
    """The largest video that is decoded."""
    secret: "Secret | None" = field(default=None, repr=False)
    """What decrypts the source."""
    force: bool = False
    """Replace the target if viddiff has written it."""

    def __post_init__(self) -> None:
        check_common(self)
        if self.form is not None:
            among("format", self.form, _FORMATS)
        if self.target is None and not self.named:
            raise ValueError(f"name OUT, for {self.source_name} has no name to make one of")
        if self.follow and (not self.named or self.secret is not None):
            raise ValueError("--follow is for a file, and one that is not encrypted")
        if self.lossless and self.form == "mp4":
            raise ValueError("an .mp4 cannot be lossless; mkv and y4m can")

    @cached_property
    def named(self) -> Path | None:
        """The source as a path, if it is a file that can be read again."""
        if not isinstance(self.source, str | os.PathLike) or Path(self.source).is_fifo():
            return None
        return Path(self.source)

    @property
    def source_name(self) -> str:
        """What messages call the source."""
        return os.fspath(self.source) if isinstance(self.source, str | os.PathLike) else "stdin"

    @property
    def live(self) -> bool:
        """Whether frames are decoded as they come."""
        return self.named is None or self.follow

    @property
    def suffix(self) -> str | None:
        """What `form` means as an extension; None: what the target's name says."""
        if self.form is not None:
            return f".{self.form}"
        return None if self.output else ".mkv"

    @cached_property
    def output(self) -> OutputFile | None:
        """The file to write; None if the target is one that is open."""
        if isinstance(self.target, str | os.PathLike):
            path = Path(self.target)
        elif self.target is None and self.named is not None:
            usual = ".mkv" if self.lossless else ".mp4"
            path = with_suffix(self.named, f".{self.form}" if self.form else usual)
        else:
            return None
        return OutputFile(where(path), self.force, written_by_viddiff, "a video that viddiff has written")

    def check_files(self) -> None:
        """ViddiffError if there is no such source, or if writing the target would lose a file."""
        if self.named is not None:
            check_source(self.named, os.fspath(self.source))  # type: ignore[arg-type]
        if self.output is not None:
            self.output.check(self.named)


@dataclass(frozen=True)
class DecodeResult:
    """What a decode has written."""

    target: Path | None
    """The file; None if it was open."""
    width: int
    """Luma columns."""
    height: int
    """Luma rows."""
    frames: int
    size_bytes: int | None
    """Of the file; None of an open one that libav writes into."""
    seconds: float
    """What it took."""
    lost_frames: tuple[tuple[int, int], ...] = ()
    """Frames that damage has cost, shown as the one before: first and last number of each stretch."""
    faults: tuple[str, ...] = ()
    """What is wrong with the source."""
    damage: str = ""
    """The same for people, in a line; empty if nothing is wrong."""
    notes: tuple[str, ...] = ()
    """Lines that the user should see."""
    ended_by: BaseException | None = None
    """The signal that ended it early, where frames came live. The file is complete all the same."""
