"""Inner loops of the motion search, compiled by numba: costs of vectors, and the best of many vectors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from viddiff.compiled import compiled, kernel
from viddiff.encoder.hadamard import difference_spectrum
from viddiff.encoder.residual_cost import energy_scale, spectrum_bits
from viddiff.networks.warp import BLOCK

Field = NDArray[np.int64]
"""Vectors of blocks, (2, rows, cols), x first, in quarter luma samples."""
BORDER = 2 * BLOCK
"""Samples that interpolated planes add on every side of the picture."""
FLAG_BITS = (0.5, 1.5, 2.0, 3.5)
"""Extra bits of the flag of a changed block over an unchanged one, by level of the quadtree."""
_CHANGE_BITS, _LENGTH_BITS = 4.8, 1.12
"""Bits of a new vector, and bits for each doubling of a component of its difference from the parent."""
_ONE_BITS = 2.0
"""Extra bits of a block that uses one hypothesis."""
_ALONE_SHARE = 0.5
"""Weight of one hypothesis' error while the other hypothesis is not known yet."""
_RING = np.array(((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)))
_SIDE = np.uintp(BLOCK)  # indexes without a sign need no check for wrapping around


class Scene(NamedTuple):
    """What the vectors of one field are judged by."""

    target: NDArray[np.uint8]
    """(H, W) luma, 8 bits, whole blocks."""
    phases: NDArray[np.uint8]
    """The reference at 16 quarter-sample phases, 4*fy + fx: (16, H + 2 BORDER, W + 2 BORDER)."""
    template: Field
    """(2, H/8, W/8). Vectors are relative to it."""
    partner: NDArray[np.float32]
    """Spectra (H/8, W/8, 8, 8) of the other hypothesis' error; empty (0, 0, 8, 8) if it is not known.

    A block may use the other hypothesis instead, or the mean of both.
    """
    without: NDArray[np.float32]
    """Bits (H/8, W/8) of each block if it uses only the other hypothesis."""
    lmbda: float
    """Squared error that is worth one bit."""
    miss: NDArray[np.float32]
    """(8, 8), a buffer for a spectrum."""
    nothing: NDArray[np.float32]
    """(8, 8) zeros."""


@kernel
def _place(phases: NDArray[np.uint8], row: int, col: int, dx: int, dy: int) -> tuple[int, np.uintp, np.uintp]:
    """Phase, top and left of a block's prediction in interpolated planes. Clamped at the border."""
    top = min(max(row * BLOCK + (dy >> 2) + BORDER, 0), phases.shape[1] - BLOCK)
    left = min(max(col * BLOCK + (dx >> 2) + BORDER, 0), phases.shape[2] - BLOCK)
    return (dy & 3) * 4 + (dx & 3), np.uintp(top), np.uintp(left)


@compiled
def fetch(phases: NDArray[np.uint8], field: Field) -> NDArray[np.uint8]:
    """The picture (H, W) that vectors `field` (2, H/8, W/8) predict."""
    rows, cols = field.shape[1:]
    picture = np.empty((rows * BLOCK, cols * BLOCK), np.uint8)
    for row in range(rows):
        for col in range(cols):
            phase, top, left = _place(phases, row, col, field[0, row, col], field[1, row, col])
            plane, y, x = phases[phase], np.uintp(row * BLOCK), np.uintp(col * BLOCK)
            for i in range(_SIDE):
                for j in range(_SIDE):
                    picture[y + i, x + j] = plane[top + i, left + j]
    return picture


@kernel
def _block_cost(scene: Scene, row: int, col: int, dx: int, dy: int) -> float:
    """Bits of one 8x8 block at vector (dx, dy), without its motion."""
    phase, top, left = _place(scene.phases, row, col, dx, dy)
    y, x = np.uintp(row * BLOCK), np.uintp(col * BLOCK)
    difference_spectrum(scene.target, y, x, scene.phases[phase], top, left, scene.miss)
    scale = energy_scale(scene.lmbda)
    alone = spectrum_bits(scene.miss, scene.nothing, scale)
    if scene.partner.shape[0] == 0:
        return _ALONE_SHARE * alone
    one: float = min(alone, scene.without[row, col]) + _ONE_BITS
    return min(one, spectrum_bits(scene.miss, scene.partner[row, col], np.float32(0.25) * scale))


