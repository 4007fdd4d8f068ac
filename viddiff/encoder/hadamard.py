"""8x8 Hadamard transform in vectors of eight numbers, for compiled functions.

The motion search spends its time here, and numba would compile loops to scalar instructions. These functions
are LLVM's vector operations, which run on every processor. A vector is a row.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

SIDE = 8
"""Side of a block in samples."""
_INT32, _FLOAT = ir.IntType(32), ir.FloatType()
_ROW, _ROW_INT = ir.VectorType(_FLOAT, SIDE), ir.VectorType(_INT32, SIDE)

_Vectors = list[Any]
_Generator = tuple[Any, Callable[..., Any]]


def _difference_spectrum(
    _: Any, a: Any, a_top: Any, a_left: Any, b: Any, b_top: Any, b_left: Any, spectrum: Any
) -> _Generator:

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a_type, b_type, out_type = signature.args[0], signature.args[3], signature.args[6]
        a, a_top, a_left, b, b_top, b_left, out = values
        minuends = _load(context, builder, a_type, a, a_top, a_left)
        subtrahends = _load(context, builder, b_type, b, b_top, b_left)
        rows = [builder.fsub(x, y) for x, y in zip(minuends, subtrahends, strict=True)]
        rows = _transform(builder, _transpose(builder, _transform(builder, rows)))
        for row, pointer in zip(rows, _pointers(context, builder, out_type, out), strict=True):
            builder.store(row, pointer, align=4)
        return context.get_dummy_value()

    corner = types.uintp
    return types.void(a, corner, corner, b, corner, corner, spectrum), generate


def _energy_growth(_: Any, a: Any, b: Any, scale: Any) -> _Generator:

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a, b, scale = values
        single = builder.insert_element(ir.Constant(_ROW, ir.Undefined), scale, ir.Constant(_INT32, 0))
        scales = _shuffle(builder, single, single, [0] * SIDE)
        ones = ir.Constant(_ROW, [1.0] * SIDE)
        rows = []
        pointers = (
            _pointers(context, builder, t, v) for t, v in zip(signature.args[:2], (a, b), strict=True)
        )
        for x, y in zip(*pointers, strict=True):
            value = builder.fadd(builder.load(x, align=4), builder.load(y, align=4))
            rows.append(builder.fadd(ones, builder.fmul(builder.fmul(value, value), scales)))
        halves = []
        for top in (0, SIDE // 2):
            upper, lower = builder.fmul(*rows[top : top + 2]), builder.fmul(*rows[top + 2 : top + 4])
            product = builder.fpext(builder.fmul(upper, lower), ir.VectorType(ir.DoubleType(), SIDE))
            for width in (4, 2, 1):
                left = _shuffle(builder, product, product, range(width))
                product = builder.fmul(left, _shuffle(builder, product, product, range(width, 2 * width)))
            halves.append(builder.extract_element(product, ir.Constant(_INT32, 0)))
        return context.make_tuple(builder, signature.return_type, halves)

    products = types.UniTuple(types.float64, 2)  # type: ignore[no-untyped-call]
    return products(a, b, types.float32), generate


def _pointers(
    context: Any, builder: Any, kind: Any, value: Any, top: Any = None, left: Any = None
) -> _Vectors:
    """Pointers to the eight rows of a block. The default is the first block of the array."""
    array = context.make_array(kind)(context, builder, value)
    size = cgutils.intp_t
    stride, step = cgutils.unpack_tuple(builder, array.strides, 2)  # type: ignore[no-untyped-call]
    address = builder.ptrtoint(array.data, size)
    if top is not None:
        address = builder.add(address, builder.add(builder.mul(top, stride), builder.mul(left, step)))
    vector = ir.VectorType(context.get_data_type(kind.dtype), SIDE).as_pointer()
    pointers = []
    for _ in range(SIDE):
        pointers.append(builder.inttoptr(address, vector))
        address = builder.add(address, stride)
    return pointers


def _load(context: Any, builder: Any, kind: Any, value: Any, top: Any, left: Any) -> _Vectors:
    """Rows of a block as float32."""
    rows = [builder.load(p, align=1) for p in _pointers(context, builder, kind, value, top, left)]
    if kind.dtype == types.uint8:
        rows = [builder.uitofp(builder.zext(row, _ROW_INT), _ROW) for row in rows]
    return rows


def _transform(builder: Any, rows: _Vectors) -> _Vectors:
    """Transform every column."""
    for bit in (4, 2, 1):
        pairs = [(rows[i & ~bit], rows[i | bit]) for i in range(SIDE)]
        rows = [(builder.fsub if i & bit else builder.fadd)(*pair) for i, pair in enumerate(pairs)]
    return rows


def _transpose(builder: Any, rows: _Vectors) -> _Vectors:
    for bit in (1, 2, 4):
        even = [SIDE + j - bit if j & bit else j for j in range(SIDE)]
        odd = [SIDE + j if j & bit else j + bit for j in range(SIDE)]
        rows = [
            _shuffle(builder, rows[i & ~bit], rows[i | bit], odd if i & bit else even) for i in range(SIDE)
        ]
    return rows


def _shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_INT32, len(order)), list(order))
    return builder.shuffle_vector(a, b, mask)


difference_spectrum = cast(Callable[..., None], intrinsic(_difference_spectrum))
"""(a, top, left, b, top, left, spectrum): transform a block of `a` minus one of `b`.

a, b: arrays (H, W) of uint8 or float32. Their corners (uintp) are not checked. spectrum: (8, 8) float32 for
the result, which is 8 times an orthonormal transform, transposed.
"""
energy_growth = cast(Callable[..., tuple[float, float]], intrinsic(_energy_growth))
"""(a, b, scale): products of 1 + scale * (a + b)^2 over the upper and the lower half of two blocks (8, 8).

a, b: float32. scale: float32, below 60, so that spectra of 8-bit differences cannot overflow.
"""
