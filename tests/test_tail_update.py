"""Updates of the enhancement's last layers: coding, exactness, the fit, and files that carry them."""

import io

import numpy as np
import pytest
from conftest import coded, moving_picture, same
from test_enhancement_engine import (
    FEW,
    NARROW,
    ODD,
    SETS,
    base_frame,
    extreme,
    noise,
    samples_of,
    with_instructions,
)

from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH, rounded
from viddiff.codec.base_payloads import unpack_frames
from viddiff.codec.engine.instruction_sets import InstructionSet
from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.entropy import SymbolDecoder, SymbolEncoder
from viddiff.codec.open_decoder import open_decoder
from viddiff.codec.tail_update import (
    SCALES,
    STEPS,
    TAIL,
    TAIL_BETWEEN,
    TailUpdate,
    UpdateTables,
    read_updates,
    tails,
    updated,
    write_updates,
)
from viddiff.container.format import Chunk, KeyChunk
from viddiff.container.reader import Reader
from viddiff.encoder.options import EncodeOptions
from viddiff.encoder.strength_choice import Worth
from viddiff.encoder.tail_fit import TailFit
from viddiff.errors import BitstreamError
from viddiff.frame import Frame
from viddiff.media.av1_headers import Coding
from viddiff.networks.bounds import UNIT, WEIGHT_MAX
from viddiff.networks.enhancement_config import PLANES, EnhancementConfig
from viddiff.pipeline.serial import decode

TABLES = UpdateTables.parametric()
CODING = Coding(120, False)


def middling(frame: Frame) -> Frame:
    """The frame without samples near the smallest and largest, which corrections would exceed."""
    y, u, v = (samples_of((plane.astype(np.int64) >> 1) + 256, BASE_BIT_DEPTH) for plane in frame.planes)
    return Frame(y, u, v, frame.pts)


def some_update(config: EnhancementConfig, name: str, seed: int, largest: int = 3) -> TailUpdate:
    rng = np.random.default_rng(seed)
    changes = rng.integers(-largest, largest + 1, (PLANES, tails(config)[name] + 1))
    return TailUpdate(rng.integers(0, 4, PLANES), changes)


@pytest.mark.parametrize("coder", ["ans", "huffman"])
@pytest.mark.parametrize("names", [(), (TAIL,), (TAIL_BETWEEN,), (TAIL, TAIL_BETWEEN)])
def test_updates_are_read_as_written(names: tuple[str, ...], coder: str) -> None:
    """Of any size, up to the largest; what follows in the stream is read as well."""
    written = {name: some_update(ODD, name, n, 60_000 if n else 2) for n, name in enumerate(names)}
    stream = SymbolEncoder(coder)  # type: ignore[arg-type]
    write_updates(stream, TABLES, ODD, written)
    stream.put(np.array([1]), np.array([0]), TABLES.flags)
    decoder = SymbolDecoder(stream.finish(), coder)  # type: ignore[arg-type]
    read = read_updates(decoder, TABLES, ODD)
    assert read.keys() == written.keys()
    for name, update in read.items():
        assert np.array_equal(update.added, written[name].added)
    assert decoder.get(np.array([0]), TABLES.flags)[0] == 1
    decoder.finish()


def test_no_update_costs_almost_nothing() -> None:
    stream = SymbolEncoder()
    write_updates(stream, TABLES, ODD, {})
    assert stream.finish() == b""


def test_bits_are_about_what_is_written() -> None:
    update = some_update(ODD, TAIL, 3)
    stream = SymbolEncoder()
    write_updates(stream, TABLES, ODD, {TAIL: update})
    assert abs(8 * len(stream.finish()) - TABLES.bits(update.changes).sum()) < 64


@SETS
@pytest.mark.parametrize("config", [ODD, NARROW, FEW], ids=lambda config: config.name)
def test_engine_is_the_module(config: EnhancementConfig, instructions: InstructionSet) -> None:
    """With updates, and with those of an update before."""
    weights = extreme(config, 1, calm=True)
    engine, module = with_instructions(weights, instructions), Enhancer(weights, engine="torch")
    frame, *others = (noise(35, 37, BASE_BIT_DEPTH, n) for n in range(3))
    base, between = base_frame(frame, CODING), base_frame(frame, CODING, *others)
    results = []
    for seed in range(3):
        updates = {name: some_update(config, name, seed) for name in list(tails(config))[: seed + 1]}
        fast, exact = updated(engine, updates), updated(module, updates)
        for shown in (base, between):
            found, expected = fast.correction(shown, 140), exact.correction(shown, 140)
            assert all(np.array_equal(*pair) for pair in zip(found.planes, expected.planes, strict=True))
            results.append(found.planes[0].astype(np.int64).sum())
        engine = updated(engine, updates) if seed == 1 else engine
        module = updated(module, updates) if seed == 1 else module
    assert len(set(results)) > 1
    assert updated(engine, {}) is engine


