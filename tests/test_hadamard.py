"""The vector code of the Hadamard transform against its definition."""

import math

import numpy as np
import pytest

from viddiff.encoder.residual_cost import residual_bits, spectra

SIGNS = np.array([[(-1) ** (i & j).bit_count() for j in range(8)] for i in range(8)])
"""The Hadamard matrix in its natural order (Sylvester 1867)."""


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_spectra_are_hadamard_transforms(kind: type) -> None:
    draw = np.random.default_rng(0)
    target, prediction = draw.integers(0, 256, (2, 24, 40)).astype(kind)
    miss = target.astype(np.float64) - prediction
    blocks = miss.reshape(3, 8, 5, 8).swapaxes(1, 2)
    np.testing.assert_array_equal(spectra(target, prediction).swapaxes(2, 3), SIGNS @ blocks @ SIGNS)


@pytest.mark.parametrize("lmbda", [0.05, 3.0, 2000.0])
def test_bits_are_those_of_gaussian_coefficients(lmbda: float) -> None:
    draw = np.random.default_rng(1)
    target = draw.integers(0, 256, (8, 16)).astype(np.uint8)
    coefficients = spectra(target, np.zeros_like(target))
    expected = 1.5 * np.log1p(coefficients.astype(np.float64) ** 2 / (64 * 1.5 * lmbda)).sum((2, 3))
    np.testing.assert_allclose(residual_bits(coefficients, lmbda), expected, rtol=1e-5)


def test_the_largest_misses_do_not_overflow() -> None:
    white, black = np.full((8, 8), 255, np.uint8), np.zeros((8, 8), np.uint8)
    spread = np.where(np.random.default_rng(2).integers(0, 2, (8, 8)), white, black).astype(np.uint8)
    for target in (white, spread):
        assert math.isfinite(residual_bits(spectra(target, black), 2**-10)[0, 0])
