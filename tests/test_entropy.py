"""Symbol coding: exact round trips, sizes near the information content, no harm from wrong bytes."""

import pickle
from collections.abc import Sequence
from typing import Any

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viddiff.codec import entropy
from viddiff.codec.entropy import (
    MAX_RADIUS,
    MAX_TABLES,
    SCALE,
    Coder,
    SymbolDecoder,
    SymbolEncoder,
    Tables,
    discretised_tables,
)
from viddiff.errors import BitstreamError, CheckpointError

INT32 = np.iinfo(np.int32)
CODERS: tuple[Coder, ...] = ("ans", "huffman")
both = pytest.mark.parametrize("coder", CODERS)

Put = tuple[np.ndarray, np.ndarray, Tables]


def random_tables(rng: np.random.Generator) -> Tables:
    radii = rng.choice([0, 1, 2, 7, 30, MAX_RADIUS], size=rng.integers(1, 5))
    return Tables.from_probabilities([rng.dirichlet(np.full(2 * r + 2, 0.3)) for r in radii])


def random_puts(rng: np.random.Generator, wild: bool) -> list[Put]:
    puts = []
    for _ in range(rng.integers(0, 5)):
        tables = random_tables(rng)
        shape = tuple(rng.integers(0, 9, size=rng.integers(0, 4)))
        indexes = rng.integers(-1, len(tables.radius), size=shape)
        limit = rng.choice([1, 3, 600, 1 << 31]) if wild else 2
        symbols = rng.integers(-limit, limit, size=shape)
        edge = rng.choice([INT32.min, INT32.max, 0], size=shape)
        symbols = np.where(rng.random(shape) < 0.1 * wild, edge, symbols)
        puts.append((np.where(indexes < 0, 0, symbols), indexes, tables))
    return puts


def encode(puts: Sequence[Put], coder: Coder) -> bytes:
    encoder = SymbolEncoder(coder)
    for put in puts:
        encoder.put(*put)
    return encoder.finish()


def model_puts(rng: np.random.Generator, tables: Tables, count: int) -> Put:
    """Symbols that follow their tables, with escapes as radius + 1."""
    indexes = rng.integers(0, len(tables.radius), size=count)
    probabilities = tables.frequencies / SCALE
    columns = np.array([rng.choice(len(probabilities[i]), p=probabilities[i]) for i in indexes], np.int64)
    return columns - tables.radius[indexes], indexes, tables


@both
@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1))
def test_round_trip(coder: Coder, seed: int) -> None:
    puts = random_puts(np.random.default_rng(seed), wild=True)
    data = encode(puts, coder)
    assert encode(puts, coder) == data
    decoder = SymbolDecoder(data, coder)
    for symbols, indexes, tables in puts:
        decoded = decoder.get(indexes, tables)
        assert decoded.dtype == np.int32
        assert decoded.shape == symbols.shape
        np.testing.assert_array_equal(decoded, symbols)
    decoder.finish()


@both
@given(value=st.integers(INT32.min, INT32.max), radius=st.sampled_from([0, 1, 5, MAX_RADIUS]))
@settings(deadline=None)
def test_any_int32_round_trips(coder: Coder, value: int, radius: int) -> None:
    tables = Tables.from_probabilities([np.ones(2 * radius + 2)])
    values = np.array([value, radius, radius + 1, -radius - 1, INT32.min, INT32.max, value])
    decoder = SymbolDecoder(encode([(values, np.zeros(7, int), tables)], coder), coder)
    np.testing.assert_array_equal(decoder.get(np.zeros(7, int), tables), values)
    decoder.finish()


@both
@given(fields=st.lists(st.integers(0, 32).flatmap(lambda n: st.tuples(st.integers(0, 2**n - 1), st.just(n)))))
@settings(deadline=None)
def test_raw_bits_round_trip_between_symbols(coder: Coder, fields: list[tuple[int, int]]) -> None:
    values, widths = np.array(fields, np.int64).reshape(-1, 2).T
    tables = discretised_tables([1.0], "laplace")
    symbols, indexes = np.array([-1, 0, 40]), np.zeros(3, int)
    encoder = SymbolEncoder(coder)
    encoder.put(symbols, indexes, tables)
    encoder.put_bits(values, widths)
    encoder.put(symbols, indexes, tables)
    decoder = SymbolDecoder(encoder.finish(), coder)
    np.testing.assert_array_equal(decoder.get(indexes, tables), symbols)
    np.testing.assert_array_equal(decoder.get_bits(widths), values)
    np.testing.assert_array_equal(decoder.get(indexes, tables), symbols)
    decoder.finish()


