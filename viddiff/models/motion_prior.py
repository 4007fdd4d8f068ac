"""Lossless coding of motion: a quadtree of differences from a template, with tables chosen by a small
integer network.

A field of 8x8 blocks is template + D. D is coded coarse to fine (blocks of 64, 32, 16, 8 luma samples). On
each level a block inherits its
parent's D or changes it: a flag, then, where it is set, the two components of the change. Levels are coded
in two
checkerboard steps; in the second a changed block is predicted to move like a neighbour already decoded that
changed.
The network sees the parents, the neighbours already decoded, the other reference's field and the frame's
conditions.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from viddiff.models.layers import UNIT, IntConv2d, round_clamp, round_relu, with_planes

LEVEL_FACTORS = (8, 4, 2, 1)
"""Sides of the quadtree's blocks, 64, 32, 16 and 8 luma samples, in units of the smallest."""
FLAG_TABLES = 64
VECTOR_MAX = 8191
"""Largest component of D, in quarter samples."""
CONDITIONS = 6
"""step, level, field (0 or 1), log2 of the distance, template temporal, template mirrored."""
_PLANES = 14
_WIDTH = 32
_FLAG_SLOPE = 0.2
_FLAG_CENTRE = 44


class MotionCoder(Protocol):
    """Chooses (encoder), measures (training) or decodes the symbols of one step of one level."""

    def flags(self, level: int, index: Tensor, mask: Tensor, parent: Tensor) -> Tensor:
        """(B, 1, R, C) zeros and ones: which blocks change their parent's difference `parent`."""
        ...

    def changes(self, level: int, index: Tensor, mask: Tensor, expected: Tensor) -> Tensor:
        """(B, 2, R, C) integers: difference of a changed block less `expected`; only read where `mask` is
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


def _expected(parent: Tensor, field: Tensor, known: Tensor) -> Tensor:
    """Change that would make a block move like its first decoded neighbour that differs from its parent;
    zero if none."""
    expected = torch.zeros_like(parent)
    for neighbour, valid in zip(_shifted(field), _shifted(known), strict=True):
        change = (neighbour - parent) * valid
        empty = (expected == 0).all(1, keepdim=True)
        expected = torch.where(empty, change, expected)
    return expected


def _magnitude(vectors: Tensor) -> Tensor:
    return vectors.abs().clamp(max=63) * 8


def _changed(vectors: Tensor) -> Tensor:
    return (vectors != 0).any(1, keepdim=True).to(vectors.dtype)


class MotionPrior(nn.Module):
    """Tables of flags and changes from what is already decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = IntConv2d(_PLANES + len(LEVEL_FACTORS) + CONDITIONS, _WIDTH)
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
        self, rows: int, cols: int, other: list[Tensor] | None, condition: Tensor, coder: MotionCoder
    ) -> list[Tensor]:
        """Code one field per batch entry.

        rows, cols: size of the field in 8x8 blocks.
        other: the changes of the other reference's field on every level, as returned for it, or None.
        condition: (B, CONDITIONS) activations.
        Returns the *changes* on every level (B, 2, R, C), coarse to fine; `field_of` sums them.
        """
        batch, device = len(condition), condition.device
        field = torch.zeros(batch, 2, -(-rows // 16), -(-cols // 16), device=device)
        change = field
        changes: list[Tensor] = []
        for level, factor in enumerate(LEVEL_FACTORS):
            shape = (-(-rows // factor), -(-cols // factor))
            parent, parent_change = double(field, *shape), double(change, *shape)
            beside = other[level] if other is not None else torch.zeros_like(parent)
            slopes = [(parent - n).abs().sum(1, keepdim=True).clamp(max=63) * 8 for n in _shifted(parent)]
            ones = torch.full((batch, 1, *shape), float(UNIT), device=device)
            one_hot = functional.one_hot(torch.full((batch,), level), len(LEVEL_FACTORS)).to(condition) * UNIT
            grid = torch.arange(shape[0], device=device)[:, None] + torch.arange(shape[1], device=device)
            first = (grid % 2 == 0).to(parent.dtype)[None, None].expand(batch, -1, -1, -1)
            change = torch.zeros_like(parent)
            for mask, known in ((first, torch.zeros_like(first)), (1 - first, first)):
                expected = _expected(parent, parent + change, known)
                planes = torch.cat(
                    (
                        _changed(parent_change) * UNIT,
                        _magnitude(parent_change),
                        known * UNIT,
                        _changed(change) * UNIT,
                        _magnitude(change),
                        _changed(beside) * UNIT,
                        _magnitude(beside),
                        _changed(expected) * UNIT,
                        torch.maximum(slopes[0], slopes[1]),
                        torch.maximum(slopes[2], slopes[3]),
                        ones,
                    ),
                    1,
                )
                flag_index, change_index = self.indexes(
                    with_planes(planes, torch.cat((one_hot, condition), 1))
                )
                flags = coder.flags(level, flag_index, mask, parent) * mask
                values = coder.changes(level, change_index, flags.expand_as(parent), expected + parent)
                change = change + torch.where(flags > 0, values + expected, torch.zeros_like(values))
            field = (parent + change).clamp(-VECTOR_MAX, VECTOR_MAX)
            changes.append(field - parent)
            change = changes[-1]
        return changes


def field_of(changes: list[Tensor]) -> Tensor:
    """Sum the changes of all levels to the field of differences D (B, 2, rows, cols)."""
    field = torch.zeros_like(changes[0])
    for level, change in enumerate(changes):
        field = change if level == 0 else double(field, *change.shape[2:]) + change
    return field
