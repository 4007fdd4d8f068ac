"""What coding the miss of a prediction costs, guessed from its spectrum; for decisions only.

Small coefficients of an 8x8 Hadamard transform stay as they are and count as distortion; of large ones every
doubling costs some bits, as for Gaussian sources at their rate-distortion bound. So it pays less to mend a
prediction the worse it is, and a miss that few coefficients describe costs less than noise.
"""

import math

import numpy as np
from numpy.typing import NDArray

from viddiff.compiled import compiled, kernel

SIDE = 8
"""Side of a block in samples."""
_SLOPE = 1.5
"""Bits of a coefficient for every e-fold growth of its energy. Found by encoding."""


@kernel
def transform(block: NDArray[np.float32], scratch: NDArray[np.float32]) -> None:
    """Replace `block` (8, 8) by its Hadamard transform, 8 times an orthonormal one; scratch: (8, 8)."""
    for turn in range(2):
        a, b = (block, scratch) if turn == 0 else (scratch, block)
        for j in range(np.uintp(SIDE)):
            s0, s1, s2, s3 = a[0, j] + a[4, j], a[1, j] + a[5, j], a[2, j] + a[6, j], a[3, j] + a[7, j]
            d0, d1, d2, d3 = a[0, j] - a[4, j], a[1, j] - a[5, j], a[2, j] - a[6, j], a[3, j] - a[7, j]
            b[j, 0], b[j, 1] = s0 + s2 + s1 + s3, s0 + s2 - s1 - s3
            b[j, 2], b[j, 3] = s0 - s2 + s1 - s3, s0 - s2 - s1 + s3
            b[j, 4], b[j, 5] = d0 + d2 + d1 + d3, d0 + d2 - d1 - d3
            b[j, 6], b[j, 7] = d0 - d2 + d1 - d3, d0 - d2 - d1 + d3


@kernel
def spectrum_bits(spectrum: NDArray[np.float32], lmbda: float) -> float:
    """Rate and distortion, in bits, of one block whose miss has this `transform` (8, 8).

    lmbda: squared error that is worth a bit.
    """
    scale = np.float32(1 / (SIDE * SIDE * _SLOPE * lmbda))
    total = 0.0
    for i in range(np.uintp(SIDE)):
        product = 1.0
        for j in range(np.uintp(SIDE)):
            product *= 1 + scale * spectrum[i, j] * spectrum[i, j]
        total += math.log(product)
    return _SLOPE * total


@compiled
def spectra(miss: NDArray[np.float32]) -> NDArray[np.float32]:
    """Transforms (H/8, W/8, 8, 8) of the blocks of `miss` (H, W), in 8-bit sample values."""
    rows, cols = miss.shape[0] // SIDE, miss.shape[1] // SIDE
    result = np.empty((rows, cols, SIDE, SIDE), np.float32)
    scratch = np.empty((SIDE, SIDE), np.float32)
    for row in range(rows):
        for col in range(cols):
            for i in range(SIDE):
                for j in range(SIDE):
                    result[row, col, i, j] = miss[row * SIDE + i, col * SIDE + j]
            transform(result[row, col], scratch)
    return result


@compiled
def residual_bits(spectra: NDArray[np.float32], lmbda: float) -> NDArray[np.float32]:
    """`spectrum_bits` (rows, cols) of all blocks (rows, cols, 8, 8)."""
    rows, cols = spectra.shape[:2]
    bits = np.empty((rows, cols), np.float32)
    for row in range(rows):
        for col in range(cols):
            bits[row, col] = spectrum_bits(spectra[row, col], lmbda)
    return bits
