"""Match the frames of two videos by time."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from viddiff.frame import Frame, VideoInfo


@dataclass(frozen=True)
class Timed:
    """A frame with its place in its video."""

    number: int
    """From 0."""
    time: Fraction
    """Seconds: after the video's first frame, or as stored."""
    frame: Frame


@dataclass(frozen=True)
class Pair:
    """A frame of the reference and the file's frame of the same time. One may be missing."""

    reference: Timed | None
    file: Timed | None


def timed(frames: Iterable[Frame], info: VideoInfo, stored: bool) -> Iterator[Timed]:
    """Frames with their numbers and times. stored: times are those of the file, not from the first frame."""
    start: int | None = 0 if stored else None
    for number, frame in enumerate(frames):
        start = frame.pts if start is None else start
        yield Timed(number, (frame.pts - start) * info.time_base, frame)


def match(reference: Iterable[Timed], file: Iterable[Timed], usual: Fraction) -> Iterator[Pair]:
    """Pairs in order of time. Every frame of both videos is in one pair.

    Two frames match if each is the nearest to the other, and if they are less than half the distance apart
    from the reference frame to its nearest neighbour. usual: that distance in seconds where there is no
    neighbour. Needs two frames of each video at a time.
    """
    ours, theirs = _Ahead(reference), _Ahead(file)
    before: Fraction | None = None
    while (a := ours.head) is not None and (b := theirs.head) is not None:
        apart = abs(a.time - b.time)
        gaps = [abs(a.time - other) for other in (before, ours.next_time) if other is not None]
        if theirs.next_time is not None and abs(a.time - theirs.next_time) < apart:
            theirs.take()
            yield Pair(None, b)
        elif ours.next_time is not None and abs(b.time - ours.next_time) < apart:
            before = a.time
            ours.take()
            yield Pair(a, None)
        elif 2 * apart < min(gaps, default=usual):
            before = a.time
            ours.take()
            theirs.take()
            yield Pair(a, b)
        elif a.time < b.time:
            before = a.time
            ours.take()
            yield Pair(a, None)
        else:
            theirs.take()
            yield Pair(None, b)
    while (a := ours.head) is not None:
        ours.take()
        yield Pair(a, None)
    while (b := theirs.head) is not None:
        theirs.take()
        yield Pair(None, b)


class _Ahead:
    """Frames, two of which can be looked at before they are taken."""

    def __init__(self, frames: Iterable[Timed]) -> None:
        self._frames, self._ready = iter(frames), deque[Timed]()

    def _look(self, place: int) -> Timed | None:
        while len(self._ready) <= place:
            found = next(self._frames, None)
            if found is None:
                return None
            self._ready.append(found)
        return self._ready[place]

    @property
    def head(self) -> Timed | None:
        """The next frame."""
        return self._look(0)

    @property
    def next_time(self) -> Fraction | None:
        """Time of the frame after the next."""
        found = self._look(1)
        return None if found is None else found.time

    def take(self) -> None:
        """Go to the next frame."""
        self._ready.popleft()
