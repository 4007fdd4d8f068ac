"""Integers of layers: their bounds, and the proof that sums of their products stay exact in float32.

An activation is an integer of at most 11 bits and a sign, |a| <= ACTIVATION_MAX. A weight is one of 8 bits,
|w| <= WEIGHT_MAX. A float32 sum of integers is exact as long as no partial sum reaches EXACT_LIMIT.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from viddiff.errors import CheckpointError

ACTIVATION_MAX = 2047
WEIGHT_MAX = 127
EXACT_LIMIT = 2**24
UNIT = 64
"""Activations are multiples of 1/UNIT, so that weights and activations are near one, which suits training."""
MAX_EXPONENT = 30


def prove(
    weight: NDArray[Any],
    bias: NDArray[Any],
    exponents: NDArray[Any],
    *,
    shape: tuple[int, ...],
    input_max: int = ACTIVATION_MAX,
) -> None:
    """Prove that a layer's sums are exact for inputs of at most `input_max`.

    shape: of its weights; the first number is that of its outputs, each of which has a bias and an exponent.
    Raises CheckpointError if a shape or value is wrong, or if a sum could leave the exact range.
    """
    if weight.shape != shape or bias.shape != shape[:1] or exponents.shape != shape[:1]:
        raise CheckpointError(f"a layer's weights have shape {tuple(weight.shape)}, expected {shape}")
    # float64 holds these numbers and sums exactly, so comparisons are those of integers.
    sizes = np.abs(weight.astype(np.float64)).reshape(shape[0], -1)
    in_range = (sizes <= WEIGHT_MAX).all() and (exponents >= 0).all() and (exponents <= MAX_EXPONENT).all()
    if not in_range:
        raise CheckpointError("a layer's integer weights are out of range")
    reach = float((sizes.sum(1) * input_max + np.abs(bias.astype(np.float64))).max())
    if not reach < EXACT_LIMIT:
        raise CheckpointError(f"a layer's sums reach {reach:.0f}, beyond the exact range of 2^24")
