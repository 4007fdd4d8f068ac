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
from viddiff.codec.engine.picture_kernels import interleave_row, keep_row, pack_row, subtract_row
from viddiff.codec.engine.row_plan import DEPTHWISE, DIFFER, PICTURE, RESULT, STEP
from viddiff.native_code import OPTIONS, Signature
from viddiff.networks.enhancement_config import (
    CORRECTION_UNIT,
    FILTERS,
    HYPOTHESES,
    STRENGTH_UNIT,
    STRENGTHS,
)

_Function = TypeVar("_Function", bound=Callable[..., Any])
_compiler: Any = numba
_NAMES = STEP.names or ()
_FIELDS = len(_NAMES)
(
    _KIND, _LAG, _ROWS, _WIDTH, _SOURCE, _SOURCE_RING, _SOURCE_SIZE, _SOURCE_SCALE, _SOURCE_FIRST,
    _SOURCE_ROWS, _SOURCE_STEP, _GROUP_STEP, _SEGMENTS, _PAIRS, _TARGET, _TARGET_RING, _TARGET_SIZE,
    _TARGET_SCALE, _TARGET_FIRST, _TARGET_STEP, _ADDS, _OTHER, _OTHER_RING, _OTHER_SIZE, _OTHER_STEP,
    _WEIGHTS, _NUMBERS, _VECTORS, _GROUPS, _LOW,
) = range(_FIELDS)  # fmt: skip
_BITS = np.int32((CORRECTION_UNIT * STRENGTH_UNIT).bit_length() - 1)
_ZERO, _ONE = np.int32(0), np.int32(1)
_TOGETHER = 1024


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
def _keep(steps: Any, s: int, row: int, memory: int, y: int, u: int, v: int) -> None:
    """Store a row of results as rows of three planes: addresses of planes as large as the padded picture."""
    width, step = steps[s + _WIDTH], 2 * steps[s + _SOURCE_STEP]
    place = memory + 2 * (steps[s + _SOURCE] + row % steps[s + _SOURCE_RING] * steps[s + _SOURCE_SIZE])
    differences = 0
    if steps[s + _ADDS]:
        at = steps[s + _OTHER] + row % steps[s + _OTHER_RING] * steps[s + _OTHER_SIZE]
        differences = memory + 2 * at
    upper, chroma = y + 8 * row * width, 2 * row * width
    keep_row((place, step, differences, upper, upper + 4 * width, u + chroma, v + chroma, width))


@_inner
def _see(
    steps: Any, s: int, row: int, pictures: Any, sizes: Any, work: Any, memory: int, together: int
) -> None:
    """A row of the frame's samples, or of how its neighbours' ones differ from them."""
    width, size = steps[s + _WIDTH], steps[s + _GROUP_STEP]
    to = steps[s + _TARGET] + row % steps[s + _TARGET_RING] * steps[s + _TARGET_SIZE]
    if steps[s + _KIND] == PICTURE:
        pack_row(pictures, 0, sizes, row, work, to, together, size, width)
        return
    own = steps[s + _SOURCE] + row % steps[s + _SOURCE_RING] * steps[s + _SOURCE_SIZE]
    whole, other = steps[s + _SOURCE_SIZE], steps[s + _OTHER]
    for n in range(HYPOTHESES):
        pack_row(pictures, n + 1, sizes, row, work, other + n * whole, together, size, width)
        subtract_row(work, other + n * whole, own, whole - 2 * together)
    interleave_row(memory + 2 * other, memory + 2 * to, together, size, width)


def _layer(kind: int) -> Callable[..., None]:
    """A row of a layer with the instructions of this place in INSTRUCTION_SETS."""

    def layer(
        steps: Any, s: int, row: int, bounds: tuple[int, int], empty: int, memory: int, numbers: Any
    ) -> None:
        """bounds: first turn that is computed, and the picture's end. numbers: weights, biases and scales."""
        source, ring, size = steps[s + _SOURCE], steps[s + _SOURCE_RING], steps[s + _SOURCE_SIZE]
        start, rows = bounds[0] * steps[s + _SOURCE_ROWS], bounds[1] * steps[s + _SOURCE_ROWS]
        at = row * steps[s + _SOURCE_SCALE] + steps[s + _SOURCE_FIRST]
        above = memory + 2 * _row_place(at, source, ring, size, start, rows, empty)
        middle = memory + 2 * _row_place(at + 1, source, ring, size, start, rows, empty)
        below = memory + 2 * _row_place(at + 2, source, ring, size, start, rows, empty)
        at = row * steps[s + _TARGET_SCALE] + steps[s + _TARGET_FIRST]
        to = memory + 2 * (steps[s + _TARGET] + at % steps[s + _TARGET_RING] * steps[s + _TARGET_SIZE])
        add = memory + 2 * (steps[s + _OTHER] + at % steps[s + _OTHER_RING] * steps[s + _OTHER_SIZE])
        at = 4 * steps[s + _NUMBERS]
        places = (numbers[0] + 2 * steps[s + _WEIGHTS], numbers[1] + at, numbers[2] + at)
        step = 2 * steps[s + _SOURCE_STEP]
        if steps[s + _KIND] == DEPTHWISE:
            picked = (above, middle, below, step)
            spans = steps[s + _WIDTH] // steps[s + _GROUPS]
            filter_row(kind, picked + places + (steps[s + _VECTORS], to, spans))
        else:
            form = (steps[s + _VECTORS], steps[s + _ADDS], steps[s + _WIDTH])
            inputs = (above, middle, below, steps[s + _SEGMENTS], steps[s + _PAIRS])
            between = (step, 2 * steps[s + _GROUP_STEP])
            low = (steps[s + _GROUPS], steps[s + _LOW])
            out = (to, 2 * steps[s + _TARGET_STEP], add, 2 * steps[s + _OTHER_STEP])
            convolve_row(kind, form + inputs + between + places + low + out)

    return layer


