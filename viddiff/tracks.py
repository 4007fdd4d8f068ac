"""Plain data of everything beside the video: tracks of packets, attachments, tags and chapters.

`container.track_chunks` stores them in a `.vdf`. `media.track_reader` and `media.track_writer` read and write
media files.
"""

from dataclasses import dataclass, field, replace
from fractions import Fraction

MAX_TRACKS = 64
FORMATS = ("matroska", "mp4", "mov", "mpegts")
"""Formats of the file that describes a track, by libav's names, in order of preference."""
MAX_SECONDS = 1 << 31
"""Times of packets and chapters lie within this many seconds of 0."""
Tags = dict[str, str]


@dataclass(frozen=True)
class Track:
    """A stream of packets, with what a muxer needs to know of it."""

    kind: str
    """"audio", "subtitle" or "data"."""
    codec: str
    """libav's name."""
    time_base: Fraction
    """Seconds for each unit of `TrackPacket.pts`."""
    format: str
    """Format of `description`, one of FORMATS."""
    description: bytes
    """A media file whose only stream has the track's codec parameters."""
    tags: Tags = field(default_factory=dict)
    disposition: int = 0
    """Bits of libav's disposition."""
    details: dict[str, str | int] = field(default_factory=dict)
    """For people: channels, layout, sample rate."""

    def seconds(self, time: int) -> Fraction:
        """Convert `time` from the track's time base to seconds."""
        return time * self.time_base

    def in_range(self, pts: int, duration: int) -> bool:
        """Whether a packet may have these times."""
        return abs(self.seconds(pts)) < MAX_SECONDS > self.seconds(duration) >= 0


@dataclass(frozen=True, slots=True)
class TrackPacket:
    """A packet of a track."""

    track: int
    """Number of the track, from 0."""
    pts: int
    """Presentation time, in the track's time base."""
    duration: int
    """Duration in the track's time base; 0 if unknown."""
    key: bool
    data: bytes


@dataclass(frozen=True)
class Chapter:
    """A chapter. Times are in units of `time_base` seconds."""

    start: int
    end: int
    time_base: Fraction
    tags: Tags

    @property
    def in_range(self) -> bool:
        """Whether a chapter may have these times."""
        return -MAX_SECONDS <= self.start * self.time_base <= self.end * self.time_base <= MAX_SECONDS

    def limited(self) -> "Chapter":
        """The same with an end that is not before its start and within the limit."""
        return replace(self, end=min(max(self.start, self.end), int(MAX_SECONDS / self.time_base)))


@dataclass(frozen=True)
class Attachment:
    """A file inside the source: a font, a cover picture or another one."""

    name: str
    mime: str
    data: bytes


@dataclass
class Extras:
    """Everything in a `.vdf` except pictures and packets."""

    tags: Tags = field(default_factory=dict)
    """Tags of the whole file."""
    chapters: list[Chapter] = field(default_factory=list)
    video_tags: Tags = field(default_factory=dict)
    video_disposition: int = 0
    attachments: list[Attachment] = field(default_factory=list)
    tracks: list[Track] = field(default_factory=list)
