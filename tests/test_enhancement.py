"""Enhancement: the same integers everywhere, nothing at strength 0, weights refused without a proof."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import moving_picture
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from viddiff.codec import enhancement_weights
from viddiff.codec.enhancement_module import network_of, weights_of
from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.codec.tensor_file import content_hash
from viddiff.codec.weights import arrays_of
from viddiff.errors import CheckpointError, ViddiffError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.video_writer import VideoWriter
from viddiff.networks.bounds import ACTIVATION_MAX, EXACT_LIMIT, UNIT
from viddiff.networks.enhancement import EnhancementNetwork, condition_of, corrected
from viddiff.networks.enhancement_config import (
    BLOCK,
    CONDITIONS,
    CORRECTION_UNIT,
    LARGE,
    SMALL,
    STRENGTHS,
    EnhancementConfig,
    TrunkConfig,
)
from viddiff.networks.layers import IntConv2d
from viddiff.networks.planes import frame_of, pack, planes_of, unpack
from viddiff.training import enhancement, enhancement_samples
from viddiff.training.enhancement import EnhancementOptions, train
from viddiff.training.enhancement_loss import Losses, tile_losses
from viddiff.training.enhancement_samples import TILE, TileBatch, TileCollector, TileShards
from viddiff.training.enhancement_scenes import AS_THEY_ARE, Footage, SceneMix, scene
from viddiff.training.enhancement_widening import widened

TINY = EnhancementConfig(
    name="tiny",
    half=8,
    quarter=12,
    half_blocks=1,
    quarter_blocks=2,
    between=TrunkConfig(half=10, quarter=13, half_blocks=1, quarter_blocks=3),
)


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def at_the_bound(config: EnhancementConfig, seed: int = 0) -> EnhancementNetwork:
    """Random integer weights whose sums can come as close to 2^24 as the proof allows."""
    generator = torch.Generator().manual_seed(seed)
    network = EnhancementNetwork(config)
    tensors = {}
    for name, layer in network.layers().items():
        weight = torch.randint(-127, 128, layer.weight.shape, generator=generator)
        reach = weight.abs().flatten(1).sum(1) * layer.input_max
        weight = (weight * (0.9 * EXACT_LIMIT / reach).clamp(max=1)[:, None, None, None]).int()
        room = EXACT_LIMIT - 1 - weight.abs().flatten(1).sum(1) * layer.input_max
        sign = torch.randint(0, 2, room.shape, generator=generator) * 2 - 1
        exponents = torch.randint(4, 14, room.shape, generator=generator)
        tensors[f"{name}.weight"] = weight.to(torch.int8).numpy()
        tensors[f"{name}.bias"] = (room * sign).int().numpy()
        tensors[f"{name}.exponent"] = exponents.to(torch.int8).numpy()
    return network_of(EnhancementWeights(config, tensors))


def numbers(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    quantiser, gop = (torch.randint(0, 256, (count,), generator=generator) for _ in range(2))
    return condition_of(quantiser, gop, torch.randint(0, 2, (count,), generator=generator))


def samples(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 1024, (count, 6, height // 2, width // 2), generator=generator).float()


def neighbours(count: int, height: int, width: int, seed: int = 9) -> Tensor:
    """Hypotheses of so many frames."""
    return torch.cat([samples(count, height, width, seed + n) for n in range(2)], 1)


@pytest.mark.parametrize("between", [False, True], ids=["alone", "between"])
@pytest.mark.parametrize("config", [SMALL, TINY])
@torch.inference_mode()
def test_one_result_whatever_computes(config: EnhancementConfig, between: bool) -> None:
    network, inputs = at_the_bound(config), [samples(2, 48, 80), numbers(2)]
    inputs += [neighbours(2, 48, 80)] if between else []
    expected = network(*inputs)
    assert expected.abs().max() > 500
    assert torch.equal(expected, expected.round())
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        assert torch.equal(network(*inputs), expected), f"{threads = }"
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(network(*inputs), expected)
    for form in (torch.contiguous_format, torch.channels_last):
        others = [x.contiguous(memory_format=form) if x.ndim == 4 else x for x in inputs]
        assert torch.equal(network(*others), expected)
    for i in range(2):
        assert torch.equal(network(*(x[i : i + 1] for x in inputs)), expected[i : i + 1])


@torch.inference_mode()
def test_shares_of_differences_are_added() -> None:
    """What the definition says in integers: quarters of 1/16 of a level, rounded half to even."""
    torch.manual_seed(0)
    network, x, condition, seen = trained_like(TINY), samples(1, 16, 24), numbers(1), neighbours(1, 16, 24)
    rows = list[Tensor]()
    network.between.tail.register_forward_hook(lambda _, __, output: rows.append(output))
    found = network(x, condition, seen)[0].long().numpy()
    results = rows[0].round().clamp(-2047, 2047)[0].long().numpy()
    shares = results[6:].clip(-16, 64)
    assert len(np.unique(shares)) > 20
    for plane in range(6):
        total = 4 * results[plane]
        for n in range(2):
            difference = (seen[0, 6 * n + plane] - x[0, plane]).long().numpy().clip(-511, 511)
            total = total + shares[2 * n + plane // 4] * difference
        quotient, rest = np.divmod(total, 4)
        expected = quotient + ((rest > 2) | ((rest == 2) & (quotient % 2 == 1)))
        assert np.array_equal(found[plane], expected), plane
    assert np.abs(found).max() > 2047


@torch.inference_mode()
def test_every_sum_is_that_of_float64() -> None:
    network, seen = at_the_bound(SMALL), set[str]()

    def check(name: str):  # type: ignore[no-untyped-def]
        def hook(layer: IntConv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            for x in inputs:
                assert torch.equal(x, x.round()), f"{name} takes fractions"
                assert x.abs().max() <= layer.input_max, f"{name} takes more than its proof allows"
            x = inputs[0]
            if len(inputs) == 2:
                planes = inputs[1][:, :, None, None].expand(-1, -1, *x.shape[2:])
                x = torch.cat((x, planes), 1)
            bias = layer.bias.double() * 64
            arguments = (layer.stride, layer.padding, 1, layer.groups)
            exact = functional.conv2d(x.double(), layer.weight.double(), bias, *arguments)
            assert torch.equal(output.double(), exact), name
            seen.add(name)

        return hook

    for name, layer in network.layers().items():
        layer.register_forward_hook(check(name))
    network(samples(2, 32, 48), numbers(2))
    network(samples(2, 32, 48), numbers(2), neighbours(2, 32, 48))
    assert seen == set(network.layers())


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("size", [(16, 16), (70, 46), (131, 65)])
@torch.inference_mode()
def test_frames_of_any_size(size: tuple[int, int], bit_depth: int) -> None:
    """Strength 0 gives the frame back; others what integer arithmetic says."""
    width, height = size
    frame = moving_picture(width, height, 1)[0]
    if bit_depth == 10:
        y, u, v = (plane.astype(np.uint16) * 4 + 1 for plane in frame.planes)
        frame = Frame(y, u, v)
    packed = pack(planes_of(frame, bit_depth, torch.device("cpu")))
    correction = at_the_bound(TINY)(packed, numbers(1))
    rows, columns = (-(-2 * side // BLOCK) for side in packed.shape[2:])
    nothing = torch.zeros(1, 2, rows, columns)
    same = frame_of(unpack(corrected(packed, correction, nothing), bit_depth), width, height, bit_depth, 0)
    assert all(np.array_equal(*pair) for pair in zip(same.planes, frame.planes, strict=True))

    strengths = torch.randint(0, STRENGTHS, (1, 2, rows, columns), generator=torch.Generator().manual_seed(1))
    result = unpack(corrected(packed, correction, strengths), bit_depth)
    grid = 4 if bit_depth == 8 else 1
    for index, plane in enumerate(result):
        before, change = (plane_of(x, index).numpy().astype(np.int64) for x in (packed, correction))
        side = BLOCK if index == 0 else BLOCK // 2
        strength = np.kron(strengths[0, min(index, 1)].numpy(), np.ones((side, side), np.int64))
        total = before * 32 + change * strength[: before.shape[0], : before.shape[1]]
        quotient, rest = np.divmod(total, 32 * grid)
        up = (2 * rest > 32 * grid) | ((2 * rest == 32 * grid) & (quotient % 2 == 1))
        expected = (quotient + up).clip(0, 2**bit_depth - 1) * grid
        assert np.array_equal(plane[0].numpy(), expected)


def plane_of(packed: Tensor, index: int) -> Tensor:
    """Y, U or V of six planes, (H, W)."""
    return functional.pixel_shuffle(packed[:, :4], 2)[0, 0] if index == 0 else packed[0, 3 + index]


def test_conditions_are_activations() -> None:
    every = torch.arange(256)
    condition = condition_of(every, torch.full_like(every, 255), torch.ones_like(every))
    assert condition.shape == (256, CONDITIONS)
    assert condition.min() >= 0
    assert condition.max() <= ACTIVATION_MAX
    assert torch.unique(condition, dim=0).shape[0] == 256, "two quantisers look the same"


def test_costs() -> None:
    assert SMALL.macs() <= 3500
    assert SMALL.macs(between=True) <= 4000
    assert LARGE.macs() <= 16000
    assert LARGE.macs(between=True) <= 16000
    network, counted = EnhancementNetwork(TINY).eval(), 0

    def count(layer: IntConv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        weights = layer.weight[:, : inputs[0].shape[1]] if layer.kernel == 1 else layer.weight
        counted += weights.numel() * output[0, 0].numel()

    for layer in network.layers().values():
        layer.register_forward_hook(count)
    with torch.inference_mode():
        network(samples(1, 32, 48), numbers(1))
        assert counted == TINY.macs() * 32 * 48
        counted = 0
        network(samples(1, 32, 48), numbers(1), neighbours(1, 32, 48))
        assert counted == TINY.macs(between=True) * 32 * 48


def test_weights_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    digest = enhancement_weights.save(path, fresh())
    weights = enhancement_weights.load(path)
    assert weights.hash() == digest
    loaded = network_of(weights)
    assert loaded.config == TINY
    assert enhancement_weights.save(path, weights_of(loaded)) == digest
    again = network_of(enhancement_weights.load(path))
    x, condition = samples(1, 32, 32), numbers(1)
    with torch.inference_mode():
        assert torch.equal(again(x, condition), loaded(x, condition))


def fresh() -> EnhancementWeights:
    return weights_of(EnhancementNetwork(TINY))


def damaged(path: Path, name: str, change: Tensor) -> None:
    """Rewrite weights with another tensor, and the hash that belongs to it."""
    tensors = load_file(path) | {name: change}
    metadata = {
        "format": "viddiff-enhancement-1",
        "config": json.dumps(asdict(TINY)),
        "hash": content_hash(TINY, arrays_of(tensors)).hex(),
    }
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tail.bias", torch.full((6,), 2**24, dtype=torch.int32), r"2\^24"),
        ("head.weight", torch.full((8, 24 + CONDITIONS, 1, 1), -128, dtype=torch.int8), "range"),
        ("head.weight", torch.full((8, 24 + CONDITIONS, 1, 1), 1.0), "integers"),
        ("head.weight", torch.ones((8, 24, 1, 1), dtype=torch.int8), "shape"),
        ("tail.exponent", torch.full((6,), 31, dtype=torch.int8), "range"),
        ("tail.more", torch.zeros(1), "layers"),
    ],
)
def test_weights_without_a_proof_are_refused(tmp_path: Path, name: str, change: Tensor, message: str) -> None:
    path = tmp_path / "weights.safetensors"
    enhancement_weights.save(path, fresh())
    damaged(path, name, change)
    with pytest.raises(CheckpointError, match=message):
        enhancement_weights.load(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(CheckpointError):
        enhancement_weights.load(path)
    enhancement_weights.save(path, fresh())
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(40):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            enhancement_weights.load(path)
    for length in (0, 7, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            enhancement_weights.load(path)


def options_of(folder: Path, count: int, **choices: Any) -> EnhancementOptions:
    """Options of a run over blurred tiles, which are there already."""
    for name in ("train", "valid"):
        write_tiles(folder / "cache" / name, count)
    return EnhancementOptions(
        data=folder,
        out=folder / "weights.safetensors",
        cache=folder / "cache",
        config=TINY,
        collecting=False,
        **choices,
    )


def test_a_few_steps_learn(tmp_path: Path) -> None:
    """From a blur of the originals, which is easy to see through."""
    lines: list[dict[str, Any]] = []
    options = options_of(tmp_path, 48, valid=tmp_path, steps=100, learning_rate=1e-3)
    network = train(options, lines.append)
    lines = [line for line in lines if "validation_error" in line]
    assert [line["step"] for line in lines] == [0, 100]
    for name in ("validation_error", "validation_dissimilarity"):
        assert lines[-1][name] < 0.95 * lines[0][name]
    assert lines[-1]["validation_ranges"] == {"q128": lines[-1]["validation_loss"]}
    loaded = network_of(enhancement_weights.load(options.out))
    assert all(map(torch.equal, network.parameters(), loaded.parameters()))


WIDER = EnhancementConfig(
    name="wider",
    half=11,
    quarter=20,
    half_blocks=2,
    quarter_blocks=3,
    between=TrunkConfig(half=12, quarter=14, half_blocks=1, quarter_blocks=4),
)


@pytest.mark.parametrize("config", [WIDER, replace(TINY, half=9), replace(TINY, quarter_blocks=4)])
@torch.inference_mode()
def test_a_widened_network_begins_with_the_same_result(config: EnhancementConfig) -> None:
    """Exactly, with the integers that would be stored; its new channels are not idle."""
    torch.manual_seed(0)
    start = trained_like(TINY)
    network = network_of(weights_of(widened(start, config)))
    assert network.config == config
    for inputs in (samples(2, 48, 80), numbers(2)), (samples(2, 48, 80), numbers(2), neighbours(2, 48, 80)):
        expected = start(*inputs)
        assert expected.unique().numel() > 100
        assert torch.equal(network(*inputs), expected)
    for name, layer in network.layers().items():
        new = layer.weight[len(start.layers()[name].weight) :] if name in start.layers() else layer.weight
        assert name.startswith("filters") or name.endswith("outer") or not new.numel() or new.any(), name


ALONE = replace(TINY, between=None)


@torch.inference_mode()
def test_a_network_for_frames_between_begins_as_the_one_for_frames_alone() -> None:
    """Where that fits into it; else it begins by changing nothing."""
    torch.manual_seed(0)
    start, inputs = trained_like(ALONE), (samples(2, 48, 80), numbers(2))
    network = network_of(weights_of(widened(start, replace(TINY, between=WIDER.between))))
    expected = start(*inputs)
    assert expected.unique().numel() > 100
    assert torch.equal(network(*inputs), expected)
    assert torch.equal(network(*inputs, neighbours(2, 48, 80)), expected)
    narrow = widened(start, replace(TINY, between=TrunkConfig(half=4, quarter=4)))
    assert not network_of(weights_of(narrow))(*inputs, neighbours(2, 48, 80)).any()


def trained_like(config: EnhancementConfig) -> EnhancementNetwork:
    """Integer weights of usual size, with conditions that matter."""
    network = EnhancementNetwork(config)
    for layer in network.layers().values():
        layer.weight.copy_(torch.randn_like(layer.weight) / layer.weight[0].numel() ** 0.5)
        layer.bias.copy_(torch.randn_like(layer.bias))
    return network_of(weights_of(network))


def test_the_loss_mixes_squared_error_and_ssim(tmp_path: Path) -> None:
    """Without any correction it is 1. SSIM is that of plain windows of 8x8 at every second sample."""
    write_tiles(tmp_path, 1)
    (batch,) = TileShards(tmp_path).batches(1, 1)
    network = EnhancementNetwork(TINY).eval()
    with torch.no_grad():
        network.tail.weight.zero_()
        nothing = tile_losses(network, batch)
        network.tail.bias[:4] = 3
        brighter = tile_losses(network, batch)
    assert nothing.dissimilarity.item() == 1
    assert brighter.mixed(0) == brighter.error
    assert brighter.mixed(1) == brighter.dissimilarity
    assert brighter.mixed(0.25) == 0.75 * brighter.error + 0.25 * brighter.dissimilarity
    decoded, original = (functional.pixel_shuffle(x[0, :4], 2)[0] for x in (batch.decoded, batch.original))
    shown = decoded + 3 * UNIT / CORRECTION_UNIT
    expected = (1 - plain_ssim(shown, original)) / (1 - plain_ssim(decoded, original))
    assert expected > 1.001
    assert brighter.dissimilarity.item() == pytest.approx(expected, rel=1e-4)


def plain_ssim(one: Tensor, other: Tensor) -> float:
    """Written out window by window, in double precision."""
    a, b = (x.double().numpy() / 1023 for x in (one, other))
    found = []
    for row in range(0, a.shape[0] - 7, 2):
        for column in range(0, a.shape[1] - 7, 2):
            x, y = (plane[row : row + 8, column : column + 8] for plane in (a, b))
            covariance = ((x - x.mean()) * (y - y.mean())).mean()
            brightness = (2 * x.mean() * y.mean() + 1e-4) / (x.mean() ** 2 + y.mean() ** 2 + 1e-4)
            found.append(brightness * (2 * covariance + 9e-4) / (x.var() + y.var() + 9e-4))
    return float(np.mean(found))


def test_a_widened_network_learns(tmp_path: Path) -> None:
    """From weights on disk; a smaller network than theirs is refused."""
    start, lines = tmp_path / "start.safetensors", list[dict[str, Any]]()
    enhancement_weights.save(start, fresh())
    options = replace(options_of(tmp_path, 16, valid=tmp_path, steps=20, init=start), config=WIDER)
    network = train(options, lines.append)
    assert network.config == WIDER
    assert lines[1]["validation_error"] < lines[0]["validation_error"]
    assert network.tail.weight[:, TINY.half :].any()
    with pytest.raises(ViddiffError, match=r"tiny.*--fresh"):
        train(replace(options, config=replace(WIDER, half=7)), lines.append)
    with pytest.raises(ViddiffError, match=r"tiny.*--fresh"):
        train(replace(options, config=replace(WIDER, between=None)), lines.append)


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    options = options_of(tmp_path, 16, steps=4, batch=8)
    train(options, lambda _: None)
    first = load_file(options.state)
    lines: list[dict[str, Any]] = []
    again = replace(options, steps=6, resume=True, valid=tmp_path)
    train(again, lines.append)
    assert [line["step"] for line in lines] == [6]
    second = load_file(options.state)
    counts = [name for name in first if name.startswith("optimizer.") and name.endswith(".step")]
    assert counts
    assert all(second[name] >= first[name] for name in counts)
    assert sum(second[name] for name in counts) > sum(first[name] for name in counts)
    assert any(not torch.equal(first[name], second[name]) for name in first if "parameter." in name)
    with pytest.raises(CheckpointError, match="resume"):
        train(replace(again, config=replace(TINY, half=16)), lines.append)
    with pytest.raises(CheckpointError, match=r"with --ssim-share 0\.5, not 0\.25"):
        train(replace(again, ssim_share=0.25), lines.append)
    options.state.unlink()
    with pytest.raises(ViddiffError, match="nothing to resume"):
        train(again, lines.append)


def test_nothing_is_compiled_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    train(options_of(tmp_path, 4, steps=1, batch=1, compiled=True), lambda _: None)


@pytest.mark.parametrize("has", [False, True])
def test_steps_use_bfloat16_where_it_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    """Without the instructions, a step in bfloat16 takes ten times as long as one in float32."""
    used = list[bool]()

    def losses(network: EnhancementNetwork, batch: TileBatch) -> Losses:
        used.append(torch.is_autocast_enabled("cpu"))
        return tile_losses(network, batch)

    monkeypatch.setattr(enhancement, "tile_losses", losses)
    monkeypatch.setattr(enhancement, "has_bfloat16", lambda device: has)
    train(options_of(tmp_path, 4, steps=2, batch=1), lambda _: None)
    assert used == [has, has]


def test_validations_are_drawn(tmp_path: Path) -> None:
    """A resumed run draws those before it, too."""
    pytest.importorskip("matplotlib")
    options = options_of(tmp_path, 16, valid=tmp_path, steps=1, batch=1, plot=tmp_path / "v.png")
    train(options, lambda _: None)
    once = (tmp_path / "v.png").read_bytes()
    train(replace(options, steps=2, resume=True), lambda _: None)
    picture = cv2.imread(str(tmp_path / "v.png"))
    assert picture is not None
    assert picture.shape[:2] == (600, 960)
    assert (tmp_path / "v.png").read_bytes() != once


@pytest.mark.parametrize("mix", [SceneMix(), AS_THEY_ARE, SceneMix(stills=0, screens=1, noisy=1, faded=1)])
def test_tiles_are_what_was_coded(tmp_path: Path, mix: SceneMix) -> None:
    """Errors that are 1 before enhancement; equal arguments, equal shards."""
    data = tmp_path / "data"
    data.mkdir()
    write_clip(data / "a.mkv", 190, 172)
    shards = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        collector = TileCollector(data, folder, mix, seed=1)
        collector.prepare()
        collector.write(3, count=32)
        assert collector.numbers() == [3]
        shards.append((folder / "tiles-000003.npy").read_bytes())
    assert shards[0] == shards[1]
    tiles = TileShards(tmp_path / "first")
    assert len(tiles) == 32
    for batch in tiles.batches(8, 32):
        errors = (batch.decoded - batch.original).square().mean((2, 3)) * batch.share
        assert torch.allclose(errors.sum(1), torch.ones(8), atol=1e-3)
        assert (batch.original % 4 == 0).all()


def write_clip(path: Path, width: int, height: int, bit_depth: int = 8, frames: int = 5) -> None:
    with VideoWriter(path, VideoInfo(width, height, bit_depth), lossless=True) as writer:
        for frame in moving_picture(width, height, frames, bit_depth):
            writer.write(frame)


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("size", [(160, 160), (191, 163)])
def test_scenes_are_the_footage_as_it_is(tmp_path: Path, size: tuple[int, int], bit_depth: int) -> None:
    write_clip(tmp_path / "a.mkv", *size, bit_depth)
    frames = scene(Footage([tmp_path / "a.mkv"], []), AS_THEY_ARE, random.Random(0))
    expected = moving_picture(*size, 5, bit_depth)
    assert len(frames) == 5
    for frame, original in zip(frames, expected, strict=True):
        for plane, samples_ in zip(frame.planes, original.planes, strict=True):
            assert np.array_equal(plane, samples_.astype(np.uint16) << (10 - bit_depth))


def test_scenes_of_large_frames_are_parts(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", 770, 386, frames=2)
    whole = moving_picture(770, 386, 2)[0]
    lefts = set()
    for seed in range(6):
        frame = scene(Footage([tmp_path / "a.mkv"], []), AS_THEY_ARE, random.Random(seed))[0]
        assert [plane.shape for plane in frame.planes] == [(384, 640), (192, 320), (192, 320)]
        (left,) = (x for x in (0, 64, 128) if np.array_equal(frame.y >> 2, whole.y[:384, x : x + 640]))
        assert np.array_equal(frame.u >> 2, whole.u[:192, left // 2 : left // 2 + 320])
        lefts.add(left)
    assert len(lefts) > 1


def test_files_that_cannot_be_used_are_left_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_clip(data / "a.mkv", 176, 160)
    write_clip(data / "small.mkv", 176, 144)
    (data / "broken.mp4").write_bytes(b"not a video")
    (data / "broken.png").write_bytes(b"not a still")
    for number, mix in enumerate((AS_THEY_ARE, SceneMix(stills=0.9, screens=0))):
        collector = TileCollector(data, tmp_path / str(number), mix, seed=0)
        collector.prepare()
        collector.write(0, count=64)
        assert len(TileShards(collector.folder)) == 64


def test_the_cache_is_of_one_footage(tmp_path: Path) -> None:
    TileCollector(tmp_path / "a", tmp_path / "cache", AS_THEY_ARE, 0).prepare()
    TileCollector(tmp_path / "a", tmp_path / "cache", AS_THEY_ARE, 1).prepare()
    for data, mix in ((tmp_path / "b", AS_THEY_ARE), (tmp_path / "a", SceneMix())):
        with pytest.raises(ViddiffError, match="other footage"):
            TileCollector(data, tmp_path / "cache", mix, 0).prepare()


def test_shards_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest make room for new ones, within the limit of space."""
    for number in range(3):
        write_tiles(tmp_path, 4, number)
    tiles = TileShards(tmp_path)
    size = (tmp_path / "tiles-000000.npy").stat().st_size
    written = []

    def write(self: TileCollector, number: int) -> None:
        written.append(number)
        write_tiles(self.folder, 4, number)

    monkeypatch.setattr(TileCollector, "write", write)
    monkeypatch.setattr(enhancement_samples, "training_was_killed", lambda: len(written) == 2)
    collector = TileCollector(tmp_path, tmp_path, AS_THEY_ARE, 0)
    enhancement_samples.collect_forever(collector, 3 * size)
    assert written == [3, 4]
    assert collector.numbers() == [2, 3, 4]
    tiles.look()
    assert len(tiles) == 12
    assert len(list(tmp_path.glob("*.npz"))) == 3
    written.clear()
    enhancement_samples.collect_forever(collector, 1)
    assert collector.numbers() == [6], "the newest stays, whatever its size"


