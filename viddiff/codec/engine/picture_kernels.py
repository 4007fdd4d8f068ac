"""Rows of pictures, for compiled functions: samples in, corrections out.

A convolution reads a picture as rows of *pairs*, one row of each pair after the other: two phases of an upper
row of luma, two of the row below it, U and V. A picture is repeated beyond its borders.

Addresses and indexes are not checked here. Callers prove them.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from viddiff.native_code import OPTIONS
from viddiff.networks.enhancement_config import (
    DIFFERENCE_MAX,
    GROUPS,
    HYPOTHESES,
    MIDDLE,
    PLANES,
    SHARE_RANGE,
    SHARE_UNIT,
)

_Function = TypeVar("_Function", bound=Callable[..., Any])
_compiler: Any = numba
_PAIRS = PLANES // 2
_SHARE_BITS = SHARE_UNIT.bit_length() - 1
_LEAST, _LARGEST = SHARE_RANGE
_MOST = np.int32(DIFFERENCE_MAX)
_MIDDLE = np.int32(MIDDLE)
_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_LANES = 8
"""Numbers of a position that are computed together: those of its PLANES, and two that nobody needs."""
_NARROW, _WIDE = ir.VectorType(_I16, _LANES), ir.VectorType(_I32, _LANES)


def _inner(function: _Function) -> _Function:
    """A function for others here to call."""
    return _compiler.njit(**OPTIONS, inline="always")(function)  # type: ignore[no-any-return]


def _numbers_at(kind: Any) -> Callable[[int], Any]:
    """A function that takes an address of such numbers for a pointer."""

    def typed(_: Any, address: Any) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate  # type: ignore[no-untyped-call]

    return cast(Callable[[int], Any], intrinsic(typed))


_samples_at, _wide_at = _numbers_at(types.uint16), _numbers_at(types.int32)


@_inner
def _pack_pairs(first: Any, second: Any, step: int, counts: Any, target: Any, to: int, together: int) -> None:
    """A row of pairs, one in every `together` numbers of the target.

    first, second: samples, where they begin, and the last one, as which the picture goes on. step: from a
    sample to the next. counts: of pairs inside of the picture, and of all.
    """
    a, place_of_a, last_of_a = first
    b, place_of_b, last_of_b = second
    inside, count = counts
    for x in range(inside):
        target[to + x * together] = np.int32(a[place_of_a + x * step]) - _MIDDLE
        target[to + x * together + 1] = np.int32(b[place_of_b + x * step]) - _MIDDLE
    for x in range(inside, count):
        target[to + x * together] = np.int32(last_of_a) - _MIDDLE
        target[to + x * together + 1] = np.int32(last_of_b) - _MIDDLE


@_inner
def pack_row(  # noqa: PLR0913
    pictures: Any,
    number: int,
    sizes: tuple[int, int, int, int],
    row: int,
    target: Any,
    to: int,
    together: int,
    size: int,
    count: int,
) -> None:
    """Pack a row of the picture of this number: `count` positions, less MIDDLE.

    pictures: addresses of Y, U and V of each. sizes: of luma and chroma. `together` planes make a row of the
    target, which is `size` numbers after the one before it.
    """
    y, u, v = (
        _samples_at(pictures[3 * number]),
        _samples_at(pictures[3 * number + 1]),
        _samples_at(pictures[3 * number + 2]),
    )
    height, width, rows, columns = sizes
    for line in range(2):
        start = min(2 * row + line, height - 1) * width
        last, at = y[start + width - 1], to + 2 * line // together * size + 2 * line % together
        luma = (width // 2, count)
        _pack_pairs((y, start, last), (y, start + 1, last), 2, luma, target, at, together)
    start = min(row, rows - 1) * columns
    last, at = start + columns - 1, to + 4 // together * size + 4 % together
    _pack_pairs((u, start, u[last]), (v, start, v[last]), 1, (columns, count), target, at, together)


@_inner
def subtract_row(target: Any, to: int, own: int, count: int) -> None:
    """Turn packed samples into differences from those at `own`, limited to DIFFERENCE_MAX."""
    for x in range(count):
        difference = np.int32(target[to + x]) - np.int32(target[own + x])
        target[to + x] = min(max(difference, -_MOST), _MOST)


@_inner
def interleave_row(source: int, target: int, together: int, size: int, count: int) -> None:
    """Put the numbers of each position together: those of the first packed row, then those of the second.

    source: address of HYPOTHESES rows as from `pack_row`. target: that of `count` positions with DIFFERENCES.
    """
    pairs, result = _wide_at(source), _wide_at(target)
    step, whole = together // 2, -(-PLANES // together) * size // 2
    for x in range(count):
        for n in range(HYPOTHESES):
            for pair in range(_PAIRS):
                at = n * whole + 2 * pair // together * (size // 2) + 2 * pair % together // 2
                result[(x * HYPOTHESES + n) * _PAIRS + pair] = pairs[at + x * step]


_KEPT = ("results", "step", "differences", "upper", "lower", "u", "v", "count")


def _keep_function(module: Any, shared: bool) -> Any:
    """A function with the arguments _KEPT, all int64. See `keep_row`."""
    name = "keep_row_shared" if shared else "keep_row"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_I64] * len(_KEPT)), name)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    given = dict(zip(_KEPT, function.args, strict=True))
    with cgutils.for_range(builder, given["count"], intp=_I64) as position:
        place = builder.add(given["results"], builder.mul(position.index, given["step"]))
        result = _load(builder, place)
        if shared:
            differences = builder.add(given["differences"], builder.mul(position.index, _I64(4 * PLANES)))
            result = _shared(builder, result, _load(builder, place, PLANES), differences)
        halves = builder.bitcast(result, ir.VectorType(_I32, _LANES // 2))
        for lane, target in enumerate(("upper", "lower")):
            _store(builder, builder.extract_element(halves, _I32(lane)), given[target], position.index)
        for lane, target in enumerate(("u", "v"), 4):
            _store(builder, builder.extract_element(result, _I32(lane)), given[target], position.index)
    builder.ret_void()
    return function


def _load(builder: Any, address: Any, first: int = 0) -> Any:
    """_LANES numbers from number `first` on."""
    pointer = builder.inttoptr(builder.add(address, _I64(2 * first)), _NARROW.as_pointer())
    return builder.load(pointer, align=2)


def _store(builder: Any, value: Any, address: Any, index: Any) -> None:
    place = builder.add(address, builder.mul(index, _I64(value.type.width // 8)))
    builder.store(value, builder.inttoptr(place, value.type.as_pointer()), align=2)


def _shared(builder: Any, result: Any, shares: Any, differences: Any) -> Any:
    """The result with the shares of the differences (at an address) that it adds."""
    for bound, sign in ((_LARGEST, ">"), (_LEAST, "<")):
        limit = ir.Constant(_NARROW, [bound] * _LANES)
        shares = builder.select(builder.icmp_signed(sign, shares, limit), limit, shares)
    total = builder.shl(builder.sext(result, _WIDE), _splat(_SHARE_BITS))
    for n in range(HYPOTHESES):
        lanes = [GROUPS * n + (plane >= 4) for plane in range(_LANES)]
        share = builder.shuffle_vector(shares, shares, ir.Constant(_WIDE, lanes))
        difference = _load(builder, differences, PLANES * n)
        total = builder.add(total, builder.mul(*(builder.sext(each, _WIDE) for each in (share, difference))))
    odd = builder.and_(builder.ashr(total, _splat(_SHARE_BITS)), _splat(1))
    total = builder.add(builder.add(total, _splat(SHARE_UNIT // 2 - 1)), odd)
    return builder.trunc(builder.ashr(total, _splat(_SHARE_BITS)), _NARROW)


def _splat(number: int) -> Any:
    return ir.Constant(_WIDE, [number] * _LANES)


def _keep(_: Any, numbers: Any) -> tuple[Any, Callable[..., Any]]:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        given = cgutils.unpack_tuple(builder, values[0], len(_KEPT))  # type: ignore[no-untyped-call]
        differs = builder.icmp_signed("!=", given[_KEPT.index("differences")], _I64(0))
        with builder.if_else(differs) as (then, otherwise):
            for branch, shared in ((then, True), (otherwise, False)):
                with branch:
                    builder.call(_keep_function(builder.module, shared), given)
        return context.get_dummy_value()

    return types.void(types.UniTuple(types.int64, len(_KEPT))), generate  # type: ignore[no-untyped-call]


keep_row = cast(Callable[[tuple[int, ...]], None], intrinsic(_keep))
"""(numbers): store a row of results, with the shares of differences that they add, as rows of three planes.

numbers, int64: address of the results, bytes from a position to the next; address of the row's differences, 0
without any; addresses of two rows of luma, of U and V; positions.
"""
