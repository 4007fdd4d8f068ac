"""Search of one vector field: a quadtree of vectors by rate and distortion, on a decoded reference.

Dense optical flow (DIS, Kroeger et al. 2016) gives the first guess. Then every block of the quadtree 64 -> 32
-> 16 -> 8 keeps its parent's vector, unless another vector or a neighbour's saves more residual bits than it
costs.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viddiff.encoder.block_search import BORDER, Field, Scene, best_vectors, costs_below, fetch
from viddiff.encoder.presets import SearchEffort
from viddiff.encoder.residual_cost import residual_bits, spectra
from viddiff.networks.motion_context import Floats, merge_candidates
from viddiff.networks.motion_prior import LEVEL_FACTORS, coarse, first_step
from viddiff.networks.warp import BLOCK, LUMA_TAPS

MERGE_BITS = (3.0, 4.0, 4.5, 6.0)
"""Extra bits of a block that merges over an unchanged one, including its choice, by level of the quadtree."""
_REFINEMENT = (2, 1)
"""Distances at which vectors are tried around a guess. The first is not used for 8x8 blocks."""
_NOBODY = np.zeros((0, 0, BLOCK, BLOCK), np.float32)


@dataclass(frozen=True)
class SearchReference:
    """A decoded luma plane, interpolated once at all 16 quarter-sample phases."""

    luma: NDArray[np.uint8]
    """(H, W), 8 bits."""
    phases: NDArray[np.uint8]
    """(16, H + 2 border, W + 2 border), phase 4*fy + fx."""

    @classmethod
    def of(cls, luma: NDArray[np.uint8]) -> "SearchReference":
        """Interpolate `luma` (H, W)."""
        padded = cv2.copyMakeBorder(luma, *(BORDER + 4,) * 4, cv2.BORDER_REPLICATE).astype(np.float32)
        kernels = [np.array(taps, np.float32) / 64 for taps in LUMA_TAPS]
        planes = []
        for vertical in kernels:
            for horizontal in kernels:
                plane = cv2.sepFilter2D(padded, cv2.CV_32F, horizontal, vertical, anchor=(3, 3))
                planes.append(np.clip(np.rint(plane[4:-4, 4:-4]), 0, 255).astype(np.uint8))
        return cls(luma, np.stack(planes))


@dataclass(frozen=True)
class Partner:
    """The other hypothesis, already found, which blocks may be blended with."""

    reference: SearchReference
    field: Field


def expand(field: Field, factor: int, rows: int, cols: int) -> Field:
    """Repeat each vector of a coarse field over its square of blocks, cropped to (2, rows, cols)."""
    return field.repeat(factor, axis=1).repeat(factor, axis=2)[:, :rows, :cols]


def _means(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Means of (2, rows, cols) over squares of `factor` x `factor`. Squares at the edges may be smaller."""
    sums = values
    counts = np.ones(values.shape[1:], np.float32)[None]
    for axis in (1, 2):
        starts = np.arange(0, values.shape[axis], factor)
        sums, counts = np.add.reduceat(sums, starts, axis), np.add.reduceat(counts, starts, axis)
    return np.asarray(sums / counts, np.float32)


