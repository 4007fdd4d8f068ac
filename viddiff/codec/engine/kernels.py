"""The engine's loops, for numba to compile: pictures in, the work on rows, corrections applied and counted.

They take addresses and integers, see `native_code`. Planes are contiguous, and a step is a row of STEP's
numbers. Addresses and indexes are not checked here. Callers prove them.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from viddiff.codec.engine import motion_kernels
from viddiff.codec.engine.instruction_sets import INSTRUCTION_SETS, InstructionSet
from viddiff.codec.engine.int16_kernels import convolve_row, filter_row
from viddiff.codec.engine.row_plan import DEPTHWISE, DIFFER, FILTERS, RESULT, STEP
from viddiff.native_code import OPTIONS, Signature
from viddiff.networks.enhancement_config import (
    CORRECTION_UNIT,
    DIFFERENCE_MAX,
    DIFFERENCES,
    GROUPS,
    HYPOTHESES,
    MIDDLE,
    PLANES,
    SHARE_RANGE,
    SHARE_UNIT,
    STRENGTH_UNIT,
    STRENGTHS,
)

_Function = TypeVar("_Function", bound=Callable[..., Any])
_compiler: Any = numba
_NAMES = STEP.names or ()
_FIELDS = len(_NAMES)
(
    _KIND, _LAG, _ROWS, _WIDTH, _SOURCE, _SOURCE_RING, _SOURCE_SIZE, _SOURCE_SCALE, _SOURCE_FIRST,
    _SOURCE_ROWS, _SOURCE_STEP, _SEGMENTS, _PAIRS, _TARGET, _TARGET_RING, _TARGET_SIZE, _TARGET_SCALE,
    _TARGET_FIRST, _TARGET_STEP, _ADDS, _OTHER, _OTHER_RING, _OTHER_SIZE, _OTHER_STEP, _WEIGHTS, _NUMBERS,
    _VECTORS, _GROUPS, _LOW,
) = range(_FIELDS)  # fmt: skip
_LEAST, _LARGEST = SHARE_RANGE
_SHARE_BITS = SHARE_UNIT.bit_length() - 1
_BITS = (CORRECTION_UNIT * STRENGTH_UNIT).bit_length() - 1


def _inner(function: _Function) -> _Function:
    """A function for others here to call."""
    return _compiler.njit(**OPTIONS)(function)  # type: ignore[no-any-return]


@_inner
def _row_place(row: int, place: int, ring: int, size: int, start: int, rows: int, empty: int) -> int:
    """Where a row of a ring is; the empty row for rows outside of `start` to `rows`."""
    if row < start or row >= rows:
        return empty
    return place + row % ring * size


@_inner
def _keep(
    work: Any, place: int, step: int, row: int, y: Any, u: Any, v: Any, sizes: tuple[int, int, int, int]
) -> None:
    """Store a row of results as rows of three planes, as far as they reach. sizes: of luma and chroma."""
    height, width, rows, columns = sizes
    if row >= rows:
        return
    for line in range(2 * row, min(2 * row + 2, height)):
        first = place + 2 * (line - 2 * row)
        for x in range(width // 2):
            y[line * width + 2 * x] = work[first + x * step]
            y[line * width + 2 * x + 1] = work[first + x * step + 1]
        if width % 2:
            y[line * width + width - 1] = work[first + width // 2 * step]
    for x in range(columns):
        u[row * columns + x] = work[place + x * step + 4]
        v[row * columns + x] = work[place + x * step + 5]


@_inner
def _keep_shared(  # noqa: PLR0913
    work: Any,
    place: int,
    step: int,
    row: int,
    y: Any,
    u: Any,
    v: Any,
    sizes: tuple[int, int, int, int],
    differences: Any,
    first: int,
) -> None:
    """Store a row of results and the shares of the differences that they add, like `_keep`.

    first: place of the row's first difference.
    """
    height, width, rows, columns = sizes
    if row >= rows:
        return
    for x in range(columns):
        result, own = place + x * step, first + x * DIFFERENCES
        for plane in range(PLANES):
            total = SHARE_UNIT * np.int64(work[result + plane])
            for n in range(HYPOTHESES):
                share: Any = np.int64(work[result + PLANES + GROUPS * n + (plane >= 4)])
                share = min(max(share, _LEAST), _LARGEST)
                total += share * differences[own + PLANES * n + plane]
            total = (total + SHARE_UNIT // 2 - 1 + ((total >> _SHARE_BITS) & 1)) >> _SHARE_BITS
            if plane == 4:
                u[row * columns + x] = total
            elif plane == 5:
                v[row * columns + x] = total
            else:
                line, column = 2 * row + plane // 2, 2 * x + plane % 2
                if line < height and column < width:
                    y[line * width + column] = total


def _run_rows(kind: int) -> Callable[..., None]:
    """The loop over rows and steps for an instruction set, by its place in INSTRUCTION_SETS."""

    def run_rows(  # noqa: PLR0913
        steps: Any,
        count: int,
        turns: Any,
        weights: int,
        biases: int,
        scales: int,
        picture: int,
        picture_row: int,
        work: Any,
        memory: int,
        y: Any,
        u: Any,
        v: Any,
        height_of_luma: int,
        width_of_luma: int,
        height_of_chroma: int,
        width_of_chroma: int,
        differences: Any,
        differences_at: int,
        differences_row: int,
    ) -> None:
        """turns: the first to compute, the first to keep, the end, the picture's, lag; place of no row.

        memory: the address of `work`. differences: none, their address, and 0 numbers in a row of them, for
        a frame alone.
        """
        first, begin, end, height, lag, empty = turns[0], turns[1], turns[2], turns[3], turns[4], turns[5]
        sizes = (height_of_luma, width_of_luma, height_of_chroma, width_of_chroma)
        for time in range(first, end + lag):
            for index in range(count):
                s = index * _FIELDS
                turn = time - steps[s + _LAG]
                if turn < first or turn >= height:
                    continue
                source, ring, size = steps[s + _SOURCE], steps[s + _SOURCE_RING], steps[s + _SOURCE_SIZE]
                start, rows = first * steps[s + _SOURCE_ROWS], height * steps[s + _SOURCE_ROWS]
                for row in range(turn * steps[s + _ROWS], (turn + 1) * steps[s + _ROWS]):
                    if steps[s + _KIND] == RESULT:
                        if turn >= begin and turn < end:
                            place, step = source + row % ring * size, steps[s + _SOURCE_STEP]
                            if differences_row == 0:
                                _keep(work, place, step, row, y, u, v, sizes)
                            else:
                                at = row * differences_row
                                _keep_shared(work, place, step, row, y, u, v, sizes, differences, at)
                        continue
                    if steps[s + _KIND] == FILTERS:
                        above = picture + row * picture_row
                        middle, below = above + picture_row, above + 2 * picture_row
                    elif steps[s + _KIND] == DIFFER:
                        above = middle = below = differences_at + 2 * row * differences_row
                    else:
                        at = row * steps[s + _SOURCE_SCALE] + steps[s + _SOURCE_FIRST]
                        above = memory + 2 * _row_place(at, source, ring, size, start, rows, empty)
                        middle = memory + 2 * _row_place(at + 1, source, ring, size, start, rows, empty)
                        below = memory + 2 * _row_place(at + 2, source, ring, size, start, rows, empty)
                    at = row * steps[s + _TARGET_SCALE] + steps[s + _TARGET_FIRST]
                    to = steps[s + _TARGET] + at % steps[s + _TARGET_RING] * steps[s + _TARGET_SIZE]
                    add = steps[s + _OTHER] + at % steps[s + _OTHER_RING] * steps[s + _OTHER_SIZE]
                    at = 4 * steps[s + _NUMBERS]
                    places = (weights + 2 * steps[s + _WEIGHTS], biases + at, scales + at)
                    step = 2 * steps[s + _SOURCE_STEP]
                    if steps[s + _KIND] == DEPTHWISE:
                        picked = (above, middle, below, step)
                        spans = steps[s + _WIDTH] // steps[s + _GROUPS]
                        filter_row(kind, picked + places + (steps[s + _VECTORS], memory + 2 * to, spans))
                    else:
                        layer = (steps[s + _VECTORS], steps[s + _ADDS], steps[s + _WIDTH])
                        inputs = (above, middle, below, steps[s + _SEGMENTS], steps[s + _PAIRS], step)
                        low = (steps[s + _GROUPS], steps[s + _LOW])
                        out = (memory + 2 * to, 2 * steps[s + _TARGET_STEP])
                        other = (memory + 2 * add, 2 * steps[s + _OTHER_STEP])
                        convolve_row(kind, layer + inputs + places + low + out + other)

    return run_rows


def _pack(  # noqa: PLR0913
    y: Any,
    u: Any,
    v: Any,
    height: int,
    width: int,
    height_of_chroma: int,
    width_of_chroma: int,
    picture: Any,
    full_rows: int,
    full_columns: int,
) -> None:
    """Fill the picture (full_rows, full_columns, PLANES) except for its empty border of one position."""
    for row in range(full_rows - 2):
        upper, lower = min(2 * row, height - 1) * width, min(2 * row + 1, height - 1) * width
        chroma = min(row, height_of_chroma - 1) * width_of_chroma
        for column in range(full_columns - 2):
            left, right = min(2 * column, width - 1), min(2 * column + 1, width - 1)
            at = chroma + min(column, width_of_chroma - 1)
            to = ((row + 1) * full_columns + column + 1) * PLANES
            picture[to] = np.int64(y[upper + left]) - MIDDLE
            picture[to + 1] = np.int64(y[upper + right]) - MIDDLE
            picture[to + 2] = np.int64(y[lower + left]) - MIDDLE
            picture[to + 3] = np.int64(y[lower + right]) - MIDDLE
            picture[to + 4] = np.int64(u[at]) - MIDDLE
            picture[to + 5] = np.int64(v[at]) - MIDDLE


def _pack_differences(  # noqa: PLR0913
    y: Any,
    u: Any,
    v: Any,
    height: int,
    width: int,
    height_of_chroma: int,
    width_of_chroma: int,
    picture: Any,
    rows: int,
    columns: int,
    result: Any,
    first: int,
) -> None:
    """Fill PLANES of the result (rows, columns, DIFFERENCES) from `first` on: a hypothesis minus the picture.

    picture: as from `_pack`.
    """
    for row in range(rows):
        upper, lower = min(2 * row, height - 1) * width, min(2 * row + 1, height - 1) * width
        chroma = min(row, height_of_chroma - 1) * width_of_chroma
        for column in range(columns):
            left, right = min(2 * column, width - 1), min(2 * column + 1, width - 1)
            at = chroma + min(column, width_of_chroma - 1)
            own = ((row + 1) * (columns + 2) + column + 1) * PLANES
            to = (row * columns + column) * DIFFERENCES + first
            result[to] = _difference(y[upper + left], picture[own])
            result[to + 1] = _difference(y[upper + right], picture[own + 1])
            result[to + 2] = _difference(y[lower + left], picture[own + 2])
            result[to + 3] = _difference(y[lower + right], picture[own + 3])
            result[to + 4] = _difference(u[at], picture[own + 4])
            result[to + 5] = _difference(v[at], picture[own + 5])


@_inner
def _difference(sample: Any, own: Any) -> int:
    """Of a sample from what the picture has there, minus MIDDLE."""
    difference: int = np.int64(sample) - MIDDLE - own
    return min(max(difference, -DIFFERENCE_MAX), DIFFERENCE_MAX)


@_inner
def _corrected(sample: Any, change: Any, shift: int, most: int) -> Any:
    """A sample of 10 bits plus a change, without their lowest `shift` bits."""
    total = (np.int64(sample) << _BITS) + change
    rounded = (total + (1 << (shift - 1)) - 1 + ((total >> shift) & 1)) >> shift
    return min(max(rounded, 0), most)


def _apply(  # noqa: PLR0913
    samples: Any,
    correction: Any,
    height: int,
    width: int,
    strengths: Any,
    columns: int,
    side: int,
    shift: int,
    most: int,
    result: Any,
) -> None:
    """The samples plus their correction at the strengths of blocks, `columns` in a row."""
    for row in range(height):
        for block in range(columns):
            strength = strengths[row // side * columns + block]
            for x in range(row * width + block * side, row * width + min((block + 1) * side, width)):
                change = strength * np.int64(correction[x])
                result[x] = _corrected(samples[x], change, shift, most)


def _add_errors(  # noqa: PLR0913
    original: Any,
    samples: Any,
    correction: Any,
    height: int,
    width: int,
    errors: Any,
    rows: int,
    columns: int,
    side: int,
    shift: int,
    most: int,
) -> None:
    """Add the squared errors of blocks at all strengths, (STRENGTHS, rows, columns)."""
    for row in range(height):
        for block in range(columns):
            for strength in range(STRENGTHS):
                total = np.int64(0)
                for x in range(row * width + block * side, row * width + min((block + 1) * side, width)):
                    change = strength * np.int64(correction[x])
                    sample = _corrected(samples[x], change, shift, most)
                    miss = np.int64(original[x]) - sample
                    total += miss * miss
                errors[(strength * rows + row // side) * columns + block] += total


def functions(instructions: InstructionSet) -> dict[str, tuple[Callable[..., None], Signature]]:
    """All loops by name, with what they take. `run_rows` is for these instructions."""
    planes = ("uint16*", "int16*", *["int64"] * 2)
    work = ("int64*", "int64", "int64*", *["int64"] * 5, "int16*", "int64", *["int16*"] * 3, *["int64"] * 4)
    work += ("int16*", "int64", "int64")
    picture = (*["uint16*"] * 3, *["int64"] * 4, "int16*", *["int64"] * 2)
    found: dict[str, tuple[Callable[..., None], Signature]] = {
        "run_rows": (_run_rows(INSTRUCTION_SETS.index(instructions)), work),
        "pack": (_pack, picture),
        "pack_differences": (_pack_differences, (*picture, "int16*", "int64")),
    }
    for shown in ("uint8", "uint16"):
        found[f"apply_{shown}"] = (_apply, (*planes, "int64*", *["int64"] * 4, f"{shown}*"))
        found[f"add_errors_{shown}"] = (_add_errors, (f"{shown}*", *planes, "int64*", *["int64"] * 5))
    return found | motion_kernels.functions()
