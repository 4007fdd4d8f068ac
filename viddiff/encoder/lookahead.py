"""Persistence of a keyframe: how much of it lives on in later frames.

Where little moves, later frames show the content of the keyframe again and inherit its quality. Where
everything moves, its quality is soon lost. The idea is that of x264's macroblock tree (Garrett-Glaser 2009),
for whole frames: the bits that prediction from the keyframe saves tell what its quality is worth.
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
"""Bits of the mean of a block without prediction."""
_FLOW = 1
"""Preset of the optical flow (fast)."""


def persistence(key: Frame, later: Frame, bit_depth: int, lmbda: float) -> float:
    """log2 of the factor by which prediction from `key` reduces the bits of `later`.

    0 if the prediction is useless, 2 or more if little moves. lmbda: squared error (8 bits) that is worth a
    bit.
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
    """Luma in 8 bits, padded to whole blocks."""
    y = (frame.y >> (bit_depth - 8)).astype(np.uint8)
    return np.pad(y, [(0, -side % BLOCK) for side in y.shape], "edge")
