"""Choose the strengths of the enhancement by rate and distortion, for luma and chroma of each block.

Distortion is that of a 6:1:1 PSNR: the logarithm of each plane's squared error, with luma weighted six times
as much as each chroma plane. Error and rate of a coded video are about inversely proportional. So a small
relative change of the error is worth about the same relative change of the bits.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.base_payloads import StrengthTables, block_table, kind_table
from viddiff.codec.engine.strengths import squared_error
from viddiff.codec.enhancer import Strengths
from viddiff.codec.entropy import Tables
from viddiff.frame import Frame
from viddiff.networks.enhancement_config import GROUPS, STRENGTHS

PLANE_WEIGHTS = (6 / 8, 1 / 8, 1 / 8)
"""Weights of the planes in a 6:1:1 PSNR."""
SLOPE = 0.9
"""Approximate relative fall of the squared error for each relative rise of the rate."""
_PLANES = ((0,), (1, 2))
"""Planes of each group."""


@dataclass(frozen=True)
class Worth:
    """Value of squared errors and bits in a part of a video."""

    errors: tuple[float, float, float]
    """Squared error of each plane in that part, all above 0."""
    bits: float
    """Bits of that part, above 0."""

    @classmethod
    def of(cls, originals: Iterable[Frame], decoded: Iterable[Frame], bit_depth: int, bits: float) -> "Worth":
        """Measure a part of a video of this depth. decoded: its frames as AV1 shows them."""
        errors = [1.0, 1.0, 1.0]
        for a, b in zip(originals, decoded, strict=True):
            for plane, (x, y) in enumerate(zip(a.planes, b.planes, strict=True)):
                errors[plane] += squared_error(x, y, bit_depth)
        return cls((errors[0], errors[1], errors[2]), max(bits, 1.0))

    @property
    def of_a_bit(self) -> float:
        """Cost of a bit, in units of weighted relative error."""
        return SLOPE / self.bits


@dataclass(frozen=True, eq=False)
class Prices:
    """Bits of a frame's kinds and of its blocks' strengths, by table: see `codec.base_payloads`."""

    kinds: NDArray[np.float64]
    """(tables, 2 * STRENGTHS)"""
    blocks: NDArray[np.float64]
    """(tables, STRENGTHS)"""

    @classmethod
    def of(cls, tables: StrengthTables) -> "Prices":
        """The prices that these tables make."""
        return cls(_bits(tables.kinds, 2 * STRENGTHS), _bits(tables.blocks, STRENGTHS))


@dataclass(frozen=True)
class Choice:
    """The strengths of a frame."""

    strengths: Strengths
    kinds: list[int]
    """How they are coded, see `codec.base_payloads`."""

    @classmethod
    def of_nothing(cls, blocks: tuple[int, int]) -> "Choice":
        """A frame of so many rows and columns of blocks stays as it is."""
        return cls(np.zeros((GROUPS, *blocks), np.int64), [0] * GROUPS)


def choose_strengths(
    errors: list[NDArray[np.float64]], worth: Worth, prices: Prices, before: list[int]
) -> Choice:
    """The strengths of least cost.

    errors: squared errors as from `Correction.errors`. before: kinds of the frame before, as in
    `StrengthWriter`.
    """
    costs = _costs(errors, worth)
    strengths, kinds = np.zeros(costs.shape[:1] + costs.shape[2:], np.int64), []
    for group in range(GROUPS):
        by_strength = costs[group].reshape(STRENGTHS, -1)
        kind_bits = worth.of_a_bit * prices.kinds[kind_table(group, before[group])]
        ways = [(float(by_strength[kind].sum()) + kind_bits[kind], kind) for kind in range(STRENGTHS)]
        varied = {}
        for kind in range(STRENGTHS, 2 * STRENGTHS):
            bits = worth.of_a_bit * prices.blocks[block_table(group, kind)]
            by_block = by_strength + bits[:, None]
            varied[kind] = by_block.argmin(0)
            ways.append((float(by_block.min(0).sum()) + kind_bits[kind], kind))
        _, kind = min(ways)
        kinds.append(kind)
        strengths[group] = varied[kind].reshape(strengths.shape[1:]) if kind in varied else kind
    return Choice(strengths, kinds)


def _bits(tables: Tables, symbols: int) -> NDArray[np.float64]:
    """Bits (tables, symbols) of the first symbols of all tables."""
    values, indexes = np.meshgrid(np.arange(symbols), np.arange(len(tables.radius)))
    return tables.bits(values, indexes)


def _costs(errors: list[NDArray[np.float64]], worth: Worth) -> NDArray[np.float64]:
    """Weighted relative errors (GROUPS, STRENGTHS, rows, columns) of the blocks."""
    costs = np.zeros((GROUPS, *errors[0].shape))
    for group, planes in enumerate(_PLANES):
        for plane in planes:
            costs[group] += PLANE_WEIGHTS[plane] / worth.errors[plane] * errors[plane]
    return costs
