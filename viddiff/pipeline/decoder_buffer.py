"""A model of a decoder's buffer: a leaky bucket, as in the HRD of ITU-T H.264, annex C.

    bits come in at a constant rate, and wait outside while the buffer is full
    a chunk leaves at once, at the time of its first frame

A decoder needs a whole chunk before it shows the chunk's first frame. A background belongs to the keyframe
for which it is written. Sound and the like do not count. Just before the first chunk leaves, the buffer is
filled to `FILLED`. The model holds as long as every chunk is whole in the buffer when it has to leave.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Self

from viddiff.container.format import Chunk, KeyChunk
from viddiff.container.gop_table import usual_step
from viddiff.encoder.options import quality_of
from viddiff.frame import VideoInfo

FILLED = Fraction(9, 10)
"""Share of the buffer that is filled when the first chunk leaves."""
_RESERVE = Fraction(1, 2)
"""Share of the buffer that a GOP leaves filled, at least, where something has to be left."""
_MOST_DOUBLINGS, _STEPS, _PRECISION = 16, 14, 1 << 16
"""Of the search for the room of a GOP: largest factor as a power of 2, halvings, parts of a factor."""


@dataclass(frozen=True)
class BufferLimit:
    """What a decoder is known to have. Raises ValueError if a number is not larger than 0."""

    maxrate: int
    """Bits per second that come in."""
    bufsize: int
    """Bits that the buffer holds."""

    def __post_init__(self) -> None:
        if self.maxrate < 1 or self.bufsize < 1:
            raise ValueError("--maxrate and --bufsize are larger than 0")


@dataclass(frozen=True)
class GopSizes:
    """When the chunks of a GOP leave the buffer, and how large they are."""

    quantiser: int
    """Of the AV1 base."""
    times: tuple[int, ...]
    """Of the chunks' first frames, in units of the time base."""
    bits: tuple[int, ...]
    """Of the chunks."""
    end: int
    """Time of the next GOP, as far as it is known."""

    @classmethod
    def of(cls, chunks: Iterable[Chunk], sizes: Iterable[int], video: VideoInfo) -> Self:
        """Of the chunks of a GOP, the first of which is KEY. sizes: bytes that they take in the file."""
        quantiser, times, end = 0, list[int](), 0
        for chunk in chunks:
            if isinstance(chunk, KeyChunk):
                quantiser = chunk.payload[0]
            times.append(chunk.times[0])
            end = chunk.times[-1] + (chunk.duration or usual_step(video))
        return cls(quantiser, tuple(times), tuple(8 * size for size in sizes), end)

    def moved(self, start: int) -> Self:
        """The same GOP at another time."""
        by = start - self.times[0]
        return replace(self, times=tuple(time + by for time in self.times), end=self.end + by)


@dataclass(frozen=True)
class BufferReport:
    """How a file kept within a decoder's buffer."""

    maxrate: int
    """Bits per second."""
    bufsize: int
    """Bits."""
    least_filled: float
    """Share of the buffer that was filled when it was emptiest, 0..1."""
    coarser_gops: int
    """GOPs that have a lower quality than asked for."""
    lowest_quality: float
    """Quality of the coarsest GOP, 0..63."""


class DecoderBuffer:
    """The buffer while a file is written."""

    def __init__(self, limit: BufferLimit, video: VideoInfo, quantiser: int) -> None:
        """quantiser: of GOPs that need not be coarser."""
        self.limit, self.video, self.quantiser = limit, video, quantiser
        self._rate = limit.maxrate * video.time_base
        self._filled = self._least = limit.bufsize * FILLED
        self._begin: int | None = None
        self._time, self._coarser, self._coarsest = 0, 0, quantiser
        self._chunks, self._sizes = list[Chunk](), list[int]()  # of the last GOP

    @property
    def before(self) -> GopSizes | None:
        """The GOP that was written last."""
        return GopSizes.of(self._chunks, self._sizes, self.video) if self._chunks else None

    def take(self, chunk: Chunk, size_bytes: int) -> None:
        """Take in the next chunk of the file. size_bytes: what it takes there, with its background."""
        if isinstance(chunk, KeyChunk):
            self._chunks, self._sizes = [], []
            quantiser = chunk.payload[0]
            self._coarser += quantiser > self.quantiser
            self._coarsest = max(self._coarsest, quantiser)
        self._chunks.append(chunk)
        self._sizes.append(size_bytes)
        ((self._time, self._filled),) = self._states((chunk.times[0],), (8 * size_bytes,))
        self._begin = self._time if self._begin is None else self._begin
        self._least = min(self._least, self._filled)

    def holds(self, gop: GopSizes, reserve: bool, factor: Fraction = Fraction(1)) -> bool:
        """Whether all chunks of the next GOP are there in time.

        reserve: enough has to be left for the same GOP again, and half of the buffer. factor: on the sizes of
        the chunks.
        """
        filled, again = self._filled, gop.moved(gop.end)
        for _, filled in self._states(gop.times, gop.bits, factor):
            if filled < 0:
                return False
        left = self._refilled(filled, gop.end - gop.times[-1])
        if not reserve:
            return True
        states = self._states(gop.times + again.times, gop.bits + again.bits, factor)
        return left >= self.limit.bufsize * _RESERVE and all(filled >= 0 for _, filled in states)

    def room(self, gop: GopSizes, reserve: bool) -> float:
        """Log2 of the factor by which the chunks of the next GOP may grow. Negative: they have to shrink."""
        least, most = float(-_MOST_DOUBLINGS), float(_MOST_DOUBLINGS)
        for _ in range(_STEPS):
            middle = (least + most) / 2
            factor = Fraction(round(2**middle * _PRECISION), _PRECISION)
            least, most = (middle, most) if self.holds(gop, reserve, factor) else (least, middle)
        return least

    def first_late(self, gop: GopSizes) -> tuple[float, int]:
        """Of a GOP that does not hold: seconds from the first frame to the first late chunk, missing bits."""
        time, filled = next(state for state in self._states(gop.times, gop.bits) if state[1] < 0)
        begin = gop.times[0] if self._begin is None else self._begin
        return float((time - begin) * self.video.time_base), ceil(-filled)

    def report(self) -> BufferReport:
        """How the file kept within the buffer."""
        size = self.limit.bufsize
        filled, quality = float(self._least / size), quality_of(self._coarsest)
        return BufferReport(self.limit.maxrate, size, filled, self._coarser, quality)

    def _states(
        self, times: Iterable[int], bits: Iterable[int], factor: Fraction = Fraction(1)
    ) -> Iterator[tuple[int, Fraction]]:
        """Time and filling after each chunk, if these come next."""
        filled, time = self._filled, self._time if self._begin is not None else None
        for start, size in zip(times, bits, strict=True):
            if time is not None:
                filled = self._refilled(filled, start - time)
            filled -= size * factor
            time = start
            yield time, filled

    def _refilled(self, filled: Fraction, units: int) -> Fraction:
        """What is in the buffer so many units of time later."""
        return min(filled + units * self._rate, Fraction(self.limit.bufsize))
