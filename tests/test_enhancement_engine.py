"""The compiled engine against the network's module and plain torch arithmetic: the same integers."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import moving_picture, same
from numpy.typing import NDArray

from viddiff.codec import enhancement_weights
from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH, rounded
from viddiff.codec.base_frames import BaseFrame, DecodedFrame
from viddiff.codec.block_motion import SearchedFrame
from viddiff.codec.engine.enhancement import EnhancementEngine
from viddiff.codec.engine.instruction_sets import INSTRUCTION_SETS, InstructionSet, instruction_sets
from viddiff.codec.engine.packed_network import PackedNetwork, packed_networks
from viddiff.codec.engine.row_plan import DEPTHWISE, DIFFER, PICTURE, RESULT, plan_rows
from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.codec.enhancer import SIDES, Correction, Enhancer, blocks_of
from viddiff.codec.load_weights import load_weights
from viddiff.container.format import Writer
from viddiff.encoder.base_gop_encoder import BaseGopEncoder
from viddiff.encoder.options import EncodeOptions
from viddiff.frame import Frame, Plane, VideoInfo
from viddiff.media.av1_headers import Coding
from viddiff.networks.bounds import EXACT_LIMIT, WEIGHT_MAX
from viddiff.networks.enhancement import EnhancementNetwork, corrected
from viddiff.networks.enhancement_config import (
    BLOCK,
    DIFFERENCES,
    GROUPS,
    LARGE,
    SMALL,
    STRENGTHS,
    EnhancementConfig,
    TrunkConfig,
)
from viddiff.networks.planes import frame_of, pack, planes_of, unpack
from viddiff.pipeline.output import Output
from viddiff.pipeline.serial import decode, encode

ODD = EnhancementConfig(
    name="odd", half=17, quarter=33, half_blocks=2, quarter_blocks=1, between=TrunkConfig(9, 20, 2, 1)
)
NARROW = EnhancementConfig(
    name="narrow", half=1, quarter=1, half_blocks=1, quarter_blocks=1, between=TrunkConfig(1, 1, 0, 0)
)
FEW = EnhancementConfig(name="few", half=8, quarter=12, between=TrunkConfig(half=7, quarter=9))
FLAT = EnhancementConfig(name="flat", half=8, quarter=80, half_blocks=0, quarter_blocks=0)
SETS = pytest.mark.parametrize("instructions", instruction_sets(), ids=lambda each: each.name)
CODINGS = (Coding(0, True), Coding(120, False), Coding(255, True))


def extreme(config: EnhancementConfig, seed: int, calm: bool) -> EnhancementWeights:
    """Random integers as far as the proof goes. calm: with results that vary instead of saturating."""
    rng, integers = np.random.default_rng(seed), {}
    for name, layer in EnhancementNetwork(config).layers().items():
        shape, fan_in = tuple(layer.weight.shape), layer.weight[0].numel()
        weight = rng.integers(-WEIGHT_MAX, WEIGHT_MAX + 1, (shape[0], fan_in))
        if not calm and rng.random() < 0.5:
            weight = WEIGHT_MAX * np.sign(weight)
        reach = (EXACT_LIMIT - 1) // layer.input_max
        most = np.abs(weight).sum(1, keepdims=True)
        weight = np.where(most > reach, (weight * (reach / most)).astype(int), weight)
        room = EXACT_LIMIT - 1 - layer.input_max * np.abs(weight).sum(1)
        share = rng.uniform(-0.01, 0.01, shape[0]) if calm else rng.choice([-1.0, 0.0, 1.0], shape[0])
        exponent = rng.integers(7, 13, shape[0]) if calm else rng.choice([0, 1, 6, 9, 14, 30], shape[0])
        integers[f"{name}.weight"] = weight.reshape(shape).astype(np.int8)
        integers[f"{name}.bias"] = (share * room).astype(np.int32)
        integers[f"{name}.exponent"] = exponent.astype(np.int8)
    return EnhancementWeights(config, integers)


def samples_of(numbers: NDArray[np.int64], bit_depth: int) -> Plane:
    return numbers.astype(np.uint8) if bit_depth == 8 else numbers.astype(np.uint16)


def noise(width: int, height: int, bit_depth: int, seed: int = 0) -> Frame:
    rng = np.random.default_rng(seed)
    sizes = ((height, width), *((-(-height // 2), -(-width // 2)),) * 2)
    y, u, v = (samples_of(rng.integers(0, 1 << bit_depth, size), bit_depth) for size in sizes)
    return Frame(y, u, v, 7)


def base_frame(frame: Frame, coding: Coding, *neighbours: Frame) -> BaseFrame:
    own, *others = (DecodedFrame(SearchedFrame(each), coding) for each in (frame, *neighbours))
    return BaseFrame(own, tuple(others))


def equal(a: Correction, b: Correction) -> bool:
    return all(np.array_equal(*planes) for planes in zip(a.planes, b.planes, strict=True))


def with_instructions(weights: EnhancementWeights, instructions: InstructionSet) -> Enhancer:
    enhancer = Enhancer(weights)
    enhancer.__dict__["_engine"] = EnhancementEngine(weights.config, weights.integers, instructions)
    return enhancer


@SETS
@pytest.mark.parametrize("calm", [True, False], ids=["calm", "saturating"])
@pytest.mark.parametrize("config", [SMALL, LARGE, ODD, NARROW, FLAT], ids=lambda config: config.name)
def test_engine_is_the_module(config: EnhancementConfig, calm: bool, instructions: InstructionSet) -> None:
    """Every size of the padding, all borders, one thread and several."""
    seen = list[NDArray[np.int16]]()
    for seed in range(2):
        weights = extreme(config, seed, calm)
        module = Enhancer(weights, engine="torch")
        sizes = ((16, 16), (17, 16), (16, 131), (70, 46), (150, 65))
        for (width, height), coding in zip(sizes, CODINGS * 2, strict=False):
            frame, *others = (noise(width, height, BASE_BIT_DEPTH, seed + n) for n in range(3))
            for base in (base_frame(frame, coding), base_frame(frame, coding, *others)):
                expected = module.correction(base, 140)
                for strips in (1, 3):
                    enhancer = with_instructions(weights, instructions)
                    for _ in range(2):  # the second time with a workspace that was used
                        found = enhancer.correction(base, 140, strips)
                        assert equal(found, expected), f"{width}x{height}, {strips = }"
                seen.append(np.concatenate([plane.ravel() for plane in expected.planes]))
    assert np.unique(np.concatenate(seen)).size > (100 if calm and config != NARROW else 2)


def test_threads_split_a_frame() -> None:
    """Strips between strips, with rows of other strips on both sides."""
    weights = extreme(SMALL, 5, True)
    frame = noise(48, 400, BASE_BIT_DEPTH)
    base = base_frame(frame, CODINGS[1], *(noise(48, 400, BASE_BIT_DEPTH, seed) for seed in (1, 2)))
    expected = Enhancer(weights, engine="torch").correction(base, 140)
    for strips in (1, 2, 5, 12, 64):
        found = Enhancer(weights).correction(base, 140, strips)
        assert equal(found, expected), f"{strips = }"


def test_threads_share_chunks_and_frames() -> None:
    enhancer = Enhancer(extreme(SMALL, 5, True), threads=8)
    assert [enhancer.divided(frames) for frames in (1, 3, 8, 16)] == [(1, 8), (3, 2), (8, 1), (8, 1)]


def test_sets_follow_what_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*features: str) -> list[str]:
        monkeypatch.setattr("viddiff.codec.engine.instruction_sets.processor_features", lambda: set(features))
        return [each.name for each in instruction_sets()]

    assert found() == ["plain"]
    assert found("sse2") == ["plain"]
    assert found("avx2", "avx512f", "avx512vnni") == ["avx2", "plain"]
    assert found("avx2", "avx512f", "avx512bw", "avx512vnni") == ["avx512_vnni", "avx2", "plain"]


@pytest.mark.parametrize("settings", [{}, {"NUMBA_CPU_NAME": "generic"}, {"NUMBA_CPU_FEATURES": "+avx2"}])
def test_features_are_what_numba_compiles_for(settings: dict[str, str]) -> None:
    code = """if True:
        from numba.core.registry import cpu_target
        from viddiff.native_code import processor_features
        _, _, features = cpu_target.target_context.codegen().magic_tuple()
        found = {name[1:] for name in features.split(",") if name.startswith("+")}
        assert found == processor_features(), found ^ processor_features()
    """
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("instructions", INSTRUCTION_SETS, ids=lambda each: each.name)
@pytest.mark.parametrize("config", [SMALL, LARGE, ODD, NARROW, FLAT], ids=lambda config: config.name)
@pytest.mark.parametrize("width", [8, 40, 4096])
def test_plans_stay_inside_their_memory(
    config: EnhancementConfig, instructions: InstructionSet, width: int
) -> None:
    """All that a step reads and writes, for every row of its rings."""
    for network in packed_networks(config, extreme(config, 0, True).integers, instructions):
        check_plan(network, instructions.lanes, width)


def check_plan(network: PackedNetwork, lanes: int, width: int) -> None:
    plan = plan_rows(network, width)
    pixels = -(-6 // network.together) * (width + 2) * network.together
    for step in plan.steps:
        s = {name: int(step[name]) for name in plan.steps.dtype.names or ()}
        channels = lanes * s["vectors"] * (s["groups"] if s["kind"] != DEPTHWISE else 2)
        assert 0 <= s["lag"] <= plan.lag
        if s["kind"] == RESULT:
            assert s["source"] + s["source_ring"] * s["source_size"] <= plan.size
            if s["adds"]:  # with two numbers that nobody needs
                reads = s["width"] * DIFFERENCES + 2
                assert s["other"] + (s["other_ring"] - 1) * s["other_size"] + reads <= plan.empty
            continue
        if s["kind"] == PICTURE:
            writes = pixels - 2 * network.together
        elif s["kind"] == DIFFER:
            assert s["source_size"] == pixels
            reads, writes = pixels - 2 * network.together, s["width"] * DIFFERENCES
            assert s["other"] + 2 * pixels - network.together <= plan.empty
        elif s["kind"] == DEPTHWISE:
            assert s["width"] % s["groups"] == 0
            reads, writes = (s["width"] + 2) * s["source_step"], s["width"] // s["groups"] * channels
            assert writes == s["width"] * s["source_step"]
            assert network.weights.size >= s["weights"] + s["vectors"] * 10 * 2 * lanes
            assert network.scales.size >= s["numbers"] + s["vectors"] * 2 * lanes
        else:
            assert s["width"] % 4 == 0
            groups_before = (s["groups"] - 1) * s["group_step"]
            reads = groups_before + (s["width"] - 1) * s["source_step"] + 2 * s["pairs"]
            writes = (s["width"] - 1) * s["target_step"] + channels
            assert network.weights.size >= s["weights"] + channels * s["segments"] * s["pairs"] * 2
            assert network.scales.size >= s["numbers"] + channels
        if s["kind"] != PICTURE:
            assert reads <= s["source_size"]
            assert s["source"] + (s["source_ring"] - 1) * s["source_size"] + reads <= plan.empty
            assert plan.empty + reads <= plan.size
        assert s["target"] + (s["target_ring"] - 1) * s["target_size"] + writes <= plan.empty
        if s["adds"] and s["kind"] != DIFFER:
            assert s["other_step"] == s["target_step"]
            assert s["other"] + (s["other_ring"] - 1) * s["other_size"] + writes <= plan.empty


# --- strengths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("size", [(16, 16), (131, 65), (64, 130)])
def test_strengths_are_those_of_torch(size: tuple[int, int], bit_depth: int) -> None:
    """Applied, and counted, at every strength: what `corrected` and `unpack` say."""
    width, height = size
    frame, original = noise(width, height, BASE_BIT_DEPTH, 1), noise(width, height, bit_depth, 2)
    enhancer = Enhancer(extreme(SMALL, 3, True))
    correction = enhancer.correction(base_frame(frame, CODINGS[1]), 140)
    packed = pack(planes_of(frame, BASE_BIT_DEPTH, torch.device("cpu")))
    full = [np.zeros((n * packed.shape[2], n * packed.shape[3]), np.float32) for n in (2, 1, 1)]
    for whole, plane in zip(full, correction.planes, strict=True):
        whole[: plane.shape[0], : plane.shape[1]] = plane
    y, u, v = (torch.from_numpy(plane)[None] for plane in full)
    change = pack((y, u, v))

    def expected(strengths: NDArray[np.int64]) -> Frame:
        over = [-(-2 * n // BLOCK) for n in packed.shape[2:]]
        more = [(0, a - b) for a, b in zip((GROUPS, *over), strengths.shape, strict=True)]
        by_block = torch.from_numpy(np.pad(strengths, more))[None]
        planes = unpack(corrected(packed, change, by_block), bit_depth)
        return frame_of(planes, width, height, bit_depth, frame.pts)

    blocks = blocks_of(width, height)
    random = np.random.default_rng(0).integers(0, STRENGTHS, (GROUPS, *blocks))
    assert same([correction.applied(random, bit_depth)], [expected(random)])
    errors = correction.errors(original, bit_depth)
    for strength in range(STRENGTHS):
        shown = expected(np.full((GROUPS, *blocks), strength))
        assert same([correction.applied(np.full((GROUPS, *blocks), strength), bit_depth)], [shown])
        for found, a, b, side in zip(errors, original.planes, shown.planes, SIDES, strict=True):
            for row, column in product(*map(range, blocks)):
                part = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
                assert found[strength, row, column] == np.square(a[part].astype(int) - b[part]).sum()


def test_halves_are_rounded_to_even() -> None:
    """All samples and all changes whose sum may lie between two samples."""
    samples = samples_of(np.arange(1 << BASE_BIT_DEPTH).repeat(64).reshape(-1, 64), BASE_BIT_DEPTH)
    for bit_depth in (8, 10):
        changes = np.arange(-32, 32, dtype=np.int16)[None].repeat(len(samples), 0)
        u = samples[::2, ::2].copy()
        nothing = np.zeros(u.shape, np.int16)
        correction = Correction(Frame(samples, u, u), (changes, nothing, nothing))
        for strength in range(STRENGTHS):
            strengths = np.full((GROUPS, *blocks_of(64, len(samples))), strength)
            exact = (samples + changes * (strength / 32)) / 2 ** (BASE_BIT_DEPTH - bit_depth)
            wanted = np.rint(exact).clip(0, (1 << bit_depth) - 1)
            assert np.array_equal(correction.applied(strengths, bit_depth).y, wanted)
            if not strength:
                assert np.array_equal(rounded(correction.frame, bit_depth).y, wanted)


def test_planes_that_do_not_fit_are_refused() -> None:
    frame = noise(32, 32, BASE_BIT_DEPTH)
    narrow, right = np.zeros((32, 31), np.int16), np.zeros((16, 16), np.int16)
    correction = Correction(frame, (narrow, right, right))
    with pytest.raises(ValueError, match="do not go together"):
        correction.applied(np.zeros((GROUPS, 1, 1), np.int64), 8)
    with pytest.raises(ValueError, match="do not go together"):
        correction.errors(frame, 10)


# --- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit_depth", [8, 10])
def test_files_are_the_same_with_both(tmp_path: Path, bit_depth: int) -> None:
    """Encoded and decoded."""
    path = tmp_path / "weights.safetensors"
    enhancement_weights.save(path, extreme(FEW, 1, True))
    frames = [replace(f, pts=n) for n, f in enumerate(moving_picture(80, 66, 6, bit_depth))]
    files, shown = [], []
    for engine in ("compiled", "torch"):
        enhancer = load_weights(path, engine=engine)
        assert isinstance(enhancer, Enhancer)
        out, options = io.BytesIO(), EncodeOptions(quality=10)
        encoder = BaseGopEncoder(enhancer, VideoInfo(80, 66, bit_depth), options)
        encode(frames, encoder, Output(Writer(out, encoder.header)))
        files.append(out.getvalue())
        shown.append(list(decode(io.BytesIO(files[0]), enhancer)))
    assert files[0] == files[1]
    assert same(*shown)