def flow_vectors(target: NDArray[np.uint8], reference: NDArray[np.uint8], preset: int) -> NDArray[np.float32]:
    """Optical flow from `target` (H, W) to `reference`, mean per block: (2, H/8, W/8), quarter samples."""
    flow = cv2.DISOpticalFlow.create(preset).calc(target, reference, None)  # type: ignore[call-overload]
    # The flow is smooth within a block, so its mean over the block is as good a guess as any.
    size = (target.shape[1] // BLOCK, target.shape[0] // BLOCK)
    return np.asarray(cv2.resize(flow, size, interpolation=cv2.INTER_AREA).transpose(2, 0, 1) * 4, np.float32)


class FieldSearch:
    """Search of one vector field. It can be repeated as more becomes known."""

    def __init__(
        self,
        target: NDArray[np.uint8],
        reference: SearchReference,
        effort: SearchEffort,
    ) -> None:
        """target: (H, W) luma, 8 bits, H and W multiples of 8."""
        self.target, self.reference, self.effort = target, reference, effort
        self.rows, self.cols = target.shape[0] // BLOCK, target.shape[1] // BLOCK
        self.flow = flow_vectors(target, reference.luma, effort.flow)

    def template_cost(self, template: Field, lmbda: float) -> float:
        """Approximate bits of the target if only `template` predicts it. lmbda: squared error worth a bit."""
        return float(residual_bits(self._missed(self.reference, template), lmbda).sum())

    def _missed(self, reference: SearchReference, field: Field) -> NDArray[np.float32]:
        """Spectra (H/8, W/8, 8, 8) of the error of the prediction by vectors `field`."""
        return spectra(self.target, fetch(reference.phases, field))

    def __call__(
        self,
        template: Field,
        lmbda: float,
        partner: Partner | None,
        others: Tensor | None,
        guesses: list[Field] | None,
    ) -> list[Field]:
        """Find the field that predicts the target.

        template: (2, H/8, W/8), the field that costs no bits; coded are the differences from it. lmbda:
        squared error that is worth a bit. partner: the other hypothesis, or None if it is not known yet.
        others: (A, 2, H/8, W/8), differences of the other templates from `template`; None: blocks do not
        merge. guesses: differences from the template at every level, to start from; None: nothing is known.

        Returns the differences from the template at every level of the quadtree, coarse to fine. The last is
        (2, H/8, W/8).
        """
        effort, rows, cols = self.effort, self.rows, self.cols
        flow = self.flow - template
        scene = self._scene(template, lmbda, partner)
        levels: list[Field] = []
        chosen: Field = np.zeros((2, -(-rows // 16), -(-cols // 16)), np.int64)
        for level, factor in enumerate(LEVEL_FACTORS):
            parent = expand(chosen, 2, -(-rows // factor), -(-cols // factor))
            guess = np.rint(_means(flow, factor)).astype(np.int64)
            candidates = [guess, np.zeros_like(parent)]
            if guesses is None:
                candidates += [np.roll(guess, shift, axis) for axis in (1, 2) for shift in (1, -1)]
                steps = effort.coarse_steps if factor > 1 else effort.fine_steps
            else:
                candidates.append(guesses[level])
                steps = _REFINEMENT if factor > 1 else _REFINEMENT[1:]
            chosen, costs = best_vectors(scene, level, factor, parent, np.stack(candidates), np.array(steps))
            if others is not None:
                chosen = _merged(scene, level, chosen, costs, parent, coarse(others, factor).float().numpy())
            levels.append(chosen)
        return levels

    def _scene(self, template: Field, lmbda: float, partner: Partner | None) -> Scene:
        missed, without = _NOBODY, np.zeros((0, 0), np.float32)
        if partner is not None:
            missed = self._missed(partner.reference, partner.field)
            without = residual_bits(missed, lmbda)
        miss, nothing = np.zeros((2, BLOCK, BLOCK), np.float32)
        return Scene(self.target, self.reference.phases, template, missed, without, lmbda, miss, nothing)


def _merged(
    scene: Scene, level: int, best: Field, best_costs: NDArray[np.float32], parent: Field, others: Floats
) -> Field:
    """The field `best`, with blocks merged where that costs less, in both checkerboard steps."""
    chosen, price = parent, np.float32(MERGE_BITS[level])
    rows, cols = best_costs.shape
    early = first_step(rows, cols, torch.device("cpu"))[0, 0].numpy()
    for mask in (early, ~early):
        field, costs = best, best_costs
        candidates = merge_candidates(parent.astype(np.float32), chosen.astype(np.float32), others)
        for floats, numbers in zip(*candidates, strict=True):
            vectors = floats.astype(np.int64)
            limits = np.where((numbers[0] > 0) & mask, costs - price, 0)
            merged = costs_below(scene, LEVEL_FACTORS[level], vectors, limits)
            wins = merged < limits
            field, costs = np.where(wins, vectors, field), np.where(wins, merged + price, costs)
        chosen = np.where(mask, field, chosen)
    return chosen
