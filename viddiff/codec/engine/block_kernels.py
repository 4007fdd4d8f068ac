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
_LANE_BITS, _I16_MOST = 4, 32767


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


def _distance(builder: Any, a: Any, b: Any) -> Any:
    """Absolute differences of samples."""
    difference = builder.sub(a, b)
    name = f"llvm.abs.v{a.type.count}i16"
    form = ir.FunctionType(a.type, [a.type, ir.IntType(1)])
    absolute = cgutils.get_or_insert_function(builder.module, form, name)  # type: ignore[no-untyped-call]
    return builder.call(absolute, [difference, ir.IntType(1)(0)])


def _reduced(builder: Any, vector: Any, joined: Callable[[Any, Any], Any]) -> Any:
    """One number of all numbers of a vector."""
    count = vector.type.count
    while count > 1:
        count //= 2
        low, high = (
            builder.shuffle_vector(
                vector,
                vector,
                ir.Constant(ir.VectorType(_I32, count), list(range(start, start + count))),
            )
            for start in (0, count)
        )
        vector = joined(low, high)
    return builder.extract_element(vector, _I32(0))


def _sum(builder: Any, total: Any) -> Any:
    wide = builder.zext(total, ir.VectorType(_I32, total.type.count))
    return builder.zext(_reduced(builder, wide, builder.add), _I64)


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
        total = builder.add(total, _distance(builder, x, y))
        a, b = builder.add(a, step), builder.add(b, step)
    builder.ret(_sum(builder, total))
    return function


def _difference(_: Any, side: Any, a: Any, b: Any, step: Any) -> tuple[Any, Callable[..., Any]] | None:
    if not isinstance(side, types.IntegerLiteral):
        return None
    chosen = side.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.call(_difference_function(builder.module, chosen), values[1:])

    return types.int64(side, types.int64, types.int64, types.int64), generate


def _differences_around(_: Any, a: Any, b: Any, step: Any) -> tuple[Any, Callable[..., Any]]:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        sums = builder.call(_around_function(builder.module), values)
        found = [builder.extract_value(sums, n) for n in range(_AROUND)]
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(types.int64, _AROUND)(*[types.int64] * 3), generate  # type: ignore[no-untyped-call]


_AROUND = 4
"""Neighbours of a block."""


def _around_function(module: Any) -> Any:
    """(a, b, bytes from a row to the next), for blocks of 16x16."""
    name, side = "block_differences_around", 16
    if name in module.globals:
        return module.globals[name]
    function, builder = _function(module, name, 3, ir.LiteralStructType([_I64] * _AROUND))
    a, b, step = function.args
    totals: list[Any] = [ir.Constant(ir.VectorType(_I16, side), [0] * side)] * _AROUND
    rows = [_load(builder, builder.sub(b, step), side), _load(builder, b, side)]
    for _ in range(side):
        following = builder.add(b, step)
        rows.append(_load(builder, following, side))
        own, (above, _, below) = _load(builder, a, side), rows[-3:]
        right, left = (_load(builder, builder.add(b, _I64(2 * n)), side) for n in (1, -1))
        totals = [
            builder.add(total, _distance(builder, own, other))
            for total, other in zip(totals, (below, above, right, left), strict=True)
        ]
        a, b = builder.add(a, step), following
    result: Any = ir.Constant(function.function_type.return_type, ir.Undefined)
    for n, total in enumerate(totals):
        result = builder.insert_value(result, _sum(builder, total), n)
    builder.ret(result)
    return function


