"""Search of both vector fields of a frame: choice of templates, and rounds in which each fits the other."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viddiff.codec.coding_order import FramePlan
from viddiff.codec.motion_templates import KINDS, other_templates, template
from viddiff.codec.reference import Reference
from viddiff.encoder import field_search
from viddiff.encoder.block_search import Field
from viddiff.encoder.presets import Effort
from viddiff.networks.motion_prior import LEVEL_FACTORS, VECTOR_MAX, coarse


@dataclass(frozen=True)
class FoundField:
    """A searched field."""

    kind: int
    """Kind of its template."""
    base: Tensor
    """Vectors (1, 2, H/8, W/8) of the template."""
    others: Tensor
    """Differences of the other templates, (A, 2, H/8, W/8)."""
    levels: list[Tensor]
    """Differences from the template, on every level of the quadtree."""

    @property
    def vectors(self) -> Tensor:
        """The field, (1, 2, H/8, W/8) int64."""
        return self.levels[-1].to(torch.int64) + self.base

    def relative_to(self, base: Tensor) -> list[Field]:
        """The same field on every level, as differences from another template."""
        shift = self.base - base
        return [
            (level.to(torch.int64) + coarse(shift, factor))[0].cpu().numpy()
            for level, factor in zip(self.levels, LEVEL_FACTORS, strict=True)
        ]


@torch.inference_mode()
def search_motion(
    target: NDArray[np.uint8],
    plan: FramePlan,
    references: tuple[Reference, Reference],
    searched: tuple[field_search.SearchReference, field_search.SearchReference],
    effort: Effort,
    lmbda: float,
) -> list[tuple[FoundField, FoundField]]:
    """Both fields of a frame with luma `target` (H, W), for each of the preset's prices of motion.

    searched: the luma of `references`. lmbda: squared error that is worth a bit of anything except motion.
    """
    first, second = (field_search.FieldSearch(target, s, effort.search) for s in searched)
    seek = _MotionSearch(plan, references, searched, (first, second))
    return [seek(effort.search.rounds, price * lmbda) for price in effort.motion_prices]


class _MotionSearch:
    """Search of both fields of a frame."""

    def __init__(
        self,
        plan: FramePlan,
        references: tuple[Reference, Reference],
        searched: tuple[field_search.SearchReference, field_search.SearchReference],
        searches: tuple[field_search.FieldSearch, field_search.FieldSearch],
    ) -> None:
        self.plan, self.references = plan, references
        self.searched, self.searches = searched, searches

    def __call__(self, rounds: int, lmbda: float) -> tuple[FoundField, FoundField]:
        """Search the first field alone, then the second to fit it, then both again in further rounds.

        lmbda: squared error that is worth a bit.
        """
        first = self._field(0, lmbda, None, None, None)
        second = self._field(1, lmbda, first, first, None)
        for _ in range(rounds - 1):
            first = self._field(0, lmbda, None, second, first)
            second = self._field(1, lmbda, first, first, second)
        return first, second

    def _field(
        self,
        which: int,
        lmbda: float,
        mirrored: FoundField | None,
        beside: FoundField | None,
        before: FoundField | None,
    ) -> FoundField:
        """Search one field.

        mirrored: what its template may mirror. beside: the other hypothesis. before: the result of the last
        round.
        """
        other = None if mirrored is None else mirrored.vectors
        partner = None
        if beside is not None:
            partner = field_search.Partner(self.searched[1 - which], beside.vectors[0].cpu().numpy())
        candidates = []
        for kind in KINDS[which]:
            base = template(kind, self.plan, self.references, which, other)
            if base is not None:
                cost = self.searches[which].template_cost(base[0].cpu().numpy(), lmbda)
                candidates.append((cost, kind, base))
        _, kind, base = min(candidates, key=lambda c: (c[0], c[1]))
        others = other_templates(kind, base, self.plan, self.references, which, other)
        levels = self.searches[which](
            base[0].cpu().numpy(),
            lmbda,
            partner,
            others.cpu(),
            None if before is None else before.relative_to(base),
        )
        tensors = [
            torch.from_numpy(level.clip(-VECTOR_MAX, VECTOR_MAX).astype(np.float32)).to(base.device)[None]
            for level in levels
        ]
        return FoundField(kind, base, others, tensors)