@kernel
def _square_cost(scene: Scene, factor: int, row: int, col: int, dx: int, dy: int, limit: float) -> float:
    """Bits of a square of factor x factor blocks at (dx, dy) from the template, without motion.

    `limit` or more as soon as that is certain.
    """
    total = 0.0
    _, rows, cols = scene.template.shape
    for r in range(row * factor, min((row + 1) * factor, rows)):
        for c in range(col * factor, min((col + 1) * factor, cols)):
            total += _block_cost(scene, r, c, dx + scene.template[0, r, c], dy + scene.template[1, r, c])
            if total >= limit:
                return total
    return total


@compiled
def costs_below(scene: Scene, factor: int, field: Field, limits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bits (rows, cols) of squares of factor x factor blocks at `field` (2, rows, cols), without motion.

    Where they reach `limits` (rows, cols), the result is at least the limit but not exact.
    """
    costs = np.empty(limits.shape, np.float32)
    for row in range(limits.shape[0]):
        for col in range(limits.shape[1]):
            limit = limits[row, col]
            costs[row, col] = limit
            if limit > 0:
                costs[row, col] = _square_cost(
                    scene, factor, row, col, field[0, row, col], field[1, row, col], limit
                )
    return costs


@kernel
def _candidate(
    candidates: NDArray[np.int64], best: Field, number: int, row: int, col: int
) -> tuple[int, int]:
    """Vector of a square's candidate; the last two are those of the squares to the left and above."""
    if number < len(candidates):
        return candidates[number, 0, row, col], candidates[number, 1, row, col]
    if number == len(candidates):
        return best[0, row, max(col - 1, 0)], best[1, row, max(col - 1, 0)]
    return best[0, max(row - 1, 0), col], best[1, max(row - 1, 0), col]


@compiled
def best_vectors(
    scene: Scene,
    level: int,
    factor: int,
    parent: Field,
    candidates: NDArray[np.int64],
    steps: NDArray[np.int64],
) -> tuple[Field, NDArray[np.float32]]:
    """The best vector of each square of factor x factor blocks, and its cost including motion.

    Vectors are differences from the template. parent: (2, rows, cols), vectors that cost no bits. candidates:
    (K, 2, rows, cols), tried together with those of the squares above and to the left. steps: distances at
    which vectors are tried around the best one, in eight directions.
    """
    _, rows, cols = parent.shape
    best, costs = parent.copy(), np.empty((rows, cols), np.float32)
    price = FLAG_BITS[level] + _CHANGE_BITS
    for row in range(rows):
        for col in range(cols):
            px, py = parent[0, row, col], parent[1, row, col]
            x, y, cost = px, py, _square_cost(scene, factor, row, col, px, py, np.inf)
            ringed = len(candidates) + 2
            for i in range(ringed + len(steps) * len(_RING)):
                if i < ringed:
                    vx, vy = _candidate(candidates, best, i, row, col)
                else:
                    around = (i - ringed) % len(_RING)
                    step = steps[(i - ringed) // len(_RING)]
                    if around == 0:
                        cx, cy = x, y
                    vx, vy = cx + step * _RING[around, 0], cy + step * _RING[around, 1]
                if cost <= price:
                    break  # nothing that costs less than a changed vector can gain by one
                if vx == x and vy == y:
                    continue
                motion = 0.0
                if vx != px or vy != py:
                    motion = price + _LENGTH_BITS * np.log2((1.0 + abs(vx - px)) * (1.0 + abs(vy - py)))
                if motion < cost:
                    other = motion + _square_cost(scene, factor, row, col, vx, vy, cost - motion)
                    if other < cost:
                        x, y, cost = vx, vy, other
            best[0, row, col], best[1, row, col], costs[row, col] = x, y, cost
    return best, costs
