"""One time line for sources whose times start again: broadcasts that were joined, cut or restarted."""

from fractions import Fraction
from typing import Any

import av

_BACK = Fraction(1, 10)
"""Decoding times go back by more than this (seconds) only where a new part begins, as libav assumes."""
_LATEST = 1 << 62
"""Limit of times, in units of a stream. Moved times must stay within 64 bits."""
TS_DISCONT = 0x0200
"""libav's flag of formats whose times may start again."""


class Continuity:
    """Moves the times of packets, in stored order. A part that starts again continues after all before it."""

    def __init__(self, flags: int) -> None:
        """flags: libav's flags of the format."""
        self._wanted = bool(flags & TS_DISCONT)
        self.moved = False
        """Whether any time was moved."""
        self._shift = self._end = Fraction(0)
        """Shift of the latest part; end of pictures and sound. In seconds."""
        self._shifts: dict[int, Fraction] = {}
        self._latest: dict[int, Fraction] = {}  # before the shift

    def apply(self, packet: "av.Packet[Any]") -> None:
        """Move the times of the next packet."""
        stored = packet.pts if packet.dts is None else packet.dts
        if not self._wanted or stored is None or packet.time_base is None:
            return
        index, base = packet.stream.index, packet.time_base
        shown = (stored if packet.pts is None else packet.pts) * base
        timing = packet.stream.type in ("video", "audio")
        time, shift = stored * base, self._shifts.get(index, self._shift)
        if shift != self._shift:  # streams are stored apart, so each comes to the next part by itself
            shift = min(shift, self._shift, key=lambda offset: abs(time + offset - self._end))
        elif timing and packet.dts is not None and time < self._latest.get(index, time) - _BACK:
            shift = self._shift = self._end - shown
            self.moved = True
        self._shifts[index], self._latest[index] = shift, time
        ticks = round(shift / base)
        pts, dts = (None if time is None else time + ticks for time in (packet.pts, packet.dts))
        if any(time is not None and abs(time) > _LATEST for time in (pts, dts)):
            return  # no time that anything is shown at
        packet.pts, packet.dts = pts, dts
        if timing:
            self._end = max(self._end, shown + (packet.duration or 0) * base + shift)
