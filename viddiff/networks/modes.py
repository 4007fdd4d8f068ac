"""Which of the two hypotheses an 8x8 block is predicted from: the first alone, both, or the second alone.

Where one reference does not show what the block shows, the other must not be blended in. The stream says so
for each block, as classic codecs do (uni- and bi-prediction; ITU-T H.264, 8.4.2). A block of one hypothesis
has it twice before the networks see it, so these need not know of modes.

Blocks are coded in three steps: every second one of every second row; those diagonally between them; the
rest. The table of a block is chosen by the level of its frame, by how much the hypotheses differ and by the
modes of the four nearest blocks of the steps before.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

FIRST, BOTH, SECOND = -1, 0, 1
_SIDE = 4
"""Side of a block in positions of packed pictures."""
_DIFFERENCES = (256, 512, 1024, 2048, 4096)
"""Sums of absolute differences of a block's luma (10 bits) from which on it is of the next class."""
_SURROUNDINGS = 11
"""Nothing known; the sum of four modes, -2 or less to 2 or more, diagonally; the same directly."""
MODE_TABLES = 2 * (len(_DIFFERENCES) + 1) * _SURROUNDINGS

ModeCoder = Callable[[Tensor, Tensor], Tensor]
"""(indexes, mask) -> modes: chooses or decodes the modes of one step, (1, 1, R, C) int64."""


def surrounding_of_table(index: int) -> int:
    """Sum of the neighbouring modes, -2..2, that table `index` stands for; 0 if none is known."""
    place = index % _SURROUNDINGS
    return 0 if place == 0 else (place - 1) % 5 - 2


def block_sums(planes: Tensor) -> Tensor:
    """Sums (B, 1, R, C) over all channels of the blocks of packed planes (B, C, 4 R, 4 C)."""
    batch, _, height, width = planes.shape
    blocks = planes.sum(1).view(batch, 1, height // _SIDE, _SIDE, width // _SIDE, _SIDE)
    return blocks.sum((3, 5))


def neighbours(modes: Tensor, diagonal: bool) -> list[Tensor]:
    """The four nearest blocks' values for every block, zero outside; int64 (1, 1, R, C)."""
    padded = functional.pad(modes, (1, 1, 1, 1))
    rows, cols = modes.shape[2:]
    shifts = ((0, 0), (0, 2), (2, 0), (2, 2)) if diagonal else ((0, 1), (1, 0), (1, 2), (2, 1))
    return [padded[:, :, dy : dy + rows, dx : dx + cols] for dy, dx in shifts]


def code_modes(first: Tensor, second: Tensor, level: int, code: ModeCoder) -> Tensor:
    """The modes (1, 1, R, C) int64 of all blocks; `code` supplies those of each step.

    first, second: packed hypotheses (1, 6, 4 R, 4 C), integers. Where they agree there is nothing to code.
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
    """Both hypotheses, one in place of the other in blocks of one alone."""
    wide = modes.repeat_interleave(_SIDE, 2).repeat_interleave(_SIDE, 3)
    return torch.where(wide == SECOND, second, first), torch.where(wide == FIRST, first, second)
