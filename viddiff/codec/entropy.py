"""Lossless coding of integer symbols with tables of frequencies. The coded bytes are part of the file format.

A symbol with table index -1 is zero and is not coded. Any other symbol is coded with the frequencies of its
table, as the rank of its value in the order 0, 1, -1, 2, -2, .., radius, -radius, escape.

A put codes the ranks of its symbols, grouped by table; within a group, in the order of the array. Escaped
symbols follow. The rank of such a symbol among all integers is 2 * radius + 1 + e. Its class c is coded with
the frequencies `_CLASSES`, and e + 8 - 2**(c + 3) as c + 3 raw bits (Exp-Golomb of order 3). Raw bits take
four steps, from bit 24, 16, 8, 0 up, grouped by their number.

"ans": constriction's AnsCoder, everything in reverse order, because it is a stack. Its model of n frequencies
f with sum F has the cumulative frequencies floor(cumsum(f) * (2**24 - n) / F) + rank out of 2**24, exact in
float64. Zeros after the last other symbol cost nothing. The file holds its 32-bit words, little-endian,
without zero bytes at the end.

"huffman": constriction's Huffman codes of the same frequencies, for comparison. Each symbol takes at least
one bit. Bits fill bytes from the lowest up. Unused bits of the last byte are zero.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

import constriction
import numpy as np
from numpy.typing import NDArray

from viddiff.compiled import compiled
from viddiff.errors import BitstreamError, CheckpointError

SCALE = 1 << 16
"""Sum of the frequencies of a table."""
MAX_RADIUS = 512
MAX_TABLES = 4096
_FEW = 1024
"""Most indexes for which numpy does as well as compiled code."""

Coder = Literal["ans", "huffman"]
Int64s = NDArray[np.int64]
_Model = tuple[Any, Any, Any]  # constriction's Categorical, Huffman tree to encode, Huffman tree to decode


@dataclass(frozen=True, eq=False)
class Tables:
    """T immutable tables, as stored with the weights. Raises CheckpointError if they are inconsistent."""

    packed: NDArray[np.int32]
    """(N,): frequencies of all tables without padding. A table ends where its sum reaches SCALE."""
    frequencies: NDArray[np.int32] = field(init=False)
    """(T, S). Row t holds the symbols -radius[t]..radius[t] and the escape symbol, then zeros."""
    radius: Int64s = field(init=False)
    """(T,), 0..MAX_RADIUS"""

    def __post_init__(self) -> None:
        packed = np.array(self.packed)
        if packed.dtype != np.int32 or packed.ndim != 1 or (packed < 1).any():
            raise CheckpointError("entropy tables are not in one dimension of positive integers of 32 bits")
        sums = packed.cumsum(dtype=np.int64)
        sizes = np.diff(np.flatnonzero(sums % SCALE == 0), prepend=-1)
        if not 1 <= len(sizes) <= MAX_TABLES or sums[-1] != SCALE * len(sizes):
            raise CheckpointError(f"entropy tables are not 1 to {MAX_TABLES} of the sum {SCALE}")
        if (sizes % 2).any() or sizes.max() > 2 * MAX_RADIUS + 2:
            raise CheckpointError(f"an entropy table does not have a radius of 0 to {MAX_RADIUS}")
        frequencies = np.zeros((len(sizes), sizes.max()), np.int32)
        frequencies[np.arange(sizes.max()) < sizes[:, None]] = packed
        for name, array in (("packed", packed), ("frequencies", frequencies), ("radius", sizes // 2 - 1)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __reduce__(self) -> tuple[type[Self], tuple[NDArray[np.int32]]]:
        return type(self), (self.packed,)  # without the models, which cannot be pickled

    @classmethod
    def from_probabilities(cls, rows: Iterable[NDArray[np.float64]]) -> Self:
        """One table per row: 2 * radius + 1 probabilities of -radius..radius, then of all others."""
        return cls(np.concatenate([_quantise(np.asarray(row, np.float64)) for row in rows]))

    @cached_property
    def _models(self) -> list[_Model]:
        orders = [np.append(_values(np.arange(2 * r + 1)) + r, 2 * r + 1) for r in self.radius.tolist()]
        return [_model(row[order]) for row, order in zip(self.frequencies, orders, strict=True)]

    def bits(self, symbols: NDArray[Any], indexes: NDArray[Any]) -> NDArray[np.float64]:
        """Information content of each symbol in bits, with escapes.

        Infinite for a nonzero symbol of index -1.
        """
        symbols, indexes = _checked(symbols, indexes, self)
        radius = self.radius[indexes]
        ranks, _, classes = _split(symbols, radius)
        column = np.where(ranks > 2 * radius, 2 * radius + 1, symbols + radius)
        result = np.log2(SCALE / self.frequencies[indexes, column])
        result[ranks > 2 * radius] += np.log2(SCALE / _CLASSES)[classes] + classes + 3
        return np.where(indexes >= 0, result, np.where(symbols == 0, 0.0, np.inf))

    def total_bits(self, symbols: NDArray[Any], indexes: NDArray[Any]) -> float:
        """Sum of `bits`. Fast where most symbols are zero, because zeros are counted by table."""
        nonzero = symbols != 0
        zeros = np.bincount(indexes[~nonzero].ravel() + 1, minlength=len(self.radius) + 1)[1:]
        return float(zeros @ self._zero_bits + self.bits(symbols[nonzero], indexes[nonzero]).sum())

    @cached_property
    def _zero_bits(self) -> NDArray[np.float64]:
        every = np.arange(len(self.radius))
        return self.bits(np.zeros_like(every), every)


def discretised_tables(scales: Iterable[float], shape: Literal["laplace", "normal"]) -> Tables:
    """Zero-mean distributions with these standard deviations, in unit bins.

    The radius is large enough for fewer than 1e-4 escapes, if MAX_RADIUS allows it.
    """
    rows = []
    for scale in scales:
        x = (np.arange(0.5, MAX_RADIUS + 1) / (scale * math.sqrt(2))).tolist()  # the upper edges of the bins
        beyond = np.array([math.exp(-2 * v) if shape == "laplace" else math.erfc(v) for v in x])
        radius = min(int((beyond >= 1e-4).sum()), MAX_RADIUS)
        side = (beyond[:radius] - beyond[1 : radius + 1]) / 2
        rows.append(np.concatenate([side[::-1], [1 - beyond[0]], side, [beyond[radius]]]))
    return Tables.from_probabilities(rows)


def choice_row(weights: Sequence[float]) -> NDArray[np.float64]:
    """Row of `Tables.from_probabilities` for symbols 0..N-1, as likely as N weights say.

    Others are all but impossible.
    """
    row = np.zeros(2 * len(weights))
    row[len(weights) - 1 : -1] = np.array(weights) / sum(weights)
    return row


class SymbolEncoder:
    """Collects symbols and then returns their bytes. Without symbols, that is b""."""

    def __init__(self, coder: Coder = "ans") -> None:
        self._coder = coder
        self._steps: list[tuple[NDArray[np.int16], _Model]] = []

    def another(self) -> Self:
        """An empty encoder of the same kind."""
        return type(self)(self._coder)

    def append(self, other: Self) -> None:
        """Append everything that was put into `other`."""
        self._steps += other._steps

    def put(self, symbols: NDArray[Any], indexes: NDArray[Any], tables: Tables) -> None:
        """Append symbols and their table indexes, in arrays of one shape.

        Symbols are in the range of int32. Index -1 means certainly zero.
        """
        symbols, indexes = (array.ravel() for array in _checked(symbols, indexes, tables))
        if symbols[indexes < 0].any():
            raise ValueError("a symbol of index -1 is not zero")
        ranks, excess, classes = _split(symbols, tables.radius[indexes])
        self._put(ranks, indexes, tables._models)
        if len(classes):
            self._put(classes, np.zeros_like(classes), _CLASS_MODELS)
            self.put_bits(excess + 8 - (8 << classes), classes + 3)

    def put_choices(self, symbols: Sequence[int], tables: Tables) -> None:
        """Append symbols that all have the first table."""
        self.put(np.array(symbols), np.zeros(len(symbols), np.int64), tables)

    def put_bits(self, values: Int64s, widths: Int64s) -> None:
        """Append raw bits: integers 0..2**width - 1 and their widths 0..32, in two one-dimensional arrays."""
        if values.shape != widths.shape or (values >> widths).any() or (np.abs(widths - 16) > 16).any():
            raise ValueError("a value does not fit in its width, or a width is not in 0..32")
        for shift in (24, 16, 8, 0):
            part = np.clip(widths - shift, 0, 8)
            self._put(values >> shift & (1 << part) - 1, part - 1, _RAW_MODELS)

    def _put(self, ranks: Int64s, indexes: Int64s, models: list[_Model]) -> None:
        order, groups = _groups(indexes, len(models))
        ordered = ranks[order].astype(np.int16)  # there are millions, of large pictures
        self._steps += [(ordered[start:stop], models[i]) for i, start, stop in groups]

    def finish(self) -> bytes:
        """Bytes of all symbols. This is the last call."""
        if self._coder == "ans":
            stack = constriction.stream.stack.AnsCoder()
            for ranks, model in reversed(self._steps):
                stack.encode_reverse(ranks.astype(np.int32), model[0])
            return bytes(stack.get_compressed().astype("<u4").tobytes().rstrip(b"\0"))
        queue = constriction.symbol.QueueEncoder()
        for ranks, model in self._steps:
            for rank in ranks.tolist():
                queue.encode_symbol(rank, model[1])
        words, n_bits = queue.get_compressed_and_bitrate()
        return bytes(words.astype("<u4").tobytes()[: (n_bits + 7) // 8])


class SymbolDecoder:
    """Returns the symbols for the same calls in the same order. Indexes may depend on earlier symbols."""

    def __init__(self, data: bytes, coder: Coder = "ans") -> None:
        if coder == "ans" and data.endswith(b"\0"):
            raise BitstreamError("entropy-coded data ends in a zero byte")
        padding = bytes(-len(data) % 4)
        words = np.frombuffer(data + padding, "<u4").astype(np.uint32)
        self._coder, self._padding_bits = coder, 8 * len(padding)
        ans = constriction.stream.stack.AnsCoder
        self._stream = ans(words) if coder == "ans" else constriction.symbol.QueueDecoder(words)

    def get(self, indexes: NDArray[Any], tables: Tables) -> NDArray[np.int32]:
        """Symbols for an array of table indexes. Raises BitstreamError if the data is damaged."""
        flat = np.asarray(indexes).astype(np.int64, "C", "safe", copy=False).ravel()
        ranks = self._get(flat, tables._models)
        values, any_escaped = (_few_symbols if len(flat) <= _FEW else _symbols)(ranks, flat, tables.radius)
        if any_escaped:
            escaped = ranks == 2 * tables.radius[flat] + 1
            classes = self._get(np.zeros(escaped.sum(), np.int64), _CLASS_MODELS)
            ranks[escaped] += self.get_bits(classes + 3) + (8 << classes) - 8
            wide = _values(ranks)
            values = wide.astype(np.int32)
            if (values != wide).any():
                raise BitstreamError("a symbol is outside the range of int32")
        return values.reshape(np.shape(indexes))

    def get_choices(self, count: int, tables: Tables, choices: int) -> Int64s:
        """Symbols that all have the first table. Raises BitstreamError unless they are 0..choices - 1."""
        symbols = self.get(np.zeros(count, np.int64), tables).astype(np.int64)
        if symbols.min() < 0 or symbols.max() >= choices:
            raise BitstreamError("entropy-coded data is damaged: there is no such choice")
        return symbols

    def get_bits(self, widths: Int64s) -> Int64s:
        """Raw bits: integers of these widths. Raises BitstreamError if the data is damaged."""
        values = np.zeros(widths.shape, np.int64)
        for shift in (24, 16, 8, 0):
            values |= self._get(np.clip(widths - shift, 0, 8) - 1, _RAW_MODELS) << shift
        return values

    def _get(self, indexes: Int64s, models: list[_Model]) -> Int64s:
        order, groups = _groups(indexes, len(models))
        ranks = np.zeros(indexes.shape, np.int64)
        if groups:
            ranks[order] = np.concatenate(
                [self._decode(models[i], stop - start) for i, start, stop in groups]
            )
        return ranks

    def _decode(self, model: _Model, count: int) -> Any:
        if self._coder == "ans":
            return self._stream.decode(model[0], count)
        try:
            return [self._stream.decode_symbol(model[2]) for _ in range(count)]
        except ValueError:
            raise BitstreamError("entropy-coded data ends too early") from None

    def finish(self) -> None:
        """Raises BitstreamError if the data shows that there is more to read, or less than was read."""
        rest: list[int] = []
        with suppress(BitstreamError):  # no more bits
            while self._coder == "huffman" and len(rest) < self._padding_bits + 8:
                rest += self._decode(_RAW_MODELS[0], 1)
        clean = self._padding_bits <= len(rest) < self._padding_bits + 8 and not any(rest)
        if not (self._stream.is_empty() if self._coder == "ans" else clean):
            raise BitstreamError("entropy-coded data is damaged or does not end with its last symbol")


def _checked(symbols: NDArray[Any], indexes: NDArray[Any], tables: Tables) -> tuple[Int64s, Int64s]:
    symbols, indexes = (np.asarray(a).astype(np.int64, "C", "safe", copy=False) for a in (symbols, indexes))
    if symbols.shape != indexes.shape or (symbols.astype(np.int32) != symbols).any():
        raise ValueError("symbols and indexes differ in shape, or a symbol is outside the range of int32")
    if indexes.size and (indexes.min() < -1 or indexes.max() >= len(tables.radius)):
        raise ValueError(f"an index is not in -1..{len(tables.radius) - 1}")
    return symbols, indexes


def _groups(indexes: Int64s, tables: int) -> tuple[NDArray[np.intp], list[tuple[int, int, int]]]:
    """Positions of all indexes except -1, grouped by index, and begin and end of the group of each index.

    Raises ValueError unless all indexes are in -1..tables - 1.
    """
    order, starts = (_few_sorted if len(indexes) <= _FEW else _sorted)(indexes, tables)
    found = np.flatnonzero(starts[1:] > starts[:-1])
    return order, list(zip(found.tolist(), starts[found].tolist(), starts[found + 1].tolist(), strict=True))


def _few_sorted(indexes: Int64s, tables: int) -> tuple[NDArray[np.intp], Int64s]:
    """`_sorted`, for so few that they are not worth the time to load what is compiled."""
    if len(indexes) and not -1 <= indexes.min() <= indexes.max() < tables:
        raise ValueError("an index is below -1 or beyond the last table")
    counts = np.bincount(indexes + 1, minlength=tables + 1)
    counts[0], first = 0, counts[0]
    return np.argsort(indexes, kind="stable")[first:], counts.cumsum()


@compiled
def _sorted(indexes: Int64s, tables: int) -> tuple[NDArray[np.intp], Int64s]:
    """Positions of all indexes except -1, sorted by index, then by order; and the begin of each group."""
    starts = np.zeros(tables + 2, np.int64)  # beginning with index -1
    for index in indexes:
        if index < -1 or index >= tables:
            raise ValueError("an index is below -1 or beyond the last table")
        starts[index + 2] += 1
    starts[1] = 0
    for index in range(1, tables + 1):
        starts[index + 1] += starts[index]
    order, ends = np.empty(starts[-1], np.intp), starts[1:].copy()
    for position, index in enumerate(indexes):
        if index >= 0:
            order[ends[index]] = position
            ends[index] += 1
    return order, starts[1:]


def _split(symbols: Int64s, radius: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Ranks in the tables. For escaped symbols, also the excess and its Exp-Golomb class."""
    ranks = 2 * np.abs(symbols) - (symbols > 0)
    excess = (ranks - 2 * radius - 1)[ranks > 2 * radius]
    return np.minimum(ranks, 2 * radius + 1), excess, np.frexp(excess + 8.0)[1].astype(np.int64) - 4


