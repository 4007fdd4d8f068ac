"""One number from the scores of many frames."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 5
Scores = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Pooled:
    """Scores of frames, pooled."""

    overall: float
    """The score of the whole video, by the measure's own rule."""
    mean: float
    """Arithmetic mean over the frames."""
    harmonic_mean: float
    """Harmonic mean over the frames, as libvmaf's: of the scores plus 1. Bad frames weigh more."""
    p5: float
    """5th percentile: 95 % of the frames are better. Between two frames, it is interpolated."""
    worst: float
    """The lowest score."""


def pool(scores: Scores, overall: Callable[[NDArray[np.float64]], float] | None = None) -> Pooled:
    """Pool the scores of frames, each above -1. overall: the measure's own rule; None: the mean.

    Raises ValueError if there is none.
    """
    values = np.asarray(scores, np.float64)
    if not values.size:
        raise ValueError("no frame was compared")
    mean = float(values.mean())
    return Pooled(
        overall=mean if overall is None else overall(values),
        mean=mean,
        harmonic_mean=float(1 / np.mean(1 / (values + 1)) - 1),
        p5=float(np.percentile(values, PERCENTILE)),
        worst=float(values.min()),
    )


def overall_psnr(scores: NDArray[np.float64]) -> float:
    """PSNR of a video from those of its frames: the mean of the squared errors. Infinite without error."""
    return _decibels(np.mean(10 ** (-scores / 10)))


def overall_xpsnr(scores: NDArray[np.float64]) -> float:
    """XPSNR of a video from those of its frames, as libavfilter pools: the mean of the errors' roots."""
    return 2 * _decibels(np.mean(10 ** (-scores / 20)))


def _decibels(error: np.floating) -> float:
    return -10 * math.log10(error) if error else math.inf
