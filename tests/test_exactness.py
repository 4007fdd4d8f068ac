"""Decoded frames do not depend on threads, memory formats or devices, because all sums are exact."""

import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator

import pytest
import torch
from conftest import TINY, coded, moving_picture
from torch import Tensor
from torch.nn import functional

from viddiff.codec.exactness import exact_arithmetic
from viddiff.codec.gop_decoder import GopDecoder
from viddiff.codec.weights import Codec, codec_of, fresh, parametric_tables, untrained
from viddiff.config import ModelConfig
from viddiff.container.format import Chunk, KeyChunk
from viddiff.container.reader import Reader
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import CheckpointError
from viddiff.frame import Frame
from viddiff.networks import strips
from viddiff.networks.bounds import ACTIVATION_MAX, EXACT_LIMIT
from viddiff.networks.layers import IntConv2d
from viddiff.pipeline.serial import decode


@pytest.fixture(scope="module")
def full() -> Codec:
    """Untrained networks with the released widths."""
    return untrained(ModelConfig())


@pytest.fixture(scope="module")
def files(full: Codec) -> list[bytes]:
    frames = moving_picture(96, 64, 10)
    return [
        coded(full, frames, options=EncodeOptions(quality=44, gop=7))[0],
        coded(full, frames[:5], options=EncodeOptions(quality=20, low_delay=True))[0],
    ]


def digest(frames: Iterator[Frame]) -> str:
    result = hashlib.sha256()
    for frame in frames:
        for plane in frame.planes:
            result.update(plane.tobytes())
    return result.hexdigest()


def digests(files: list[bytes], codec: Codec) -> list[str]:
    return [digest(decode(io.BytesIO(data), codec)) for data in files]


@pytest.fixture(scope="module")
def expected(files: list[bytes], full: Codec) -> list[str]:
    return digests(files, full)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads(files: list[bytes], full: Codec, expected: list[str], threads: int) -> None:
    with exact_arithmetic(threads):
        assert digests(files, full) == expected


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_memory_formats(files: list[bytes], expected: list[str], form: torch.memory_format) -> None:
    codec = untrained(ModelConfig())
    codec.model.to(memory_format=form)
    codec.motion.to(memory_format=form)
    assert digests(files, codec) == expected


def test_without_onednn(files: list[bytes], full: Codec, expected: list[str]) -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        assert digests(files, full) == expected


@pytest.mark.parametrize("order", [(1, 0), (0,), (1,), (0, 1, 0)])
def test_gops_in_any_order(files: list[bytes], full: Codec, order: tuple[int, ...]) -> None:
    """One codec decodes all of them and keeps nothing between GOPs."""
    whole = list(decode(io.BytesIO(files[0]), full))
    reader = Reader(io.BytesIO(files[0]))
    entries = reader.index()
    ends = [entries[1].frame, len(whole)]
    for number in order:
        reader.seek(entries[number])
        alone = frames_of(reader, itertools.islice(reader, _chunks_of(files[0], number)), full)
        assert digest(alone) == digest(iter(whole[entries[number].frame : ends[number]])), f"{number = }"


def frames_of(reader: Reader, chunks: Iterable[Chunk], codec: Codec) -> Iterator[Frame]:
    decoder = GopDecoder(reader.header, codec)
    for chunk in chunks:
        yield from decoder.decode(chunk)


def _chunks_of(data: bytes, gop: int) -> int:
    keys = [isinstance(chunk, KeyChunk) for chunk in Reader(io.BytesIO(data))]
    starts = [n for n, key in enumerate(keys) if key] + [len(keys)]
    return starts[gop + 1] - starts[gop]


