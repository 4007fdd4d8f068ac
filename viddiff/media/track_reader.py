"""Read everything beside the video from a media file: packets as stored, tags, chapters, attachments."""

import json
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, Self, cast

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.stream import AttachmentStream, Stream

from viddiff.config import MAX_PAYLOAD
from viddiff.errors import VideoError
from viddiff.interleave import DISORDER
from viddiff.media.codec_parameters import PLACEHOLDER, codec_name, describe, described, holds
from viddiff.media.demuxer import Demuxer, Source, is_cover
from viddiff.media.libav_errors import FAILURES, reason_of
from viddiff.media.opus import OpusTranscoder
from viddiff.media.track_selection import TrackSelection
from viddiff.tracks import MAX_TRACKS, Attachment, Chapter, Extras, Tags, Track, TrackPacket

TECHNICAL = re.compile(
    r"encoder|major_brand|minor_version|compatible_brands|vendor_id|(duration|bps|number_of_(frames|bytes)|"
    r"_statistics_\w+|source_id)(-\w+)?",
    re.IGNORECASE,
)
"""Tags that describe the source file, not its content. The next muxer writes its own."""
_LANGUAGE = re.compile(r"-[a-z]{3}$")
"""Suffix of tags that libav reads twice from .mp4: with their language and without."""
HANDLERS = ("VideoHandler", "SoundHandler", "SubtitleHandler", "DataHandler")
COVERS = {"mjpeg": "jpeg", "png": "png", "gif": "gif", "bmp": "bmp", "webp": "webp"}
"""Media types (image/...) of covers, by libav's codec."""
ATTACHMENT_BYTES = MAX_PAYLOAD - (8 << 20)
"""Most bytes of one attachment or packet: with its name, or the packets before it, it is one chunk."""
ATTACHMENTS_BYTES = 256 << 20
"""Largest sum of all attachments in bytes. They are held in memory."""
PREROLL = Fraction(-1, 10)
"""Packets hidden by an edit list are kept if they reach into this time before 0: sound decoders need them."""
TAG_LETTERS = 1 << 16
"""Longest tag in bytes. All tags must fit into one chunk."""
TEXT_BYTES = 3 << 20
"""Most bytes of the tags and chapters of a file, or of the tags of a track: they have to fit one chunk."""
_CHAPTER_BYTES = 100
"""What a chapter takes besides its tags."""
TARGETS = ("matroska", "mp4", "mov")
"""What `decode` writes that holds more than pictures, by libav's names."""
_AHEAD_BYTES = 16 << 20
_DISPOSITION = 0x1FFFFF & ~(1 << 10)  # not attached_pic: that is an attachment here


