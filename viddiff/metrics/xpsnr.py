"""XPSNR: a PSNR that counts an error less where detail and motion of the original hide it.

C. Helmrich, M. Siekmann, S. Becker, S. Bosse, D. Marpe, T. Wiegand, "XPSNR: A low-complexity extension of the
perceptually weighted peak signal-to-noise ratio for high-resolution video quality assessment", ICASSP 2020;
for frames of all sizes and rates as in the authors' filter of libavfilter.

A block's squared errors are divided by its activity: the mean response of a spatial highpass and of a
temporal one, which for 32 frames per second and more is of second order. Beyond 2048x1152 samples, activity
is that of means of 2x2 samples. Up to 640x480, a block weighs no more than the heaviest of its neighbours.

The filter itself reads and writes outside of its memory where sizes are odd, and takes a wrong width for most
pictures of 10 bits. So it cannot be used on any video.
"""

import math
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from viddiff.frame import Frame, Plane

_LARGE = 2048 * 1152
"""Luma samples beyond which activity is measured in half size."""
_SMALL = 640 * 480
"""Luma samples up to which weights are limited by their neighbours."""
_FAST = 32
"""Frames per second from which the temporal highpass is of second order."""
_TEMPORAL_GAIN = 2
_UHD = 3840 * 2160
_FINE = np.array([[-1, -2, -1], [-2, 12, -2], [-1, -2, -1]], np.float32)
_COARSE = np.array(
    [
        [0, -1, -1, -1, -1, 0],
        [-1, -2, -3, -3, -2, -1],
        [-1, -3, 12, 12, -3, -1],
        [-1, -3, 12, 12, -3, -1],
        [-1, -2, -3, -3, -2, -1],
        [0, -1, -1, -1, -1, 0],
    ],
    np.float32,
)
"""The highpass over a group of 2x2 samples, the four in its middle."""
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class XpsnrMeter:
    """Measures the frames of one video, in order."""

    def __init__(self, width: int, height: int, bit_depth: int, frame_rate: Fraction) -> None:
        """For frames of this size in luma samples, and of this depth and rate."""
        share = width * height / _UHD
        self._size, self._bit_depth, self._fast = (width, height), bit_depth, frame_rate >= _FAST
        self._block = 4 * int(32 * math.sqrt(share) + 0.5)
        self._gain = math.sqrt(16 * (1 << (2 * bit_depth - 9)) / math.sqrt(max(1e-5, share)))
        self._before: tuple[Floats, Floats] | None = None
        if self._block:
            self._border = 2 if width * height > _LARGE else 1
            inner = np.zeros((height, width), np.float32)
            inner[self._border : -self._border, self._border : -self._border] = 1
            self._inner = _block_sums(inner, self._block, self._block)
            self._all = _block_sums(np.ones_like(inner), self._block, self._block)

    def add(self, original: Frame, decoded: Frame) -> tuple[float, float, float]:
        """XPSNR of Y, U and V of the next frame in dB; infinite without error.

        A frame that is too small for blocks has no weights: its XPSNR is its PSNR.
        """
        weights = self._weights(original.y.astype(np.float32)) if self._block else None
        pairs = zip(original.planes, decoded.planes, strict=True)
        y, u, v = (self._score(a, b, weights) for a, b in pairs)
        return y, u, v

    def _score(self, a: Plane, b: Plane, weights: Doubles | None) -> float:
        errors = cv2.absdiff(a, b).astype(np.float32)
        errors *= errors
        rows, columns = a.shape
        peak = (1 << self._bit_depth) - 1
        if weights is None:
            total = float(errors.sum(dtype=np.float64))
        else:
            width, height = self._size
            sums = _block_sums(errors, self._block * rows // height, self._block * columns // width)
            total = math.floor(float((sums * weights).sum()) * self._gain + 0.5)
        return math.inf if total < 1 else 10 * math.log10(rows * columns * peak * peak / total)

    def _weights(self, luma: Floats) -> Doubles:
        """Weight of each block: the inverse of its activity."""
        spatial = _coarse(luma) if self._border > 1 else _fine(luma)
        activity = _block_sums(spatial, self._block, self._block) / np.maximum(self._inner, 1)
        activity += _block_sums(self._temporal(luma), self._block, self._block) / self._all
        activity = np.maximum(activity, 1 << (self._bit_depth - 6))
        weights: Doubles = np.where(self._inner > 0, 1 / activity, 1.0)
        return _limited(weights) if luma.size <= _SMALL else weights

    def _temporal(self, luma: Floats) -> Floats:
        """Response of the temporal highpass. Where samples are grouped, it is in the first of each group."""
        one, two = self._before or (np.zeros_like(luma), np.zeros_like(luma))
        self._before = luma, one
        change = luma - 2 * one + two if self._fast else luma - one
        if self._border > 1:
            rows, columns = (side // 2 * 2 for side in luma.shape)
            grouped = np.zeros_like(luma)
            group = change[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).sum((1, 3))
            grouped[:rows:2, :columns:2] = group
            change = grouped
        response: Floats = np.abs(change) * np.float32(_TEMPORAL_GAIN)
        return response


def _fine(luma: Floats) -> Floats:
    """Response of the spatial highpass to every sample but those of the border."""
    response = np.zeros_like(luma)
    response[1:-1, 1:-1] = np.abs(cv2.filter2D(luma, -1, _FINE))[1:-1, 1:-1]
    return response


def _coarse(luma: Floats) -> Floats:
    """The same for groups of 2x2 samples; each group's response is in its first sample."""
    response = np.zeros_like(luma)
    everywhere = np.abs(cv2.filter2D(luma, -1, _COARSE, anchor=(2, 2)))
    response[2:-3:2, 2:-3:2] = everywhere[2:-3:2, 2:-3:2]
    return response


def _block_sums(plane: Floats, rows: int, columns: int) -> Doubles:
    """Sums of blocks of so many samples. The last ones may be smaller."""
    integral = cv2.integral(plane, sdepth=cv2.CV_64F)
    height, width = plane.shape
    down, across = ([*range(0, side, step), side] for side, step in ((height, rows), (width, columns)))
    corners = integral[np.ix_(down, across)]
    return np.diff(np.diff(corners, axis=0), axis=1)


def _limited(weights: Doubles) -> Doubles:
    """Each weight, but no more than the heaviest of its neighbours to the left, the right and above."""
    rows, columns = weights.shape
    limited = weights.copy()
    for row in range(rows):
        for column in range(columns):
            near = [limited[row, column - 1]] if column else []
            near += [limited[row, column + 1]] if column + 1 < columns else []
            near += [limited[row - 1, column]] if row else []
            limited[row, column] = min(limited[row, column], max(near, default=math.inf))
    return limited