def test_vanishing_numbers_flushed_to_zero(files: list[bytes], full: Codec, expected: list[str]) -> None:
    """Some processors and programs have no denormal numbers. There are none to lose."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot")
    try:
        assert digests(files[1:], full) == expected[1:]
    finally:
        torch.set_flush_denormal(False)


def test_gops_alone(files: list[bytes], full: Codec) -> None:
    whole = list(decode(io.BytesIO(files[0]), full))
    reader = Reader(io.BytesIO(files[0]))
    entries = reader.index()
    assert len(entries) == 2
    reader.seek(entries[1])
    alone = frames_of(reader, reader, full)
    assert digest(alone) == digest(iter(whole[entries[1].frame :]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("allowed", [False, True])
def test_gpu(files: list[bytes], expected: list[str], allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products may use TF32 or not. Convolutions must not, and loading weights turns it off."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", allowed)
    model, motion = fresh(ModelConfig())
    model.to("cuda")
    motion.to("cuda")
    codec = codec_of(model, motion, parametric_tables())
    assert codec.device.type == "cuda"
    assert digests(files, codec) == expected


def test_batches(full: Codec) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, 1024, (3, 6, 32, 48), generator=generator).float() for _ in range(2))
    step, level = torch.tensor([10, 40, 80]), torch.tensor([0, 1, 3])
    with torch.inference_mode():
        together = full.model.predict(first, second, step, level)
        y_hat = torch.randint(-400, 400, (3, 96, 8, 12), generator=generator).float()
        pictures = full.model.reconstruct(y_hat, together)
        for i in range(3):
            part = slice(i, i + 1)
            alone = full.model.predict(first[part], second[part], step[part], level[part])
            assert torch.equal(alone.samples, together.samples[part])
            assert torch.equal(full.model.reconstruct(y_hat[part], alone), pictures[part])


def test_every_sum_is_that_of_float64(files: list[bytes], full: Codec) -> None:
    seen: dict[str, int] = {}

    def hook(name: str):  # type: ignore[no-untyped-def]
        def check(layer: IntConv2d, inputs: tuple[Tensor], output: Tensor) -> None:
            (x,) = inputs
            assert torch.equal(x, x.round()), f"{name} takes fractions"
            assert x.abs().max() <= layer.input_max, f"{name} takes more than its proof allows"
            arguments = (layer.stride, layer.padding, 1, layer.groups)
            exact = functional.conv2d(x.double(), layer.weight.double(), layer.bias.double(), *arguments)
            assert torch.equal(output.double(), exact), name
            seen[name] = seen.get(name, 0) + 1

        return check

    layers = [
        (f"{part}.{name}", layer)
        for part, network in (("model", full.model), ("motion", full.motion))
        for name, layer in network.named_modules()
        if isinstance(layer, IntConv2d)
    ]
    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers]
    try:
        coded(full, moving_picture(48, 32, 3), options=EncodeOptions(quality=60))
        digests(files, full)
    finally:
        for handle in handles:
            handle.remove()
    assert {name for name, _ in layers} == set(seen), "layers that no frame went through"


def test_sums_are_exact_up_to_the_bound() -> None:
    layer = IntConv2d(96, 4)
    weight = torch.full((4, 96, 1, 1), 85.0)
    bias = torch.full((4,), EXACT_LIMIT - 1.0 - 85 * 96 * ACTIVATION_MAX)
    layer.set_integers(weight, bias, torch.zeros(4))
    layer.eval()
    x = torch.full((1, 96, 2, 2), float(ACTIVATION_MAX))
    with torch.inference_mode():
        assert torch.equal(layer(x), torch.full((1, 4, 2, 2), EXACT_LIMIT - 1.0))


@pytest.mark.parametrize(
    ("weight", "bias"), [(85, EXACT_LIMIT - 85 * 96 * ACTIVATION_MAX), (86, 0), (0, -EXACT_LIMIT)]
)
def test_weights_without_a_proof_are_refused(weight: int, bias: int) -> None:
    layer = IntConv2d(96, 4)
    with pytest.raises(CheckpointError, match=r"2\^24"):
        layer.set_integers(torch.full((4, 96, 1, 1), weight), torch.full((4,), bias), torch.zeros(4))


def test_out_of_range_weights_are_refused() -> None:
    layer = IntConv2d(2, 1)
    for value in (128, -128, 300):
        with pytest.raises(CheckpointError):
            layer.set_integers(torch.full((1, 2, 1, 1), value), torch.zeros(1), torch.zeros(1))
    for exponent in (-1, 31):
        with pytest.raises(CheckpointError):
            layer.set_integers(torch.ones(1, 2, 1, 1), torch.zeros(1), torch.full((1,), exponent))


def test_int8_minimum_is_refused() -> None:
    """-128 is its own absolute value in int8."""
    layer = IntConv2d(2, 1)
    with pytest.raises(CheckpointError):
        layer.set_integers(torch.full((1, 2, 1, 1), -128, dtype=torch.int8), torch.zeros(1), torch.zeros(1))


def wild() -> Codec:
    """Weights that training would not produce, so that every activation reaches its limits."""
    model, motion = fresh(TINY)
    with torch.no_grad():
        for network in (model.predictor, model.synthesis_transform, model.entropy_parameters, motion):
            for parameter in network.parameters():
                parameter.mul_(4)
    return codec_of(model, motion, parametric_tables())


def test_wild_networks_stay_exact() -> None:
    codec = wild()
    data, shown, _ = coded(codec, moving_picture(48, 32, 4))
    assert digest(decode(io.BytesIO(data), codec)) == digest(iter(shown))
    with torch.backends.mkldnn.flags(enabled=False):
        assert digest(decode(io.BytesIO(data), codec)) == digest(iter(shown))


@pytest.mark.parametrize("height", [144, 208, 272])
@torch.inference_mode()
def test_strips_of_large_pictures_are_what_the_whole_is(monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    """Two or more strips, the last one short or not, of networks that see as far as they can."""
    model, rng = wild().model, torch.Generator().manual_seed(height)
    first, second, z_hat = (
        torch.randint(low, high, (1, channels, height // scale, 64 // scale), generator=rng).float()
        for low, high, channels, scale in ((0, 1024, 6, 2), (0, 1024, 6, 2), (-9, 9, TINY.hyper, 16))
    )

    def symbols(mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        return ((mean + index) % 99 - 49) * mask

    def results() -> list[Tensor]:
        prediction = model.predict(first, second, torch.tensor([30]), torch.tensor([1]))
        y_hat = model.code_latents(z_hat, prediction, symbols)
        return [prediction.samples, *prediction.contexts, y_hat, model.reconstruct(y_hat, prediction)]

    whole, rows = results(), list[int]()
    monkeypatch.setattr(strips, "POSITIONS", 64)
    model.predictor.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[2] * 2))
    assert all(torch.equal(*pair) for pair in zip(whole, results(), strict=True))
    assert len(rows) == -(-height // 64)
    assert max(rows) < height
