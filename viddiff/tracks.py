"""What travels beside the video: tracks of packets, attachments, tags and chapters, and their chunks.

The format is specified in `container`; reading media files is `trackreader`, writing them `trackwriter`.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeVar

from viddiff.container import pack_varint, pack_zigzag, read_varint, read_zigzag
from viddiff.errors import BitstreamError, LimitError

MAX_TRACKS = 64
FORMATS = ("matroska", "mp4", "mov", "mpegts")
"""Files that may describe a track, in order of preference, by libav's names."""
MAX_SECONDS = 1 << 31
MAX_JSON = 4 << 20
"""Most bytes of JSON in a chunk: read, it can take 25 times as much."""
MAX_META = 264 << 20
"""Most bytes of all META chunks: they are held in memory, and a pipe could bring them without end."""
Tags = dict[str, str]
Value = TypeVar("Value")


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

    def pack(self) -> bytes:
        """TRACK's payload. LimitError if its text is too long."""
        base = [self.time_base.numerator, self.time_base.denominator]
        values = {name: value for name, value in vars(self).items() if name != "description"}
        return _pack_json(values | {"time_base": base}, self.description)

    @staticmethod
    def unpack(payload: bytes) -> "Track":
        """The inverse of `pack`. BitstreamError, LimitError."""
        values, data = _unpack_json(payload)
        base = _numbers(values.get("time_base"), 2)
        kind, form = _typed(values, "kind", str), _typed(values, "format", str)
        if kind not in ("audio", "subtitle", "data") or form not in FORMATS:
            raise BitstreamError(f"a track of unknown kind {kind!r} or format {form!r}")
        details = _typed(values, "details", dict)
        if not all(isinstance(detail, str | int) for detail in details.values()):
            raise BitstreamError("details of a track are neither numbers nor text")
        return Track(
            kind,
            _typed(values, "codec", str),
            _time_base(*base),
            form,
            data,
            _tags(values),
            _disposition(values),
            details,
        )

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
    _meta_bytes: int = field(default=0, repr=False, compare=False)

    def pack_meta(self) -> Iterator[bytes]:
        """Payloads of the META chunks; none where there is nothing to say. LimitError if it is too much."""
        if self.tags or self.chapters or self.video_tags or self.video_disposition:
            chapters = [
                [c.start, c.end, c.time_base.numerator, c.time_base.denominator, c.tags]
                for c in self.chapters
            ]
            video = {"tags": self.video_tags, "disposition": self.video_disposition}
            yield _pack_json({"tags": self.tags, "chapters": chapters, "video": video}, b"")
        for file in self.attachments:
            yield _pack_json({"name": file.name, "mime": file.mime}, file.data)

    def take_meta(self, payload: bytes) -> None:
        """Add what a META chunk says. BitstreamError, LimitError."""
        self._meta_bytes += len(payload)
        if self._meta_bytes > MAX_META:
            raise LimitError(f"tags, chapters and attachments take more than {MAX_META >> 20} MiB")
        values, data = _unpack_json(payload)
        if "name" in values:
            name, mime = _typed(values, "name", str), _typed(values, "mime", str)
            self.attachments.append(Attachment(name, mime, data))
            return
        for entry in _typed(values, "chapters", list):
            if not isinstance(entry, list) or len(entry) != 5:
                raise BitstreamError("a chapter is not five values")
            start, end, *base = _numbers(entry[:4], 4)
            chapter = Chapter(start, end, _time_base(*base), _tags({"tags": entry[4]}))
            if not -MAX_SECONDS <= start * chapter.time_base <= end * chapter.time_base <= MAX_SECONDS:
                raise BitstreamError("a chapter ends before it begins or lies too far away")
            self.chapters.append(chapter)
        video = _typed(values, "video", dict)
        self.tags, self.video_tags = _tags(values), _tags(video)
        self.video_disposition = _disposition(video)

    def take_track(self, payload: bytes) -> None:
        """Add what a TRACK chunk says. BitstreamError, LimitError."""
        if len(self.tracks) >= MAX_TRACKS:
            raise LimitError(f"there are more than {MAX_TRACKS} tracks")
        self.tracks.append(Track.unpack(payload))


