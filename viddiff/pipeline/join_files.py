"""Join `.vdf` files end to end, without decoding.

The first frame of a file follows when the last frame of the file before it has been shown. Everything beside
the video moves with it. Tags and attachments are those of the first file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from viddiff.container.excerpt import Excerpt, Source
from viddiff.container.format import Chunk, Header
from viddiff.container.sealing import Secret
from viddiff.errors import ViddiffError
from viddiff.media.same_codec import difference
from viddiff.pipeline.gop_files import reading, write_gops
from viddiff.pipeline.job_values import check_source
from viddiff.pipeline.output_file import OutputFile, is_vdf, where
from viddiff.seams import Joint, Seam, Text, joined_chapters, text_of
from viddiff.span import Span
from viddiff.tracks import TrackPacket


@dataclass(frozen=True, kw_only=True)
class JoinJob:
    """Options of a join. Raises ValueError if one is out of range."""

    sources: tuple[Path, ...]
    """Two or more; one may come several times."""
    target: Path
    secret: Secret | None = field(default=None, repr=False)
    """Secret of the encrypted sources, and of the target if that is encrypted."""
    encrypt: bool = False
    """Encrypt the target with `secret`."""
    force: bool = False
    """Replace the target if it is a .vdf."""

    def __post_init__(self) -> None:
        if len(self.sources) < 2:
            raise ValueError("give two files or more, and OUT")
        if self.encrypt and self.secret is None:
            raise ValueError("encryption needs a secret")

    def with_secret(self, secret: Secret | None, encrypt: bool) -> "JoinJob":
        """The same with a secret, which encrypts the output if `encrypt`."""
        return replace(self, secret=secret, encrypt=encrypt)

    @cached_property
    def output(self) -> OutputFile:
        """The file to write."""
        return OutputFile(where(self.target), self.force, is_vdf, "a .vdf file")

    def check_files(self) -> None:
        """Raises ViddiffError if a source does not exist, or if writing the target would lose a file."""
        for source in self.sources:
            check_source(source, str(source))
            self.output.check(source)


@dataclass(frozen=True)
class JoinResult:
    """Result of a join."""

    target: Path
    frames: int
    keyframes: int
    seconds: float
    """How long it lasts."""
    size_bytes: int
    uncovered: bool
    """A source is encrypted, but the target is not."""


def join_files(job: JoinJob) -> JoinResult:
    """Run `job`.

    Raises ViddiffError if a file does not fit or is damaged, and OSError; there is no file then.
    """
    job.check_files()
    with job.output.claim():
        parts, end = _parts(job)
        first = parts[0].source
        header = replace(first.header, gop=max(part.source.header.gop for part in parts))
        seams = _seams(parts)
        chapters = joined_chapters([part.chapters() for part in parts], seams)
        extras = replace(first.extras, chapters=chapters)
        secret = job.secret if job.encrypt else None
        written = write_gops(job.output, header, extras, _chunks(parts), _packets(parts, seams), secret)
        return JoinResult(
            target=job.output.path,
            frames=written.frames,
            keyframes=written.keyframes,
            seconds=float((end - first.gops[0].pts) * header.video.time_base),
            size_bytes=job.output.path.stat().st_size,
            uncovered=any(part.source.options.key for part in parts) and not job.encrypt,
        )


def misfit(a: Source, b: Source) -> str:
    """Why `b` cannot follow `a`, as the end of a sentence about `b`. Empty if it can."""
    mine, others = _properties(a.header), _properties(b.header)
    for name, value in mine.items():
        if others[name] != value:
            return f"its {name} is {others[name]}, not {value}"
    tracks = a.extras.tracks, b.extras.tracks
    if len(tracks[0]) != len(tracks[1]):
        return f"it has {_count(len(tracks[1]))} beside the video, not {len(tracks[0])}"
    for number, (one, other) in enumerate(zip(*tracks, strict=True), 1):
        if different := difference(one, other):
            return f"the {different} in its track {number} ({other.kind} {other.codec})"
    return ""


def _count(tracks: int) -> str:
    return f"{tracks} track" if tracks == 1 else f"{tracks} tracks"


def _properties(header: Header) -> dict[str, str]:
    """What all files must have in common, by name."""
    video = header.video
    return {
        "size": f"{video.width}x{video.height}",
        "bit depth": f"{video.bit_depth}",
        "base": "av1" if header.base else "none",
        "time base": f"{video.time_base}",
        "frame rate": f"{video.frame_rate}",
        "colour description": f"{video.primaries}/{video.transfer}/{video.matrix}",
        "range": "full" if video.full_range else "limited",
        "chroma location": f"{video.chroma_location}",
        "sample aspect ratio": f"{video.sample_aspect_ratio}",
        "rotation": f"{video.rotation}",
        "HDR10 metadata, order of fields or display matrix": f"{video.display}",
        "hash of the weights": header.model_hash.hex()[:16],
        "entropy coder": header.entropy,
        "delay": "low" if header.low_delay else "usual",
    }


def _parts(job: JoinJob) -> tuple[list[Excerpt], int]:
    """All files, each moved to its place, and the time at which the last one ends."""
    parts: list[Excerpt] = []
    end, last = 0, len(job.sources) - 1
    for number, path in enumerate(job.sources):
        source = Source.read(path, reading(path, job.secret))
        if parts:
            source = replace(source, extras=replace(source.extras, attachments=[]))
            if reason := misfit(parts[0].source, source):
                raise ViddiffError(f"{path} does not fit {job.sources[0]}: {reason}")
        whole = source.excerpt(source.gops)
        base, begins, ends = source.header.video.time_base, source.gops[0].pts, whole.end()
        span = Span(begins * base if number else None, ends * base if number < last else None)
        parts.append(replace(whole, span=span, shift=end - begins if number else 0))
        end = ends + parts[-1].shift
    return parts, end


def _seams(parts: list[Excerpt]) -> list[Seam]:
    """Where each file meets the next one."""
    found: list[Seam] = []
    for part in reversed(parts[1:]):
        source, after = part.source, found[-1] if found else None
        time = (source.gops[0].pts + part.shift) * source.header.video.time_base
        seam = Seam(time)
        tracks = source.extras.tracks
        texts = any(track.kind == "subtitle" for track in tracks)
        for packet in source.opening_packets() if texts else ():
            kept = part.span.packet(packet, tracks[packet.track])
            if kept is None or tracks[packet.track].kind != "subtitle" or not kept.duration:
                continue
            kept, unit = part.moved(kept), tracks[packet.track].time_base
            if seam.touches(kept.pts, unit):
                seam.goes_on[text_of(kept)] = _last_end(text_of(kept), kept.pts + kept.duration, unit, after)
        found.append(seam)
    return found[::-1]


def _last_end(text: Text, end: int, unit: Fraction, after: Seam | None) -> int:
    """When a subtitle ends that ends in this file at `end`, in units of so many seconds."""
    if after is not None and text in after.goes_on and after.touches(end, unit):
        return after.goes_on[text]
    return end


def _chunks(parts: list[Excerpt]) -> Iterator[Chunk]:
    for part in parts:
        yield from part.chunks()


def _packets(parts: list[Excerpt], seams: list[Seam]) -> Iterator[TrackPacket]:
    joint = Joint(parts[0].source.extras.tracks)
    for part, before, after in zip(parts, [None, *seams], [*seams, None], strict=True):
        yield from joint.part(part.packets(), before, after)
