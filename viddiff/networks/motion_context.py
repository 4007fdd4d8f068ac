"""Inputs of the motion prior, and merge candidates. Compiled, because there are many small steps per block.

All numbers are integers. Those in float32 arrays are small enough to be exact.
"""

import numpy as np
from numpy.typing import NDArray

from viddiff.compiled import compiled, kernel

Floats = NDArray[np.float32]
PLANES = 16
"""Planes of a block's context. The last two are the number of merge candidates, and the distance of the first
other template from the parent."""
COUNT_PLANE = 14
"""Plane of the number of merge candidates."""
NEIGHBOURS = 4
"""Left, right, upper and lower. Zero outside."""
_ROWS, _COLS = np.array((0, 0, -1, 1)), np.array((-1, 1, 0, 0))
_NEAR = 63


@kernel
def _magnitude(value: float) -> float:
    return min(abs(value), _NEAR) * 8


@compiled
def context_planes(
    parent: Floats,
    parent_change: Floats,
    change: Floats,
    beside: Floats,
    others: Floats,
    known: Floats,
    unit: int,
) -> Floats:
    """Input planes of the network, (PLANES, R, C).

    parent: (2, R, C), the parents' differences from the template. parent_change: their changes. change: the
    changes of known blocks. beside: the changes of the other reference's field. others: (A, 2, R, C),
    differences from other templates. known: (R, C), 1 for known blocks. unit: of activations.

    The plane that counts candidates stays zero.
    """
    _, rows, cols = parent.shape
    planes = np.zeros((PLANES, rows, cols), np.float32)
    for row in range(rows):
        for col in range(cols):
            px, py = parent[0, row, col], parent[1, row, col]
            found = False
            for n in range(NEIGHBOURS):
                r, c = row + _ROWS[n], col + _COLS[n]
                x, y = np.float32(0), np.float32(0)
                if 0 <= r < rows and 0 <= c < cols:
                    x, y = parent[0, r, c], parent[1, r, c]
                    dx, dy = x + change[0, r, c] - px, y + change[1, r, c] - py
                    found = found or (known[r, c] > 0 and (dx != 0 or dy != 0))
                slope = _magnitude(abs(px - x) + abs(py - y))
                planes[11 + n // 2, row, col] = max(planes[11 + n // 2, row, col], slope)
            for first, field in ((0, parent_change), (4, change), (7, beside)):
                x, y = field[0, row, col], field[1, row, col]
                planes[first, row, col] = unit * (x != 0 or y != 0)
                planes[first + 1, row, col], planes[first + 2, row, col] = _magnitude(x), _magnitude(y)
            planes[3, row, col] = known[row, col] * unit
            planes[10, row, col] = unit * found
            planes[13, row, col] = unit
            if len(others):
                apart = abs(others[0, 0, row, col] - px) + abs(others[0, 1, row, col] - py)
                planes[15, row, col] = _magnitude(apart)
    return planes


@compiled
def merge_candidates(parent: Floats, field: Floats, others: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Merge candidates: vectors (K, 2, R, C), and their numbers (K, 1, R, C).

    Valid candidates are numbered from 1. Number 0 marks a candidate that repeats another one or the parent.

    parent: (2, R, C). field: the same for known blocks, the parents' elsewhere. others: (A, 2, R, C).
    """
    _, rows, cols = parent.shape
    count = NEIGHBOURS + len(others)
    vectors = np.zeros((count, 2, rows, cols), np.float32)
    numbers = np.zeros((count, 1, rows, cols), np.int64)
    for row in range(rows):
        for col in range(cols):
            counted = 0
            for k in range(count):
                if k >= NEIGHBOURS:
                    x, y = others[k - NEIGHBOURS, 0, row, col], others[k - NEIGHBOURS, 1, row, col]
                else:
                    r, c = row + _ROWS[k], col + _COLS[k]
                    x, y = np.float32(0), np.float32(0)
                    if 0 <= r < rows and 0 <= c < cols:
                        x, y = field[0, r, c], field[1, r, c]
                vectors[k, 0, row, col], vectors[k, 1, row, col] = x, y
                fresh = x != parent[0, row, col] or y != parent[1, row, col]
                for j in range(k):
                    fresh = fresh and (x != vectors[j, 0, row, col] or y != vectors[j, 1, row, col])
                if fresh:
                    counted += 1
                    numbers[k, 0, row, col] = counted
    return vectors, numbers
