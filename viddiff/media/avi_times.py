"""Times of pictures in files with a constant rate and without times (AVI)."""

from bisect import insort
from typing import Any

import av

_DELAY = 32
"""Packets after which the picture of one has been output, or never will be. H.264 delays at most 16."""


class Slots:
    """Gives pictures the times at which packets are stored: the first picture the first time, and so on.

    Packets are stored in decoding order. With B-frames, their times are wrong for single pictures, but right
    as a whole, and sound is stored in sync with them. libav's own guesses are late by the decoder's delay,
    and for some H.264 files out of order.
    """

    def __init__(self) -> None:
        self._free: list[int] = []
        """Times that no picture has yet, in order."""
        self._awaited: dict[int, int] = {}
        """Numbers of packets whose picture is still missing, by slot."""
        self._entered = 0

    def enter(self, packet: "av.Packet[Any]") -> None:
        """Register the packet that is decoded next."""
        packet.pts = packet.dts  # its picture brings it along
        if packet.size and packet.dts is not None:
            insort(self._free, packet.dts)
            self._awaited[packet.dts] = self._entered
            self._entered += 1

    def leave(self, picture: av.VideoFrame) -> None:
        """Set the time of the next picture in display order."""
        number = -1 if picture.pts is None else self._awaited.pop(picture.pts, -1)
        lost = [slot for slot, other in self._awaited.items() if other < number - _DELAY]
        del self._free[: len(lost)]  # there are more slots than pictures: some packets are damaged
        for slot in lost:
            del self._awaited[slot]
        if self._free:
            picture.pts = self._free.pop(0)
