"""Frames of the AV1 base, each with the neighbours that help to see what it shows.

A frame that lies between two more finely coded ones waits for the second of them, if that belongs to the same
chunk. So it takes no longer than the chunk until it can be shown, and a GOP needs nothing from another one.
In SVT-AV1's hierarchy these are every second frame, between neighbours, and every fourth, between the frames
next to its neighbours.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from viddiff.codec.block_motion import SearchedFrame, hypotheses
from viddiff.frame import Frame
from viddiff.media.av1_headers import Coding

REACH = 2
"""Frames that a better neighbour may be away."""


@dataclass(frozen=True, eq=False)
class DecodedFrame:
    """A frame as dav1d shows it, and what AV1's headers say of it."""

    searched: SearchedFrame
    coding: Coding

    @property
    def frame(self) -> Frame:
        """The frame, of BASE_BIT_DEPTH."""
        return self.searched.frame


@dataclass(frozen=True, eq=False)
class BaseFrame:
    """A frame of the base, and its better neighbours."""

    own: DecodedFrame
    neighbours: tuple[DecodedFrame, ...] = ()
    """The nearest better frames before and after it, or none."""

    @property
    def frame(self) -> Frame:
        """The frame, of BASE_BIT_DEPTH."""
        return self.own.frame

    @property
    def coding(self) -> Coding:
        """What AV1's headers say of it."""
        return self.own.coding

    def hypotheses(self) -> list[Frame]:
        """What the neighbours show, moved to where this frame shows it. None without neighbours."""
        return hypotheses(self.own.searched, (each.searched for each in self.neighbours))


def with_neighbours(before: Sequence[DecodedFrame], frames: Iterable[DecodedFrame]) -> Iterator[BaseFrame]:
    """The frames of a chunk with their neighbours. before: the last REACH frames of the GOP's earlier chunks.

    Each waits for REACH more frames of the chunk.
    """
    held = list(before)
    first = len(held)
    for frame in frames:
        held.append(frame)
        if first + REACH < len(held):
            yield _seen(held, first)
            first += 1
        if first > REACH:
            del held[0]
            first -= 1
    for place in range(first, len(held)):
        yield _seen(held, place)


def _seen(frames: list[DecodedFrame], place: int) -> BaseFrame:
    own = frames[place]

    def nearest(others: list[DecodedFrame]) -> DecodedFrame | None:
        return next((each for each in others if each.coding.quantiser < own.coding.quantiser), None)

    before = nearest(frames[max(place - REACH, 0) : place][::-1])
    after = nearest(frames[place + 1 : place + 1 + REACH])
    return BaseFrame(own) if before is None or after is None else BaseFrame(own, (before, after))
