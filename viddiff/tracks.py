"""What travels beside the video: tracks of packets, attachments, tags and chapters, as plain data.

`container.track_chunks` says how a `.vdf` stores it; `media.track_reader` and `media.track_writer` read and
write media files.
"""

from dataclasses import dataclass, field
from fractions import Fraction

MAX_TRACKS = 64
FORMATS = ("matroska", "mp4", "mov", "mpegts")
"""Files that may describe a track, in order of preference, by libav's names."""
MAX_SECONDS = 1 << 31
"""Times of packets and chapters lie within this many seconds of 0."""
Tags = dict[str, str]


@dataclass(frozen=True)
class Track:
    """A stream of packets, and what a muxer has to know of it."""

    kind: str
    """audio, subtitle or data."""
    codec: str
    """libav's name."""
    time_base: Fraction
    """Seconds for each unit of `TrackPacket.pts`."""
    format: str
    """What `description` is, one of FORMATS."""
    description: bytes
    """A media file whose only stream has the codec parameters."""
    tags: Tags = field(default_factory=dict)
    disposition: int = 0
    """libav's bits."""
    details: dict[str, str | int] = field(default_factory=dict)
    """For people: channels, layout, rate."""

    def seconds(self, time: int) -> Fraction:
        """`time`, in units of the time base, in seconds."""
        return time * self.time_base


@dataclass(frozen=True, slots=True)
class TrackPacket:
    """A packet as its muxer had it."""

    track: int
    """The track's number, from 0."""
    pts: int
    """In units of the track's time base."""
    duration: int
    """In the same units; 0 if unknown."""
    key: bool
    data: bytes


@dataclass(frozen=True)
class Chapter:
    """A chapter; times are in units of `time_base` seconds."""

    start: int
    end: int
    time_base: Fraction
    tags: Tags


@dataclass(frozen=True)
class Attachment:
    """A font, a cover picture or another file that came within the source."""

    name: str
    mime: str
    data: bytes


@dataclass
class Extras:
    """All that a `.vdf` holds besides pictures and packets."""

    tags: Tags = field(default_factory=dict)
    """Of the whole file."""
    chapters: list[Chapter] = field(default_factory=list)
    video_tags: Tags = field(default_factory=dict)
    video_disposition: int = 0
    attachments: list[Attachment] = field(default_factory=list)
    tracks: list[Track] = field(default_factory=list)
