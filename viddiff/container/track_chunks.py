"""META, TRACK and PACKETS chunks: tracks, tags, chapters and attachments in a `.vdf`."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeVar

from viddiff.container.format import pack_varint, pack_zigzag, read_varint, read_zigzag
from viddiff.errors import BitstreamError, LimitError
from viddiff.tracks import (
    FORMATS,
    MAX_TRACKS,
    Attachment,
    Chapter,
    Extras,
    Tags,
    Track,
    TrackPacket,
)

MAX_JSON = 4 << 20
"""Largest JSON of a chunk, in bytes. Once parsed, it can take 25 times as much memory."""
MAX_META = 264 << 20
"""Largest size of all META chunks, in bytes. They are held in memory, and a pipe could send endless ones."""
Value = TypeVar("Value")


def pack_track(track: Track) -> bytes:
    """Payload of TRACK. Raises LimitError if its text is too long."""
    base = [track.time_base.numerator, track.time_base.denominator]
    values = {name: value for name, value in vars(track).items() if name != "description"}
    return _pack_json(values | {"time_base": base}, track.description)


def unpack_track(payload: bytes) -> Track:
    """Inverse of `pack_track`. Raises BitstreamError, LimitError."""
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


def pack_meta(extras: Extras) -> Iterator[bytes]:
    """Payloads of the META chunks, if there are any. Raises LimitError if they are too large."""
    if extras.tags or extras.chapters or extras.video_tags or extras.video_disposition:
        chapters = [
            [c.start, c.end, c.time_base.numerator, c.time_base.denominator, c.tags] for c in extras.chapters
        ]
        video = {"tags": extras.video_tags, "disposition": extras.video_disposition}
        yield _pack_json({"tags": extras.tags, "chapters": chapters, "video": video}, b"")
    for file in extras.attachments:
        yield _pack_json({"name": file.name, "mime": file.mime}, file.data)


@dataclass
class ExtrasReader:
    """Collects the content of META and TRACK chunks."""

    extras: Extras = field(default_factory=Extras)
    _meta_bytes: int = 0

    def take_meta(self, payload: bytes) -> None:
        """Add a META chunk. Raises BitstreamError, LimitError."""
        self._meta_bytes += len(payload)
        if self._meta_bytes > MAX_META:
            raise LimitError(f"tags, chapters and attachments take more than {MAX_META >> 20} MiB")
        values, data = _unpack_json(payload)
        if "name" in values:
            name, mime = _typed(values, "name", str), _typed(values, "mime", str)
            self.extras.attachments.append(Attachment(name, mime, data))
            return
        for entry in _typed(values, "chapters", list):
            if not isinstance(entry, list) or len(entry) != 5:
                raise BitstreamError("a chapter is not five values")
            start, end, *base = _numbers(entry[:4], 4)
            chapter = Chapter(start, end, _time_base(*base), _tags({"tags": entry[4]}))
            if not chapter.in_range:
                raise BitstreamError("a chapter ends before it begins or lies too far away")
            self.extras.chapters.append(chapter)
        video = _typed(values, "video", dict)
        self.extras.tags, self.extras.video_tags = _tags(values), _tags(video)
        self.extras.video_disposition = _disposition(video)

    def take_track(self, payload: bytes) -> None:
        """Add a TRACK chunk. Raises BitstreamError, LimitError."""
        if len(self.extras.tracks) >= MAX_TRACKS:
            raise LimitError(f"there are more than {MAX_TRACKS} tracks")
        self.extras.tracks.append(unpack_track(payload))


def pack_packets(packets: Iterable[TrackPacket]) -> bytes:
    """Payload of PACKETS."""
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
    """Inverse of `pack_packets`. Raises BitstreamError before the first packet.

    Packets are created one by one. Two bytes can be a packet, so all at once would take 60 times the memory.
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
        if not tracks[track].in_range(pts, duration):
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