@both
def test_indexes_may_depend_on_decoded_symbols(coder: Coder) -> None:
    rng = np.random.default_rng(3)
    first, second = discretised_tables([0.5, 2, 9], "normal"), discretised_tables([0.3, 1, 30], "laplace")
    symbols = rng.integers(-5, 6, size=(20, 8, 8))
    encoder, indexes = SymbolEncoder(coder), np.zeros((8, 8), int)
    for i, plane in enumerate(symbols):
        plane[indexes < 0] = 0
        encoder.put(plane, indexes, (first, second)[i % 2])
        indexes = np.minimum(np.abs(plane), 3) - 1
    decoder, indexes = SymbolDecoder(encoder.finish(), coder), np.zeros((8, 8), int)
    for i, plane in enumerate(symbols):
        decoded = decoder.get(indexes, (first, second)[i % 2])
        np.testing.assert_array_equal(decoded, plane)
        indexes = np.minimum(np.abs(decoded), 3) - 1
    decoder.finish()


@pytest.mark.parametrize("count", [0, 1, 10, 300, 20000])
@pytest.mark.parametrize("shape", ["laplace", "normal"])
def test_ans_size_is_the_information_content(count: int, shape: Any) -> None:
    put = model_puts(np.random.default_rng(count), discretised_tables([0.1, 0.4, 1.5, 20], shape), count)
    content = put[2].bits(*put[:2]).sum() / 8
    size = len(encode([put], "ans"))
    assert content - 8 <= size <= content * 1.01 + 8
    assert count < 20000 or size > content * 0.999


def test_ans_adds_at_most_four_bytes_to_tiny_packets() -> None:
    rng = np.random.default_rng(5)
    tables = discretised_tables([0.2, 0.5, 3], "laplace")
    for count in range(60):
        put = model_puts(rng, tables, count)
        assert len(encode([put], "ans")) <= tables.bits(*put[:2]).sum() / 8 + 4


def test_ans_size_includes_escapes() -> None:
    rng = np.random.default_rng(6)
    tables = discretised_tables([0.5, 3], "laplace")
    symbols, indexes = rng.integers(INT32.min, INT32.max, 999), rng.integers(0, 2, 999)
    content = tables.bits(symbols, indexes).sum() / 8
    assert content - 8 <= len(encode([(symbols, indexes, tables)], "ans")) <= content * 1.01 + 8


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_huffman_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    put = model_puts(rng, random_tables(rng), int(rng.integers(1, 300)))
    content = put[2].bits(*put[:2])
    size = 8 * len(encode([put], "huffman"))
    escapes = np.abs(put[0]) > put[2].radius[put[1]]
    # a Huffman code is within a bit of the entropy on average, of single symbols only roughly
    assert size <= 1.1 * content.sum() + len(content) + 2 * escapes.sum() + 32
    assert size >= len(content)