def _nearest_function(module: Any, count: int) -> Any:
    """(a, b, bytes from a row to the next, price of a sample from the middle of `count` places)."""
    name, side, lanes = f"block_nearest_{count}", 8, 16
    if name in module.globals:
        return module.globals[name]
    function, builder = _function(module, name, 4, _I64)
    a, b, step, price = function.args
    total: Any = ir.Constant(ir.VectorType(_I16, lanes), [0] * lanes)
    for _ in range(side):
        own = _load(builder, a, side)
        for column in range(side):
            mask = ir.Constant(ir.VectorType(_I32, lanes), [column] * lanes)
            sample = builder.shuffle_vector(own, own, mask)
            others = _load(builder, builder.add(b, _I64(2 * column)), lanes)
            total = builder.add(total, _distance(builder, sample, others))
        a, b = builder.add(a, step), builder.add(b, step)
    wide = ir.VectorType(_I32, lanes)
    away = ir.Constant(wide, [abs(n - count // 2) if n < count else _I16_MOST for n in range(lanes)])
    prices = builder.mul(away, _splat(builder, builder.trunc(price, _I32), lanes))
    costs = builder.add(builder.zext(total, wide), prices)
    numbered = builder.or_(
        builder.shl(costs, ir.Constant(wide, [_LANE_BITS] * lanes)), ir.Constant(wide, list(range(lanes)))
    )

    def least(x: Any, y: Any) -> Any:
        return builder.select(builder.icmp_signed("<", x, y), x, y)

    builder.ret(builder.zext(_reduced(builder, numbered, least), _I64))
    return function


def _nearest(
    _: Any, count: Any, a: Any, b: Any, step: Any, price: Any
) -> tuple[Any, Callable[..., Any]] | None:
    if not isinstance(count, types.IntegerLiteral):
        return None
    chosen = count.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        found = builder.call(_nearest_function(builder.module, chosen), values[1:])
        lane = builder.and_(found, _I64((1 << _LANE_BITS) - 1))
        pair = [builder.lshr(found, _I64(_LANE_BITS)), lane]
        return context.make_tuple(builder, signature.return_type, pair)

    return types.UniTuple(types.int64, 2)(count, *[types.int64] * 4), generate  # type: ignore[no-untyped-call]


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


def _copy_function(module: Any, side: int) -> Any:
    """(source, bytes from a row to the next, result, its step)."""
    name = f"block_copy_{side}"
    if name in module.globals:
        return module.globals[name]
    function, builder = _function(module, name, 4, ir.VoidType())
    source, step, result, result_step = function.args
    for _ in range(side):
        samples = _load(builder, source, side)
        builder.store(samples, builder.inttoptr(result, samples.type.as_pointer()), align=2)
        source, result = builder.add(source, step), builder.add(result, result_step)
    builder.ret_void()
    return function


def _copy(_: Any, side: Any, numbers: Any) -> tuple[Any, Callable[..., Any]] | None:
    if not isinstance(side, types.IntegerLiteral):
        return None
    chosen = side.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        given = cgutils.unpack_tuple(builder, values[1], 4)  # type: ignore[no-untyped-call]
        builder.call(_copy_function(builder.module, chosen), given)
        return context.get_dummy_value()

    return types.void(side, types.UniTuple(types.int64, 4)), generate  # type: ignore[no-untyped-call]


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
block_differences_around = cast(
    Callable[[int, int, int], tuple[int, int, int, int]], intrinsic(_differences_around)
)
"""(two addresses, bytes from a row to the next): sums of absolute differences of a block of 16x16 from the
blocks that lie a sample below the second one, above it, to its right and to its left."""
nearest_block = cast(
    Callable[[int, int, int, int, int], tuple[int, int]], intrinsic(prefer_literal=True)(_nearest)
)
"""(count, at most 16; two addresses; bytes from a row to the next; price): the best of `count` places side by
side for a block of 8x8, the second address being the first of them: its sum of absolute differences plus its
price, and its number. The price is for each sample of distance from the place in the middle. The first of
equal places counts. 16 places are read, and 7 samples more."""
copy_block = cast(Callable[[int, tuple[int, ...]], None], intrinsic(prefer_literal=True)(_copy))
"""(side, 4 or 8; numbers): a block as it is. numbers, int64: address and step of source and result."""
fetch_block = cast(Callable[[int, tuple[int, ...]], None], intrinsic(prefer_literal=True)(_fetch))
"""(side, 4 or 8; numbers): a block, interpolated across and then down, rounded once, and clamped.

numbers, int64: address of the sample that a whole vector points to, bytes from a row to the next; addresses
of the four taps (int32, which sum to 64) across and down; address of the result and its step in bytes.
"""
