"""Run networks on large pictures in strips of rows, so that features do not need gigabytes.

A network of convolutions sees only some rows around a position. Each strip gets that many extra rows on both
sides. Then the result equals that of the whole picture, bit for bit, because sums are exact.
"""

from collections.abc import Callable

from torch import Tensor

POSITIONS = 1 << 15
"""Largest number of positions at 1/8 in a strip, without the extra rows: a whole 1920x1088 picture."""
REACH = 4
"""Rows at 1/8 that any network sees above and below a position."""


def in_strips(
    network: Callable[..., tuple[Tensor, ...]], scale: int, first: Tensor, *others: Tensor
) -> tuple[Tensor, ...]:
    """Apply `network` to tensors of one picture, in strips.

    Tensors are (B, C, H / s, W / s), with s of 2, 4, 8 or 16; `scale` is the s of `first`. The results have
    the same form.
    """
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
    """The part of a tensor that covers rows `start` to `end`, at 1/8, of a picture of `rows` rows."""
    return x[:, :, x.shape[2] * start // rows : x.shape[2] * end // rows]