def pack_packets(packets: Iterable[TrackPacket]) -> bytes:
    """PACKETS' payload."""
    payload, last = bytearray(), dict[int, tuple[int, int]]()
    for packet in packets:
        timing = (packet.pts, packet.duration)
        regular = timing == last.get(packet.track)
        payload += pack_varint(4 * packet.track + 2 * regular + packet.key)
        if not regular:
            payload += pack_zigzag(packet.pts) + pack_varint(packet.duration)
        payload += pack_varint(len(packet.data)) + packet.data
        last[packet.track] = (packet.pts + packet.duration, packet.duration)
    return bytes(payload)


def unpack_packets(payload: bytes, tracks: list[Track]) -> Iterator[TrackPacket]:
    """The inverse of `pack_packets`. BitstreamError, before the first packet is given.

    They are made as they are taken: two bytes may be a packet, and all at once would take 60 times as much.
    """
    for _ in _packets(payload, tracks):
        pass
    return _packets(payload, tracks)


def _packets(payload: bytes, tracks: list[Track]) -> Iterator[TrackPacket]:
    last, at = dict[int, tuple[int, int]](), 0
    while at < len(payload):
        word, at = read_varint(payload, at)
        track, regular = word >> 2, bool(word & 2)
        if track >= len(tracks) or (regular and track not in last):
            raise BitstreamError("a packet of an unknown track, or without a time")
        if regular:
            pts, duration = last[track]
        else:
            pts, at = read_zigzag(payload, at)
            duration, at = read_varint(payload, at)
        seconds = tracks[track].seconds
        if not abs(seconds(pts)) < MAX_SECONDS > seconds(duration):
            raise BitstreamError("the time of a packet is too far from 0")
        size, at = read_varint(payload, at)
        if size > len(payload) - at:
            raise BitstreamError("a packet is cut off")
        yield TrackPacket(track, pts, duration, bool(word & 1), payload[at : at + size])
        last[track] = (pts + duration, duration)
        at += size


def _pack_json(values: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    if len(text) > MAX_JSON:
        raise LimitError(f"tags, chapters or the names of a track take more than {MAX_JSON >> 20} MiB")
    return pack_varint(len(text)) + text + data


def _unpack_json(payload: bytes) -> tuple[dict[str, Any], bytes]:
    size, at = read_varint(payload, 0)
    if size > MAX_JSON:
        raise LimitError(f"the JSON of a META or TRACK chunk is larger than {MAX_JSON >> 20} MiB")
    try:
        values = json.loads(payload[at : at + size].decode())
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise BitstreamError("a META or TRACK chunk is not JSON") from error
    if not isinstance(values, dict) or at + size > len(payload):
        raise BitstreamError("a META or TRACK chunk does not begin with a whole JSON object")
    return values, payload[at + size :]


def _typed(values: dict[str, Any], name: str, kind: type[Value]) -> Value:
    value = values.get(name)
    if not isinstance(value, kind):
        raise BitstreamError(f"{name} of a META or TRACK chunk is missing or of a wrong kind")
    return value


def _tags(values: dict[str, Any]) -> Tags:
    tags = _typed(values, "tags", dict)
    if not all(isinstance(value, str) and "\0" not in name + value for name, value in tags.items()):
        raise BitstreamError("a tag is not text")
    return tags


def _disposition(values: dict[str, Any]) -> int:
    disposition = _typed(values, "disposition", int)
    if not 0 <= disposition < 1 << 31:
        raise BitstreamError("a disposition does not fit 31 bits")
    return disposition


def _numbers(values: object, count: int) -> list[int]:
    if isinstance(values, list) and len(values) == count and all(type(value) is int for value in values):
        return values
    raise BitstreamError(f"not a list of {count} whole numbers")


def _time_base(numerator: int, denominator: int) -> Fraction:
    if not (0 < numerator < 1 << 31 and 0 < denominator < 1 << 31):
        raise BitstreamError("a time base is not a fraction of two numbers from 1 to 2^31 - 1")
    return Fraction(numerator, denominator)
