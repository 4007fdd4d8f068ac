"""Approximate cost of a prediction error, from its spectrum. Used for decisions only.

Small coefficients of an 8x8 Hadamard transform are not coded and count as distortion. For large ones, every
doubling costs some bits, as for Gaussian sources at their rate-distortion bound. So a bad prediction costs
less than its error suggests, and an error of few coefficients costs less than noise.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from viddiff.compiled import compiled, kernel
from viddiff.encoder.hadamard import SIDE, difference_spectrum, energy_growth

_SLOPE = 1.5
"""Bits of a coefficient for every e-fold growth of its energy. Found by experiment."""


@kernel
def energy_scale(lmbda: float) -> np.float32:
    """Factor that makes energies of coefficients comparable with one. lmbda: squared error worth a bit."""
    return np.float32(1 / (SIDE * SIDE * _SLOPE * lmbda))


@kernel
def spectrum_bits(a: NDArray[np.float32], b: NDArray[np.float32], scale: np.float32) -> float:
    """Rate and distortion, in bits, of one block whose error has the spectrum a + b (8, 8).

    scale: `energy_scale`, times 1/4 for the mean of a and b.
    """
    upper, lower = energy_growth(a, b, scale)
    return _SLOPE * (math.log(upper) + math.log(lower))


@compiled
def spectra(target: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.float32]:
    """Spectra (H/8, W/8, 8, 8) of the prediction error of each block.

    Both pictures (H, W) hold 8-bit sample values, in uint8 or float32.
    """
    rows, cols = target.shape[0] // SIDE, target.shape[1] // SIDE
    result = np.empty((rows, cols, SIDE, SIDE), np.float32)
    for row in range(rows):
        for col in range(cols):
            y, x = np.uintp(row * SIDE), np.uintp(col * SIDE)
            difference_spectrum(target, y, x, prediction, y, x, result[row, col])
    return result


@compiled
def residual_bits(spectra: NDArray[np.float32], lmbda: float) -> NDArray[np.float32]:
    """`spectrum_bits` (rows, cols) of all blocks (rows, cols, 8, 8)."""
    rows, cols = spectra.shape[:2]
    bits, nothing = np.empty((rows, cols), np.float32), np.zeros((SIDE, SIDE), np.float32)
    scale = energy_scale(lmbda)
    for row in range(rows):
        for col in range(cols):
            bits[row, col] = spectrum_bits(spectra[row, col], nothing, scale)
    return bits


def intra_bits(target: NDArray[np.uint8], lmbda: float, mean_bits: float) -> NDArray[np.float32]:
    """`spectrum_bits` (rows, cols) of blocks of a picture (H, W), predicted only by their means.

    Each mean costs `mean_bits`.
    """
    alone = spectra(target, np.zeros_like(target))
    alone[:, :, 0, 0] = 0
    bits: NDArray[np.float32] = residual_bits(alone, lmbda) + np.float32(mean_bits)
    return bits
