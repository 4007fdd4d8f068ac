"""Bits of symbols for training: the entropy coder's tables as a differentiable function.

Laplace distributions overestimate the tails that rate-distortion optimised quantisation leaves. Networks
trained with them take every zero for less certain than it is. So the loss looks up its bits in tables of
counted symbols.

Gradients: table indexes are ordered by scale, so the slope between neighbouring tables is the gradient by the
index. The slope between neighbouring symbols is the gradient by the symbol.

At zero, the gradient is the slope towards the first symbol, weighted by how near the value comes to it. That
is the slope that uniform noise instead of rounding would give (Balle et al. 2017). Without it, nothing holds
back values that round to zero, and the distortion's gradient pulls them up until they no longer do. The slope
is bounded by that gradient. Otherwise, rare symbols would become ever rarer, until none is left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from viddiff.codec.entropy import Tables

MAGNITUDES = 64
"""Larger symbols cost what this one costs, and a little more for each further step."""
_BEYOND = 0.1
_SLOPE_MAX = 4.0


def _places(symbols: Tensor, rows: Tensor) -> Tensor:
    """Positions of the bits of symbols under tables `rows`, in a flat (tables, MAGNITUDES)."""
    magnitude = symbols.detach().abs().clamp(max=MAGNITUDES - 1)
    return rows.to(torch.int64) * MAGNITUDES + magnitude.to(torch.int64)


class _Lookup(torch.autograd.Function):
    """bits[row, |symbol|], with slopes as gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        symbols: Tensor,
        rows: Tensor,
        values: Tensor,
        trade: Tensor | float,
        bits: Tensor,
        by_symbol: Tensor,
        by_row: Tensor,
    ) -> Tensor:
        where = _places(symbols, rows)
        first = by_symbol.view(-1)[where]
        rising = torch.minimum(first * (2 * values.abs()).clamp(max=1), 2 * values.abs() / trade)
        slope = torch.where(symbols == 0, rising * values.sign(), first * symbols.sign())
        ctx.save_for_backward(where, slope, by_row)
        return bits.view(-1)[where]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        where, slope, by_row = ctx.saved_tensors
        return gradients[0] * slope, gradients[0] * by_row.view(-1)[where], None, None, None, None, None


@dataclass(frozen=True)
class Rates:
    """Bits of symbols under the tables of one kind, and their slopes; all (tables, MAGNITUDES)."""

    table_bits: Tensor
    by_symbol: Tensor
    by_row: Tensor

    @classmethod
    def of(cls, tables: Tables, classes: int, device: torch.device) -> Self:
        """Rates of `tables`, whose indexes fall into `classes` ordered parts of equal length."""
        count = len(tables.radius)
        magnitudes = np.tile(np.arange(MAGNITUDES), (count, 1))
        rows = np.repeat(np.arange(count)[:, None], MAGNITUDES, 1)
        bits = torch.from_numpy(tables.bits(magnitudes, rows)).to(device, torch.float32)
        by_symbol = torch.zeros_like(bits)
        by_symbol[:, 1:-1] = (bits[:, 2:] - bits[:, :-2]) / 2
        by_symbol[:, 0], by_symbol[:, -1] = bits[:, 1] - bits[:, 0], _BEYOND
        stretches = bits.view(classes, -1, MAGNITUDES)
        # Smoothed along the index, as neighbouring tables differ by chance, too.
        padded = functional.pad(stretches.transpose(1, 2), (1, 1), mode="replicate").transpose(1, 2)
        smooth = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
        slopes = torch.gradient(smooth, dim=1)[0].clamp(-_SLOPE_MAX, _SLOPE_MAX)
        return cls(bits, by_symbol, slopes.reshape(count, MAGNITUDES).contiguous())

    def bits(
        self, symbols: Tensor, rows: Tensor, values: Tensor | None = None, trade: Tensor | float = 1.0
    ) -> Tensor:
        """Bits of integer `symbols` under tables `rows` (same shape, integers), differentiable by both.

        values, trade: the inputs of `rate_aware_round` that gave `symbols`, if there are any.
        """
        if torch.is_grad_enabled():
            values = symbols if values is None else values.detach()
            result: Tensor = _Lookup.apply(
                symbols, rows, values, trade, self.table_bits, self.by_symbol, self.by_row
            )
        else:  # most calls only compare costs, and need no slopes
            result = self.table_bits.view(-1)[_places(symbols, rows)]
        return result + _BEYOND * (symbols.abs() - (MAGNITUDES - 1)).clamp(min=0)


def rate_aware_round(
    x: Tensor, bits: Callable[[Tensor], Tensor], trade: Tensor | float, largest: int
) -> Tensor:
    """Round `x` to the nearest integer, the next one towards zero, or zero: the least error^2 + trade * bits.

    x: in quantisation steps. bits: of given symbols. trade: squared steps that one bit is worth. The gradient
    is straight-through.

    Training quantises like the encoder (rate-distortion optimised quantisation). Otherwise the entropy model
    would expect symbols that never come.
    """
    with torch.no_grad():
        magnitude = x.abs()
        nearest = magnitude.round().clamp(max=largest)
        best, least = nearest, (magnitude - nearest) ** 2 + trade * bits(nearest)
        for option in ((nearest - 1).clamp_(min=0), torch.zeros_like(nearest)):
            cost = (magnitude - option) ** 2 + trade * bits(option)
            best, least = torch.where(cost < least, option, best), torch.minimum(cost, least)
        symbols = best * x.sign()
    return x + (symbols - x).detach()
