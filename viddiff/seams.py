"""Packets and chapters where the parts of a video meet.

A cut through a packet leaves it in both parts. A cut through a subtitle or a chapter leaves a piece of it in
each. Where parts meet again, the packet is kept once, and the pieces become one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

from viddiff.tracks import Chapter, Track, TrackPacket

Text = tuple[int, bytes]
"""A subtitle, wherever it stands: number of its track, and data."""


def text_of(packet: TrackPacket) -> Text:
    """What makes two pieces the same subtitle."""
    return packet.track, packet.data


@dataclass(frozen=True)
class Seam:
    """Where a part of a video ends and the next one begins."""

    time: Fraction
    """In seconds."""
    goes_on: dict[Text, int] = field(default_factory=dict)
    """Subtitles that the next part begins with, and when they end at last, in units of their tracks."""

    def touches(self, time: int, unit: Fraction) -> bool:
        """Whether `time`, in units of so many seconds, is that of the seam, as exactly as they say it."""
        return abs(time - self.time / unit) <= 1


class Joint:
    """Makes one sequence of the packets of all parts."""

    def __init__(self, tracks: list[Track]) -> None:
        self._tracks = tracks
        self._last: dict[int, TrackPacket] = {}
        self._told: set[Text] = set()
        """Subtitles that go on in the next part and are already as long as they will be."""

    def part(
        self, packets: Iterable[TrackPacket], before: Seam | None, after: Seam | None
    ) -> Iterator[TrackPacket]:
        """The packets of the next part that are not in the parts before. Times are those of the whole."""
        told, self._told = self._told, set()
        begun: set[int] = set()
        for packet in packets:
            if self._tracks[packet.track].kind == "subtitle" and packet.duration:
                kept = self._text(packet, told, before, after)
            else:
                repeated = packet.track not in begun and self._is_repeated(packet)
                kept = None if repeated else packet
                if kept is not None:
                    begun.add(packet.track)
            if kept is not None:
                self._last[packet.track] = kept
                yield kept

    def _is_repeated(self, packet: TrackPacket) -> bool:
        """Whether the first packet of a part begins before the end of the last one of the part before."""
        last = self._last.get(packet.track)
        if last is None:
            return False
        return packet.pts <= last.pts or 2 * packet.pts < 2 * last.pts + last.duration

    def _text(
        self, packet: TrackPacket, told: set[Text], before: Seam | None, after: Seam | None
    ) -> TrackPacket | None:
        """A subtitle with the length of all its pieces; None for one that is told already."""
        text, unit = text_of(packet), self._tracks[packet.track].time_base
        if after is not None and text in after.goes_on and after.touches(packet.pts + packet.duration, unit):
            self._told.add(text)
            packet = replace(packet, duration=after.goes_on[text] - packet.pts)
        if before is not None and text in told and before.touches(packet.pts, unit):
            told.discard(text)
            return None
        return packet


def joined_chapters(parts: list[list[Chapter]], seams: list[Seam]) -> list[Chapter]:
    """Chapters of parts in order. One that ends at a seam goes on if the next part has it, too."""
    found = list(parts[0])
    for chapters, seam in zip(parts[1:], seams, strict=True):
        open_ones = [number for number, c in enumerate(found) if seam.touches(c.end, c.time_base)]
        for chapter in chapters:
            number = next((n for n in open_ones if _goes_on(found[n], chapter, seam)), None)
            if number is None:
                found.append(chapter)
            else:
                open_ones.remove(number)
                found[number] = replace(found[number], end=chapter.end)
    return found


def _goes_on(before: Chapter, chapter: Chapter, seam: Seam) -> bool:
    same = (before.tags, before.time_base) == (chapter.tags, chapter.time_base)
    return same and seam.touches(chapter.start, chapter.time_base)
