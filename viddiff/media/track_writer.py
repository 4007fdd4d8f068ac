"""Write tracks, tags, chapters and attachments beside the video of a file that PyAV writes."""

import re
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import cast

import av
from av.container import OutputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from viddiff.interleave import Interleaver
from viddiff.media.codec_parameters import add_copy, described, holds
from viddiff.media.libav_errors import FAILURES
from viddiff.media.sound_recoder import SoundRecoder
from viddiff.tracks import Attachment, Track, TrackPacket

MP4_TAGS = re.compile(
    r"title|artist|album_artist|composer|album|date|comment|genre|copyright|grouping|lyrics|description|synopsis|"
    r"show|episode_id|network|keywords|media_type|hd_video|track|disc|location|creation_time|encoding_tool",
    re.IGNORECASE,
)
"""Tags of a file that .mp4 can hold."""
MOV_TAGS = re.compile(
    r"title|artist|album|date|comment|genre|copyright|make|model|location|creation_time",
    re.IGNORECASE,
)
"""Tags of a file that .mov can hold."""
MP4_TICKS = (1 << 31) - 1
"""Most units of a stream from one of its packets to the next."""
_MP4_UNIT = Fraction(1, 1000)
"""Of streams that are no sound, unless theirs is larger."""
_PICTURES = {
    "image/jpeg": "jpeg_pipe",
    "image/png": "png_pipe",
}  # what .mp4 takes as a cover: libav's demuxers


FORMATS = {"mp4": ".mp4", "matroska": ".mkv", "mov": ".mov", "webm": ".webm"}
"""Extensions by libav's names of formats that hold more than video."""


