"""Corrections at strengths by block: the samples that they give, and their squared errors, compiled.

Samples have 10 bits, and a correction is in 1/32 of a level for each unit of strength. Their sum is rounded,
once, to the bit depth of the video, half to even, and clamped, as `networks.planes.unpack` does.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from viddiff.compiled import compiled, kernel
from viddiff.frame import Plane
from viddiff.networks.enhancement_config import CORRECTION_UNIT, STRENGTH_UNIT, STRENGTHS

_BITS = (CORRECTION_UNIT * STRENGTH_UNIT).bit_length() - 1


@kernel
def _corrected(sample: Any, change: Any, shift: int, most: int) -> Any:
    """A sample of 10 bits plus a change, without their lowest `shift` bits."""
    total = (np.int64(sample) << _BITS) + change
    rounded = (total + (1 << (shift - 1)) - 1 + ((total >> shift) & 1)) >> shift
    return min(max(rounded, 0), most)


@compiled
def _apply(
    samples: Any, correction: Any, strengths: Any, side: int, shift: int, most: int, result: Any
) -> None:
    height, width = samples.shape
    for row in range(height):
        for block in range(strengths.shape[1]):
            strength = strengths[row // side, block]
            for x in range(block * side, min((block + 1) * side, width)):
                change = strength * correction[row, x]
                result[row, x] = _corrected(samples[row, x], change, shift, most)


@compiled
def _add_errors(
    original: Any, samples: Any, correction: Any, side: int, shift: int, most: int, errors: Any
) -> None:
    height, width = samples.shape
    for row in range(height):
        for block in range(errors.shape[2]):
            for strength in range(errors.shape[0]):
                total = np.int64(0)
                for x in range(block * side, min((block + 1) * side, width)):
                    change = strength * np.int64(correction[row, x])
                    sample = _corrected(samples[row, x], change, shift, most)
                    miss = np.int64(original[row, x]) - sample
                    total += miss * miss
                errors[strength, row // side, block] += total


def _scale(bit_depth: int) -> tuple[int, int]:
    """Bits of a change below a shown sample's unit, and the largest sample."""
    return _BITS + 10 - bit_depth, (1 << bit_depth) - 1


def apply_strengths(
    samples: Plane, correction: NDArray[np.int16], strengths: NDArray[np.int64], side: int, bit_depth: int
) -> Plane:
    """The plane (H, W) with its correction (H, W) at strengths (rows, columns) of blocks of `side`.

    The result has `bit_depth` bits.
    """
    _check(samples, correction, strengths.shape, side)
    result = np.empty(samples.shape, np.uint8 if bit_depth == 8 else np.uint16)
    _apply(samples, correction, strengths, side, *_scale(bit_depth), result)
    return result


def strength_errors(
    original: Plane, samples: Plane, correction: NDArray[np.int16], side: int, bit_depth: int
) -> NDArray[np.float64]:
    """Squared errors (STRENGTHS, rows, columns) of every block at every strength, exact.

    original: has `bit_depth` bits.
    """
    rows, columns = (-(-size // side) for size in samples.shape)
    _check(samples, original, (rows, columns), side)
    _check(samples, correction, (rows, columns), side)
    errors = np.zeros((STRENGTHS, rows, columns), np.int64)
    _add_errors(original, samples, correction, side, *_scale(bit_depth), errors)
    return errors.astype(np.float64)


def _check(samples: Plane, other: NDArray[Any], blocks: tuple[int, ...], side: int) -> None:
    """Kernels do not check indexes."""
    if samples.shape != other.shape or blocks != tuple(-(-size // side) for size in samples.shape):
        raise ValueError(f"{samples.shape = }, {other.shape = }, {blocks = } do not go together")