def test_bits() -> None:
    halves = [SCALE // 2, SCALE // 2]
    tables = Tables(np.array([*halves, SCALE // 8, SCALE // 2, SCALE // 4, SCALE // 8], np.int32))
    symbols, indexes = np.array([[0, 0, 5], [-1, 0, 1]]), np.array([[-1, 0, -1], [1, 1, 1]])
    np.testing.assert_array_equal(tables.bits(symbols, indexes), [[0, 1, np.inf], [3, 1, 2]])
    # escape, class 0, 3 raw bits; at 9 beyond comes class 1 with 4 raw bits
    escapes = tables.bits(np.array([1, -4, 5, 2]), np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(escapes, [1 + 1 + 3, 1 + 1 + 3, 1 + 2 + 4, 3 + 1 + 3], atol=1e-3)


@both
def test_nothing_is_no_bytes(coder: Coder) -> None:
    tables = discretised_tables([1], "laplace")
    assert encode([], coder) == b""
    assert encode([(np.zeros(5, int), np.full(5, -1), tables)], coder) == b""
    decoder = SymbolDecoder(b"", coder)
    assert decoder.get(np.full((2, 5), -1), tables).tolist() == [[0] * 5] * 2
    decoder.finish()


def test_zeros_at_the_end_are_free() -> None:
    tables = discretised_tables([0.5, 2], "normal")
    zeros = (np.zeros(1000, int), np.arange(1000) % 2, tables)
    some = (np.array([1, -30]), np.array([0, 1]), tables)
    assert encode([zeros], "ans") == b""
    assert encode([some, zeros], "ans") == encode([some], "ans")


GOLDEN: dict[Coder, str] = {
    "ans": "0000000000ffffffef45f905ba4656701780c48bb6765603be5411bdfc",
    "huffman": "d6d7fff311094562a1560fc0fb7ffa7f020000000000000501",
}


@both
def test_golden_bytes(coder: Coder) -> None:
    tables = Tables(np.array([16384, 32768, 8192, 8192, 65535, 1], np.int32))
    encoder = SymbolEncoder(coder)
    encoder.put(np.array([0, 1, -1, 0, 0, 0, 7, -123456]), np.array([0, 0, 0, 1, -1, 1, 1, 0]), tables)
    encoder.put_bits(np.array([5, 0x12345678, 1]), np.array([3, 32, 9]))
    encoder.put(np.array([[INT32.min, INT32.max]]), np.array([[0, 1]]), tables)
    assert encoder.finish().hex() == GOLDEN[coder]


@pytest.mark.parametrize("count", [2, 7, 1026])
def test_constriction_models_are_exact(count: int) -> None:
    rng = np.random.default_rng(count)
    frequencies = rng.multinomial(SCALE - count, rng.dirichlet(np.full(count, 0.1))) + 1
    model = constriction.stream.model.Categorical(frequencies.astype(np.float64), perfect=False)
    starts = np.cumsum([0, *frequencies[:-1]])
    for symbol, start in enumerate(starts.tolist()):
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(symbol, model)
        state = sum(int(word) << 32 * i for i, word in enumerate(coder.get_compressed()))
        assert state == start * (2**24 - count) // SCALE + symbol


def decode(data: bytes, puts: Sequence[Put], coder: Coder) -> list[np.ndarray] | None:
    """The symbols, or None after a BitstreamError. Any other exception fails the test."""
    try:
        decoder = SymbolDecoder(data, coder)
        symbols = [decoder.get(indexes, tables) for _, indexes, tables in puts]
        decoder.finish()
    except BitstreamError:
        return None
    assert all(np.abs(s[i < 0]).sum() == 0 for s, (_, i, _) in zip(symbols, puts, strict=True))
    return symbols


@both
@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=80), seed=st.integers(0, 2**32 - 1))
def test_random_bytes(coder: Coder, data: bytes, seed: int) -> None:
    puts = random_puts(np.random.default_rng(seed), wild=True)
    symbols = decode(data, puts, coder)
    if symbols is not None:  # then these are the bytes of these symbols
        assert encode([(s, i, t) for s, (_, i, t) in zip(symbols, puts, strict=True)], coder) == data


@both
def test_truncations_and_bit_flips(coder: Coder) -> None:
    rng = np.random.default_rng(8)
    tables = discretised_tables([0.3, 1, 4, 100], "laplace")
    puts = [model_puts(rng, tables, n) for n in (30, 5, 60)]
    puts.append((np.array([12345678, -70000, INT32.min]), np.array([0, 1, 2]), tables))
    data = encode(puts, coder)
    originals = [put[0] for put in puts]

    def same(changed: bytes) -> bool:
        symbols = decode(changed, puts, coder)
        return symbols is not None and all(map(np.array_equal, symbols, originals))

    assert same(data)
    assert not any(same(data[:n]) for n in range(len(data)))
    assert decode(data + b"\1", puts, coder) is None
    assert decode(data + b"\0", puts, coder) is None
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not same(bytes(flipped))


def test_escape_beyond_int32_is_refused() -> None:
    tables = Tables.from_probabilities([np.array([1e-9, 1.0])])
    for coder in CODERS:
        encoder = SymbolEncoder(coder)
        encoder.put(np.array([INT32.min]), np.array([0]), tables)
        ranks, model = encoder._steps[
            -1
        ]  # the lowest raw bits; the rank of INT32.min is 2**32, all above is too large
        encoder._steps[-1] = (ranks + 1, model)
        with pytest.raises(BitstreamError, match="int32"):
            SymbolDecoder(encoder.finish(), coder).get(np.array([0]), tables)


@both
def test_too_few_and_too_many_gets_are_noticed(coder: Coder) -> None:
    tables = discretised_tables([9], "normal")
    symbols, indexes = np.arange(-20, 21), np.zeros(41, int)
    data = encode([(symbols, indexes, tables)], coder)
    decoder = SymbolDecoder(data, coder)
    decoder.get(indexes[:-5], tables)
    with pytest.raises(BitstreamError):
        decoder.finish()
    if coder == "huffman":  # the ans coder decodes zeros for ever
        with pytest.raises(BitstreamError):
            SymbolDecoder(data, coder).get(np.zeros(60, int), tables)


def test_wrong_calls_are_refused() -> None:
    tables = discretised_tables([1, 2], "laplace")
    calls: list[tuple[Any, Any]] = [
        ([1], [-1]), ([0], [2]), ([0], [-2]), ([1 << 31], [0]), ([0, 0], [0]), ([0.5], [0]), ([0], [0.5]),
    ]  # fmt: skip
    for symbols, indexes in calls:
        with pytest.raises((ValueError, TypeError), match=r"symbol|index|float64"):
            SymbolEncoder().put(np.array(symbols), np.array(indexes), tables)
    for values, widths in ([[4], [2]], [[-1], [8]], [[1], [33]], [[0], [-1]], [[1, 1], [1]]):
        with pytest.raises(ValueError, match="width"):
            SymbolEncoder().put_bits(np.array(values), np.array(widths))
    with pytest.raises(ValueError, match="index"):
        SymbolDecoder(b"").get(np.array([2]), tables)


GOOD = discretised_tables([0.3, 2, 1e-9], "laplace").packed
BAD_TABLES = {
    "sum": np.append(GOOD[:-1], GOOD[-1] + 1),
    "sum of one, not of all": GOOD
    + np.eye(1, len(GOOD), 0, dtype=np.int32)[0]
    - np.eye(1, len(GOOD), len(GOOD) - 1, dtype=np.int32)[0],
    "float": GOOD.astype(np.float64),
    "int64": GOOD.astype(np.int64),
    "two dimensions": GOOD[None],
    "nothing": GOOD[:0],
    "cut off": GOOD[:-1],
    "negative": np.array([-1, SCALE + 1], np.int32),
    "zero": np.append(GOOD, np.array([0, SCALE], np.int32)),
    "odd size": np.array([SCALE // 2, SCALE // 4, SCALE // 4], np.int32),
    "only escape": np.array([SCALE], np.int32),
    "too many": np.full(2 * MAX_TABLES + 2, SCALE // 2, np.int32),
    "too wide": np.append(np.ones(2 * MAX_RADIUS + 3, np.int32), np.int32(SCALE - 2 * MAX_RADIUS - 3)),
    "large": np.full(4, 1 << 30, np.int32),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables_are_refused(name: str) -> None:
    with pytest.raises(CheckpointError):
        Tables(BAD_TABLES[name])


def test_largest_tables_are_accepted() -> None:
    assert len(Tables(np.full(2 * MAX_TABLES, SCALE // 2, np.int32)).radius) == MAX_TABLES
    row = np.append(np.ones(2 * MAX_RADIUS + 1, np.int32), np.int32(SCALE - 2 * MAX_RADIUS - 1))
    assert Tables(row).radius.tolist() == [MAX_RADIUS]


@given(st.lists(st.sampled_from([-SCALE, -1, 0, 1, SCALE // 2, SCALE - 1, SCALE, SCALE + 1]), max_size=8))
def test_random_tables(values: list[int]) -> None:
    try:
        tables = Tables(np.array(values, np.int32))
    except CheckpointError:
        return
    assert (tables.frequencies.sum(axis=1) == SCALE).all()
    assert ((tables.frequencies > 0).sum(axis=1) == 2 * tables.radius + 2).all()


def test_tables_are_laid_out_and_pickled() -> None:
    tables = Tables(np.array([SCALE - 1, 1, 1, 2, 3, SCALE - 6], np.int32))
    assert tables.frequencies.tolist() == [[SCALE - 1, 1, 0, 0], [1, 2, 3, SCALE - 6]]
    assert tables.radius.tolist() == [0, 1]
    encode([(np.array([0]), np.array([0]), tables)], "ans")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tables)).packed, tables.packed)
    for array in (tables.packed, tables.frequencies, tables.radius):
        assert not array.flags.writeable


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40).filter(lambda p: sum(p) > 1e-300))
def test_quantised_probabilities(probabilities: list[float]) -> None:
    row = np.array(probabilities * 2)
    frequencies = Tables.from_probabilities([row]).frequencies[0]
    wanted = row / row.sum() * SCALE
    assert frequencies.min() >= 1
    assert frequencies.sum() == SCALE
    assert (frequencies <= np.maximum(wanted, 1) + 1).all()
    assert (frequencies >= wanted * (1 - len(row) / SCALE) - 1).all()


@pytest.mark.parametrize("row", [[1.0, -0.5], [np.nan, 1], [np.inf, 1], [0.0, 0.0]])
def test_bad_probabilities_are_refused(row: list[float]) -> None:
    with pytest.raises(ValueError, match="probabilities"), np.errstate(invalid="ignore"):
        Tables.from_probabilities([np.array(row)])


@pytest.mark.parametrize("shape", ["laplace", "normal"])
def test_discretised_tables(shape: Any) -> None:
    scales = [0.05, 0.3, 1, 7, 40, 1000]
    tables = discretised_tables(scales, shape)
    assert tables.radius[0] < 2
    assert tables.radius[-1] == MAX_RADIUS
    assert (np.diff(tables.radius) >= 0).all()
    for frequencies, radius, scale in zip(tables.frequencies, tables.radius, scales, strict=True):
        row = frequencies[: 2 * radius + 1]
        assert np.abs(row - row[::-1]).max() <= 1
        if radius < MAX_RADIUS:
            assert frequencies[2 * radius + 1] <= 1e-4 * SCALE + 1
            variance = (row / SCALE * np.arange(-radius, radius + 1) ** 2).sum()
            assert scale < 1 or variance == pytest.approx(scale**2 + 1 / 12, rel=0.05)
    kurtosis = {"laplace": 1 - np.exp(-0.5 * np.sqrt(2) / 7), "normal": 0.0569}
    assert tables.frequencies[3, tables.radius[3]] / SCALE == pytest.approx(kurtosis[shape], rel=0.01)


def test_total_bits_is_the_sum_of_all_bits() -> None:
    rng = np.random.default_rng(0)
    tables = discretised_tables([0.2, 1, 5], "laplace")
    indexes = rng.integers(-1, 3, (4, 5, 6))
    symbols = np.where(indexes < 0, 0, rng.laplace(0, 2, indexes.shape).round().astype(np.int64))
    symbols[0, 0, 0], indexes[0, 0, 0] = 900, 2
    expected = tables.bits(symbols, indexes).sum()
    assert tables.total_bits(symbols, indexes) == pytest.approx(expected)
    assert tables.total_bits(np.array([1]), np.array([-1])) == np.inf
    assert tables.total_bits(symbols[:0], indexes[:0]) == 0


@pytest.mark.parametrize("count", [0, 1, 5, 300])
@pytest.mark.parametrize("tables", [1, 3, 40])
def test_few_are_treated_as_many_are(count: int, tables: int) -> None:
    """By numpy, without loading what is compiled."""
    rng = np.random.default_rng(count)
    indexes, ranks, radius = (
        rng.integers(-1, tables, count),
        rng.integers(0, 12, count),
        rng.integers(0, 5, tables),
    )
    few, many = entropy._few_sorted(indexes, tables), entropy._sorted(indexes, tables)
    assert all(map(np.array_equal, few, many))
    values, escaped = entropy._few_symbols(ranks, indexes, radius)
    expected, expected_escaped = entropy._symbols(ranks, indexes, radius)
    assert np.array_equal(values, expected)
    assert escaped == expected_escaped
    for wrong in (-2, tables):
        bad = np.append(indexes, wrong)
        for sort in (entropy._few_sorted, entropy._sorted):
            with pytest.raises(ValueError, match="an index is"):
                sort(bad, tables)
