"""Quality of a decoded video: squared errors, PSNR, and the Bjøntegaard delta rate of two codecs.

The PSNR of a plane comes from its mean squared error over all frames of the video. The combined PSNR is

    PSNR_611 = (6 PSNR_Y + PSNR_U + PSNR_V) / 8,

with JVET's usual weights for 4:2:0. (The mean of the PSNRs of single frames gives other, higher values.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from viddiff.frame import Frame

Floats = NDArray[np.float64]


def squared_errors(a: Frame, b: Frame) -> tuple[float, float, float]:
    """Mean squared error of each plane, in squared sample values of the frames' bit depth."""
    means = []
    for plane_a, plane_b in zip(a.planes, b.planes, strict=True):
        if plane_a.shape != plane_b.shape or plane_a.dtype != plane_b.dtype:
            raise ValueError(
                f"frames differ in form: {plane_a.shape} {plane_a.dtype} and {plane_b.shape} {plane_b.dtype}"
            )
        difference = plane_a.astype(np.int64) - plane_b
        means.append(float(np.mean(difference * difference)))
    return means[0], means[1], means[2]


def psnr(mse: float, bit_depth: int) -> float:
    """Peak signal-to-noise ratio in dB, with peak 2^bit_depth - 1. Infinite without error."""
    peak = (1 << bit_depth) - 1
    return math.inf if mse == 0 else 10 * math.log10(peak * peak / mse)


@dataclass
class Distortion:
    """Squared errors, summed over the frames of a video."""

    bit_depth: int
    frames: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """For each plane, the sum of the mean squared errors of its frames."""

    def add(self, original: Frame, decoded: Frame) -> None:
        """Add one frame."""
        self.sums = [s + e for s, e in zip(self.sums, squared_errors(original, decoded), strict=True)]
        self.frames += 1

    @property
    def mse(self) -> tuple[float, float, float]:
        """Mean squared error of Y, U and V over all frames."""
        if not self.frames:
            raise ValueError("no frame was compared")
        y, u, v = (s / self.frames for s in self.sums)
        return y, u, v

    @property
    def psnr_yuv(self) -> tuple[float, float, float]:
        """PSNR of Y, U and V in dB."""
        y, u, v = (psnr(mse, self.bit_depth) for mse in self.mse)
        return y, u, v

    @property
    def psnr_611(self) -> float:
        """(6 PSNR_Y + PSNR_U + PSNR_V) / 8 in dB."""
        y, u, v = self.psnr_yuv
        return (6 * y + u + v) / 8


def bd_rate(
    anchor_rates: Sequence[float],
    anchor_psnr: Sequence[float],
    test_rates: Sequence[float],
    test_psnr: Sequence[float],
) -> float:
    """Bjøntegaard delta rate in percent: how much more the test spends than the anchor at equal PSNR.

    It is the mean difference of log rate over the range of PSNR that both curves cover (G. Bjøntegaard,
    VCEG-M33, 2001). Log rate is interpolated over PSNR by monotone piecewise cubics, as in the JVET common
    test conditions, instead of one cubic through all points. Negative is better. Both rates have the same
    unit. Points may come in any order.

    Raises ValueError if a curve has fewer than two points, if it does not rise (a point with more rate must
    have a higher PSNR), or if the curves share no range of PSNR.
    """
    anchor_x, anchor_y = _curve(anchor_rates, anchor_psnr, "anchor")
    test_x, test_y = _curve(test_rates, test_psnr, "test")
    low, high = max(anchor_x[0], test_x[0]), min(anchor_x[-1], test_x[-1])
    if not low < high:
        raise ValueError(
            f"the curves do not overlap: the anchor covers {anchor_x[0]:.2f}..{anchor_x[-1]:.2f} dB, "
            f"the test {test_x[0]:.2f}..{test_x[-1]:.2f} dB"
        )
    area = _pchip_integral(test_x, test_y, low, high) - _pchip_integral(anchor_x, anchor_y, low, high)
    return 100 * math.expm1(area / (high - low))


def _curve(rates: Sequence[float], psnrs: Sequence[float], name: str) -> tuple[Floats, Floats]:
    """(PSNR, log rate) of one codec, sorted and checked."""
    if len(rates) != len(psnrs) or len(rates) < 2:
        raise ValueError(f"the {name} curve needs two or more pairs of rate and PSNR")
    x, rate = np.array(psnrs, float), np.array(rates, float)
    if not (np.isfinite(x).all() and np.isfinite(rate).all() and (rate > 0).all()):
        raise ValueError(f"the {name} curve needs positive, finite rates and finite PSNRs")
    order = np.argsort(x)
    x, y = x[order], np.log(rate[order])
    if not ((np.diff(x) > 0).all() and (np.diff(y) > 0).all()):
        raise ValueError(f"the {name} curve does not rise: more rate must mean more PSNR at each point")
    return x, y


def _pchip_integral(x: Floats, y: Floats, low: float, high: float) -> float:
    """Integral of the monotone piecewise cubic through the points, from low to high."""
    slopes = _pchip_slopes(x, y)
    total = 0.0
    for i, width in enumerate(np.diff(x)):
        a, b = np.clip(((low - x[i]) / width, (high - x[i]) / width), 0, 1)
        secant = (y[i + 1] - y[i]) / width
        cubic = np.polynomial.Polynomial(  # in t = (x - x_i) / width
            (
                y[i],
                width * slopes[i],
                width * (3 * secant - 2 * slopes[i] - slopes[i + 1]),
                width * (slopes[i] + slopes[i + 1] - 2 * secant),
            )
        ).integ()
        total += width * float(cubic(b) - cubic(a))
    return total


def _pchip_slopes(x: Floats, y: Floats) -> Floats:
    """Slopes at the points of a rising curve (F. Fritsch and J. Butland, 1984; as in scipy and Matlab)."""
    width = np.diff(x)
    secant = np.diff(y) / width
    if len(x) == 2:
        return np.repeat(secant, 2)
    left, right = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    inner = (left + right) / (left / secant[:-1] + right / secant[1:])  # weighted harmonic mean
    ends = (
        _end_slope(width[0], width[1], secant[0], secant[1]),
        _end_slope(width[-1], width[-2], secant[-1], secant[-2]),
    )
    return np.concatenate(([ends[0]], inner, [ends[1]]))


def _end_slope(width: float, next_width: float, secant: float, next_secant: float) -> float:
    """Three-point estimate at an end, at least zero, so that the curve never falls."""
    return max(0.0, ((2 * width + next_width) * secant - width * next_secant) / (width + next_width))
