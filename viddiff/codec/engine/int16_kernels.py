"""Rows of convolutions in int16: the processor's dot products of pairs, for compiled functions.

Activations are int16, channels last. Weights are 8-bit integers in int16, packed in the order in which they
are read. Sums are int32. Each sum is scaled by a power of two, rounded half to even and clamped before it is
stored, as `networks.layers` defines: sums below 2^24 are exact in float32, and so is their scaling.

A dot product adds, in each 32-bit lane, the products of two neighbouring int16: vpdpwssd, vpmaddwd and
vpaddd, or plain multiplications, from which LLVM chooses what the processor has.

Addresses are not checked here. Callers prove them.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from llvmlite.binding import initialize_native_asmparser
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from viddiff.codec.engine.instruction_sets import INSTRUCTION_SETS, POSITION_MULTIPLE, TAPS, InstructionSet

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_MAX = 2047
"""Largest activation."""
_NEAREST = 8
"""Round half to even, whatever the processor's mode (EVEX encoding)."""
_ROUNDER = 1.5 * 2**23
"""A float32 number plus this one has its integer part, rounded half to even, in its lowest bits."""


class _Vectors:
    """Vector operations of an instruction set."""

    def __init__(self, builder: Any, kind: InstructionSet) -> None:
        self.builder, self.kind = builder, kind
        self.sums = ir.VectorType(_I32, kind.lanes)
        self.floats = ir.VectorType(_F32, kind.lanes)
        self.pairs = ir.VectorType(_I16, 2 * kind.lanes)

    def load(self, kind: Any, address: Any, offset: int = 0, align: int = 2) -> Any:
        if offset:
            address = self.builder.add(address, _I64(offset))
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=align)

    def store(self, value: Any, address: Any, offset: int = 0, align: int = 2) -> None:
        if offset:
            address = self.builder.add(address, _I64(offset))
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()), align=align)

    def dot(self, sums: Any, a: Any, b: Any) -> Any:
        """Sums plus the dot products of pairs. All are vectors of int32."""
        builder, wide = self.builder, self.sums
        match self.kind.name:
            case "avx512_vnni":
                # LLVM makes vpmaddwd and vpaddd of its own intrinsic, for the sake of latency, which is no
                # concern with so many sums.
                initialize_native_asmparser()
                signature = ir.FunctionType(wide, [wide] * 3)
                return builder.asm(signature, "vpdpwssd $3, $2, $0", "=v,0,v,v", (sums, a, b), False)
            case "avx2":
                halves = (builder.bitcast(x, self.pairs) for x in (a, b))
                return builder.add(sums, self._call("llvm.x86.avx2.pmadd.wd", wide, *halves))
        half = ir.Constant(wide, [16] * self.kind.lanes)
        low = builder.mul(*(builder.ashr(builder.shl(x, half), half) for x in (a, b)))
        return builder.add(builder.add(sums, low), builder.mul(*(builder.ashr(x, half) for x in (a, b))))

    def rounded(self, sums: Any, scale: Any) -> Any:
        """Scaled sums, rounded half to even; those far beyond an activation are anything as far beyond."""
        builder = self.builder
        scaled = builder.fmul(builder.sitofp(sums, self.floats), scale)
        match self.kind.name:
            case "avx512_vnni":
                every, rounding = ir.IntType(16)(-1), _I32(_NEAREST)
                name, unused = "llvm.x86.avx512.mask.cvtps2dq.512", ir.Constant(self.sums, ir.Undefined)
                return self._call(name, self.sums, scaled, unused, every, rounding)
            case "avx2":
                return self._call("llvm.x86.avx.cvt.ps2dq.256", self.sums, scaled)
        lanes = self.kind.lanes
        for sign, limit in (("<", -_MAX - 1.0), (">", _MAX + 1.0)):
            bound = ir.Constant(self.floats, [limit] * lanes)
            scaled = builder.select(builder.fcmp_ordered(sign, scaled, bound), bound, scaled)
        shifted = builder.fadd(scaled, ir.Constant(self.floats, [_ROUNDER] * lanes))
        bits = int(np.float32(_ROUNDER).view(np.int32))
        return builder.sub(builder.bitcast(shifted, self.sums), ir.Constant(self.sums, [bits] * lanes))

    def narrow(self, low: Any, high: Any) -> Any:
        """Two vectors of int32 as one of int16, saturated, in the order of packssdw."""
        match self.kind.name:
            case "avx512_vnni":
                return self._call("llvm.x86.avx512.packssdw.512", self.pairs, low, high)
            case "avx2":
                return self._call("llvm.x86.avx2.packssdw", self.pairs, low, high)
        order = [n + lane for n in range(0, self.kind.lanes, 4) for lane in range(4)]
        lanes = [x + start for n in range(0, len(order), 4) for start in (0, self.kind.lanes)
                 for x in order[n : n + 4]]  # fmt: skip
        mask = ir.Constant(ir.VectorType(_I32, len(lanes)), lanes)
        return self.builder.trunc(self.builder.shuffle_vector(low, high, mask), self.pairs)

    def narrow_one(self, value: Any) -> Any:
        """One vector of int32 as int16, saturated."""
        value = self.limit(value, self.splat(-_MAX - 1, self.sums), "max")
        value = self.limit(value, self.splat(_MAX, self.sums), "min")
        return self.builder.trunc(value, ir.VectorType(_I16, self.kind.lanes))

    def limit(self, value: Any, bound: Any, which: str) -> Any:
        """The larger ("max") or smaller ("min") of two vectors' numbers."""
        sign = ">" if which == "max" else "<"
        return self.builder.select(self.builder.icmp_signed(sign, value, bound), value, bound)

    def splat(self, number: int, kind: Any) -> Any:
        return ir.Constant(kind, [number] * kind.count)

    def spread(self, value: Any, kind: Any) -> Any:
        """A vector of one number."""
        nothing = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(nothing, value, _I32(0))
        return self.builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_I32, kind.count), None))

    def interleaved(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Pairs of a and b, as punpcklwd and punpckhwd put them, as int32."""
        count = 2 * self.kind.lanes
        result = []
        for half in (0, 4):
            order = [
                x for n in range(0, count, 8) for i in range(4) for x in (n + half + i, count + n + half + i)
            ]
            mask = ir.Constant(ir.VectorType(_I32, count), order)
            result.append(self.builder.bitcast(self.builder.shuffle_vector(a, b, mask), self.sums))
        return result[0], result[1]

    def _call(self, name: str, result: Any, *arguments: Any) -> Any:
        kind = ir.FunctionType(result, [x.type for x in arguments])
        module = self.builder.module
        return self.builder.call(cgutils.get_or_insert_function(module, kind, name), arguments)  # type: ignore[no-untyped-call]


def _function(module: Any, name: str, count: int) -> tuple[Any, Any]:
    """A new function of `count` int64 in the module, and a builder in its body."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_I64] * count), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function, ir.IRBuilder(function.append_basic_block("entry"))


_Scope = dict[str, Any]
_DENSE = (
    "row0", "row1", "row2", "segments", "pairs", "step", "group_step", "weights", "bias", "scale", "groups",
    "low", "out", "out_step", "other", "other_step", "blocks",
)  # fmt: skip


def _dense_function(module: Any, kind: InstructionSet, positions: int, vectors: int, add: bool) -> Any:
    """A function for blocks of positions. Arguments: _DENSE, all int64, steps in bytes."""
    name = f"dense_{kind.name}_{positions}x{vectors}{'_add' if add else ''}"
    if name in module.globals:
        return module.globals[name]
    function, builder = _function(module, name, len(_DENSE))
    v, given = _Vectors(builder, kind), dict(zip(_DENSE, function.args, strict=True))
    rows = cgutils.alloca_once(builder, ir.ArrayType(_I64, 3))  # type: ignore[no-untyped-call]
    for n in range(3):
        builder.store(given[f"row{n}"], builder.gep(rows, [_I32(0), _I32(n)]))
    sums = [[cgutils.alloca_once(builder, v.sums) for _ in range(vectors)] for _ in range(positions)]  # type: ignore[no-untyped-call]
    size = 4 * kind.lanes
    length = builder.mul(builder.mul(given["segments"], given["pairs"]), _I64(vectors * size))
    with cgutils.for_range(builder, given["groups"], intp=_I64) as group:
        start = {
            "weights": builder.add(given["weights"], builder.mul(group.index, length)),
            "bias": builder.add(given["bias"], builder.mul(group.index, _I64(vectors * size))),
            "scale": builder.add(given["scale"], builder.mul(group.index, _I64(vectors * size))),
        }
        channels = builder.mul(group.index, _I64(vectors * size // 2))
        moved = builder.mul(group.index, given["group_step"])
        with cgutils.for_range(builder, given["blocks"], intp=_I64) as block:
            first = builder.mul(block.index, _I64(positions))
            for n in range(vectors):
                bias = v.load(v.sums, start["bias"], n * size, 4)
                for m in range(positions):
                    builder.store(bias, sums[m][n])
            with cgutils.for_range(builder, given["segments"], intp=_I64) as segment:
                row = builder.load(builder.gep(rows, [_I32(0), segment.index]))
                row = builder.add(builder.add(row, moved), builder.mul(first, given["step"]))
                at = [builder.add(row, builder.mul(given["step"], _I64(m))) for m in range(positions)]
                done = builder.mul(segment.index, given["pairs"])
                with cgutils.for_range(builder, given["pairs"], intp=_I64) as pair:
                    place = builder.mul(builder.add(done, pair.index), _I64(vectors * size))
                    place = builder.add(start["weights"], place)
                    weights = [v.load(v.sums, place, n * size, size) for n in range(vectors)]
                    offset = builder.mul(pair.index, _I64(4))
                    for m in range(positions):
                        x = v.spread(v.load(_I32, builder.add(at[m], offset)), v.sums)
                        for n in range(vectors):
                            builder.store(v.dot(builder.load(sums[m][n]), x, weights[n]), sums[m][n])
            for m in range(positions):
                position = builder.add(first, _I64(m))
                out = builder.add(given["out"], builder.mul(position, given["out_step"]))
                other = builder.add(given["other"], builder.mul(position, given["other_step"]))
                for n in range(0, vectors, 2):
                    ready = [
                        v.rounded(builder.load(sums[m][k]), v.load(v.floats, start["scale"], k * size, 4))
                        for k in range(n, min(n + 2, vectors))
                    ]
                    value = v.narrow(*ready) if len(ready) == 2 else v.narrow_one(*ready)
                    low = v.spread(builder.trunc(given["low"], _I16), value.type)
                    value = v.limit(v.limit(value, low, "max"), v.splat(_MAX, value.type), "min")
                    if add:
                        more = v.load(value.type, builder.add(other, channels), n * size // 2)
                        value = v.limit(builder.add(value, more), v.splat(-_MAX, value.type), "max")
                        value = v.limit(value, v.splat(_MAX, value.type), "min")
                    v.store(value, builder.add(out, channels), n * size // 2)
    builder.ret_void()
    return function


def _convolve(_: Any, kind: Any, numbers: Any) -> tuple[Any, Callable[..., Any]] | None:
    if not isinstance(kind, types.IntegerLiteral):
        return None
    chosen = INSTRUCTION_SETS[kind.literal_value]

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        vectors, add, width, *rest = _unpacked(builder, values[1], 3 + len(_DENSE) - 1)
        given = dict(zip(_DENSE, rest, strict=False))
        for count in chosen.vectors:
            with builder.if_then(builder.icmp_signed("==", vectors, _I64(count))):
                for adds in (False, True):
                    with builder.if_then(builder.icmp_signed("==", add, _I64(int(adds)))):
                        _calls(builder, chosen, count, adds, width, given)
        return context.get_dummy_value()

    return types.void(kind, _numbers(3 + len(_DENSE) - 1)), generate


def _numbers(count: int) -> Any:
    return types.UniTuple(types.int64, count)  # type: ignore[no-untyped-call]


def _unpacked(builder: Any, numbers: Any, count: int) -> list[Any]:
    return list(cgutils.unpack_tuple(builder, numbers, count))  # type: ignore[no-untyped-call]


def _calls(builder: Any, kind: InstructionSet, vectors: int, add: bool, width: Any, given: _Scope) -> None:
    """Blocks as large as can be, then the rest of the row."""
    done: Any = _I64(0)
    for positions in dict.fromkeys((kind.positions, POSITION_MULTIPLE)):
        blocks = builder.sdiv(builder.sub(width, done), _I64(positions))
        moved = dict(given)
        for names, step in (
            (("row0", "row1", "row2"), "step"), (("out",), "out_step"), (("other",), "other_step"),
        ):  # fmt: skip
            for name in names:
                moved[name] = builder.add(given[name], builder.mul(done, given[step]))
        function = _dense_function(builder.module, kind, positions, vectors, add)
        builder.call(function, [*(moved[name] for name in _DENSE[:-1]), blocks])
        done = builder.add(done, builder.mul(blocks, _I64(positions)))


_DEPTHWISE = ("row0", "row1", "row2", "step", "weights", "bias", "scale", "vectors", "out", "spans")


def _filter(_: Any, kind: Any, numbers: Any) -> tuple[Any, Callable[..., Any]] | None:
    if not isinstance(kind, types.IntegerLiteral):
        return None
    chosen = INSTRUCTION_SETS[kind.literal_value]

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        given = _unpacked(builder, values[1], len(_DEPTHWISE))
        builder.call(_depthwise_function(builder.module, chosen), given)
        return context.get_dummy_value()

    return types.void(kind, _numbers(len(_DEPTHWISE))), generate


def _depthwise_function(module: Any, kind: InstructionSet) -> Any:
    name = f"depthwise_{kind.name}"
    if name in module.globals:
        return module.globals[name]
    function, builder = _function(module, name, len(_DEPTHWISE))
    v, given = _Vectors(builder, kind), dict(zip(_DEPTHWISE, function.args, strict=True))
    size = 4 * kind.lanes
    with cgutils.for_range(builder, given["spans"], intp=_I64) as span:
        before = builder.mul(span.index, given["vectors"])
        with cgutils.for_range(builder, given["vectors"], intp=_I64) as vector:
            offset = builder.mul(builder.add(before, vector.index), _I64(size))
            taps = []
            for n in range(3):
                address = builder.add(given[f"row{n}"], offset)
                for _ in range(3):
                    taps.append(v.load(v.pairs, address))
                    address = builder.add(address, given["step"])
            taps.append(ir.Constant(v.pairs, None))
            place = builder.add(given["weights"], builder.mul(vector.index, _I64((TAPS + 1) * size)))
            two = builder.mul(vector.index, _I64(2 * size))
            sums = [v.load(v.sums, builder.add(given["bias"], two), n * size, 4) for n in range(2)]
            for n in range(0, TAPS, 2):
                for half, pairs in enumerate(v.interleaved(taps[n], taps[n + 1])):
                    weights = v.load(v.sums, place, (n + half) * size, size)
                    sums[half] = v.dot(sums[half], pairs, weights)
            scales = [v.load(v.floats, builder.add(given["scale"], two), n * size, 4) for n in range(2)]
            value = v.narrow(*(v.rounded(s, scale) for s, scale in zip(sums, scales, strict=True)))
            value = v.limit(value, v.splat(-_MAX, v.pairs), "max")
            v.store(v.limit(value, v.splat(_MAX, v.pairs), "min"), builder.add(given["out"], offset))
    builder.ret_void()
    return function


convolve_row = cast(Callable[[int, tuple[int, ...]], None], intrinsic(prefer_literal=True)(_convolve))
"""(index of the instruction set, numbers): a row of a convolution of any kernel, as sums over parts of rows.

numbers, all int64: vectors (of PackedLayer), 1 to add another row, width (a multiple of POSITION_MULTIPLE),
then addresses of three rows, how many of them (segments) give how many pairs of inputs each (pairs), bytes
from a position to the next (step), and from the inputs of a group (of PackedLayer) to those of the next one;
addresses of weights, biases (int32) and scales; groups, the lowest result (0 or -2047); address and step of
the result, and of the row to add.
"""
filter_row = cast(Callable[[int, tuple[int, ...]], None], intrinsic(prefer_literal=True)(_filter))
"""(index of the instruction set, numbers): a row of a depthwise 3x3 convolution.

numbers, all int64: addresses of three rows one position to the left of the first result, bytes from a
position to the next; addresses of weights, biases and scales, vectors (of PackedLayer), address of the
result, and its size in spans: groups (of PackedLayer) positions each.
"""