class TrackReader:
    """Tracks, packets, tags, chapters and attachments of a media source. `notes` says what was left out.

    Sound is copied, encoded as Opus or left out. Everything else is copied, except further videos.
    """

    def __init__(
        self, source: Source | Demuxer, audio: str = "copy", selection: TrackSelection | None = None
    ) -> None:
        """Open the tracks of `source`. A Demuxer is not closed here; its video belongs to another reader.

        audio: copy, none, or opus:N with N kbit/s for each stream. selection: the streams to take. Raises
        VideoError.
        """
        self.notes: list[str] = []
        """Notes for the user."""
        self.extras = Extras()
        self._own = None if isinstance(source, Demuxer) else Demuxer(source)
        self._demuxer = source if isinstance(source, Demuxer) else cast(Demuxer, self._own)
        self._tracks: dict[int, int] = {}  # number of a track by index of its stream
        self._opus: dict[int, OpusTranscoder] = {}
        self._filters: dict[int, BitStreamFilterContext] = {}  # by number of the track
        self._ahead: deque[av.Packet[Any]] = deque()
        self._ready: deque[TrackPacket] = deque()
        self._next: dict[int, int] = {}
        try:
            self._file_properties()
            streams, notes = (selection or TrackSelection()).of(self._demuxer)
            self.notes += notes
            self._find_tracks(audio, streams)
        except FAILURES as error:
            self.close()
            name = self._demuxer.name
            raise VideoError(
                f"the sound or subtitles of {name} cannot be read: {reason_of(error)}"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the source, unless others read it, too."""
        if self._own is not None:
            self._own.close()

    def take(self, time: Fraction | None) -> TrackPacket | None:
        """The next packet of the tracks, in the order of the source.

        None at the end, or if `Feed.take` has none for this time. Raises VideoError.
        """
        if not self._tracks:
            return None  # without reading on for what cannot come
        try:
            while not self._ready:
                packet = self._ahead.popleft() if self._ahead else self._feed.take(time)
                if packet is None:
                    return None
                self._ready.extend(self._taken(packet))
        except FAILURES as error:
            name = self._demuxer.name
            raise VideoError(
                f"the sound or subtitles of {name} cannot be read to their end: {reason_of(error)}"
            ) from error
        return self._ready.popleft()

    def stop_waiting(self) -> None:
        """See `Demuxer.stop_waiting`."""
        self._demuxer.stop_waiting()

    def _file_properties(self) -> None:
        container, extras = self._demuxer.container, self.extras
        room = _Room()
        extras.tags = self._wanted(container.metadata, room)
        for number, entry in enumerate(container.chapters(), 1):
            base = entry["time_base"] or Fraction(1)
            chapter = Chapter(entry["start"], entry["end"], base, entry["metadata"]).limited()
            if chapter.in_range and room.takes(chapter.tags, _CHAPTER_BYTES):
                extras.chapters.append(chapter)
            else:
                self.notes.append(f"left chapter {number} out: it lies too far away, or its text is too long")
        video = self._demuxer.video
        if video is not None:
            extras.video_tags = self._wanted(video.metadata, room)
            disposition = int(video.disposition) & _DISPOSITION
            extras.video_disposition = disposition & ~1  # the only video is the default one anyway

    def _wanted(self, tags: Tags, room: "_Room") -> Tags:
        """Those that say something of the content, as far as there is room for them."""
        named = {
            ("title" if name == "name" else name): value for name, value in tags.items()
        }  # .mp4 reads so
        wanted = {
            name: value
            for name, value in named.items()
            if not TECHNICAL.fullmatch(name)
            and not (name == "handler_name" and value in HANDLERS)
            and not (name == "language" and value == "und")
            and not (_LANGUAGE.search(name) and named.get(_LANGUAGE.sub("", name)) == value)
        }
        found: Tags = {}
        for name, value in wanted.items():
            if len(name) + len(value) > TAG_LETTERS:
                self.notes.append(f"left the tag {name[:64]} out, which is longer than {TAG_LETTERS}")
            elif not room.takes({name: value}):
                self.notes.append(f"left the tag {name[:64]} out, for all tags together are too long")
            else:
                found[name] = value
        return found

    def _attachments(self, streams: list[Stream], covers: "dict[int, av.Packet[Any]]") -> None:
        """covers: their packets by stream index."""
        total, found = 0, list[Attachment]()
        for stream in streams:
            if isinstance(stream, AttachmentStream):
                file = Attachment(stream.name or "attachment", stream.mimetype or "", stream.data)
            elif is_cover(stream):
                codec = stream.codec_context.name if stream.codec_context else ""
                kind = COVERS.get(codec, "unknown")
                name = stream.metadata.get("filename") or f"cover.{kind.replace('jpeg', 'jpg')}"
                packet = covers.get(stream.index)
                file = Attachment(name, f"image/{kind}", bytes(packet) if packet else b"")
            else:
                continue
            if not 0 < len(file.data) <= min(ATTACHMENT_BYTES, ATTACHMENTS_BYTES - total):
                self.notes.append(f"left the attachment {file.name} out")
            else:
                total += len(file.data)
                found.append(file)
        self.extras.attachments = found

    def _find_tracks(self, audio: str, streams: list[Stream]) -> None:
        """Describe those of the streams that can be kept, with their first packets if libav needs one."""
        kinds = ("audio", "subtitle", "data") if audio != "none" else ("subtitle", "data")
        chosen = [stream for stream in streams if stream.type in kinds]
        covers = [stream for stream in streams if is_cover(stream)]
        self._feed = self._demuxer.claim([*chosen, *covers])
        self._demuxer.drop_others()
        first: dict[int, av.Packet[Any]] = {}
        awaited = {stream.index for stream in [*chosen, *covers] if stream.type in ("audio", "video")}
        until = self._demuxer.clock + DISORDER if self._demuxer.live else None
        size = 0
        while not awaited <= first.keys() and size < _AHEAD_BYTES:
            if (packet := self._feed.take(until)) is None:
                break
            size += packet.size + 100
            if packet.size:
                first.setdefault(packet.stream.index, packet)
            if not is_cover(packet.stream):
                self._ahead.append(packet)
        self._attachments(streams, first)
        for stream in chosen:
            self._add(stream, first.get(stream.index), audio)

    def _add(self, stream: Stream, first: "av.Packet[Any] | None", audio: str) -> None:
        codec, sample = codec_name(stream), bytes(first) if first is not None else PLACEHOLDER
        found: tuple[str, bytes] | None = None
        time_base, encoded = stream.time_base, stream.type == "audio" and audio != "copy"
        title = f"{stream.type} stream {stream.index} ({codec or 'unknown format'})"
        if len(self.extras.tracks) < MAX_TRACKS and time_base and codec:
            if not encoded:
                found = describe(stream, sample)
            else:
                with suppress(*FAILURES):
                    opus = OpusTranscoder(cast(AudioStream, stream), int(audio.removeprefix("opus:")))
                    self._opus[stream.index], found = opus, ("matroska", opus.description)
                    codec, time_base = "opus", opus.time_base
        advice = ""
        if stream.type == "audio" and not encoded and stream.codec_context is not None:
            advice = "; --audio opus:128k encodes it anew"
        if found is None or not time_base:
            self.notes.append(f"left {title} out{advice}")
            return
        if not encoded:
            if not any(holds(form, *described(*found)) for form in TARGETS):
                self.notes.append(f"no file that decode writes can hold {title}{advice}")
            if codec == "aac" and sample[:2] >= b"\xff\xf0":
                # a broadcast's headers (ADTS), which other files do not have
                self._filters[len(self.extras.tracks)] = BitStreamFilterContext("aac_adtstoasc", stream)
        self._tracks[stream.index] = len(self.extras.tracks)
        tags, disposition = self._wanted(stream.metadata, _Room()), int(stream.disposition) & _DISPOSITION
        track = Track(stream.type, codec, time_base, *found, tags, disposition, _details(stream))
        self.extras.tracks.append(track)

    def _taken(self, packet: "av.Packet[Any]") -> Iterator[TrackPacket]:
        number = self._tracks.get(packet.stream.index)
        if number is None:
            return
        opus = self._opus.get(packet.stream.index)
        track = self.extras.tracks[number]
        if opus is not None:
            for pts, duration, data in opus.feed(packet):
                if track.in_range(pts, duration):
                    yield TrackPacket(number, pts, duration, True, data)
            return
        if not packet.size:
            return  # the flush at the end
        times = [time for time in (packet.pts, packet.dts) if time is not None]
        pts, duration = times[0] if times else self._next.get(number, 0), max(packet.duration or 0, 0)
        self._next[number] = pts + duration
        if not packet.is_discard or (track.seconds(pts) < 0 and track.seconds(pts + duration) > PREROLL):
            duration = duration if track.in_range(0, duration) else 0
            try:
                filtered = self._filters[number].filter(packet) if number in self._filters else [packet]
            except FAILURES:
                filtered = []
            if not filtered or not track.in_range(pts, duration) or packet.size > ATTACHMENT_BYTES:
                self._note(f"damaged packets of {track.kind} {track.codec} were left out")
                return
            yield TrackPacket(number, pts, duration, packet.is_keyframe, b"".join(map(bytes, filtered)))

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)


class _Room:
    """The bytes that text may take in one chunk of JSON."""

    def __init__(self) -> None:
        self._left = TEXT_BYTES

    def takes(self, tags: Tags, more: int = 0) -> bool:
        """Whether these, and so many other bytes, still fit; then they are counted."""
        size = more + sum(
            len(json.dumps([name, value], ensure_ascii=False).encode(errors="replace"))
            for name, value in tags.items()
        )
        if size > self._left:
            return False
        self._left -= size
        return True


def _details(stream: Stream) -> dict[str, str | int]:
    if not isinstance(stream, AudioStream):
        return {}
    context = stream.codec_context
    return {
        "channels": context.channels,
        "layout": context.layout.name,
        "sample_rate": context.sample_rate,
    }
