"""Reads what a media file holds beside the video: packets as stored, tags, chapters, attachments."""

import re
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Self, cast

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.stream import AttachmentStream, Discard, Stream

from viddiff.config import MAX_PAYLOAD
from viddiff.errors import VideoError
from viddiff.interleave import DISORDER
from viddiff.media.codec_parameters import codec_name, describe
from viddiff.media.demuxer import Demuxer, Source, is_cover
from viddiff.media.libav_errors import FAILURES
from viddiff.media.opus import OpusTranscoder
from viddiff.tracks import MAX_TRACKS, Attachment, Chapter, Extras, Tags, Track, TrackPacket

TECHNICAL = re.compile(
    r"encoder|major_brand|minor_version|compatible_brands|vendor_id|(duration|bps|number_of_(frames|bytes)|"
    r"_statistics_\w+|source_id)(-\w+)?",
    re.IGNORECASE,
)
"""Tags that speak of the source file, not of what is in it: the next muxer writes its own."""
_LANGUAGE = re.compile(r"-[a-z]{3}$")
"""Of a tag that .mp4 is read to have twice, with its language and without."""
HANDLERS = ("VideoHandler", "SoundHandler", "SubtitleHandler", "DataHandler")
COVERS = {"mjpeg": "jpeg", "png": "png", "gif": "gif", "bmp": "bmp", "webp": "webp"}
"""Kinds of image/... by libav's codec."""
ATTACHMENT_BYTES = MAX_PAYLOAD - (1 << 16)
"""Most bytes of one attachment, which is one chunk with its name."""
ATTACHMENTS_BYTES = 256 << 20
"""Most bytes of all attachments; they are held in memory."""
PREROLL = Fraction(-1, 10)
"""Of what an edit list hides, packets that reach into the time just before 0 are kept: decoders of sound need
them to settle."""
TAG_LETTERS = 1 << 16
"""Longest text of a tag: what is longer is no text for people, and all tags have to fit one chunk."""
_AHEAD_BYTES = 16 << 20
_DISPOSITION = 0x1FFFFF & ~(1 << 10)  # not attached_pic: that is an attachment here


class TrackReader:
    """Extras and packets of a source of media. `notes` says what could not be taken along.

    Sound is copied, encoded as Opus or left out; all else is copied, but for further videos.
    """

    def __init__(self, source: Source | Demuxer, audio: str = "copy") -> None:
        """source: with a Demuxer, another one has claimed the video; it is not closed here.
        audio: copy, none, or opus:N, with N kbit/s for each stream. VideoError.
        """
        self.notes: list[str] = []
        """Lines that the user should see."""
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
            self._find_tracks(audio)
        except FAILURES as error:
            self.close()
            raise VideoError(f"the sound or subtitles of {self._demuxer.name} cannot be read") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the source, unless others read it, too."""
        if self._own is not None:
            self._own.close()

    def take(self, time: Fraction | None) -> TrackPacket | None:
        """The next packet of the tracks, in the order of the source; None at the end, or if `Feed.take` has
        none for this time. VideoError.
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
            raise VideoError(f"the sound or subtitles of {name} cannot be read to their end") from error
        return self._ready.popleft()

    def stop_waiting(self) -> None:
        """See `Demuxer.stop_waiting`."""
        self._demuxer.stop_waiting()

    def _file_properties(self) -> None:
        container, extras = self._demuxer.container, self.extras
        extras.tags = self._wanted(container.metadata)
        extras.chapters = [
            Chapter(c["start"], c["end"], c["time_base"], dict(c["metadata"]))
            for c in container.chapters()
            if c["time_base"] and c["start"] <= c["end"]
        ]
        video = next(iter(self._demuxer.videos), None)
        if video is not None:
            extras.video_tags = self._wanted(video.metadata)
            disposition = int(video.disposition) & _DISPOSITION
            extras.video_disposition = disposition & ~1  # the only video is the default one anyway

    def _wanted(self, tags: Tags) -> Tags:
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
        long = [name for name, value in wanted.items() if len(name) + len(value) > TAG_LETTERS]
        self.notes += [f"left the tag {name[:64]} out, which is longer than {TAG_LETTERS}" for name in long]
        return {name: value for name, value in wanted.items() if name not in long}

    def _attachments(self, covers: "dict[int, av.Packet[Any]]") -> None:
        """covers: their packets by index of the stream."""
        total, found = 0, list[Attachment]()
        for stream in self._demuxer.container.streams:
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

    def _find_tracks(self, audio: str) -> None:
        """Describe every stream that can be taken, by its first packet where libav wants to see one."""
        streams = self._demuxer.container.streams
        kinds = ("audio", "subtitle", "data") if audio != "none" else ("subtitle", "data")
        # an .mp4 has its chapters as a track, too, of which libav gives no packets
        chosen = [stream for stream in streams if stream.type in kinds and stream.discard != Discard.all]
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
        self._attachments(first)
        for stream in chosen:
            self._add(stream, first.get(stream.index), audio)

    def _add(self, stream: Stream, first: "av.Packet[Any] | None", audio: str) -> None:
        codec, sample = codec_name(stream), bytes(first) if first is not None else b"\0\0"
        if len(self.extras.tracks) < MAX_TRACKS and stream.time_base and codec:
            if stream.type == "audio" and audio != "copy":
                found: tuple[str, bytes] | None
                opus = OpusTranscoder(cast(AudioStream, stream), int(audio.removeprefix("opus:")))
                self._opus[stream.index], found = opus, ("matroska", opus.description)
                codec, time_base = "opus", opus.time_base
            else:
                found, time_base = describe(stream, sample), stream.time_base
                if codec == "aac" and sample[:2] >= b"\xff\xf0":
                    # a broadcast's headers (ADTS), which other files do not have
                    self._filters[len(self.extras.tracks)] = BitStreamFilterContext("aac_adtstoasc", stream)
            if found is not None:
                self._tracks[stream.index] = len(self.extras.tracks)
                track = Track(
                    stream.type,
                    codec,
                    time_base,
                    *found,
                    self._wanted(stream.metadata),
                    int(stream.disposition) & _DISPOSITION,
                    _details(stream),
                )
                self.extras.tracks.append(track)
                return
        self.notes.append(f"left {stream.type} stream {stream.index} ({codec or 'unknown format'}) out")

    def _taken(self, packet: "av.Packet[Any]") -> Iterator[TrackPacket]:
        number = self._tracks.get(packet.stream.index)
        if number is None:
            return
        opus = self._opus.get(packet.stream.index)
        if opus is not None:
            for pts, duration, data in opus.feed(packet):
                yield TrackPacket(number, pts, duration, True, data)
            return
        if not packet.size:
            return  # the flush at the end
        times = [time for time in (packet.pts, packet.dts) if time is not None]
        pts = times[0] if times else self._next.get(number, 0)
        self._next[number] = pts + (packet.duration or 0)
        seconds = self.extras.tracks[number].seconds
        if not packet.is_discard or (seconds(pts) < 0 and seconds(self._next[number]) > PREROLL):
            filtered = self._filters[number].filter(packet) if number in self._filters else [packet]
            data = b"".join(map(bytes, filtered))
            yield TrackPacket(number, pts, max(packet.duration or 0, 0), packet.is_keyframe, data)


def _details(stream: Stream) -> dict[str, str | int]:
    if not isinstance(stream, AudioStream):
        return {}
    context = stream.codec_context
    return {
        "channels": context.channels,
        "layout": context.layout.name,
        "sample_rate": context.sample_rate,
    }
