"""Cut a part out of a `.vdf` at keyframes, without decoding.

The part begins with the GOP that holds its first frame and ends with the one that holds its last. Its first
frame has the time of the file's first frame, or comes so little later that sound and subtitles move by whole
units of their tracks. So nothing is rounded, and joined parts have the times of the whole.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from viddiff.config import Start, start_text
from viddiff.container.excerpt import Source, naming
from viddiff.container.gop_table import Gop, frame_number
from viddiff.container.sealing import Secret
from viddiff.errors import ViddiffError
from viddiff.pipeline.gop_files import reading, secret_of_output, write_gops
from viddiff.pipeline.job_values import check_files, check_start, within
from viddiff.pipeline.output_file import OutputFile, vdf_output


@dataclass(frozen=True, kw_only=True)
class CutJob:
    """Options of a cut. Raises ValueError if one is out of range or two exclude each other."""

    source: Path
    target: Path
    start: Start = 0
    """First frame that is wanted: its number, or seconds after the first frame as a Fraction."""
    end: Start | None = None
    """The first frame that is not wanted any more, in the same way. None: `frames` says it."""
    frames: int | None = None
    """Number of frames that are wanted. None: all up to `end`."""
    secret: Secret | None = field(default=None, repr=False)
    """Secret of an encrypted source, and of the part if that is encrypted."""
    encrypt: bool = False
    """Encrypt the part with `secret`."""
    force: bool = False
    """Replace the target if it is a .vdf."""

    def __post_init__(self) -> None:
        check_start("start", self.start)
        if self.end is not None:
            check_start("end", self.end)
        if self.end is not None and self.frames is not None:
            raise ValueError("give either --end or --frames")
        if self.frames is not None:
            within("frames", self.frames, range(1, 1 << 31))
        if self.end is not None and type(self.end) is type(self.start) and self.end <= self.start:
            raise ValueError("--end is not after --start")
        if self.encrypt and self.secret is None:
            raise ValueError("encryption needs a key or a passphrase")

    def with_secret(self, secret: Secret | None, encrypt: bool) -> "CutJob":
        """The same with a secret, which encrypts the output if `encrypt`."""
        return replace(self, secret=secret, encrypt=encrypt)

    @cached_property
    def output(self) -> OutputFile:
        """The file to write."""
        return vdf_output(self.target, self.force)

    def check_files(self) -> None:
        """Raises ViddiffError if the source does not exist, or if writing the target would lose a file."""
        check_files([self.source], self.output)


@dataclass(frozen=True)
class CutResult:
    """Result of a cut."""

    target: Path
    first_frame: int
    """Number of the part's first frame in the source. It is a keyframe."""
    frames: int
    keyframes: int
    start_s: float
    """Time of the part's first frame, in seconds after the source's first frame."""
    end_s: float
    """Time at which its last frame ends, likewise."""
    size_bytes: int
    unasked: int
    """Number of frames before the first one that was wanted."""
    uncovered: bool
    """The source is encrypted, but the part is not."""


def cut_file(job: CutJob) -> CutResult:
    """Run `job`.

    Raises BitstreamError if the part is damaged, other ViddiffErrors, OSError; there is no file then.
    """
    job.check_files()
    with job.output.claim():
        source = Source.read(job.source, reading(job.source, job.secret))
        begin, gops = _chosen(source, job)
        part = source.excerpt(gops)
        part = replace(part, shift=source.exact_shift(source.gops[0].pts - gops[0].pts))
        extras = replace(source.extras, chapters=part.chapters())
        secret = secret_of_output([source], job.secret, job.encrypt)
        written = write_gops(job.output, source.header, extras, part.chunks(), part.packets(), secret)
        zero, base = source.gops[0].pts, source.header.video.time_base
        return CutResult(
            target=job.output.path,
            first_frame=gops[0].first,
            frames=written.frames,
            keyframes=written.keyframes,
            start_s=float((gops[0].pts - zero) * base),
            end_s=float((part.end() - zero) * base),
            size_bytes=job.output.path.stat().st_size,
            unasked=begin - gops[0].first,
            uncovered=source.options.key is not None and not job.encrypt,
        )


def _chosen(source: Source, job: CutJob) -> tuple[int, tuple[Gop, ...]]:
    """Number of the first frame that is wanted, and the GOPs of the part. Raises ViddiffError if none is."""
    begin = _number(source, job.start)
    if begin >= source.frames:
        raise ViddiffError(
            f"{job.source} has no frame {start_text(job.start)}, for it has {source.frames} frames"
        )
    end = source.frames
    if job.frames is not None:
        end = begin + job.frames
    elif job.end is not None:
        end = _number(source, job.end)
    if end <= begin:
        raise ViddiffError(f"no frame of {job.source} lies from --start to before --end")
    return begin, tuple(g for g in source.gops if g.first < end and g.first + g.frames > begin)


def _number(source: Source, start: Start) -> int:
    """Number of the first frame at or after `start`."""
    limits, video = source.options.limits, source.header.video
    with naming(source.path), source.options.open(source.path) as file:
        return frame_number(file, list(source.gops), video, start, limits)
