"""Motion compensation in exact integers: quarter-sample block motion with long filters.

A vector field holds one vector for each 8x8 luma block, (B, 2, H/8, W/8), x first, int64, in quarter luma
samples.
Blocks are fetched whole by index from a replicated border, so vectors may point anywhere. Filters are those
of HEVC (ITU-T H.265, 8.5.3.3.3: 8 taps for luma, 4 for chroma); two passes of gain 64 without rounding
between
them stay below 2^24 (1023 * 112^2 = 12.8e6), so float32 sums are exact in any order.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 8
"""Side of a motion block in luma samples."""
PIXEL_MAX = 1023
"""Largest sample inside the codec, which computes at 10 bits whatever the bit depth of the video."""

LUMA_TAPS = (
    (0, 0, 0, 64, 0, 0, 0, 0),
    (-1, 4, -10, 58, 17, -5, 1, 0),
    (-1, 4, -11, 40, 40, -11, 4, -1),
    (0, 1, -5, 17, 58, -10, 4, -1),
)
CHROMA_TAPS = (
    (0, 64, 0, 0),
    (-2, 58, 10, -2),
    (-4, 54, 16, -2),
    (-6, 46, 28, -4),
    (-4, 36, 36, -4),
    (-4, 28, 46, -6),
    (-2, 16, 54, -4),
    (-2, 10, 58, -2),
)


@cache
def _toeplitz(taps: tuple[tuple[int, ...], ...], block: int, device: torch.device) -> Tensor:
    """Matrices (phases, block + taps - 1, block) that filter one row of a fetched block."""
    length = len(taps[0])
    matrices = torch.zeros(len(taps), block + length - 1, block)
    for phase, row in enumerate(taps):
        for k, tap in enumerate(row):
            for i in range(block):
                matrices[phase, i + k, i] = tap
    return matrices.to(device)


def warp_plane(plane: Tensor, vectors: Tensor, taps: tuple[tuple[int, ...], ...], block: int) -> Tensor:
    """Fetch every block of `plane` at its vector.

    plane: (B, H, W) integers 0..1023 in float32, H and W multiples of `block`.
    vectors: (B, 2, H/block, W/block) int64 in 1/len(taps) samples of this plane.
    Returns (B, H, W) integers 0..1023.
    """
    batch, height, width = plane.shape
    phases, length = len(taps), len(taps[0])
    before, size = length // 2 - 1, block + length - 1
    rows, cols = height // block, width // block
    border = block + length
    padded = functional.pad(plane[:, None], (border,) * 4, mode="replicate")[:, 0]
    whole = torch.div(vectors, phases, rounding_mode="floor")
    phase = (vectors - whole * phases).flatten(2)  # (B, 2, N)
    origin_x = torch.arange(cols, device=plane.device) * block + whole[:, 0]
    origin_y = torch.arange(rows, device=plane.device)[:, None] * block + whole[:, 1]
    # Beyond one block outside the picture every fetched sample is the border's, so clamping changes nothing.
    x = (origin_x - before + border).clamp(0, width + border).flatten(1)
    y = (origin_y - before + border).clamp(0, height + border).flatten(1)
    image = torch.arange(batch, device=plane.device)[:, None]
    corner = ((image * padded.shape[1] + y) * padded.shape[2] + x).flatten()
    row = corner[:, None] + torch.arange(size, device=plane.device) * padded.shape[2]
    # Every stretch of `size` samples of the flat picture as a row of a table: rows are fetched whole.
    stretches = padded.flatten().as_strided((padded.numel() - size + 1, size), (1, 1))
    fetched = stretches.index_select(0, row.flatten()).view(-1, size, size)
    matrices = _toeplitz(taps, block, plane.device)
    across = torch.bmm(fetched, matrices.index_select(0, phase[:, 0].flatten()))
    down = torch.bmm(matrices.transpose(1, 2).index_select(0, phase[:, 1].flatten()), across)
    blocks = down.mul_(2.0**-12).round_().clamp_(0, PIXEL_MAX)
    return blocks.view(batch, rows, cols, block, block).transpose(2, 3).reshape(batch, height, width)


def warp(planes: tuple[Tensor, Tensor, Tensor], vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Motion-compensate one frame (or a batch) of YUV 4:2:0 planes, each (B, H, W) integers 0..1023."""
    y, u, v = planes
    chroma = torch.cat((u, v))
    warped = warp_plane(chroma, vectors.repeat(2, 1, 1, 1), CHROMA_TAPS, BLOCK // 2)
    half = u.shape[0]
    return warp_plane(y, vectors, LUMA_TAPS, BLOCK), warped[:half], warped[half:]
