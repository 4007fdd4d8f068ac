"""Loops that find where blocks of a frame come from in another decoded frame, and that fetch them.

They take addresses and integers, see `native_code`. All of them are integers, so that every decoder finds the
same vectors. Indexes are not checked here: `block_motion` proves them from the sizes.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from viddiff.codec.engine.block_kernels import (
    block_difference,
    block_differences_around,
    copy_block,
    fetch_block,
    nearest_block,
)
from viddiff.native_code import OPTIONS, Signature

_Function = TypeVar("_Function", bound=Callable[..., Any])
_compiler: Any = numba
_MARGIN, _SHRINK = 32, 4
"""As in `block_motion`."""
_REACH = 24
"""Most samples that a block of 16x16 may lie outside of the padded picture.

What is compared around a block of 8x8 in it, a sample further up or down, still lies within the margin.
"""
_BLOCK = 8
"""Side of a block with a vector, in luma."""
_RANGE = 6
"""Range of the coarse search in each direction, samples of the smaller pictures."""
_PLACES = 2 * _RANGE + 1
_EDGE = 4
"""Samples around a block of 8x8 that are compared, too: neighbouring blocks mostly move alike."""
_CHANGE, _NEARER = 64, 2
"""Differences that a vector must save to be other than the likely one, and to be a sample longer."""
_FILTER = 16
"""Bytes of an interpolation filter."""
_STEPS = 8


def _inner(function: _Function) -> _Function:
    """A function for others here to call."""
    return _compiler.njit(**OPTIONS, inline="always")(function)  # type: ignore[no-any-return]


def _plain(function: _Function) -> _Function:
    return _compiler.njit(**OPTIONS)(function)  # type: ignore[no-any-return]


def _extend(plane: Any, rows: int, columns: int, result: Any, full_rows: int, full_columns: int) -> None:
    """Fill the result with the plane from (_MARGIN, _MARGIN) on, and with its border around it."""
    for row in range(full_rows):
        source = min(max(row - _MARGIN, 0), rows - 1) * columns
        to = row * full_columns
        for column in range(_MARGIN):
            result[to + column] = plane[source]
        for column in range(columns):
            result[to + _MARGIN + column] = plane[source + column]
        for column in range(_MARGIN + columns, full_columns):
            result[to + column] = plane[source + columns - 1]


def _shrink(plane: Any, rows: int, columns: int, result: Any) -> None:
    """Means of _SHRINK x _SHRINK samples; (rows, columns) of the result."""
    step = columns * _SHRINK
    for row in range(rows):
        for column in range(columns):
            at = row * _SHRINK * step + column * _SHRINK
            total = np.int32(0)
            for y in range(_SHRINK):
                for x in range(_SHRINK):
                    total += np.int32(plane[at + y * step + x])
            result[row * columns + column] = total >> 4


@_inner
def _number(value: Any) -> int:
    return np.int64(value)  # type: ignore[return-value]


@_inner
def _limited(vector: int, place: int, size: int, side: int) -> int:
    """The vector component, so that a block at `place` stays within _REACH of a picture of `size`."""
    return min(max(vector, -_REACH - place), size - side + _REACH - place)


def _match(  # noqa: PLR0913
    current: int,
    reference: int,
    small_current: int,
    small_reference: int,
    rows: int,
    columns: int,
    coarse: Any,
    large: Any,
    vectors: Any,
) -> None:
    """Vectors (rows/8, columns/8, 2) of blocks, vertical and horizontal, in quarter samples.

    rows, columns: of the picture without its margins, multiples of 32. The planes have _MARGIN on all sides,
    the small ones _MARGIN/_SHRINK. coarse (rows/32, columns/32, 2) and large (rows/16, columns/16, 2) are
    filled on the way, in samples.
    """
    _match_coarse(small_current, small_reference, rows // _SHRINK, columns // _SHRINK, coarse)
    _match_large(current, reference, rows, columns, coarse, large)
    step = 2 * (columns + 2 * _MARGIN)
    large_rows, large_columns = rows // 16, columns // 16
    for row in range(rows // 8):
        for column in range(columns // 8):
            top, left = row * 8, column * 8
            at = current + (top + _MARGIN - _EDGE) * step + 2 * (left + _MARGIN - _EDGE)
            other = reference + (top + _MARGIN - _EDGE) * step + 2 * (left + _MARGIN - _EDGE)
            own = 2 * (row // 2 * large_columns + column // 2)
            best_y, best_x = _number(large[own]), _number(large[own + 1])
            best, change = block_difference(16, at, other + best_y * step + 2 * best_x, step), 0
            for n in range(2):
                r, c = row // 2, column // 2
                if n == 0:
                    r = min(max(r - 1 + 2 * (row % 2), 0), large_rows - 1)
                else:
                    c = min(max(c - 1 + 2 * (column % 2), 0), large_columns - 1)
                place = 2 * (r * large_columns + c)
                y = _limited(_number(large[place]), top, rows, 8)
                x = _limited(_number(large[place + 1]), left, columns, 8)
                if y == best_y and x == best_x:
                    continue
                cost = block_difference(16, at, other + y * step + 2 * x, step)
                if cost + _CHANGE < best + change:
                    best, best_y, best_x, change = cost, y, x, _CHANGE
            to = other + best_y * step + 2 * best_x
            down, up, after, before = block_differences_around(at, to, step)
            place = 2 * (row * (columns // 8) + column)
            vectors[place] = 4 * best_y + _quarters(up, best, down)
            vectors[place + 1] = 4 * best_x + _quarters(before, best, after)


@_plain
def _match_coarse(current: int, reference: int, rows: int, columns: int, coarse: Any) -> None:
    """A full search with blocks of 8x8 in the small pictures."""
    margin = _MARGIN // _SHRINK
    step = 2 * (columns + 2 * margin)
    across = columns // 8
    for row in range(rows // 8):
        for column in range(across):
            place = (row * 8 + margin) * step + 2 * (column * 8 + margin)
            at, other = current + place, reference + place
            best = block_difference(8, at, other, step) - 2 * _NEARER * _RANGE
            best_y, best_x = 0, 0
            for y in range(-_RANGE, _RANGE + 1):
                first = other + y * step - 2 * _RANGE
                cost, x = nearest_block(_PLACES, at, first, step, _NEARER)
                cost += _NEARER * abs(y)
                if cost < best:
                    best, best_y, best_x = cost, y, x - _RANGE
            place = 2 * (row * across + column)
            coarse[place], coarse[place + 1] = best_y * _SHRINK, best_x * _SHRINK


@_plain
def _match_large(current: int, reference: int, rows: int, columns: int, coarse: Any, large: Any) -> None:
    """Blocks of 16x16 try the coarse vectors around them and those of neighbours, and go down from there."""
    step = 2 * (columns + 2 * _MARGIN)
    coarse_rows, coarse_columns = rows // 32, columns // 32
    across = columns // 16
    for row in range(rows // 16):
        for column in range(across):
            top, left = row * 16, column * 16
            at = current + (top + _MARGIN) * step + 2 * (left + _MARGIN)
            other = reference + (top + _MARGIN) * step + 2 * (left + _MARGIN)
            best = block_difference(16, at, other, step) - _CHANGE
            best_y, best_x = 0, 0
            for n in range(7):
                if n < 5:
                    r = min(max(row // 2 - (n == 1) + (n == 2), 0), coarse_rows - 1)
                    c = min(max(column // 2 - (n == 3) + (n == 4), 0), coarse_columns - 1)
                    place = 2 * (r * coarse_columns + c)
                    y, x = _number(coarse[place]), _number(coarse[place + 1])
                else:
                    r, c = max(row - (n == 5), 0), max(column - (n == 6), 0)
                    if r == row and c == column:
                        continue
                    place = 2 * (r * across + c)
                    y, x = _number(large[place]), _number(large[place + 1])
                y, x = _limited(y, top, rows, 16), _limited(x, left, columns, 16)
                if y == best_y and x == best_x:
                    continue
                cost = block_difference(16, at, other + y * step + 2 * x, step)
                if cost < best:
                    best, best_y, best_x = cost, y, x
            for _ in range(_STEPS):
                centre_y, centre_x = best_y, best_x
                costs = block_differences_around(at, other + centre_y * step + 2 * centre_x, step)
                for n in range(4):
                    y = _limited(centre_y + (n == 0) - (n == 1), top, rows, 16)
                    x = _limited(centre_x + (n == 2) - (n == 3), left, columns, 16)
                    if costs[n] < best and (y != centre_y or x != centre_x):
                        best, best_y, best_x = costs[n], y, x
                if best_y == centre_y and best_x == centre_x:
                    break
            place = 2 * (row * across + column)
            large[place], large[place + 1] = best_y, best_x


@_plain
def _quarters(before: int, here: int, after: int) -> int:
    """Where the least difference is, in quarters from `here`: two lines of equal slope through the three."""
    room = max(before, after) - here
    if room <= 0:
        return 0
    return min(max((4 * (before - after) + room) // (2 * room), -2), 2)


def _fetch(  # noqa: PLR0913
    plane: int,
    step: int,
    side: int,
    vectors: Any,
    rows: int,
    columns: int,
    taps: int,
    result: int,
    result_step: int,
) -> None:
    """The blocks (rows, columns) that the vectors fetch from a plane with _MARGIN on all sides.

    side: of a block in this plane, 8 or 4, for which a vector's unit is 1/4 or 1/8 of a sample. taps: address
    of the filters for eighths. Steps are in bytes.
    """
    units = 32 // side
    for row in range(rows):
        for column in range(columns):
            place = 2 * (row * columns + column)
            y, x = _number(vectors[place]), _number(vectors[place + 1])
            source = plane + (row * side + _MARGIN + y // units) * step
            source += 2 * (column * side + _MARGIN + x // units)
            to = result + row * side * result_step + 2 * column * side
            step_of_filters = _FILTER * (8 // units)
            across, down = taps + step_of_filters * (x % units), taps + step_of_filters * (y % units)
            whole = across == taps and down == taps
            if side == _BLOCK and whole:
                copy_block(8, (source, step, to, result_step))
            elif side == _BLOCK:
                fetch_block(8, (source, step, across, down, to, result_step))
            elif whole:
                copy_block(4, (source, step, to, result_step))
            else:
                fetch_block(4, (source, step, across, down, to, result_step))


def functions() -> dict[str, tuple[Callable[..., None], Signature]]:
    """All loops by name, with what they take."""
    return {
        "extend": (_extend, ("uint16*", "int64", "int64", "uint16*", "int64", "int64")),
        "shrink": (_shrink, ("uint16*", "int64", "int64", "uint16*")),
        "match": (_match, (*["int64"] * 6, *["int32*"] * 3)),
        "fetch": (_fetch, (*["int64"] * 3, "int32*", *["int64"] * 5)),
    }
