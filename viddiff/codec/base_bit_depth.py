"""Bit depth of the AV1 base: 10 for every video.

AV1 predicts more precisely with 10 bits, and corrections that are smaller than half a level of 8 bits are not
lost: base and correction are added first, and their sum is rounded once.
"""

import numpy as np

from viddiff.frame import Frame, Plane

BASE_BIT_DEPTH = 10
_CACHED = 1 << 16
"""Samples of 16 bits that stay in a processor's cache."""


def widened(frame: Frame, bit_depth: int) -> Frame:
    """A frame of `bit_depth` with samples of BASE_BIT_DEPTH."""
    factor = np.uint16(1 << (BASE_BIT_DEPTH - bit_depth))
    y, u, v = (plane.astype(np.uint16) * factor for plane in frame.planes)
    return Frame(y, u, v, frame.pts)


def rounded(frame: Frame, bit_depth: int) -> Frame:
    """A frame of BASE_BIT_DEPTH with samples of `bit_depth`, rounded half to even."""
    if bit_depth == BASE_BIT_DEPTH:
        return frame
    y, u, v = (_rounded(plane, BASE_BIT_DEPTH - bit_depth) for plane in frame.planes)
    return Frame(y, u, v, frame.pts)


def _rounded(plane: Plane, shift: int) -> Plane:
    """The plane in 8 bits, without its lowest `shift` bits. Rows that fit into the cache go together."""
    result = np.empty(plane.shape, np.uint8)
    rows = max(_CACHED // plane.shape[1], 1)
    work = np.empty((rows, plane.shape[1]), np.uint16)
    for first in range(0, len(plane), rows):
        samples = plane[first : first + rows]
        sums = work[: len(samples)]
        np.right_shift(samples, shift, out=sums)
        sums &= 1
        sums += samples
        sums += (1 << (shift - 1)) - 1
        sums >>= shift
        sums -= sums >> 8  # 256 becomes 255
        result[first : first + rows] = sums
    return result
