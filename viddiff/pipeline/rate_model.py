"""Choose the quantiser of each GOP from the bytes of those before, so that a stream has a bit rate.

    log2(bits per second of the pictures) = level - slope * quantiser

The level follows the content smoothly, the slope is learnt where the quantiser has changed. What was saved or
spent too much is made up for slowly. Small changes are left alone: equal quantisers let GOPs share a
background, and quality does not waver.
"""

from dataclasses import dataclass
from math import log2

from viddiff.encoder.options import BASE_QUANTISERS

_FIRST, _BITS_PER_PIXEL = 140, 0.06
"""A quantiser, and bits per luma sample that are expected of it before there are any."""
_SLOPE, _SLOPES, _TRUST, _MEMORY = 0.025, (0.012, 0.045), 900.0, 0.8
"""Slope that is expected and those that are possible; weight of the expectation, as the square of a change of
the quantiser; weight that what was learnt keeps from GOP to GOP."""
_HALF_S, _OTHER_HALF_S = 2.0, 10.0
"""Seconds after which content counts half, and sound, which may come in pieces."""
_HORIZON_S, _HORIZON_GOPS = 15.0, 3.0
"""In how many seconds, and at least how many GOPs, a deviation is made up for."""
_MOST_S = 20.0
"""Seconds of the bit rate that can be saved or owed. What is beyond is forgotten."""
_CORRECTION = 0.4
"""Share of the bit rate by which a GOP may have more or less because of what was saved or owed."""
_LEAST_SHARE = 0.1
"""Share of the bit rate that pictures have at least, whatever the sound takes."""
_STEP, _LARGEST = 4, 48
"""Least and largest change of the quantiser from GOP to GOP."""
_LEAST_S = 1e-3
"""Seconds that a span counts as at least."""
_TOLERANCE = 1.1
"""How many times the bit rate a file may have without a note."""


@dataclass(frozen=True)
class CodedSpan:
    """What a GOP, or all GOPs so far, have taken."""

    seconds: float
    video_bits: float
    other_bits: float
    """Of sound, subtitles and the container."""

    @property
    def rate(self) -> float:
        """Bits per second."""
        return (self.video_bits + self.other_bits) / max(self.seconds, _LEAST_S)

    def __sub__(self, start: "CodedSpan") -> "CodedSpan":
        """What came after `start`, which this span begins with."""
        return CodedSpan(
            self.seconds - start.seconds,
            self.video_bits - start.video_bits,
            self.other_bits - start.other_bits,
        )


@dataclass(frozen=True)
class RateReport:
    """How a stream kept its bit rate."""

    wanted: int
    """Bits per second."""
    reached: int
    """Bits per second of the whole file."""
    beyond_gops: int
    """GOPs that take more at every quality."""

    @property
    def note(self) -> str:
        """What the user is told if the file has much more than was wanted, or nothing."""
        if self.reached <= _TOLERANCE * self.wanted:
            return ""
        why = "the stream ended before that could be made up for"
        if self.beyond_gops:
            why = f"GOPs that take more at every quality: {self.beyond_gops}"
        reached, wanted = self.reached / 1000, self.wanted / 1000
        return f"the file has {reached:.4g} kbit/s, but {wanted:.4g} were wanted: {why}"


class RateModel:
    """The state of a stream. It depends on nothing but what was added."""

    def __init__(self, bitrate: int, pixels_per_second: float) -> None:
        """bitrate: bits per second, sound and all. pixels_per_second: luma samples."""
        self._bitrate = bitrate
        self._level = log2(_BITS_PER_PIXEL * pixels_per_second) + _SLOPE * _FIRST
        self._slope = _SLOPE
        self._squares, self._products = _TRUST, _TRUST * _SLOPE
        self._saved = self._other_rate = 0.0
        self._before: tuple[int, float] | None = None  # quantiser and log2 of the rate
        self._gops, self._usual_s = 0, 0.0

    def next_quantiser(self) -> int:
        """The quantiser of the next GOP."""
        wanted = (self._level - log2(self._video_rate())) / self._slope
        if self._before is None:
            return _possible(wanted)
        quantiser, _ = self._before
        if abs(wanted - quantiser) < _STEP:
            return quantiser
        return _possible(min(max(wanted, quantiser - _LARGEST), quantiser + _LARGEST))

    def add(self, quantiser: int, span: CodedSpan) -> None:
        """Take in a GOP that was coded with `quantiser`."""
        seconds = max(span.seconds, _LEAST_S)
        rate = log2(max(span.video_bits, 1.0) / seconds)
        self._learn_slope(quantiser, rate)
        self._gops += 1
        new, new_other = self._weight(seconds, _HALF_S), self._weight(seconds, _OTHER_HALF_S)
        self._level += new * (rate + self._slope * quantiser - self._level)
        self._other_rate += new_other * (span.other_bits / seconds - self._other_rate)
        most = _MOST_S * self._bitrate
        saved = self._saved + self._bitrate * seconds - span.video_bits - span.other_bits
        self._saved = min(max(saved, -most), most)
        self._before, self._usual_s = (quantiser, rate), seconds

    def _weight(self, seconds: float, half_s: float) -> float:
        """Share that the last GOP has in a mean, which all have equally at first."""
        return max(1 / self._gops, 1 - 2 ** (-seconds / half_s))

    def _learn_slope(self, quantiser: int, rate: float) -> None:
        """Regression of changes of the rate on those of the quantiser, around what is usual."""
        if self._before is None:
            return
        change = quantiser - self._before[0]
        self._squares = _MEMORY * self._squares + (1 - _MEMORY) * _TRUST + change * change
        self._products = (
            _MEMORY * self._products + (1 - _MEMORY) * _TRUST * _SLOPE - change * (rate - self._before[1])
        )
        before = self._slope
        self._slope = min(max(self._products / self._squares, _SLOPES[0]), _SLOPES[1])
        self._level += (self._slope - before) * self._before[0]  # the same rate at the last quantiser

    def _video_rate(self) -> float:
        """Bits per second that the pictures of the next GOP may have."""
        horizon = max(_HORIZON_S, _HORIZON_GOPS * self._usual_s)
        most = _CORRECTION * self._bitrate
        rate = self._bitrate + min(max(self._saved / horizon, -most), most) - self._other_rate
        return max(rate, _LEAST_SHARE * self._bitrate)


def _possible(quantiser: float) -> int:
    """The nearest one of few, so that GOPs can share backgrounds."""
    nearest = _STEP * round(quantiser / _STEP)
    return min(max(nearest, BASE_QUANTISERS[0]), BASE_QUANTISERS[-1])
