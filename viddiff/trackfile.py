"""Reads what a `.vdf` carries beside the video."""

from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from viddiff.container import META, PACKETS, TRACK
from viddiff.errors import BitstreamError
from viddiff.reader import Reader
from viddiff.tracks import Extras, TrackPacket, unpack_packets


class TrackFile:
    """Tracks, tags, chapters and attachments of a `.vdf`, and the packets in the order of the file."""

    def __init__(self, file: BinaryIO) -> None:
        """Read all that comes before the first frame. BitstreamError, LimitError. Does not close `file`."""
        self.extras = Extras()
        self._ready: deque[TrackPacket] = deque()
        self._begun = False
        self._chunks = iter(Reader(file, self._take))
        next(self._chunks, None)
        self._begun = True

    def packets(self) -> Iterator[TrackPacket]:
        """The packets, once; reads the file as they are taken. BitstreamError, LimitError."""
        while True:
            while self._ready:
                yield self._ready.popleft()
            if next(self._chunks, None) is None and not self._ready:
                return

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == PACKETS:
            self._ready += unpack_packets(payload, self.extras.tracks)
        elif kind in (META, TRACK) and self._begun:
            raise BitstreamError("META or TRACK comes after a frame")
        elif kind == META:
            self.extras.take_meta(payload)
        elif kind == TRACK:
            self.extras.take_track(payload)
