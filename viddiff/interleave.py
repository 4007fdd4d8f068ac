"""Packets in step with the video: ahead of each frame those that are not later, cut to its span if asked."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor
from typing import Protocol

from viddiff.tracks import Extras, TrackPacket

DISORDER = 10
"""Seconds by which files store the packets of one track before those of another, at most, as libav does."""


class PacketSource(Protocol):
    """Where packets come from, in stored order."""

    def take(self, time: Fraction | None) -> TrackPacket | None:
        """The next packet. None if there is none, or none yet that belongs to the video before `time`, in
        seconds."""

    def stop_waiting(self) -> None:
        """Give only what is there, if it may take long for more to come."""


class Interleaver:
    """Gives packets up to the video's time. Those outside of a part of a video are left out."""

    def __init__(
        self, extras: Extras, source: PacketSource, cut_start: bool = False, cut_end: bool = False
    ) -> None:
        """cut_start, cut_end: whether the video is to begin later, or to end earlier, than the packets."""
        self.extras = extras
        """What `begin` left of it."""
        self._source = source
        self._waiting: TrackPacket | None = None
        self._cut_start, self._cut_end = cut_start, cut_end
        self._since: Fraction | None = None

    def begin(self, since: Fraction, until: Fraction | None = None) -> None:
        """The video begins at `since` seconds and ends, as far as is known, at `until`: cut the chapters."""
        self._since = since if self._cut_start else None
        until = until if self._cut_end else None
        chapters = []
        for chapter in self.extras.chapters:
            start, end = chapter.start, chapter.end
            if self._since is not None:
                start = max(start, floor(self._since / chapter.time_base))
            if until is not None:
                end = min(end, ceil(until / chapter.time_base))
            if start < end or (start, end) == (chapter.start, chapter.end):
                chapters.append(replace(chapter, start=start, end=end))
        self.extras = replace(self.extras, chapters=chapters)

    def cut_short(self) -> None:
        """The video is to end earlier than the packets, and now."""
        self._cut_end = True
        self._source.stop_waiting()

    def upto(self, time: Fraction) -> Iterator[TrackPacket]:
        """Packets that begin at `time` seconds or before."""
        while (packet := self._next(time)) is not None and self._seconds(packet, packet.pts) <= time:
            self._waiting = None
            yield from self._cut(packet, None)

    def rest(self, end: Fraction) -> Iterator[TrackPacket]:
        """The packets that are left; `end`: when the video ends, in seconds."""
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
        """The packet if it lies within the span; one of subtitles with its time cut to it."""
        track, start, end = self.extras.tracks[packet.track], packet.pts, packet.pts + packet.duration
        since = self._since
        if since is not None and track.seconds(max(start + 1, end)) <= since:
            return
        if until is not None and track.seconds(start) >= until:
            return
        if track.kind == "subtitle" and packet.duration:
            start = start if since is None else max(start, ceil(since / track.time_base))
            end = end if until is None else min(end, floor(until / track.time_base))
            packet = replace(packet, pts=start, duration=max(end - start, 1))
        yield packet
