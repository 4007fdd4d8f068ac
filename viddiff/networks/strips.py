"""Large pictures through a network in strips of rows, so that features do not take memory by the gigabyte.

A network of convolutions sees only so many rows around a position. A strip that has as many more on either
side, computed for nothing, comes out as it would out of the whole picture; to the bit, where sums are exact.
"""

from collections.abc import Callable

from torch import Tensor

POSITIONS = 1 << 15
"""Most positions at 1/8 in a strip, without what is computed for nothing: all of a picture of 1920x1088."""
REACH = 4
"""Rows at 1/8 around a position that any of the networks sees, at most."""


def in_strips(
    network: Callable[..., tuple[Tensor, ...]], scale: int, first: Tensor, *others: Tensor
) -> tuple[Tensor, ...]:
    """What `network` makes of these tensors of one picture, (B, C, H / s, W / s) with any s of 2, 4, 8 or 16,
    that of the first being `scale`. The results are such tensors, too."""
    rows, columns = (size * scale // 8 for size in first.shape[2:])
    most = max(POSITIONS // columns // 2 * 2, 2 * REACH)
    if rows <= most:
        return network(first, *others)
    wholes: list[Tensor] = []
    for start in range(0, rows, most):
        end = min(start + most, rows)
        low, high = max(start - REACH, 0), min(end + REACH, rows)
        parts = network(*(_rows(x, low, high, rows) for x in (first, *others)))
        if not wholes:
            sizes = [(*x.shape[:2], x.shape[2] * rows // (high - low), x.shape[3]) for x in parts]
            wholes = [x.new_empty(size) for x, size in zip(parts, sizes, strict=True)]
        for whole, part in zip(wholes, parts, strict=True):
            _rows(whole, start, end, rows).copy_(_rows(part, start - low, end - low, high - low))
    return tuple(wholes)


def _rows(x: Tensor, start: int, end: int, rows: int) -> Tensor:
    """What lies in rows `start` to `end` at 1/8 of a picture of so many `rows`."""
    return x[:, :, x.shape[2] * start // rows : x.shape[2] * end // rows]
