"""Blocks of samples in vectors, for compiled functions: their differences, and their interpolation.

Samples are uint16 of at most 10 bits. Plain vectors of LLVM: it chooses what the processor has. Addresses are
not checked here. Callers prove them.
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_MOST = 1023
_TAPS = 4


def _function(module: Any, name: str, arguments: int, result: Any) -> tuple[Any, Any]:
    """A function of the module that takes int64."""
    function = ir.Function(module, ir.FunctionType(result, [_I64] * arguments), name)
    function.linkage = "internal"
    return function, ir.IRBuilder(function.append_basic_block())


def _load(builder: Any, address: Any, lanes: int) -> Any:
    vector = ir.VectorType(_I16, lanes)
    return builder.load(builder.inttoptr(address, vector.as_pointer()), align=2)


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, _I32(0))
    zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _difference_function(module: Any, side: int) -> Any:
    """(a, b, bytes from a row to the next): at most 16 differences of 10 bits fit in 16 bits."""
    name = f"block_difference_{side}"
    if name in module.globals:
        return module.globals[name]
    function, builder = _function(module, name, 3, _I64)
    a, b, step = function.args
    total: Any = ir.Constant(ir.VectorType(_I16, side), [0] * side)
    for _ in range(side):
        x, y = _load(builder, a, side), _load(builder, b, side)
        larger = builder.icmp_unsigned(">", x, y)
        difference = builder.sub(builder.select(larger, x, y), builder.select(larger, y, x))
        total = builder.add(total, difference)
        a, b = builder.add(a, step), builder.add(b, step)
    wide = builder.zext(total, ir.VectorType(_I32, side))
    while side > 1:
        side //= 2
        low, high = (
            builder.shuffle_vector(
                wide, wide, ir.Constant(ir.VectorType(_I32, side), list(range(start, start + side)))
            )
            for start in (0, side)
        )
        wide = builder.add(low, high)
    builder.ret(builder.zext(builder.extract_element(wide, _I32(0)), _I64))
    return function


def _difference(_: Any, side: Any, a: Any, b: Any, step: Any) -> tuple[Any, Callable[..., Any]] | None:
    if not isinstance(side, types.IntegerLiteral):
        return None
    chosen = side.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.call(_difference_function(builder.module, chosen), values[1:])

    return types.int64(side, types.int64, types.int64, types.int64), generate


def _fetch_function(module: Any, side: int) -> Any:
    """(source, bytes from a row to the next, address of the taps across, of those down, result, its step)."""
    name = f"block_fetch_{side}"
    if name in module.globals:
        return module.globals[name]
    function, builder = _function(module, name, 6, ir.VoidType())
    source, step, across, down, result, result_step = function.args
    wide = ir.VectorType(_I32, side)

    def taps(address: Any) -> list[Any]:
        places = (builder.add(address, _I64(4 * n)) for n in range(_TAPS))
        pointer = _I32.as_pointer()
        return [_splat(builder, builder.load(builder.inttoptr(p, pointer), align=4), side) for p in places]

    horizontal, vertical = taps(across), taps(down)
    row = builder.sub(source, builder.add(step, _I64(2)))
    filtered = []
    for _ in range(side + _TAPS - 1):
        total: Any = ir.Constant(wide, [0] * side)
        for n, tap in enumerate(horizontal):
            samples = builder.zext(_load(builder, builder.add(row, _I64(2 * n)), side), wide)
            total = builder.add(total, builder.mul(samples, tap))
        filtered.append(total)
        row = builder.add(row, step)
    half, bits = ir.Constant(wide, [2048] * side), ir.Constant(wide, [12] * side)
    zero, most = ir.Constant(wide, [0] * side), ir.Constant(wide, [_MOST] * side)
    for start in range(side):
        total = half
        for n, tap in enumerate(vertical):
            total = builder.add(total, builder.mul(filtered[start + n], tap))
        value = builder.ashr(total, bits)
        value = builder.select(builder.icmp_signed("<", value, zero), zero, value)
        value = builder.select(builder.icmp_signed(">", value, most), most, value)
        narrow = builder.trunc(value, ir.VectorType(_I16, side))
        builder.store(narrow, builder.inttoptr(result, narrow.type.as_pointer()), align=2)
        result = builder.add(result, result_step)
    builder.ret_void()
    return function


def _fetch(_: Any, side: Any, numbers: Any) -> tuple[Any, Callable[..., Any]] | None:
    if not isinstance(side, types.IntegerLiteral):
        return None
    chosen = side.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        given = cgutils.unpack_tuple(builder, values[1], 6)  # type: ignore[no-untyped-call]
        builder.call(_fetch_function(builder.module, chosen), given)
        return context.get_dummy_value()

    return types.void(side, types.UniTuple(types.int64, 6)), generate  # type: ignore[no-untyped-call]


block_difference = cast(Callable[[int, int, int, int], int], intrinsic(prefer_literal=True)(_difference))
"""(side, 8 or 16; two addresses; bytes from a row to the next): sum of absolute differences."""
fetch_block = cast(Callable[[int, tuple[int, ...]], None], intrinsic(prefer_literal=True)(_fetch))
"""(side, 4 or 8; numbers): a block, interpolated across and then down, rounded once, and clamped.

numbers, int64: address of the sample that a whole vector points to, bytes from a row to the next; addresses
of the four taps (int32, which sum to 64) across and down; address of the result and its step in bytes.
"""
