"""The Bjøntegaard delta rate of two codecs."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def bd_rate(
    anchor_rates: Sequence[float],
    anchor_scores: Sequence[float],
    test_rates: Sequence[float],
    test_scores: Sequence[float],
    *,
    measure: str = "PSNR",
    unit: str = " dB",
) -> float:
    """Bjøntegaard delta rate in percent: how much more the test spends than the anchor at equal quality.

    It is the mean difference of log rate over the range of quality that both curves cover (G. Bjøntegaard,
    VCEG-M33, 2001). Log rate is interpolated over quality by monotone piecewise cubics, as in the JVET common
    test conditions, instead of one cubic through all points. Negative is better. Both rates have the same
    unit. Points may come in any order. Quality is PSNR in dB, or what `measure` and `unit` say, for messages.

    Raises ValueError if a curve has fewer than two points, if it does not rise (a point with more rate must
    have more quality), or if the curves share no range of quality.
    """
    anchor_x, anchor_y = _curve(anchor_rates, anchor_scores, "anchor", measure)
    test_x, test_y = _curve(test_rates, test_scores, "test", measure)
    low, high = max(anchor_x[0], test_x[0]), min(anchor_x[-1], test_x[-1])
    if not low < high:
        raise ValueError(
            f"the curves do not overlap: the anchor covers {anchor_x[0]:.2f}..{anchor_x[-1]:.2f}{unit}, "
            f"the test {test_x[0]:.2f}..{test_x[-1]:.2f}{unit}"
        )
    area = _pchip_integral(test_x, test_y, low, high) - _pchip_integral(anchor_x, anchor_y, low, high)
    return 100 * math.expm1(area / (high - low))


def _curve(rates: Sequence[float], scores: Sequence[float], name: str, measure: str) -> tuple[Floats, Floats]:
    """(Quality, log rate) of one codec, sorted and checked."""
    if len(rates) != len(scores) or len(rates) < 2:
        raise ValueError(f"the {name} curve needs two or more pairs of rate and {measure}")
    x, rate = np.array(scores, float), np.array(rates, float)
    if not (np.isfinite(x).all() and np.isfinite(rate).all() and (rate > 0).all()):
        raise ValueError(f"the {name} curve needs positive, finite rates and finite {measure}")
    order = np.argsort(x)
    x, y = x[order], np.log(rate[order])
    if not ((np.diff(x) > 0).all() and (np.diff(y) > 0).all()):
        raise ValueError(f"the {name} curve does not rise: more rate must mean more {measure} at each point")
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
