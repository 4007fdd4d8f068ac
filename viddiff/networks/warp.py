"""Motion compensation in exact integers: quarter-sample block motion, long filters, overlapped blocks.

A vector field holds one vector for each 8x8 luma block: (2, H/8, W/8), x first, int64, in quarter luma
samples. The border of the reference is replicated, so vectors may point anywhere.

The filters are those of HEVC (ITU-T H.265, 8.5.3.3.3): 8 taps for luma, 4 for chroma. Two passes of gain 64,
without rounding between them, stay below 2^24 (1023 * 112^2 = 12.8e6), so float32 sums are exact in any
order.

Where the block above, below, left or right has another vector, the samples that this vector fetches are
blended in towards the common edge (overlapped block motion compensation; Orchard and Sullivan 1994). The
blend weights are stored with the weights of the networks. Old weights have none.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from viddiff.compiled import compiled, kernel
from viddiff.errors import CheckpointError

BLOCK = 8
"""Side of a motion block in luma samples."""
PIXEL_MAX = 1023
"""Largest sample inside the codec, which computes with 10 bits for every video."""

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
OVERLAP_UNIT = 16
"""Sum of the blend weights of a block's own vector and its neighbours'."""
OVERLAP = (
    (2, 2, 2, 2, 2, 2, 2, 2),
    (1, 1, 2, 2, 2, 2, 1, 1),
    (1, 1, 1, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 1, 1, 1, 1),
    *((0,) * BLOCK,) * 4,
)
"""Blend weights of the vector of the block above: half of those of ITU-T H.263, Annex F."""

Plane = NDArray[np.float32]
"""(H, W), integers 0..PIXEL_MAX."""


class MotionCompensation(nn.Module):
    """Fetches blocks from a reference. Runs on the CPU, also if the networks run on a GPU."""

    overlap: Tensor
    """Blend weights (8, 8) int8, see OVERLAP; rotated for the other sides. All zero means no overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("overlap", torch.tensor(OVERLAP, dtype=torch.int8))

    def set_overlap(self, overlap: Tensor) -> None:
        """Set blend weights. Raises CheckpointError if one is negative or a sum exceeds the unit."""
        if overlap.shape != (BLOCK, BLOCK) or overlap.dtype != torch.int8:
            raise CheckpointError("the weights of overlapped blocks have the wrong shape")
        wide = overlap.int()
        sums = wide + wide.flip(0) + wide.T + wide.T.flip(1)
        if wide.min() < 0 or sums.max() > OVERLAP_UNIT:
            raise CheckpointError("the weights of overlapped blocks are out of range")
        self.overlap.copy_(overlap)

    def forward(
        self, planes: tuple[Tensor, Tensor, Tensor], vectors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Motion-compensate YUV 4:2:0 planes.

        Planes are (1, H, W), integers 0..1023 in float32; vectors are (1, 2, H/8, W/8).
        """
        field, luma = vectors[0].cpu().numpy(), self.overlap.cpu().numpy().astype(np.float32)
        chroma = luma.reshape(BLOCK // 2, 2, BLOCK // 2, 2).sum((1, 3), dtype=np.float32)
        y, u, v = (
            compensate(plane[0].cpu().numpy(), field, np.array(taps, np.float32), window, unit)
            for plane, taps, window, unit in (
                (planes[0], LUMA_TAPS, luma, OVERLAP_UNIT),
                (planes[1], CHROMA_TAPS, chroma, 4 * OVERLAP_UNIT),
                (planes[2], CHROMA_TAPS, chroma, 4 * OVERLAP_UNIT),
            )
        )
        first, second, third = (torch.from_numpy(plane)[None].to(vectors.device) for plane in (y, u, v))
        return first, second, third


@compiled
def compensate(plane: Plane, vectors: NDArray[np.int64], taps: Plane, window: Plane, unit: int) -> Plane:
    """Fetch every block of `plane` at its vector, and at its neighbours' vectors where these differ.

    vectors: (2, R, C) in 1/len(taps) samples. taps: (phases, length). window: (side, side), weight of the
    vector of the block above, in units of 1/unit.
    """
    side = window.shape[0]
    _, rows, cols = vectors.shape
    result = np.empty(plane.shape, np.float32)
    length = taps.shape[1]
    source = np.empty((side + length - 1, side + length - 1), np.float32)
    across = np.empty((side + length - 1, side), np.float32)
    own, other = np.empty((side, side), np.float32), np.empty((side, side), np.float32)
    blend = np.empty((side, side), np.float32)
    overlapped = window.any()
    for row in range(rows):
        for col in range(cols):
            vx, vy = vectors[0, row, col], vectors[1, row, col]
            top, left = row * side, col * side
            _fetch(plane, (top, left), (vx, vy), taps, source, across, own)
            blend[:] = 0
            blended = False
            for edge in range(4 * overlapped):
                r, c = row + (edge == 1) - (edge == 0), col + (edge == 3) - (edge == 2)
                if r < 0 or c < 0 or r >= rows or c >= cols:
                    continue
                ox, oy = vectors[0, r, c], vectors[1, r, c]
                if ox == vx and oy == vy:
                    continue
                _fetch(plane, (top, left), (ox, oy), taps, source, across, other)
                blended = True
                for i in range(side):
                    for j in range(side):
                        depth, along = (i, j) if edge < 2 else (j, i)
                        weight = window[side - 1 - depth if edge % 2 else depth, along]
                        blend[i, j] += weight * (other[i, j] - own[i, j])
            for i in range(side):
                for j in range(side):
                    value = own[i, j]
                    if blended:
                        value += np.floor((blend[i, j] + np.float32(unit // 2)) / np.float32(unit))
                    result[top + i, left + j] = value
    return result


@kernel
def _fetch(
    plane: Plane,
    corner: tuple[int, int],
    vector: tuple[int, int],
    taps: Plane,
    source: Plane,
    across: Plane,
    block: Plane,
) -> None:
    """Write the prediction of the block at `corner` (top, left) by `vector` (x, y) into `block`.

    source, across: buffers.
    """
    (top, left), (vx, vy) = corner, vector
    phases, length = taps.shape
    side, size = block.shape[0], source.shape[0]
    height, width = plane.shape
    whole_x, whole_y = vx // phases, vy // phases
    across_taps, down_taps = taps[vx - whole_x * phases], taps[vy - whole_y * phases]
    y0, x0 = top + whole_y - (length // 2 - 1), left + whole_x - (length // 2 - 1)
    for i in range(size):
        y = min(max(y0 + i, 0), height - 1)
        for j in range(size):
            source[i, j] = plane[y, min(max(x0 + j, 0), width - 1)]
    across[:] = 0
    block[:] = 0
    for k in range(length):
        for i in range(size):
            for j in range(side):
                across[i, j] += across_taps[k] * source[i, j + k]
    for k in range(length):
        for i in range(side):
            for j in range(side):
                block[i, j] += down_taps[k] * across[i + k, j]
    for i in range(side):
        for j in range(side):
            value = np.rint(block[i, j] * np.float32(2.0**-12))
            block[i, j] = min(max(value, np.float32(0)), np.float32(PIXEL_MAX))
