"""Read tracks, packets and tags from a `.vdf`."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, BinaryIO

from viddiff.config import Limits, Start
from viddiff.container.format import META, PACKETS, TRACK, Chunk
from viddiff.container.reader import Reader
from viddiff.container.track_chunks import ExtrasReader, unpack_packets
from viddiff.errors import BitstreamError, LimitError
from viddiff.tracks import TrackPacket

_BEFORE = {False: Fraction(1), True: Fraction(10)}
"""How many seconds before a frame its packets may begin: without and with subtitles."""
WAITING_BYTES = 1 << 28
"""Largest number of bytes of packets that wait to be taken."""


class TrackFile:
    """Tracks, tags, chapters and attachments of a `.vdf`, and its packets in stored order."""

    def __init__(
        self,
        file: BinaryIO,
        on_fault: Callable[[BitstreamError], None] | None = None,
        limits: Limits | None = None,
        start: Start = 0,
        stop: int | None = None,
    ) -> None:
        """Read everything before the first frame. Raises BitstreamError, LimitError. Does not close `file`.

        on_fault: as for `Reader.chunks`. start: packets that end before it are not needed, and not all are
        read. stop: nothing is read that begins at this byte or after it.
        """
        self._described = ExtrasReader()
        self.extras = self._described.extras
        self._ready: deque[tuple[Iterator[TrackPacket], int]] = deque()
        self._waiting = 0
        self._begun = self._taken = False
        self.reader = Reader(file, limits, self._take)
        self._scan = self.reader.scan(on_fault, stop)
        self._first = next(self._scan, None)
        self._begun = True
        if start:
            self._skip_to(self.reader, start)

    def take(self, time: Fraction | None = None) -> TrackPacket | None:
        """The next packet, whatever its time. None at the end. Raises BitstreamError, LimitError."""
        while True:
            if (packet := self._pop()) is not None:
                return packet
            if next(self._scan, None) is None and not self._ready:
                return None

    def stop_waiting(self) -> None:
        """Does nothing: a file does not wait."""

    def packets(self) -> Iterator[TrackPacket]:
        """All packets, as from `take`."""
        return iter(self.take, None)

    def _pop(self) -> TrackPacket | None:
        """The next packet that is already read."""
        while self._ready:
            packets, size = self._ready[0]
            if (packet := next(packets, None)) is not None:
                return packet
            self._ready.popleft()
            self._waiting -= size
        return None

    def _skip_to(self, reader: Reader, start: Start) -> None:
        """Move to a keyframe far enough before `start`: all packets that last until then come after it."""
        before = _BEFORE[any(track.kind == "subtitle" for track in self.extras.tracks)]
        base = reader.header.video.time_base
        with suppress(BitstreamError, LimitError):
            entries = reader.stored_index()
            if not isinstance(start, Fraction):
                keys = [entry.pts for entry in entries if entry.frame <= start]
                start = (keys[-1] - entries[0].pts) * base
            until = entries[0].pts + (start - before) / base
            early = [entry for entry in entries[1:] if entry.pts <= until]
            if early:
                reader.seek(early[-1])
                self._ready.clear()
                self._waiting = 0

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == PACKETS:
            self._waiting += len(payload)
            while self._waiting > WAITING_BYTES:
                if self._taken or not self._begun:
                    most = f"{WAITING_BYTES >> 20} MiB"
                    raise LimitError(f"more than {most} of sound and subtitles come before a frame")
                self._waiting -= self._ready.popleft()[1]  # where frames are skipped, or sound is not wanted
            self._ready.append((unpack_packets(payload, self.extras.tracks), len(payload)))
        elif kind in (META, TRACK) and self._begun:
            raise BitstreamError("META or TRACK comes after a frame")
        elif kind == META:
            self._described.take_meta(payload)
        elif kind == TRACK:
            self._described.take_track(payload)


class PassingTracks(TrackFile):
    """Tracks of a file that is read only once, while a decoder takes the chunks of the video."""

    def scan(self) -> Iterator[tuple[int, Chunk]]:
        """All chunks of the video with their offsets, once. See `Reader.scan`."""
        if self._first is not None:
            yield self._first
            yield from self._scan

    def take(self, time: Fraction | None = None) -> TrackPacket | None:
        """The next packet before the chunks taken so far. None if there is none yet."""
        self._taken = True
        return self._pop()


def summary(file: BinaryIO, limits: Limits | None = None) -> dict[str, Any]:
    """Description of everything beside the video, for people and JSON, as far as the file is intact."""
    source = TrackFile(file, lambda fault: None, limits)
    extras = source.extras
    count, size = [0] * len(extras.tracks), [0] * len(extras.tracks)
    first, last = dict[int, Fraction](), dict[int, Fraction]()
    for packet in source.packets():
        number, seconds = packet.track, extras.tracks[packet.track].seconds
        count[number] += 1
        size[number] += len(packet.data)
        first[number] = min(first.get(number, seconds(packet.pts)), seconds(packet.pts))
        end = seconds(packet.pts + packet.duration)
        last[number] = max(last.get(number, end), end)
    return {
        "streams": [
            {"kind": track.kind, "codec": track.codec}
            | {name: track.tags[name] for name in ("language", "title") if name in track.tags}
            | track.details
            | {"packets": count[i], "bytes": size[i]}
            | {"start": float(first.get(i, 0)), "seconds": float(last.get(i, 0) - first.get(i, 0))}
            for i, track in enumerate(extras.tracks)
        ],
        "chapters": [
            {"start": float(c.start * c.time_base), "end": float(c.end * c.time_base)} | c.tags
            for c in extras.chapters
        ],
        "attachments": [{"name": a.name, "mime": a.mime, "bytes": len(a.data)} for a in extras.attachments],
        "tags": extras.tags,
        "video_tags": extras.video_tags,
    }
