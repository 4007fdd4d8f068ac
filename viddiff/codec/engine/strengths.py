"""Corrections at strengths by block: the samples that they give, and their squared errors, compiled.

Samples have 10 bits, and a correction is in 1/32 of a level for each unit of strength. Their sum is rounded,
once, to the bit depth of the video, half to even, and clamped, as `networks.planes.unpack` does.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.engine.instruction_sets import instruction_sets
from viddiff.codec.engine.native_kernels import kernels
from viddiff.frame import Plane
from viddiff.native_code import Native
from viddiff.networks.enhancement_config import CORRECTION_UNIT, STRENGTH_UNIT, STRENGTHS

_BITS = (CORRECTION_UNIT * STRENGTH_UNIT).bit_length() - 1


def _scale(bit_depth: int) -> tuple[int, int]:
    """Bits of a change below a shown sample's unit, and the largest sample."""
    return _BITS + 10 - bit_depth, (1 << bit_depth) - 1


def apply_strengths(
    samples: Plane, correction: NDArray[np.int16], strengths: NDArray[np.int64], side: int, bit_depth: int
) -> Plane:
    """The plane (H, W) with its correction (H, W) at strengths (rows, columns) of blocks of `side`.

    The result has `bit_depth` bits.
    """
    base, change = _inputs(samples, correction, strengths.shape, side)
    result = np.empty(samples.shape, np.uint8 if bit_depth == 8 else np.uint16)
    chosen = np.ascontiguousarray(strengths)
    _kernel("apply", result)(
        base.ctypes.data,
        change.ctypes.data,
        *samples.shape,
        chosen.ctypes.data,
        strengths.shape[1],
        side,
        *_scale(bit_depth),
        result.ctypes.data,
    )
    return result


def strength_errors(
    original: Plane, samples: Plane, correction: NDArray[np.int16], side: int, bit_depth: int
) -> NDArray[np.float64]:
    """Squared errors (STRENGTHS, rows, columns) of every block at every strength, exact.

    original: has `bit_depth` bits.
    """
    rows, columns = (-(-size // side) for size in samples.shape)
    base, change = _inputs(samples, correction, (rows, columns), side)
    if original.shape != samples.shape:
        raise ValueError(f"{original.shape = }, {samples.shape = } do not go together")
    errors = np.zeros((STRENGTHS, rows, columns), np.int64)
    wanted = np.ascontiguousarray(original)
    _kernel("add_errors", wanted)(
        wanted.ctypes.data,
        base.ctypes.data,
        change.ctypes.data,
        *samples.shape,
        errors.ctypes.data,
        rows,
        columns,
        side,
        *_scale(bit_depth),
    )
    return errors.astype(np.float64)


def squared_error(original: Plane, samples: Plane, bit_depth: int) -> int:
    """That of the samples as they are, rounded to the `bit_depth` of the original."""
    if original.shape != samples.shape:
        raise ValueError(f"{original.shape = }, {samples.shape = } do not go together")
    wanted, base = np.ascontiguousarray(original), np.ascontiguousarray(samples, np.uint16)
    error = np.zeros(1, np.int64)
    numbers = (wanted.size, *_scale(bit_depth), error.ctypes.data)
    _kernel("squared_error", wanted)(wanted.ctypes.data, base.ctypes.data, *numbers)
    return int(error[0])


def _kernel(name: str, plane: NDArray[Any]) -> Native:
    """The loop for planes of this type."""
    return kernels(instruction_sets()[0])[f"{name}_{plane.dtype.name}"]


def _inputs(
    samples: Plane, correction: NDArray[np.int16], blocks: tuple[int, ...], side: int
) -> tuple[NDArray[np.uint16], NDArray[np.int16]]:
    """A plane and its correction as kernels read them. Kernels do not check indexes, so they are checked."""
    if samples.shape != correction.shape or blocks != tuple(-(-size // side) for size in samples.shape):
        raise ValueError(f"{samples.shape = }, {correction.shape = }, {blocks = } do not go together")
    return np.ascontiguousarray(samples, np.uint16), np.ascontiguousarray(correction, np.int16)
