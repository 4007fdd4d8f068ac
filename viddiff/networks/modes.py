"""Modes: an 8x8 block uses the first hypothesis, the second, or both.

If one reference does not show the content of a block, it must not be blended in. The stream codes the mode of
each block, as in classic codecs (uni- and bi-prediction; ITU-T H.264, 8.4.2). For a block with one
hypothesis, the networks get this hypothesis twice, so they need no knowledge of modes.

Blocks are coded in three steps: every second block of every second row; the blocks diagonally between them;
the rest. The table for a block depends on the frame's level, on the difference of the hypotheses, and on the
modes of the four nearest blocks of earlier steps.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

FIRST, BOTH, SECOND = -1, 0, 1
_SIDE = 4
"""Side of a block in packed planes."""
_DIFFERENCES = (256, 512, 1024, 2048, 4096)
"""Limits between classes of the sum of absolute differences of a block's luma (10 bits)."""
_SURROUNDINGS = 11
"""Contexts: nothing known; the sum of four diagonal modes, -2 to 2; the same for direct neighbours."""
MODE_TABLES = 2 * (len(_DIFFERENCES) + 1) * _SURROUNDINGS

ModeCoder = Callable[[Tensor, Tensor], Tensor]
"""(indexes, mask) -> modes. Chooses or decodes the modes of one step, (1, 1, R, C) int64."""


def surrounding_of_table(index: int) -> int:
    """Sum of neighbouring modes, -2..2, that belongs to table `index`; 0 if none is known."""
    place = index % _SURROUNDINGS
    return 0 if place == 0 else (place - 1) % 5 - 2


def block_sums(planes: Tensor) -> Tensor:
    """Sums over all channels of each block, (B, 1, R, C), of packed planes (B, C, 4 R, 4 C)."""
    batch, _, height, width = planes.shape
    blocks = planes.sum(1).view(batch, 1, height // _SIDE, _SIDE, width // _SIDE, _SIDE)
    return blocks.sum((3, 5))


def neighbours(modes: Tensor, diagonal: bool) -> list[Tensor]:
    """Values of the four nearest blocks, zero outside the picture: (1, 1, R, C) int64."""
    padded = functional.pad(modes, (1, 1, 1, 1))
    rows, cols = modes.shape[2:]
    shifts = ((0, 0), (0, 2), (2, 0), (2, 2)) if diagonal else ((0, 1), (1, 0), (1, 2), (2, 1))
    return [padded[:, :, dy : dy + rows, dx : dx + cols] for dy, dx in shifts]


def code_modes(first: Tensor, second: Tensor, level: int, code: ModeCoder) -> Tensor:
    """Modes of all blocks, (1, 1, R, C) int64. `code` supplies those of each step.

    first, second: packed hypotheses (1, 6, 4 R, 4 C), integers. Where they are equal, nothing is coded.
    """
    sums = block_sums((first[:, :4] - second[:, :4]).abs())
    difference = sum((sums >= limit).to(torch.int64) for limit in _DIFFERENCES)
    rows, cols = sums.shape[2:]
    row = torch.arange(rows, device=sums.device)[:, None] % 2
    col = torch.arange(cols, device=sums.device)[None] % 2
    modes = torch.zeros_like(sums, dtype=torch.int64)
    for step, chosen in enumerate(((row == 0) & (col == 0), (row == 1) & (col == 1), row != col)):
        surrounding = torch.zeros_like(modes)
        if step > 0:
            around = torch.stack(neighbours(modes, diagonal=step == 1)).sum(0)
            surrounding = around.clamp(-2, 2) + 5 * step - 2
        kind = (len(_DIFFERENCES) + 1) * min(level, 1) + difference
        mask = chosen & (sums > 0)
        modes = torch.where(mask, code(kind * _SURROUNDINGS + surrounding, mask), modes)
    return modes


def apply_modes(first: Tensor, second: Tensor, modes: Tensor) -> tuple[Tensor, Tensor]:
    """Both hypotheses. In blocks that use one hypothesis, both are that one."""
    wide = modes.repeat_interleave(_SIDE, 2).repeat_interleave(_SIDE, 3)
    return torch.where(wide == SECOND, second, first), torch.where(wide == FIRST, first, second)
