"""Times of pictures in files that have a constant rate and state no times (AVI)."""

from bisect import insort
from typing import Any

import av

_DELAY = 32
"""Packets after which a decoder has given the picture of one, or never will: H.264 waits for 16 at most."""


class Slots:
    """Shows pictures at the times at which packets are stored: the first at the first, and so on.

    Packets are stored in the order of decoding, so B-frames make those times wrong for single pictures, but
    not as a whole, and sound is stored for them. libav guesses instead: late by the decoder's delay, and
    some of H.264 not even in order.
    """

    def __init__(self) -> None:
        self._free: list[int] = []
        """The slots that no picture has taken yet, in order."""
        self._awaited: dict[int, int] = {}
        """Numbers of packets of which no picture has come yet, by slot."""
        self._entered = 0

    def enter(self, packet: "av.Packet[Any]") -> None:
        """The packet is decoded next."""
        packet.pts = packet.dts  # its picture brings it along
        if packet.size and packet.dts is not None:
            insort(self._free, packet.dts)
            self._awaited[packet.dts] = self._entered
            self._entered += 1

    def leave(self, picture: av.VideoFrame) -> None:
        """Give a picture, the next in the order of showing, its time."""
        number = -1 if picture.pts is None else self._awaited.pop(picture.pts, -1)
        lost = [slot for slot, other in self._awaited.items() if other < number - _DELAY]
        del self._free[: len(lost)]  # there are more slots than pictures: some packets are damaged
        for slot in lost:
            del self._awaited[slot]
        if self._free:
            picture.pts = self._free.pop(0)
