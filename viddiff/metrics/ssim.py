"""Structural similarity of two pictures, in one scale (SSIM) and in five (MS-SSIM).

SSIM: Z. Wang, A. Bovik, H. Sheikh, E. Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE Transactions on Image Processing 13, 2004. MS-SSIM: Z. Wang, E. Simoncelli,
A. Bovik, "Multiscale structural similarity for image quality assessment", Asilomar Conference, 2003.

As in both papers: windows are Gaussian, 11x11, with a standard deviation of 1.5; only windows that lie within
the picture count; K1 is 0.01 and K2 0.03. A scale is the mean of 2x2 samples of the one before.
"""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from viddiff.frame import Plane

WINDOW = 11
"""Rows and columns of a window, in samples: the smallest picture that has an SSIM."""
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, the finest first."""
MS_SSIM_SIDE = WINDOW << (len(WEIGHTS) - 1)
"""Smallest width and height of a picture that has an MS-SSIM, in samples."""
_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Similarity:
    """How alike two pictures are. 1 means equal."""

    ssim: float
    """SSIM, -1 to 1."""
    ms_ssim: float | None
    """MS-SSIM, 0 to 1. None if a side is below `MS_SSIM_SIDE`."""


def similarity(a: Plane, b: Plane, bit_depth: int) -> Similarity:
    """SSIM and MS-SSIM of two planes (H, W) with samples 0..2^bit_depth-1.

    Raises ValueError if the shapes differ, or if a side is smaller than a window.
    """
    if a.shape != b.shape or min(a.shape) < WINDOW:
        raise ValueError(f"no SSIM of planes of {a.shape} and {b.shape}")
    peak = (1 << bit_depth) - 1
    scale = 1 / peak
    x, y = (plane.astype(np.float32) * np.float32(scale) for plane in (a, b))
    ssim, contrast = _scale(x, y)
    if min(a.shape) < MS_SSIM_SIDE:
        return Similarity(ssim, None)
    product = 1.0
    for weight in WEIGHTS[:-1]:
        product *= max(contrast, 0.0) ** weight  # a negative one has no such power
        x, y = _halved(x), _halved(y)
        whole, contrast = _scale(x, y)
    return Similarity(ssim, product * max(whole, 0.0) ** WEIGHTS[-1])


def _scale(x: Floats, y: Floats) -> tuple[float, float]:
    """Means over all windows of SSIM, and of its factors for contrast and structure. Samples are 0..1."""
    c1, c2 = np.float32(_K1 * _K1), np.float32(_K2 * _K2)
    mean_x, mean_y = _windows(x), _windows(y)
    luminance, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    contrast, variances = _windows(x * y) - luminance, _windows(x * x + y * y) - squares
    for numerator, denominator, constant in ((contrast, variances, c2), (luminance, squares, c1)):
        numerator *= 2  # in place: most of the time would go into new arrays
        numerator += constant
        denominator += constant
        numerator /= denominator
    luminance *= contrast
    return cv2.mean(luminance)[0], cv2.mean(contrast)[0]


def _windows(plane: Floats) -> Floats:
    """Weighted mean of each window within the plane."""
    half = WINDOW // 2
    blurred = cv2.GaussianBlur(plane, (WINDOW, WINDOW), _SIGMA)
    return cast(Floats, blurred[half:-half, half:-half])


def _halved(plane: Floats) -> Floats:
    """Means of 2x2 samples. An odd last row or column is left out."""
    rows, columns = (side // 2 for side in plane.shape)
    even = plane[: 2 * rows, : 2 * columns]
    return cast(Floats, cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA))
