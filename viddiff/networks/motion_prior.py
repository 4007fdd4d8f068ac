"""Lossless coding of motion: a quadtree of differences from a template, with context-adaptive tables.

A field of 8x8 blocks is template + D. D is coded from coarse to fine: blocks of 64, 32, 16, 8 luma samples.
On each level, a flag says whether a block inherits its parent's D or changes it. A changed block either
merges with a neighbour or another template, by its number among the candidates (as in ITU-T H.265,
8.5.3.2.2), or the two components of its change are coded.

Levels are coded in two checkerboard steps: in the first, only parents are known; in the second, all
neighbours. A small integer network chooses the tables. It sees the parents, the known neighbours, the
candidates, the other reference's field and the conditions of the frame.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from viddiff.networks.bounds import UNIT
from viddiff.networks.layers import IntConv2d, round_clamp, round_relu, with_planes
from viddiff.networks.motion_context import COUNT_PLANE, PLANES, context_planes, merge_candidates

LEVEL_FACTORS = (8, 4, 2, 1)
"""Sides of the quadtree's blocks (64, 32, 16, 8 luma samples), in units of the smallest."""
FLAG_TABLES = 64
VECTOR_MAX = 8191
"""Largest component of D, in quarter samples."""
CONDITIONS = 6
"""Step, level, field (0 or 1), log2 of the distance, template is temporal, template is mirrored."""
MERGE_COUNT = 6
"""Largest number of merge candidates: four neighbours, two other templates."""
MERGE_TABLES = MERGE_COUNT * len(LEVEL_FACTORS) * 2 * 2
"""Tables by number of candidates, level, step and field."""
_WIDTH = 32
_FLAG_SLOPE = 0.2
_FLAG_CENTRE = 44


class MotionCoder(Protocol):
    """Chooses (encoder), measures (training) or decodes (decoder) the symbols of one step of one level."""

    def flags(self, level: int, index: Tensor, mask: Tensor, parent: Tensor) -> Tensor:
        """Which blocks change their parent's difference `parent`: (1, 1, R, C), zeros and ones."""
        ...

    def merges(self, level: int, index: Tensor, candidates: "MergeCandidates") -> Tensor:
        """Number of the candidate that a block merges with, from 1; 0 for none. (1, 1, R, C) int64.

        Coded only where `index` is not -1.
        """
        ...

    def changes(self, level: int, index: Tensor, mask: Tensor, expected: Tensor) -> Tensor:
        """Difference of a changed block minus `expected`: (1, 2, R, C) integers.

        Used only where `mask` is set.
        """
        ...


def flag_probability(index: Tensor) -> Tensor:
    """Probability that a block changes, for flag table `index`, 0..FLAG_TABLES-1."""
    return torch.sigmoid((index - _FLAG_CENTRE) * _FLAG_SLOPE)


def double(x: Tensor, rows: int, cols: int) -> Tensor:
    """Give the value of every block to its four children: (B, C, R, C) to (B, C, rows, cols)."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :rows, :cols]


def _shifted(x: Tensor) -> list[Tensor]:
    """Left, right, upper and lower neighbours of every block, zero outside."""
    padded = functional.pad(x, (1, 1, 1, 1))
    return [padded[:, :, 1:-1, :-2], padded[:, :, 1:-1, 2:], padded[:, :, :-2, 1:-1], padded[:, :, 2:, 1:-1]]


@dataclass(frozen=True)
class MergeCandidates:
    """Merge candidates of the blocks of one level."""

    vectors: Tensor
    """(K, 2, R, C) differences from the template."""
    numbers: Tensor
    """(K, 1, R, C) int64: numbers of valid candidates, from 1; 0 for repetitions."""

    @classmethod
    def of(cls, parent: Tensor, field: Tensor, others: Tensor) -> Self:
        """Candidates of every block.

        parent: (1, 2, R, C), its parent's difference. field: the same for decoded blocks, the parents'
        elsewhere. others: (A, 2, R, C), differences from the other templates.
        """
        vectors, numbers = merge_candidates(_array(parent[0]), _array(field[0]), _array(others))
        return cls(*(torch.from_numpy(a).to(parent.device) for a in (vectors, numbers)))

    @property
    def count(self) -> Tensor:
        """Number of valid candidates: (1, 1, R, C) int64."""
        return self.numbers.amax(0, keepdim=True)

    def number_of(self, field: Tensor) -> Tensor:
        """Number of the candidate that equals each block of `field`, or 0: (1, 1, R, C) int64."""
        return ((self.vectors == field).all(1, keepdim=True) * self.numbers).amax(0, keepdim=True)

    def chosen(self, number: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (1, 2, R, C) of these candidates, and a mask (1, 1, R, C) where the number is valid."""
        picked = (self.numbers == number) & (number > 0)
        return (self.vectors * picked).sum(0, keepdim=True), picked.any(0, keepdim=True)


def merge_tables(candidates: MergeCandidates, level: int, step: int, which: int) -> Tensor:
    """Table of each block's merge, -1 where it has no candidates: (1, 1, R, C) int64."""
    count = candidates.count
    tables = ((count - 1) * len(LEVEL_FACTORS) + level) * 4 + 2 * step + which
    return torch.where(count > 0, tables, -1)


