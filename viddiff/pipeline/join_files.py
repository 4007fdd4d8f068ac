"""Join `.vdf` files end to end, without decoding.

The first frame of a file follows when the last frame of the file before it has been shown. Everything beside
the video moves with it. Tags and attachments are those of the first file.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self

from viddiff.codec.file_network import network_hash
from viddiff.container.excerpt import Excerpt, Source
from viddiff.container.format import Chunk, Header
from viddiff.container.sealing import Secret
from viddiff.errors import ViddiffError
from viddiff.media.same_codec import difference
from viddiff.pipeline.gop_files import Written, reading, secret_of_output, write_gops, write_gops_into
from viddiff.pipeline.job_values import check_files
from viddiff.pipeline.output_file import OutputFile, vdf_output
from viddiff.seams import Joint, Seam, Text, joined_chapters, text_of
from viddiff.span import Span
from viddiff.tracks import Extras, TrackPacket

_SAME_RATE = Fraction(1, 10)
"""Frame rates that differ by less than this share are alike: recorders state the mean of each file."""


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
            raise ValueError("encryption needs a key or a passphrase")

    def with_secret(self, secret: Secret | None, encrypt: bool) -> "JoinJob":
        """The same with a secret, which encrypts the output if `encrypt`."""
        return replace(self, secret=secret, encrypt=encrypt)

    @cached_property
    def output(self) -> OutputFile:
        """The file to write."""
        return vdf_output(self.target, self.force)

    def check_files(self) -> None:
        """Raises ViddiffError if a source does not exist, or if writing the target would lose a file."""
        check_files(self.sources, self.output)


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
        row = Row.of(Source.read(path, reading(path, job.secret)) for path in job.sources)
        secret = secret_of_output([part.source for part in row.parts], job.secret, job.encrypt)
        written = write_gops(job.output, row.header, row.extras(), row.chunks(), row.packets(), secret)
        return JoinResult(
            target=job.output.path,
            frames=written.frames,
            keyframes=written.keyframes,
            seconds=row.seconds,
            size_bytes=job.output.path.stat().st_size,
            uncovered=any(part.source.options.key for part in row.parts) and not job.encrypt,
        )


@dataclass(frozen=True)
class Row:
    """Files in a row, each moved to its place."""

    parts: tuple[Excerpt, ...]
    end: int
    """Time at which the last one ends."""

    @classmethod
    def of(cls, sources: Iterable[Source]) -> Self:
        """Put one or more files in a row. Raises ViddiffError if one does not fit the first."""
        parts: list[Excerpt] = []
        ended = 0
        for source in sources:
            if parts:
                source = replace(source, extras=replace(source.extras, attachments=[]))
            if parts and (reason := misfit(parts[0].source, source)):
                raise ViddiffError(f"{source.path} does not fit {parts[0].source.path}: {reason}")
            whole = source.excerpt(source.gops)
            base, begins, ends = source.header.video.time_base, source.gops[0].pts, whole.end()
            span = Span(begins * base if parts else None, ends * base)
            parts.append(replace(whole, span=span, shift=ended - begins if parts else 0))
            ended = ends + parts[-1].shift
        parts[-1] = replace(parts[-1], span=replace(parts[-1].span, until=None))
        return cls(tuple(parts), ended)

    @property
    def header(self) -> Header:
        """Of the whole."""
        return replace(self.parts[0].source.header, gop=max(part.source.header.gop for part in self.parts))

    @property
    def starts(self) -> list[Fraction]:
        """When each file begins, in seconds after the first one."""
        base, zero = self.header.video.time_base, self.parts[0].source.gops[0].pts
        return [(part.source.gops[0].pts + part.shift - zero) * base for part in self.parts]

    @property
    def seconds(self) -> float:
        """How long the whole lasts."""
        return float((self.end - self.parts[0].source.gops[0].pts) * self.header.video.time_base)

    def extras(self) -> Extras:
        """Everything beside the video, except packets. Raises LimitError if a time cannot be moved so far."""
        chapters = joined_chapters([part.chapters() for part in self.parts], self._seams)
        return replace(self.parts[0].source.extras, chapters=chapters)

    def chunks(self) -> Iterator[Chunk]:
        """All chunks of frames. Raises BitstreamError if one is damaged or missing."""
        for part in self.parts:
            yield from part.chunks()

    def packets(self) -> Iterator[TrackPacket]:
        """All packets. Raises BitstreamError if one is damaged, LimitError if one cannot be moved so far."""
        joint, seams = Joint(self.parts[0].source.extras.tracks), self._seams
        for part, before, after in zip(self.parts, [None, *seams], [*seams, None], strict=True):
            yield from joint.part(part.packets(), before, after)

    def write(self, out: BinaryIO) -> Written:
        """Write the whole into an open file. Raises what `chunks` and `packets` do, and OSError."""
        return write_gops_into(out, self.header, self.extras(), self.chunks(), self.packets())

    @cached_property
    def _seams(self) -> list[Seam]:
        return _seams(self.parts)


def misfit(a: Source, b: Source) -> str:
    """Why `b` cannot follow `a`, as the end of a sentence about `b`. Empty if it can."""
    mine, others = _properties(a.header), _properties(b.header)
    for name, value in mine.items():
        if others[name] != value:
            return f"its {name} is {others[name]}, not {value}"
    rates = a.header.video.frame_rate, b.header.video.frame_rate
    if abs(rates[1] - rates[0]) >= _SAME_RATE * rates[0]:
        return f"its frame rate is {rates[1]}, not {rates[0]}"
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
        "colour description": f"{video.primaries}/{video.transfer}/{video.matrix}",
        "range": "full" if video.full_range else "limited",
        "chroma location": f"{video.chroma_location}",
        "sample aspect ratio": f"{video.sample_aspect_ratio}",
        "rotation": f"{video.rotation}",
        "HDR10 metadata, order of fields or display matrix": f"{video.display}",
        "hash of the weights": header.model_hash.hex()[:16],
        "own network": _network_name(header),
        "entropy coder": header.entropy,
        "delay": "low" if header.low_delay else "usual",
    }


def _network_name(header: Header) -> str:
    """What tells a file's own network from others: its hash."""
    if header.network is None:
        return "damaged"
    return network_hash(header.network).hex()[:16] or "none"


def _seams(parts: Sequence[Excerpt]) -> list[Seam]:
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
