"""Lossless coding of motion: a quadtree of differences from a template, with tables chosen by a small
integer network.

A field of 8x8 blocks is template + D. D is coded coarse to fine (blocks of 64, 32, 16, 8 luma samples). On
each level a block inherits its parent's D or changes it: a flag says which. A changed block merges with a
neighbour, or with another template, by its number among those that differ (as in ITU-T H.265, 8.5.3.2.2), or
has the two components of its change coded. Levels are coded in two checkerboard steps; in the second all
neighbours are known, in the first only their parents. The network sees the parents, the neighbours already
decoded, the candidates, the other reference's field and the frame's conditions.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from viddiff.networks.layers import UNIT, IntConv2d, round_clamp, round_relu, with_planes
from viddiff.networks.motion_context import COUNT_PLANE, PLANES, context_planes, merge_candidates

LEVEL_FACTORS = (8, 4, 2, 1)
"""Sides of the quadtree's blocks, 64, 32, 16 and 8 luma samples, in units of the smallest."""
FLAG_TABLES = 64
VECTOR_MAX = 8191
"""Largest component of D, in quarter samples."""
CONDITIONS = 6
"""step, level, field (0 or 1), log2 of the distance, template temporal, template mirrored."""
MERGE_COUNT = 6
"""Most blocks and templates that a block can merge with: four neighbours, two other templates."""
MERGE_TABLES = MERGE_COUNT * len(LEVEL_FACTORS) * 2 * 2
"""By the number of candidates, level, step, field."""
_WIDTH = 32
_FLAG_SLOPE = 0.2
_FLAG_CENTRE = 44


class MotionCoder(Protocol):
    """Chooses (encoder), measures (training) or decodes the symbols of one step of one level."""

    def flags(self, level: int, index: Tensor, mask: Tensor, parent: Tensor) -> Tensor:
        """(1, 1, R, C) zeros and ones: which blocks change their parent's difference `parent`."""
        ...

    def merges(self, level: int, index: Tensor, candidates: "MergeCandidates") -> Tensor:
        """(1, 1, R, C) int64: number of the candidate that a block merges with, from 1; 0 for none. Only
        coded where `index` is not -1."""
        ...

    def changes(self, level: int, index: Tensor, mask: Tensor, expected: Tensor) -> Tensor:
        """(1, 2, R, C) integers: difference of a changed block less `expected`; only read where `mask` is
        set."""
        ...


def flag_probability(index: Tensor) -> Tensor:
    """Probability that a block changes, of flag table `index` 0..FLAG_TABLES-1."""
    return torch.sigmoid((index - _FLAG_CENTRE) * _FLAG_SLOPE)


def double(x: Tensor, rows: int, cols: int) -> Tensor:
    """Give every block's value to its four children: (B, C, R, C) to (B, C, rows, cols)."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :rows, :cols]


def _shifted(x: Tensor) -> list[Tensor]:
    """The left, right, upper and lower neighbours of every block, zero outside."""
    padded = functional.pad(x, (1, 1, 1, 1))
    return [padded[:, :, 1:-1, :-2], padded[:, :, 1:-1, 2:], padded[:, :, :-2, 1:-1], padded[:, :, 2:, 1:-1]]


@dataclass(frozen=True)
class MergeCandidates:
    """What the blocks of one level can merge with."""

    vectors: Tensor
    """(K, 2, R, C) differences from the template."""
    numbers: Tensor
    """(K, 1, R, C) int64: number of the candidate among those that count, from 1; 0 for one that repeats
    another or the parent."""

    @classmethod
    def of(cls, parent: Tensor, field: Tensor, others: Tensor) -> Self:
        """Candidates of every block.

        parent: (1, 2, R, C), its parent's difference; field: the same of all that is decoded, the parents'
        elsewhere; others: (A, 2, R, C), differences that the other templates make.
        """
        vectors, numbers = merge_candidates(_array(parent[0]), _array(field[0]), _array(others))
        return cls(*(torch.from_numpy(a).to(parent.device) for a in (vectors, numbers)))

    @property
    def count(self) -> Tensor:
        """(1, 1, R, C) int64: how many count."""
        return self.numbers.amax(0, keepdim=True)

    def number_of(self, field: Tensor) -> Tensor:
        """(1, 1, R, C) int64: number of the candidate that each block of `field` equals, or 0."""
        return ((self.vectors == field).all(1, keepdim=True) * self.numbers).amax(0, keepdim=True)

    def chosen(self, number: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (1, 2, R, C) of these candidates, and where (1, 1, R, C) there is one of that number."""
        picked = (self.numbers == number) & (number > 0)
        return (self.vectors * picked).sum(0, keepdim=True), picked.any(0, keepdim=True)


def merge_tables(candidates: MergeCandidates, level: int, step: int, which: int) -> Tensor:
    """Table (1, 1, R, C) int64 of each block's merge, -1 where it has no candidates."""
    count = candidates.count
    tables = ((count - 1) * len(LEVEL_FACTORS) + level) * 4 + 2 * step + which
    return torch.where(count > 0, tables, -1)


def coarse(field: Tensor, factor: int) -> Tensor:
    """Vectors (A, 2, R, C) at the middle of each square of `factor` x `factor` blocks of (A, 2, rows,
    cols)."""
    if factor == 1:
        return field
    rows, cols = (
        (torch.arange(-(-n // factor), device=field.device) * factor + factor // 2).clamp(max=n - 1)
        for n in field.shape[2:]
    )
    return field[:, :, rows][:, :, :, cols]


def _median(field: Tensor) -> Tensor:
    """The mean, rounded, of the two middle ones of every block's neighbours, by component."""
    ordered = torch.stack(_shifted(field)).sort(0).values
    return ((ordered[1] + ordered[2]) / 2).round()


def _array(integers: Tensor) -> NDArray[np.float32]:
    """The same integers as an array that compiled functions take."""
    return np.ascontiguousarray(integers.to("cpu", torch.float32).numpy())


class MotionPrior(nn.Module):
    """Tables of flags and changes from what is already decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = IntConv2d(PLANES + len(LEVEL_FACTORS) + CONDITIONS, _WIDTH)
        self.depthwise = IntConv2d(_WIDTH, _WIDTH, kernel=3, groups=_WIDTH)
        self.inner = IntConv2d(_WIDTH, _WIDTH)
        self.head = IntConv2d(_WIDTH, 3)

    def indexes(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Flag table (B, 1, R, C) and tables of both components (B, 2, R, C) from context planes."""
        hidden = round_relu(self.entry(planes))
        hidden = round_relu(self.inner(round_clamp(self.depthwise(hidden))))
        index = self.head(hidden) * (8 / UNIT)
        flags = round_clamp(index[:, :1] + 32, 0, FLAG_TABLES - 1)
        return flags, round_clamp(index[:, 1:] + 32, 1, FLAG_TABLES - 1)

    def code_field(
        self, others: Tensor, beside: list[Tensor] | None, condition: Tensor, coder: MotionCoder
    ) -> list[Tensor]:
        """Code one field.

        others: (A, 2, rows, cols), what the other templates differ from the chosen one; A may be 0.
        beside: the changes of the other reference's field on every level, as returned for it, or None.
        condition: (1, CONDITIONS) activations.
        Returns the *changes* on every level (1, 2, R, C), coarse to fine; `field_of` sums them.
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
    """Sum the changes of all levels to the field of differences D (B, 2, rows, cols)."""
    field = torch.zeros_like(changes[0])
    for level, change in enumerate(changes):
        field = change if level == 0 else double(field, *change.shape[2:]) + change
    return field
