"""A picture of a `.vdf`: the keyframe nearest to a time. Nothing else is decoded."""

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from viddiff.codec.open_decoder import open_decoder
from viddiff.config import MAX_SIDE, Limits, Start
from viddiff.container.excerpt import naming
from viddiff.container.format import Header, KeyChunk
from viddiff.container.gop_table import Gop, moment, schedule
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.sealing import Secret, key_of
from viddiff.errors import BitstreamError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.picture_file import FORMATS, encode_picture, notes_on, upright_size, written_by_viddiff
from viddiff.pipeline.job_values import check_files, check_start, within
from viddiff.pipeline.output_file import OutputFile, complete_file, where
from viddiff.pipeline.resources import Resources


@dataclass(frozen=True, kw_only=True)
class ThumbnailJob:
    """Options of a thumbnail. Raises ValueError if one is out of range."""

    source: Path
    target: Path
    time: Start = 0
    """Number of a frame, or seconds after the first frame as a Fraction. The nearest keyframe is shown."""
    width: int | None = None
    """Width of the picture. None: every sample of the frame is kept."""
    weights: str | os.PathLike[str] | None = None
    """A weights file or folder, or the first digits of a hash. None: the weights that the source names."""
    limits: Limits = field(default_factory=Limits)
    """Largest video to decode."""
    secret: Secret | None = field(default=None, repr=False)
    """Secret of an encrypted source."""
    force: bool = False
    """Replace the target if viddiff has written it."""

    def __post_init__(self) -> None:
        check_start("time", self.time)
        if self.width is not None:
            within("width", self.width, range(1, MAX_SIDE + 1))

    def with_secret(self, secret: Secret | None) -> "ThumbnailJob":
        """The same with the secret of the source."""
        return replace(self, secret=secret)

    @property
    def form(self) -> str:
        """Extension of the picture."""
        return self.target.suffix.lower()

    @cached_property
    def output(self) -> OutputFile:
        """The file to write."""
        return OutputFile(
            where(self.target), self.force, written_by_viddiff, "a picture that viddiff has written"
        )

    def check_files(self) -> None:
        """Raises ViddiffError if the source does not exist, or if the target must not be written."""
        if self.form not in FORMATS:
            raise VideoError(f"{self.target} has an unknown extension; known ones are {', '.join(FORMATS)}")
        check_files([self.source], self.output)


@dataclass(frozen=True)
class ThumbnailResult:
    """Result of a thumbnail."""

    target: Path
    frame: int
    """Number of the keyframe."""
    time_s: float
    """Its time, in seconds after the first frame."""
    width: int
    height: int
    size_bytes: int
    notes: tuple[str, ...]
    """Notes for the user."""


def make_thumbnail(job: ThumbnailJob) -> ThumbnailResult:
    """Run `job`, on the CPU.

    Raises BitstreamError if the keyframe is damaged, other ViddiffErrors, OSError; there is no file then.
    """
    job.check_files()
    options = ReadOptions(strict=True, limits=job.limits, key=key_of(job.source, job.secret))
    with job.output.claim():
        with naming(job.source), options.open(job.source) as file:
            gops = schedule(file, job.limits, job.time, 1)
            file.seek(0)
            reader = Reader(file, job.limits)
            gop = _nearest(gops, reader.header.video, job.time)
            chunk = _key_chunk(file, gop, job.limits)
        frame, info = _decoded(chunk, reader.header, job), reader.header.video
        data = encode_picture(frame, info, job.form, job.width)
        with complete_file(job.output, lambda _: None) as out:
            out.write(data)
    width, height = upright_size(info, job.width)
    time_s = float((gop.pts - gops[0].pts) * info.time_base)
    notes = tuple(notes_on(info, job.form))
    return ThumbnailResult(job.output.path, gop.first, time_s, width, height, len(data), notes)


def _nearest(gops: list[Gop], video: VideoInfo, time: Start) -> Gop:
    """The GOP whose keyframe is nearest to `time`, the earlier one of two. Raises BitstreamError."""
    if not gops:
        raise BitstreamError("no frame is found in it")
    if isinstance(time, int):
        return min(gops, key=lambda gop: abs(gop.first - time))
    at = moment(gops, video, time)
    return min(gops, key=lambda gop: abs(gop.pts - at))


def _key_chunk(file: BinaryIO, gop: Gop, limits: Limits) -> KeyChunk:
    """The keyframe of a GOP. Raises BitstreamError if it is missing or damaged."""
    file.seek(0)
    reader = Reader(file, limits)
    if gop.entry is None:
        raise BitstreamError(f"the keyframe {gop.first} is missing")
    reader.seek(gop.entry)
    chunk = next(reader.chunks())
    assert isinstance(chunk, KeyChunk)
    return chunk


def _decoded(key: KeyChunk, header: Header, job: ThumbnailJob) -> Frame:
    """The frame as `decode` shows it."""
    resources = Resources(job.weights).to_decode(header, job.source)
    weights = resources.load_to_decode(resources.cores)
    with naming(job.source):
        (frame,) = open_decoder(header, weights).decode(key)
    return frame
