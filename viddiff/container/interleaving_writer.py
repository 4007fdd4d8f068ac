"""Write a `.vdf` with sound, subtitles and other packets among its pictures."""

from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

from viddiff.container.format import META, PACKETS, TRACK, Chunk, Header, Writer
from viddiff.container.track_chunks import pack_meta, pack_packets, pack_track
from viddiff.interleave import Interleaver
from viddiff.tracks import TrackPacket

CHUNK_BYTES = 1 << 20
"""A PACKETS chunk ends with the packet that reaches this size."""


class InterleavingWriter(Writer):
    """Writes a `.vdf` with packets among the pictures. Their descriptions come before the first frame."""

    def __init__(
        self, file: BinaryIO, header: Header, interleaver: Interleaver, frames: int | None = None
    ) -> None:
        """frames: largest number of frames of the video, if known."""
        super().__init__(file, header)
        self._video, self._interleaver, self._frames_asked = header.video, interleaver, frames
        self._end: Fraction | None = None

    def write(self, chunk: Chunk) -> None:
        """Append a chunk, and before it the packets that do not begin later."""
        times = chunk.times
        start, step = times[0] * self._video.time_base, 1 / self._video.frame_rate
        if self._end is None:
            self._begin(start, None if self._frames_asked is None else start + self._frames_asked * step)
        self._end = times[-1] * self._video.time_base + (chunk.duration * self._video.time_base or step)
        self._attach(self._interleaver.upto(start))
        super().write(chunk)

    def cut_short(self) -> None:
        """End the packets with the video."""
        self._interleaver.cut_short()

    def finish(self) -> None:
        """Write the remaining packets, INDEX and END."""
        if self._end is not None:
            self._attach(self._interleaver.rest(self._end))
        super().finish()

    def _begin(self, since: Fraction, until: Fraction | None) -> None:
        self._interleaver.begin(since, until)
        extras = self._interleaver.extras
        for payload in pack_meta(extras):
            self.attach(META, payload)
        for track in extras.tracks:
            self.attach(TRACK, pack_track(track))

    def _attach(self, packets: Iterator[TrackPacket]) -> None:
        group, size = list[TrackPacket](), 0
        for packet in packets:
            group.append(packet)
            size += len(packet.data)
            if size >= CHUNK_BYTES:
                self.attach(PACKETS, pack_packets(group))
                group, size = [], 0
        if group:
            self.attach(PACKETS, pack_packets(group))