@pytest.mark.parametrize("size", [(16, 16), (35, 37), (66, 130)])
@SETS
def test_what_the_last_layer_reads(size: tuple[int, int], instructions: InstructionSet) -> None:
    """The engine keeps what the module computes, in any band; the correction is as ever."""
    weights = extreme(ODD, 2, calm=True)
    engine, module = with_instructions(weights, instructions), Enhancer(weights, engine="torch")
    frame, *others = (noise(*size, BASE_BIT_DEPTH, seed) for seed in range(3))
    turns = -(-size[1] // 16) * 4
    for shown in (base_frame(frame, CODING), base_frame(frame, CODING, *others)):
        whole = module.correction(shown, 140).planes
        for begin, end in ((0, turns), (0, 1), (turns // 2, turns), (1, turns - 1)):
            features, planes = engine.studied(shown, 140, (begin, end))
            expected, same_planes = module.studied(shown, 140, (begin, end))
            assert np.array_equal(features, expected)
            assert features.shape == (2 * (end - begin), -(-size[0] // 16) * 8, 9 if shown.neighbours else 17)
            for n, found, again, plane in zip((4, 2, 2), planes, same_planes, whole, strict=True):
                assert np.array_equal(found[: len(again)], again)
                assert np.array_equal(again, plane[n * begin : n * end])


def test_changed_weights_stay_exact() -> None:
    """They are limited to 8 bits. Sums that could leave the exact range are refused."""
    enhancer = Enhancer(extreme(FEW, 4, calm=True))
    steps = np.full(PLANES, STEPS - 1)
    changes = np.zeros((PLANES, tails(FEW)[TAIL] + 1), np.int64)
    changes[:, :-1] = 5
    weight = updated(enhancer, {TAIL: TailUpdate(steps, changes)}).weights.integers[f"{TAIL}.weight"]
    assert (weight == WEIGHT_MAX).all()
    changes[0, -1] = 1 << 16
    with pytest.raises(BitstreamError, match="out of range"):
        updated(enhancer, {TAIL: TailUpdate(steps, changes)})
    changes[0, -1] = (1 << 24) // UNIT // 128 - 200
    with pytest.raises(BitstreamError, match="out of range"):
        updated(enhancer, {TAIL: TailUpdate(steps, changes)})


def test_hostile_updates() -> None:
    """Random bytes give an update that can be used, or a clear error."""
    enhancer, outcomes = Enhancer(extreme(ODD, 4, calm=True)), set[str]()
    rng = np.random.default_rng(5)
    for length in range(150):
        data = rng.integers(0, 256, 4 * length + 4, np.uint8).tobytes().rstrip(b"\0") + b"\1"
        try:
            updates = read_updates(SymbolDecoder(data), TABLES, ODD)
            updated(enhancer, updates).prepare()
            outcomes.add("changed" if updates else "as before")
        except BitstreamError:
            outcomes.add("refused")
    assert "as before" in outcomes
    huge = SymbolEncoder()
    huge.put(np.array([1]), np.array([0]), TABLES.flags)
    huge.put(np.zeros(PLANES, int), np.zeros(PLANES, int), TABLES.steps)
    huge.put(np.full(PLANES, SCALES - 1), np.zeros(PLANES, int), TABLES.scales)
    count = (PLANES, tails(ODD)[TAIL] + 1)
    huge.put(np.full(count, -(1 << 31)), np.full(count, SCALES - 1), TABLES.changes)
    with pytest.raises(BitstreamError, match="out of range"):
        read_updates(SymbolDecoder(huge.finish()), TABLES, ODD)


@pytest.mark.parametrize("bit_depth", [8, 10])
def test_the_fit_finds_what_is_missing(bit_depth: int) -> None:
    """A change that the originals show is found, and pays. Noise, which no layer foresees, costs nothing."""
    enhancer = Enhancer(extreme(FEW, 6, calm=True))
    wanted = TailUpdate(np.zeros(PLANES, int), np.zeros((PLANES, 9), int))
    wanted.changes[:, :4] = [[36, -28, 20, 12]]
    better = updated(enhancer, {TAIL: wanted})
    shown = [base_frame(middling(noise(64, 48, BASE_BIT_DEPTH, seed)), CODING) for seed in range(12)]
    full = np.ones((2, 1, 1), np.int64) * 2
    originals = [better.correction(each, 140).applied(full, bit_depth) for each in shown]
    errors = Worth.of(originals, [each.frame for each in shown], bit_depth, 1e6)
    fit = TailFit(enhancer, 140, TABLES)
    fit.add(originals, shown, bit_depth, 2)
    found = fit.updates(shown, errors, bit_depth, 1.0)
    assert found.keys() == {TAIL}
    assert fit.active == found

    def error(used: Enhancer) -> float:
        pairs = zip(
            originals, (used.correction(each, 140).applied(full, bit_depth) for each in shown), strict=True
        )
        return sum(float(np.square(a.y.astype(float) - b.y).sum()) for a, b in pairs)

    assert error(updated(enhancer, found)) < 0.5 * error(enhancer), found[TAIL].added[:4]
    assert fit.updates(shown, errors, bit_depth, 1.0) == {}, "nothing new was seen"

    unrelated = TailFit(enhancer, 140, TABLES)
    rng = np.random.default_rng(8)
    noisy = []
    for each in shown:
        frame = enhancer.correction(each, 140).applied(full, bit_depth)
        noise_of = [rng.integers(-2, 3, plane.shape) for plane in frame.planes]
        y, u, v = (
            samples_of(np.clip(plane + added, 0, (1 << bit_depth) - 1), bit_depth)
            for plane, added in zip(frame.planes, noise_of, strict=True)
        )
        noisy.append(Frame(y, u, v, frame.pts))
    unrelated.add(noisy, shown, bit_depth, 1)
    assert unrelated.updates(shown, errors, bit_depth, 1.0) == {}


def test_nothing_is_missing() -> None:
    """Flat frames without errors, and a network that changes nothing: there is nothing to fit."""
    integers = extreme(FEW, 6, calm=True).integers
    silent = {n: v if n.endswith("exponent") else np.zeros_like(v) for n, v in integers.items()}
    enhancer = Enhancer(EnhancementWeights(FEW, silent))
    y, u, v = (np.full(shape, 512, np.uint16) for shape in ((48, 64), (24, 32), (24, 32)))
    shown = [base_frame(Frame(y, u, v, 0), CODING)] * 12
    originals = [rounded(each.frame, 8) for each in shown]
    fit = TailFit(enhancer, 140, TABLES)
    fit.add(originals, shown, 8, 1)
    assert fit.updates(shown, Worth((1.0, 1.0, 1.0), 100.0), 8, 1.0) == {}


@pytest.mark.parametrize("low_delay", [False, True])
def test_files_with_updates(low_delay: bool) -> None:
    """They decode to what the encoder saw, with each engine, and from the second GOP on."""
    enhancer = Enhancer(extreme(FEW, 6, calm=True))
    options = EncodeOptions(quality=40, gop=22, preset="slower", low_delay=low_delay)
    whole, shown, _ = coded(enhancer, moving_picture(64, 48, 44), options=options)
    chunks = list(Reader(io.BytesIO(whole)))
    assert any(updates_of(chunk) for chunk in chunks), "no chunk carries an update"
    for other in (
        enhancer,
        Enhancer(enhancer.weights, engine="torch"),
        Enhancer(enhancer.weights, threads=3),
    ):
        assert same(list(decode(io.BytesIO(whole), other)), shown)
    second = max(n for n, chunk in enumerate(chunks) if isinstance(chunk, KeyChunk))
    decoder = open_decoder(Reader(io.BytesIO(whole)).header, enhancer)
    for chunk in chunks[second:-1]:
        decoder.follow(chunk)
    last = list(decoder.decode(chunks[-1]))
    assert same(last, shown[-len(last) :])


def updates_of(chunk: Chunk) -> dict[str, TailUpdate]:
    payload = chunk.payload[1:] if isinstance(chunk, KeyChunk) else chunk.payload
    return read_updates(SymbolDecoder(unpack_frames(payload)[1]), TABLES, FEW)