def _values(ranks: Int64s) -> Int64s:
    return (ranks + 1 >> 1) * (2 * (ranks & 1) - 1)


def _few_symbols(ranks: Int64s, indexes: Int64s, radius: Int64s) -> tuple[NDArray[np.int32], bool]:
    """`_symbols`, as `_few_sorted`."""
    escaped = (ranks > 2 * radius[indexes]) & (indexes >= 0)
    return _values(ranks).astype(np.int32), bool(escaped.any())


@compiled
def _symbols(ranks: Int64s, indexes: Int64s, radius: Int64s) -> tuple[NDArray[np.int32], bool]:
    """`_values` of ranks in tables with these indexes and radii, and whether any rank is an escape."""
    values, escaped = np.empty(len(ranks), np.int32), False
    for i, rank in enumerate(ranks):
        values[i] = (rank + 1 >> 1) * (2 * (rank & 1) - 1)
        escaped |= rank > 2 * radius[indexes[i]] and indexes[i] >= 0
    return values, escaped


def _quantise(probabilities: NDArray[np.float64]) -> NDArray[np.int32]:
    """Frequencies >= 1 with sum SCALE. Values below 1 become 1; the others share the rest in proportion."""
    shares = probabilities / probabilities.sum() * SCALE
    if not (shares >= 0).all():
        raise ValueError("probabilities are negative, not finite or all zero")
    while (low := shares < 1).any():
        shares[low] = 1
        shares[shares > 1] *= (SCALE - (shares == 1).sum()) / shares[shares > 1].sum()
    frequencies: NDArray[np.int32] = shares.astype(np.int32)
    frequencies[np.argsort(frequencies - shares, kind="stable")[: SCALE - frequencies.sum()]] += 1
    return frequencies


def _model(frequencies: NDArray[Any]) -> _Model:
    weights, trees = frequencies.astype(np.float64), constriction.symbol.huffman
    ans = constriction.stream.model.Categorical(weights, perfect=False)
    return ans, trees.EncoderHuffmanTree(weights), trees.DecoderHuffmanTree(weights)


_CLASSES = np.maximum(SCALE // 2 >> np.arange(30), 1)
_CLASSES[0] += SCALE - _CLASSES.sum()
_CLASS_MODELS = [_model(_CLASSES)]
_RAW_MODELS = [_model(np.ones(2 << width)) for width in range(8)]