class TrackWriter:
    """Everything beside the video of one output file. `notes` names what the format cannot hold."""

    def __init__(self, interleaver: Interleaver, form: str) -> None:
        """form: a key of FORMATS. Any other format holds nothing but video."""
        self.notes: list[str] = []
        """Notes for the user, complete after the tracks were added."""
        self._interleaver, self._form = interleaver, form
        self._quick_time = form in ("mp4", "mov")
        self._tracks: dict[int, Track] = {}
        self._opus: dict[int, SoundRecoder] = {}
        self._streams: dict[int, Stream] = {}
        self._templates: list[Stream] = []  # keeps them alive
        self._last: dict[int, int] = {}
        self._container: OutputContainer | None = None
        self._covers: list[tuple[Stream, bytes]] = []
        if form not in FORMATS:
            extras = interleaver.extras
            self._leave_out(
                [*map(_title, extras.tracks), *(f"attachment {a.name}" for a in extras.attachments)]
            )
            if extras.tags or extras.chapters or extras.video_tags:
                self._leave_out(["tags and chapters"])

    def add_to(self, container: OutputContainer, video: VideoStream) -> None:
        """Add streams, tags and attachments, before anything is written to `container`."""
        self._container, extras = container, self._interleaver.extras
        container.metadata.update(extras.tags)
        video.metadata.update(extras.video_tags)
        video.disposition = Disposition(extras.video_disposition) | Disposition.default
        places = {"mp4": MP4_TAGS, "mov": MOV_TAGS}.get(self._form)
        lost = [name for name in extras.tags if places is not None and not places.fullmatch(name)]
        missing = [f"tag {name}" for name in lost]
        for number, track in enumerate(extras.tracks):
            if (template := self._template_of(number, track)) is None:
                missing.append(_title(track))
                continue
            track = self._tracks[number]
            stream = add_copy(container, template)
            stream.time_base = track.time_base
            if self._quick_time and track.kind != "audio":  # finer units leave less time between packets
                stream.time_base = max(track.time_base, _MP4_UNIT)
            stream.metadata.clear()
            stream.metadata.update(track.tags)
            stream.disposition = Disposition(track.disposition)
            self._streams[number] = stream
        for attachment in extras.attachments:
            if not self._attach(attachment):
                missing.append(f"attachment {attachment.name}")
        self._leave_out(missing)

    def begin(self, since: Fraction) -> None:
        """Start the video at `since` seconds, before the first frame is written."""
        self._interleaver.begin(since)
        if self._container is None:
            return
        chapters = [
            c for c in self._interleaver.extras.chapters if c.end >= 0
        ]  # others would end the writing
        self._container.set_chapters(
            [
                {
                    "id": i,
                    "start": max(c.start, 0),
                    "end": c.end,
                    "time_base": c.time_base,
                    "metadata": c.tags,
                }
                for i, c in enumerate(chapters, 1)
            ]
        )

    def upto(self, time: Fraction) -> None:
        """Write the packets that begin at or before `time` (in seconds)."""
        self._mux(self._recoded(self._interleaver.upto(time)))

    def rest(self, end: Fraction) -> None:
        """Write the remaining packets. The video ends at `end` seconds."""
        self._mux(self._recoded(self._interleaver.rest(end)))
        self._mux(packet for number, recoder in self._opus.items() for packet in recoder.finish(number))

    def _mux(self, packets: Iterator[TrackPacket]) -> None:
        if self._container is None:
            return
        for stream, data in self._covers:
            cover = av.Packet(data)
            cover.stream, cover.pts, cover.dts, cover.is_keyframe = stream, 0, 0, True
            cover.time_base = Fraction(1, 90000)
            self._container.mux(cover)
        self._covers = []
        for packet in packets:
            if packet.track not in self._streams:
                continue
            copy, stream = av.Packet(packet.data), self._streams[packet.track]
            track = self._tracks[packet.track]
            copy.time_base = track.time_base
            # libav takes no packet before the one that it got last, nor, in .mp4 and .mov, at the same time,
            # in units of the stream, which may be larger
            step = ceil(cast(Fraction, stream.time_base) / copy.time_base) if self._quick_time else 0
            time = max(packet.pts, self._last.get(packet.track, packet.pts - step) + step)
            most = int(MP4_TICKS * cast(Fraction, stream.time_base) / copy.time_base)
            if self._quick_time and time - self._last.get(packet.track, time) > most:
                del self._streams[packet.track]
                title, seconds = _title(track), float(track.seconds(time))
                self.notes.append(
                    f"{FORMATS[self._form]} cannot hold the gap in {title} before {seconds:.0f} s, "
                    "the rest is left out"
                )
                continue
            self._last[packet.track] = time
            copy.pts, copy.dts, copy.duration = time, time, min(packet.duration, most)
            copy.is_keyframe, copy.stream = packet.key, stream
            self._container.mux(copy)

    def _recoded(self, packets: Iterator[TrackPacket]) -> Iterator[TrackPacket]:
        """The packets, with Opus in place of sound that is encoded anew."""
        for packet in packets:
            recoder = self._opus.get(packet.track)
            if recoder is None:
                yield packet
            else:
                yield from recoder.feed(packet)

    def _leave_out(self, names: list[str]) -> None:
        if names:
            self.notes.append(
                f"{FORMATS.get(self._form, '.y4m')} cannot hold these; they are left out: {', '.join(names)}"
            )

    def _template_of(self, number: int, track: Track) -> Stream | None:
        """The stream of a track. Sound that .webm cannot hold becomes Opus. None if there is no way."""
        self._tracks[number] = track
        template = self._template(track.format, track.description)
        if template is not None or self._form != "webm" or track.kind != "audio":
            return template
        try:
            recoder = SoundRecoder(track)
        except (*FAILURES, ValueError):
            return None
        self._opus[number], self._tracks[number] = recoder, recoder.track
        self.notes.append(f".webm cannot hold {_title(track)}: it is encoded as Opus")
        return self._template(recoder.track.format, recoder.track.description)

    def _template(self, form: str, description: bytes) -> Stream | None:
        """The stream of this small file; None if the output cannot hold such a one."""
        try:
            template, sample = described(form, description)
        except FAILURES:
            return None
        if not holds(self._form, template, sample):
            return None
        self._templates.append(template)
        return template

    def _attach(self, file: Attachment) -> bool:
        if self._container is None:
            return False
        if self._form == "matroska":
            self._container.add_attachment(file.name, file.mime or "application/octet-stream", file.data)
            return True
        if self._form != "mp4" or file.mime not in _PICTURES:
            return False
        template = self._template(_PICTURES[file.mime], file.data)
        if template is None:
            return False
        stream = add_copy(self._container, template)
        stream.disposition = Disposition.attached_pic
        self._covers.append((stream, file.data))
        return True


def _title(track: Track) -> str:
    """Name of a track for notes."""
    language = track.tags.get("language")
    return f"{track.kind} {track.codec}" + (f" ({language})" if language else "")
