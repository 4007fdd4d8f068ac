"""The encoder's motion search: a quadtree of vectors from rate-distortion search on a decoded reference.

Only the encoder runs this, so it may change for ever without touching the format. Dense optical flow (DIS,
Kroeger et al. 2016) gives the first guess; every block of the quadtree 64 -> 32 -> 16 -> 8 then keeps its
parent's
vector unless another one, or a neighbour's, saves more bits of the residual than it costs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viddiff.effort import SearchEffort
from viddiff.models.motion_prior import LEVEL_FACTORS, MergeCandidates, coarse, first_step
from viddiff.models.warp import BLOCK, LUMA_TAPS
from viddiff.residual_cost import residual_bits

Field = NDArray[np.int64]
"""Vectors of 8x8 luma blocks, (2, H/8, W/8), x first, in quarter luma samples."""

_ALONE_SHARE = 0.5
"""How much what one hypothesis misses matters while the other, to be blended with it, is not known."""
FLAG_BITS = (0.5, 1.5, 2.0, 3.5)
"""Bits that the flag of a changed block costs above that of an unchanged one, by level of the quadtree."""
MERGE_BITS = (3.0, 4.0, 4.5, 6.0)
"""The same of a block that merges, its choice among candidates included."""
_ONE_BITS = 2.0
"""What a block of one hypothesis costs above one of both."""
_REFINEMENT = (2, 1)
"""Distances at which vectors are tried around a guess, the first but for 8x8 blocks."""
_DEVIATION = 1.25
"""Standard deviation of differences over their mean magnitude: that of a normal distribution."""
_BORDER = 2 * BLOCK
_RING = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1))


@dataclass(frozen=True)
class SearchReference:
    """A decoded luma plane, interpolated once at all sixteen quarter-sample phases."""

    luma: NDArray[np.uint8]
    """(H, W), 8 bits."""
    phases: NDArray[np.uint8]
    """(16, H + 2 border, W + 2 border); phase 4*fy + fx."""

    @classmethod
    def of(cls, luma: NDArray[np.uint8]) -> "SearchReference":
        """Interpolate `luma` (H, W)."""
        padded = cv2.copyMakeBorder(luma, *(_BORDER + 4,) * 4, cv2.BORDER_REPLICATE).astype(np.float32)
        kernels = [np.array(taps, np.float32) / 64 for taps in LUMA_TAPS]
        planes = []
        for vertical in kernels:
            for horizontal in kernels:
                plane = cv2.sepFilter2D(padded, cv2.CV_32F, horizontal, vertical, anchor=(3, 3))
                planes.append(np.clip(np.rint(plane[4:-4, 4:-4]), 0, 255).astype(np.uint8))
        return cls(luma, np.stack(planes))


@dataclass(frozen=True)
class Partner:
    """The other hypothesis, already found, that blocks may be blended with."""

    reference: SearchReference
    field: Field


class _BlockCost:
    """Bits that 8x8 blocks of a target cost, all but their motion, predicted at given vectors."""

    def __init__(self, target: NDArray[np.uint8], reference: SearchReference, lmbda: float) -> None:
        height, width = target.shape
        self.rows, self.cols, self.lmbda = height // BLOCK, width // BLOCK, lmbda
        blocks = target.reshape(self.rows, BLOCK, self.cols, BLOCK).swapaxes(1, 2)
        self.target = np.ascontiguousarray(blocks).reshape(-1, BLOCK * BLOCK)
        windows = np.lib.stride_tricks.sliding_window_view(reference.phases, (BLOCK, BLOCK), axis=(1, 2))
        self.windows = windows
        self.limit = (width + _BORDER, height + _BORDER)
        self.x = np.arange(self.cols) * BLOCK + _BORDER
        self.y = np.arange(self.rows)[:, None] * BLOCK + _BORDER

    def fetch(self, field: Field) -> NDArray[np.uint8]:
        """The blocks (N, 64) at `field`'s vectors."""
        whole, phase = field >> 2, field & 3
        x = np.clip(self.x + whole[0], 0, self.limit[0])
        y = np.clip(self.y + whole[1], 0, self.limit[1])
        fetched: NDArray[np.uint8] = self.windows[phase[1] * 4 + phase[0], y, x].reshape(self.target.shape)
        return fetched

    def __call__(self, field: Field) -> NDArray[np.float32]:
        return np.float32(_ALONE_SHARE) * self.bits(self.fetch(field))

    def bits(self, fetched: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Bits (rows, cols) of the target's blocks predicted by blocks (N, 64)."""
        difference = cv2.absdiff(fetched, self.target)
        sums = np.asarray(cv2.reduce(difference, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32F), np.float32)
        deviations = sums.reshape(self.rows, self.cols) * np.float32(_DEVIATION / BLOCK**2)
        return residual_bits(deviations**2, BLOCK**2, self.lmbda)


class _JoinedCost:
    """The same where a block may be predicted from this hypothesis, from its partner or from the mean of
    both (`models.modes`)."""

    def __init__(self, cost: _BlockCost, partner: NDArray[np.uint8]) -> None:
        """partner: the other hypothesis' blocks."""
        self.cost, self.partner = cost, partner
        self.without = cost.bits(partner)

    def __call__(self, field: Field) -> NDArray[np.float32]:
        fetched = self.cost.fetch(field)
        mean = self.cost.bits(np.asarray(cv2.addWeighted(fetched, 0.5, self.partner, 0.5, 0), np.uint8))
        one = np.minimum(self.cost.bits(fetched), self.without)
        return np.minimum(one + np.float32(_ONE_BITS), mean)


def _pool(costs: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Sum (rows, cols) over squares of `factor`, ragged at the right and bottom edge."""
    if factor == 1:
        return costs
    by_rows = np.add.reduceat(costs, np.arange(0, costs.shape[0], factor), axis=0)
    return np.add.reduceat(by_rows, np.arange(0, costs.shape[1], factor), axis=1)


def expand(field: Field, factor: int, rows: int, cols: int) -> Field:
    """Repeat each vector of a coarse field over its square of 8x8 blocks, cropped to (2, rows, cols)."""
    return field.repeat(factor, axis=1).repeat(factor, axis=2)[:, :rows, :cols]


def vector_bits(difference: Field, level: int) -> NDArray[np.float32]:
    """Rough cost in bits of coding a vector's difference from its parent's, for decisions only."""
    magnitude = np.log2(1.0 + np.abs(difference)).sum(axis=0)
    changed = FLAG_BITS[level] + 4.8 + 1.12 * magnitude
    return np.where(difference.any(axis=0), changed, 0.0).astype(np.float32)


class FieldSearch:
    """The search of one vector field, which may be repeated as more is known."""

    def __init__(
        self,
        target: NDArray[np.uint8],
        reference: SearchReference,
        lmbda: float,
        effort: SearchEffort,
    ) -> None:
        """target: (H, W) luma at 8 bits, H and W multiples of 8; lmbda: squared error that is worth a bit."""
        self.target, self.lmbda, self.effort = target, lmbda, effort
        self.cost = _BlockCost(target, reference, lmbda)
        optical_flow = cv2.DISOpticalFlow.create(effort.flow)
        flow = optical_flow.calc(target, reference.luma, None)  # type: ignore[call-overload]
        # The flow is smooth within a block, so its mean over the block is as good a guess as any.
        size = (self.cost.cols, self.cost.rows)
        self.flow = cv2.resize(flow, size, interpolation=cv2.INTER_AREA).transpose(2, 0, 1) * 4

    def template_cost(self, template: Field) -> float:
        """Rough bits of the target predicted by `template` alone."""
        return float(self.cost(template).sum())

    def __call__(
        self, template: Field, partner: Partner | None, others: Tensor | None, guesses: list[Field] | None
    ) -> list[Field]:
        """Find the field that predicts the target.

        template: (2, H/8, W/8), the field that costs nothing; what is coded is the quadtree of differences
        from it.
        partner: the other hypothesis if it is known; None: this one has to be good alone.
        others: (A, 2, H/8, W/8), what other templates differ from `template`; None: blocks do not merge.
        guesses: differences from the template at every level, to begin with; None: nothing is known.
        Returns the differences from the template at every level of the quadtree, coarse to fine; the last is
        (2, H/8, W/8).
        """
        effort, rows, cols = self.effort, self.cost.rows, self.cost.cols
        flow = self.flow - template
        cost_of: _BlockCost | _JoinedCost = self.cost
        if partner is not None:
            other = _BlockCost(self.target, partner.reference, self.lmbda)
            cost_of = _JoinedCost(self.cost, other.fetch(partner.field))

        levels: list[Field] = []
        chosen: Field = np.zeros((2, -(-rows // 16), -(-cols // 16)), np.int64)
        for level, factor in enumerate(LEVEL_FACTORS):
            shape = (-(-rows // factor), -(-cols // factor))
            parent = expand(chosen, 2, *shape)

            def error(field: Field, factor: int = factor) -> NDArray[np.float32]:
                return _pool(cost_of(expand(field, factor, rows, cols) + template), factor)

            def cost(field: Field, level: int = level, parent: Field = parent) -> NDArray[np.float32]:
                return error(field) + vector_bits(field - parent, level)

            best, best_cost = parent, cost(parent)
            counts = _pool(np.ones((rows, cols), np.float32), factor)
            mean = np.stack([_pool(np.ascontiguousarray(f, np.float32), factor) / counts for f in flow])
            candidates = [np.rint(mean).astype(np.int64), np.zeros_like(parent)]
            if guesses is None:
                candidates += [np.roll(candidates[0], shift, axis) for axis in (1, 2) for shift in (1, -1)]
                steps = effort.coarse_steps if factor > 1 else effort.fine_steps
            else:
                candidates.append(guesses[level])
                steps = _REFINEMENT if factor > 1 else _REFINEMENT[1:]
            for candidate in candidates:
                best, best_cost = _better(best, best_cost, candidate, cost(candidate))
            for step in steps:
                centre = best
                for dx, dy in _RING if step <= 2 and effort.diagonals else _RING[:4]:
                    moved = centre + np.array([dx * step, dy * step])[:, None, None]
                    best, best_cost = _better(best, best_cost, moved, cost(moved))
            chosen = best
            if others is not None:
                chosen = _merged(best, best_cost, parent, coarse(others, factor), error, MERGE_BITS[level])
            levels.append(chosen)
        return levels


def _merged(
    best: Field,
    best_cost: NDArray[np.float32],
    parent: Field,
    others: Tensor,
    error: Callable[[Field], NDArray[np.float32]],
    price: float,
) -> Field:
    """The field `best` with blocks merged where that costs less, in both checkerboard steps."""
    chosen = parent
    shape = parent.shape[1:]
    early = first_step(shape[0], shape[1], others.device)[0, 0].numpy()
    for mask in (early, ~early):
        field, field_cost = best, best_cost
        before, known = (torch.from_numpy(part)[None] for part in (parent, chosen))
        candidates = MergeCandidates.of(before, known, others)
        for vectors, counts in zip(candidates.vectors.numpy(), candidates.numbers.numpy() > 0, strict=True):
            useful = counts[0] & mask
            if useful.any():
                costs = np.where(useful, error(vectors) + price, np.inf).astype(np.float32)
                field, field_cost = _better(field, field_cost, vectors, costs)
        chosen = np.where(mask, field, chosen)
    return chosen


def _better(
    best: Field, best_cost: NDArray[np.float32], other: Field, other_cost: NDArray[np.float32]
) -> tuple[Field, NDArray[np.float32]]:
    wins = other_cost < best_cost
    return np.where(wins, other, best), np.where(wins, other_cost, best_cost)