def _run_rows(kind: int) -> Callable[..., None]:
    """The loop over rows and steps for an instruction set, by its place in INSTRUCTION_SETS."""
    layer, together = _inner(_layer(kind)), INSTRUCTION_SETS[kind].lanes // FILTERS

    def run_rows(  # noqa: PLR0913
        steps: Any,
        count: int,
        turns: Any,
        weights: int,
        biases: int,
        scales: int,
        pictures: Any,
        height_of_luma: int,
        width_of_luma: int,
        height_of_chroma: int,
        width_of_chroma: int,
        work: Any,
        memory: int,
        y: int,
        u: int,
        v: int,
    ) -> None:
        """turns: the first to compute, the first to keep, the end, the picture's, lag; place of no row.

        pictures: addresses of Y, U and V of the frame, and of its neighbours where the steps need them.
        memory: the address of `work`. y, u, v: addresses of results as large as the padded picture.
        """
        first, begin, end, height, lag, empty = turns[0], turns[1], turns[2], turns[3], turns[4], turns[5]
        sizes = (height_of_luma, width_of_luma, height_of_chroma, width_of_chroma)
        for time in range(first, end + lag):
            for index in range(count):
                s = index * _FIELDS
                turn = time - steps[s + _LAG]
                if turn < first or turn >= height:
                    continue
                for row in range(turn * steps[s + _ROWS], (turn + 1) * steps[s + _ROWS]):
                    if steps[s + _KIND] == RESULT:
                        if turn >= begin and turn < end:
                            _keep(steps, s, row, memory, y, u, v)
                    elif steps[s + _KIND] <= DIFFER:
                        _see(steps, s, row, pictures, sizes, work, memory, together)
                    else:
                        layer(steps, s, row, (first, height), empty, memory, (weights, biases, scales))

    return run_rows


@_inner
def _corrected(sample: Any, change: Any, shift: Any, most: Any) -> Any:
    """A sample of 10 bits plus a change, without their lowest `shift` bits. All are int32."""
    total = (sample << _BITS) + change
    half, one = (_ONE << (shift - _ONE)) - _ONE, _ONE
    return min(max((total + half + ((total >> shift) & one)) >> shift, _ZERO), most)


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
    shifted, largest = np.int32(shift), np.int32(most)
    for row in range(height):
        for block in range(columns):
            strength = np.int32(strengths[row // side * columns + block])
            for x in range(row * width + block * side, row * width + min((block + 1) * side, width)):
                change = strength * np.int32(correction[x])
                result[x] = _corrected(np.int32(samples[x]), change, shifted, largest)


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
    """Add the squared errors of blocks at all strengths, (STRENGTHS, rows, columns).

    Those of a row of a block fit in 32 bits.
    """
    shifted, largest = np.int32(shift), np.int32(most)
    for row in range(height):
        for block in range(columns):
            for strength in range(STRENGTHS):
                total = _ZERO
                for x in range(row * width + block * side, row * width + min((block + 1) * side, width)):
                    change = np.int32(strength) * np.int32(correction[x])
                    sample = _corrected(np.int32(samples[x]), change, shifted, largest)
                    miss = np.int32(original[x]) - sample
                    total += miss * miss
                errors[(strength * rows + row // side) * columns + block] += total


def _squared_error(original: Any, samples: Any, count: int, shift: int, most: int, error: Any) -> None:
    """Add the squared error of samples without a change. That of _TOGETHER of them fits in 32 bits."""
    shifted, largest = np.int32(shift), np.int32(most)
    for first in range(0, count, _TOGETHER):
        total = _ZERO
        for x in range(first, min(first + _TOGETHER, count)):
            miss = np.int32(original[x]) - _corrected(np.int32(samples[x]), _ZERO, shifted, largest)
            total += miss * miss
        error[0] += total


def functions(instructions: InstructionSet) -> dict[str, tuple[Callable[..., None], Signature]]:
    """All loops by name, with what they take. `run_rows` is for these instructions."""
    planes = ("uint16*", "int16*", *["int64"] * 2)
    work = ("int64*", "int64", "int64*", *["int64"] * 3, "int64*", *["int64"] * 4, "int16*", *["int64"] * 4)
    found: dict[str, tuple[Callable[..., None], Signature]] = {
        "run_rows": (_run_rows(INSTRUCTION_SETS.index(instructions)), work),
    }
    for shown in ("uint8", "uint16"):
        found[f"apply_{shown}"] = (_apply, (*planes, "int64*", *["int64"] * 4, f"{shown}*"))
        found[f"squared_error_{shown}"] = (_squared_error, (f"{shown}*", "uint16*", *["int64"] * 3, "int64*"))
        found[f"add_errors_{shown}"] = (_add_errors, (f"{shown}*", *planes, "int64*", *["int64"] * 5))
    return found | motion_kernels.functions()
