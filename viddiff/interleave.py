"""Interleave packets of sound and subtitles with the video, and cut them to its span.

Each frame is preceded by the packets that do not begin after it.
"""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Protocol

from viddiff.span import Span
from viddiff.tracks import Extras, TrackPacket

DISORDER = 10
"""Files may store packets of one track up to this many seconds before those of another, as libav does."""


class PacketSource(Protocol):
    """A source of packets in stored order."""

    def take(self, time: Fraction | None) -> TrackPacket | None:
        """The next packet, or None.

        None means that there is no packet, or none yet that belongs before `time` (in seconds).
        """

    def stop_waiting(self) -> None:
        """From now on, return only packets that are already there."""


class Interleaver:
    """Returns packets up to the video's time, and drops those outside the selected part of the video."""

    def __init__(
        self, extras: Extras, source: PacketSource, cut_start: bool = False, cut_end: bool = False
    ) -> None:
        """cut_start, cut_end: the video begins later, or ends earlier, than the packets."""
        self.extras = extras
        """Tags, chapters and attachments, cut to the span by `begin`."""
        self._source = source
        self._waiting: TrackPacket | None = None
        self._cut_start, self._cut_end = cut_start, cut_end
        self._since: Fraction | None = None

    def begin(self, since: Fraction, until: Fraction | None = None) -> None:
        """Start the video at `since` seconds. Cut the chapters, also at `until` if that is known."""
        self._since = since if self._cut_start else None
        until = until if self._cut_end else None
        chapters = Span(self._since, until).chapters(self.extras.chapters)
        self.extras = replace(self.extras, chapters=chapters)

    def cut_short(self) -> None:
        """End the video now, before the packets end."""
        self._cut_end = True
        self._source.stop_waiting()

    def upto(self, time: Fraction) -> Iterator[TrackPacket]:
        """Packets that begin at or before `time` (in seconds)."""
        while (packet := self._next(time)) is not None and self._seconds(packet, packet.pts) <= time:
            self._waiting = None
            yield from self._cut(packet, None)

    def rest(self, end: Fraction) -> Iterator[TrackPacket]:
        """The remaining packets. `end` is the end of the video in seconds."""
        until = end if self._cut_end else None
        while (packet := self._next(until)) is not None:
            if until is not None and self._seconds(packet, packet.pts) > until + DISORDER:
                return  # without reading to the source's end
            self._waiting = None
            yield from self._cut(packet, until)

    def _next(self, time: Fraction | None) -> TrackPacket | None:
        if self._waiting is None:
            self._waiting = self._source.take(time)
        return self._waiting

    def _seconds(self, packet: TrackPacket, time: int) -> Fraction:
        return self.extras.tracks[packet.track].seconds(time)

    def _cut(self, packet: TrackPacket, until: Fraction | None) -> Iterator[TrackPacket]:
        """The packet if it lies within the span, and cut to it."""
        kept = Span(self._since, until).packet(packet, self.extras.tracks[packet.track])
        if kept is not None:
            yield kept
