"""How much of a keyframe lives on: what the encoder learns from frames to come before it codes one.

Where the picture hardly moves, all that a keyframe shows is shown again by the frames after it, and its
quality is theirs. Where everything moves, its quality is soon lost. The idea is that of x264's macroblock
tree (Garrett-Glaser 2009), for whole frames: what predicting from the keyframe saves tells what it is worth.
"""

import math

import numpy as np
from numpy.typing import NDArray

from viddiff.encoder.block_search import fetch
from viddiff.encoder.field_search import SearchReference, flow_vectors
from viddiff.encoder.residual_cost import intra_bits, residual_bits, spectra
from viddiff.frame import Frame
from viddiff.networks.warp import BLOCK

_BLOCK_BITS = 3.0
"""Bits of a block's mean, where nothing predicts it."""
_FLOW = 1
"""Preset of the optical flow: fast."""


def persistence(key: Frame, later: Frame, bit_depth: int, lmbda: float) -> float:
    """The logarithm (base 2) of what motion-compensated prediction from `key` divides the bits of `later` by.

    0 where it is of no use, 2 or more where little moves. lmbda: squared error (8 bits) that is worth a bit.
    """
    reference, target = (luma_of(frame, bit_depth) for frame in (key, later))
    flow = flow_vectors(target, reference, _FLOW)
    searched = SearchReference.of(reference)
    still, moved = (
        residual_bits(spectra(target, fetch(searched.phases, np.rint(v).astype(np.int64))), lmbda)
        for v in (np.zeros_like(flow), flow)
    )
    predicted = 1 + float(np.minimum(still, moved).sum())
    unpredicted = 1 + float(intra_bits(target, lmbda, _BLOCK_BITS).sum())
    return max(math.log2(unpredicted / predicted), 0.0)


def luma_of(frame: Frame, bit_depth: int) -> NDArray[np.uint8]:
    """Luma in 8 bits, filled up to whole blocks."""
    y = (frame.y >> (bit_depth - 8)).astype(np.uint8)
    return np.pad(y, [(0, -side % BLOCK) for side in y.shape], "edge")
