"""A span of a video: which packets and chapters lie in it, and their times within it."""

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor

from viddiff.tracks import Chapter, Track, TrackPacket


@dataclass(frozen=True)
class Span:
    """A span of the time line, in seconds. None: it is not cut on this side."""

    since: Fraction | None = None
    until: Fraction | None = None

    def packet(self, packet: TrackPacket, track: Track) -> TrackPacket | None:
        """The packet if a part of it lies within the span. The times of a subtitle are cut to the span."""
        since, until = self.since, self.until
        start, end = packet.pts, packet.pts + packet.duration
        if since is not None and track.seconds(max(start + 1, end)) <= since:
            return None
        if until is not None and track.seconds(start) >= until:
            return None
        if track.kind == "subtitle" and packet.duration:
            start = start if since is None else max(start, floor(since / track.time_base))
            end = end if until is None else min(end, floor(until / track.time_base))
            packet = replace(packet, pts=start, duration=max(end - start, 1))
        return packet

    def chapters(self, chapters: list[Chapter]) -> list[Chapter]:
        """The chapters that lie within the span, cut to it in whole units."""
        found = []
        for chapter in chapters:
            start, end = chapter.start, chapter.end
            if self.since is not None:
                start = max(start, floor(self.since / chapter.time_base))
            if self.until is not None:
                end = min(end, ceil(self.until / chapter.time_base))
            if start < end or (start, end) == (chapter.start, chapter.end):
                found.append(replace(chapter, start=start, end=end))
        return found