def test_turned_tiles_are_turned_pictures(tmp_path: Path) -> None:
    write_tiles(tmp_path / "tiles", 4)
    tiles = TileShards(tmp_path / "tiles")
    (plain,) = tiles.batches(4, 4)
    luma = [functional.pixel_shuffle(tile[:4], 2)[0] for tile in plain.original]
    rng = random.Random(0)
    for tile in tiles.batch(24, rng).original:
        found = functional.pixel_shuffle(tile[:4], 2)[0]
        turned = [
            torch.rot90(x, k).flip(1) if m else torch.rot90(x, k)
            for x in luma
            for k in range(4)
            for m in (0, 1)
        ]
        assert any(torch.equal(found, candidate) for candidate in turned)


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    mixed, plain = (TileCollector(data, tmp_path, mix, seed=0) for mix in (SceneMix(), AS_THEY_ARE))
    with pytest.raises(VideoError, match="neither"):
        mixed.write(0)
    with pytest.raises(VideoError, match="no videos"):
        plain.write(0)
    with pytest.raises(ViddiffError, match="no shards"):
        TileShards(tmp_path)
    (data / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(VideoError, match="cannot be used"):
        plain.write(0)
    (data / "broken.mp4").unlink()
    with VideoWriter(data / "grey.mkv", VideoInfo(160, 160), lossless=True) as writer:
        planes = [np.full((side, side), 128, np.uint8) for side in (160, 80, 80)]
        writer.write(Frame(planes[0], planes[1], planes[2], 0))
    with pytest.raises(VideoError, match="nothing that AV1 would change"):
        plain.write(0)


def write_tiles(folder: Path, count: int, number: int = 0) -> None:
    """A shard of blurred pictures beside sharp ones. Half of them have sharp neighbours, too."""
    frames = moving_picture(TILE, TILE, count)
    tiles = np.zeros((count, 4, TILE * TILE * 3 // 2), np.uint8)
    figures: dict[str, Any] = {
        "quantiser": np.full(count, 120, np.uint8),
        "intra": np.zeros(count, bool),
        "between": np.arange(count) % 2 == 1,
        "gop_quantiser": np.full(count, 160, np.uint8),
        "norm": np.empty((count, 3), np.float32),
        "weight": np.ones(count, np.float32),
    }
    for i, frame in enumerate(frames):
        blurred = [
            functional.avg_pool2d(torch.from_numpy(plane)[None].float(), 3, 1, 1, count_include_pad=False)
            for plane in frame.planes
        ]
        planes = [plane[0].round().numpy().astype(np.uint8) for plane in blurred]
        tiles[i, 0] = np.concatenate([plane.ravel() for plane in planes])
        tiles[i, 1] = np.concatenate([plane.ravel() for plane in frame.planes])
        tiles[i, 2:] = tiles[i, 1] if figures["between"][i] else 0
        pairs = zip(planes, frame.planes, strict=True)
        figures["norm"][i] = [max(np.square(a.astype(float) - b).mean(), 0.02) for a, b in pairs]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"tiles-{number:06}.npy", tiles)
    np.savez(folder / f"tiles-{number:06}.npz", **figures)