def coarse(field: Tensor, factor: int) -> Tensor:
    """Vectors (A, 2, R, C) at the centre of each `factor` x `factor` square of (A, 2, rows, cols)."""
    if factor == 1:
        return field
    rows, cols = (
        (torch.arange(-(-n // factor), device=field.device) * factor + factor // 2).clamp(max=n - 1)
        for n in field.shape[2:]
    )
    return field[:, :, rows][:, :, :, cols]


def _median(field: Tensor) -> Tensor:
    """Median of each block's neighbours, by component: the rounded mean of the two middle values."""
    ordered = torch.stack(_shifted(field)).sort(0).values
    return ((ordered[1] + ordered[2]) / 2).round()


def _array(integers: Tensor) -> NDArray[np.float32]:
    """The same integers as an array for compiled functions."""
    return np.ascontiguousarray(integers.to("cpu", torch.float32).numpy())


class MotionPrior(nn.Module):
    """Chooses tables of flags and changes from what is already decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = IntConv2d(PLANES + len(LEVEL_FACTORS) + CONDITIONS, _WIDTH)
        self.depthwise = IntConv2d(_WIDTH, _WIDTH, kernel=3, groups=_WIDTH)
        self.inner = IntConv2d(_WIDTH, _WIDTH)
        self.head = IntConv2d(_WIDTH, 3)

    def indexes(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Table of the flag (B, 1, R, C), and of both components (B, 2, R, C), from context planes."""
        hidden = round_relu(self.entry(planes))
        hidden = round_relu(self.inner(round_clamp(self.depthwise(hidden))))
        index = self.head(hidden) * (8 / UNIT)
        flags = round_clamp(index[:, :1] + 32, 0, FLAG_TABLES - 1)
        return flags, round_clamp(index[:, 1:] + 32, 1, FLAG_TABLES - 1)

    def code_field(
        self, others: Tensor, beside: list[Tensor] | None, condition: Tensor, coder: MotionCoder
    ) -> list[Tensor]:
        """Code one field. Returns the changes on every level, (1, 2, R, C), coarse to fine.

        `field_of` sums the changes.

        others: (A, 2, rows, cols), differences of the other templates from the chosen one; A may be 0.
        beside: the changes of the other reference's field on every level, or None. condition: (1, CONDITIONS)
        activations.
        """
        rows, cols = others.shape[2:]
        device = condition.device
        others = others.to(condition.dtype)
        field = torch.zeros(1, 2, -(-rows // 16), -(-cols // 16), device=device)
        change = field
        changes: list[Tensor] = []
        for level, factor in enumerate(LEVEL_FACTORS):
            shape = (-(-rows // factor), -(-cols // factor))
            parent, parent_change = double(field, *shape), double(change, *shape)
            other = beside[level] if beside is not None else torch.zeros_like(parent)
            one_hot = functional.one_hot(torch.tensor([level]), len(LEVEL_FACTORS)).to(condition) * UNIT
            change, near = torch.zeros_like(parent), coarse(others, factor)
            first = first_step(*shape, device).to(parent.dtype)
            for step, (mask, known) in enumerate(((first, torch.zeros_like(first)), (1 - first, first))):
                candidates = MergeCandidates.of(parent, parent + change, near)
                made = context_planes(
                    _array(parent[0]),
                    _array(parent_change[0]),
                    _array(change[0]),
                    _array(other[0]),
                    _array(near),
                    _array(known[0, 0]),
                    UNIT,
                )
                planes = torch.from_numpy(made)[None].to(device)
                planes[:, COUNT_PLANE] = candidates.count[:, 0] * (UNIT / 4)
                # Beyond the coarsest blocks the parent is as good a guess as any neighbour.
                expected = _median(parent + change) * known if level == 0 else torch.zeros_like(parent)
                conditions = torch.cat((one_hot, condition), 1)
                flag_index, change_index = self.indexes(with_planes(planes, conditions))
                flags = coder.flags(level, flag_index, mask, parent) * mask
                tables = merge_tables(candidates, level, step, int(beside is not None))
                numbers = coder.merges(level, torch.where(flags > 0, tables, -1), candidates)
                merged, at = candidates.chosen(numbers)
                coded = flags * ~at
                values = coder.changes(level, change_index, coded.expand_as(parent), expected + parent)
                change = change + torch.where(coded > 0, values + expected, 0)
                change = change + torch.where(at, merged - parent, 0)
            field = (parent + change).clamp(-VECTOR_MAX, VECTOR_MAX)
            changes.append(field - parent)
            change = changes[-1]
        return changes


def first_step(rows: int, cols: int, device: torch.device) -> Tensor:
    """Blocks of the first checkerboard step, (1, 1, rows, cols) bool."""
    grid = torch.arange(rows, device=device)[:, None] + torch.arange(cols, device=device)
    return (grid % 2 == 0)[None, None]


def field_of(changes: list[Tensor]) -> Tensor:
    """Sum the changes of all levels to the field of differences D, (B, 2, rows, cols)."""
    field = torch.zeros_like(changes[0])
    for level, change in enumerate(changes):
        field = change if level == 0 else double(field, *change.shape[2:]) + change
    return field
