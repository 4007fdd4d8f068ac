"""Bit depth of the AV1 base: 10 for every video.

AV1 predicts more precisely with 10 bits, and corrections that are smaller than half a level of 8 bits are not
lost: base and correction are added first, and their sum is rounded once.
"""

import numpy as np

from viddiff.frame import Frame, Plane

BASE_BIT_DEPTH = 10


def widened(frame: Frame, bit_depth: int) -> Frame:
    """A frame of `bit_depth` with samples of BASE_BIT_DEPTH."""
    factor = np.uint16(1 << (BASE_BIT_DEPTH - bit_depth))
    y, u, v = (plane.astype(np.uint16) * factor for plane in frame.planes)
    return Frame(y, u, v, frame.pts)


def rounded(frame: Frame, bit_depth: int) -> Frame:
    """A frame of BASE_BIT_DEPTH with samples of `bit_depth`, rounded half to even."""
    if bit_depth == BASE_BIT_DEPTH:
        return frame
    y, u, v = (_rounded(plane, BASE_BIT_DEPTH - bit_depth).astype(np.uint8) for plane in frame.planes)
    return Frame(y, u, v, frame.pts)


def _rounded(plane: Plane, shift: int) -> Plane:
    most = (1 << (BASE_BIT_DEPTH - shift)) - 1
    result: Plane = np.minimum((plane + (1 << (shift - 1)) - 1 + ((plane >> shift) & 1)) >> shift, most)
    return result
