"""Shared helpers of tests: tiny networks, small moving pictures, one coded file."""

import io
import signal
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from viddiff.codec import checkpoint, enhancement_weights
from viddiff.codec.enhancement_module import weights_of
from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.open_decoder import Weights
from viddiff.codec.weights import Codec, untrained
from viddiff.config import ModelConfig
from viddiff.container.format import Writer
from viddiff.encoder import base_gop_encoder
from viddiff.encoder.open_encoder import open_encoder
from viddiff.encoder.options import EncodeOptions
from viddiff.encoder.strength_choice import Choice, choose_strengths
from viddiff.frame import Frame, VideoInfo
from viddiff.networks.bounds import UNIT
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement_config import GROUPS, STRENGTHS, EnhancementConfig
from viddiff.networks.layers import IntConv2d
from viddiff.pipeline.output import Output
from viddiff.pipeline.serial import encode
from viddiff.pipeline.summary import EncodeSummary
from viddiff.pipeline.weights_search import released_weights
from viddiff.pixels import plane_shapes

torch.set_num_threads(1)
cv2.setNumThreads(1)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and viddiff would do so, too

TINY = ModelConfig("tiny", quarter=8, eighth=16)


def moving_picture(width: int, height: int, count: int, bit_depth: int = 8, seed: int = 0) -> list[Frame]:
    """Waves that travel over a fixed texture, with a little noise: both motion and residual."""
    rng = np.random.default_rng(seed)
    peak = 2**bit_depth - 1
    kind = np.uint8 if bit_depth == 8 else np.uint16
    texture = [
        cv2.GaussianBlur(rng.random((s[0] + 64, s[1] + 64)), (0, 0), 1.5) for s in plane_shapes(width, height)
    ]
    frames = []
    for time in range(count):
        planes = []
        for index, (rows, columns) in enumerate(plane_shapes(width, height)):
            shift = 2 * time if index == 0 else time
            moved = texture[index][shift % 32 : shift % 32 + rows, time % 24 : time % 24 + columns]
            y, x = np.mgrid[:rows, :columns]
            wave = 0.1 * np.sin((x + y / 2 + 1.5 * time) / 6)
            picture = 0.5 + 1.5 * (moved - 0.5) + wave + rng.normal(0, 0.01, (rows, columns))
            planes.append(np.ascontiguousarray((picture.clip(0, 1) * peak).round().astype(kind)))
        frames.append(Frame(planes[0], planes[1], planes[2], 2 * time + time % 2))
    return frames


def fixed_camera(width: int, height: int, bit_depth: int = 8, seed: int = 0) -> Callable[[int], Frame]:
    """Frames of a fixed camera by their number: a texture with noise, and something that passes by."""
    still = moving_picture(width, height, 1, bit_depth, seed)[0]
    peak = 2**bit_depth - 1

    def frame(number: int) -> Frame:
        rng = np.random.default_rng([seed, number])
        planes = list[Any]()
        for plane in still.planes:
            moved = plane + rng.normal(0, 0.01 * peak, plane.shape)
            left = 3 * number % plane.shape[1]
            moved[4:14, left : left + 12] = peak // 4
            planes.append(moved.clip(0, peak).round().astype(plane.dtype))
        return Frame(planes[0], planes[1], planes[2], pts=number)

    return frame


def coded(
    weights: Weights, frames: list[Frame], bit_depth: int = 8, options: EncodeOptions | None = None
) -> tuple[bytes, list[Frame], EncodeSummary]:
    """The file, the encoder's reconstruction and the summary."""
    height, width = frames[0].y.shape
    out, shown = io.BytesIO(), list[Frame]()
    info = VideoInfo(width, height, bit_depth)
    encoder = open_encoder(weights, info, options or EncodeOptions())
    output = Output(Writer(out, encoder.header))
    summary = encode(frames, encoder, output, watch=lambda group: shown.extend(group.frames))
    return out.getvalue(), shown, summary


def same(a: list[Frame], b: list[Frame]) -> bool:
    """True if both hold the same samples at the same times."""
    return len(a) == len(b) and all(
        x.pts == y.pts and all(np.array_equal(p, q) for p, q in zip(x.planes, y.planes, strict=True))
        for x, y in zip(a, b, strict=True)
    )


def restless(seed: int = 3) -> EnhancementWeights:
    """A narrow network with random weights, whose corrections are far from zero."""
    torch.manual_seed(seed)
    network = EnhancementNetwork(EnhancementConfig(name="narrow", half=8, quarter=8, quarter_blocks=1))
    with torch.no_grad():
        for layer in network.layers().values():
            layer.weight.add_(0.2 * torch.randn_like(layer.weight))
    return weights_of(network)


def tuned(
    origin: EnhancementWeights, seed: int = 0, step: int = 1, largest: int = 3, every: int = 2
) -> EnhancementWeights:
    """Other weights, as a file may carry them: one of `every` layers differs by multiples of `step`."""
    rng, integers = np.random.default_rng(seed), dict(origin.integers)
    for name in list(origin.config.layers())[seed % every :: every]:
        weight, bias = (integers[f"{name}.{part}"].astype(np.int64) for part in ("weight", "bias"))
        changed = weight + step * rng.integers(-largest, largest + 1, weight.shape)
        fits = np.abs(changed) <= np.abs(weight).max((1, 2, 3), keepdims=True)
        integers[f"{name}.weight"] = np.where(fits, changed, weight).astype(np.int8)
        added = UNIT * step * rng.integers(-largest, largest + 1, bias.shape)
        integers[f"{name}.bias"] = (bias + added * (np.abs(bias) < 1 << 15)).astype(np.int32)
    return EnhancementWeights(origin.config, integers)


def in_decoding_order(packets: list["av.Packet[Any]"]) -> list["av.Packet[Any]"]:
    """Packets of several streams as a muxer takes them."""

    def decoded_at(packet: "av.Packet[Any]") -> Fraction:
        assert packet.dts is not None
        return packet.dts * packet.time_base

    return sorted(packets, key=decoded_at)


def shown_at(packet: "av.Packet[Any]") -> Fraction:
    """Presentation time of a packet, in seconds."""
    assert packet.pts is not None
    return packet.pts * packet.time_base


@pytest.fixture(scope="session")
def codec() -> Codec:
    """Narrow networks with random weights. They are as exact as trained ones."""
    return untrained(TINY)


@pytest.fixture(scope="session")
def weights(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same networks as a file."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    checkpoint.save(path, codec)
    return path


@pytest.fixture(scope="module")
def strong_corrections() -> Iterator[None]:
    """Blocks get strengths in turn, the largest first, although random networks make them worse.

    The encoder would hardly ever use such networks, and a decoder that ignores them would show the same.
    """

    def in_turn(*arguments: Any) -> Choice:
        blocks = choose_strengths(*arguments).strengths
        if blocks[0].size == 1:
            return Choice(np.full_like(blocks, STRENGTHS - 1), [STRENGTHS - 1] * GROUPS)
        return Choice(
            (STRENGTHS - 1 - np.arange(blocks.size) % STRENGTHS).reshape(blocks.shape), [STRENGTHS] * GROUPS
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_gop_encoder, "choose_strengths", in_turn)
        yield


@pytest.fixture(scope="session")
def base_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a narrow network that enhances an AV1 base, as a file."""
    path = tmp_path_factory.mktemp("weights") / "narrow.safetensors"
    enhancement_weights.save(path, restless())
    return path


@pytest.fixture(scope="session")
def enhancer(base_weights: Path) -> Enhancer:
    """The same network, ready to use."""
    return Enhancer(enhancement_weights.load(base_weights))


@pytest.fixture(scope="session")
def released() -> Codec:
    """The weights that come with the package."""
    if not released_weights("none").exists():
        pytest.skip("no released weights in this checkout")
    return checkpoint.load(released_weights("none"))


@pytest.fixture(scope="session")
def small_file(codec: Codec) -> bytes:
    """A .vdf with two GOPs."""
    return coded(codec, moving_picture(48, 32, 8), options=EncodeOptions(gop=5))[0]


def exact_reach(layer: IntConv2d, inputs: tuple[Tensor], output: Tensor) -> float:
    """For a forward hook: check a layer's sums against float64. Returns the largest, in units of weights."""
    (x,) = inputs
    assert torch.equal(x, x.round())
    assert x.abs().max() <= layer.input_max
    options = (layer.stride, layer.padding, 1, layer.groups)
    exact = functional.conv2d(x.double(), layer.weight.double(), layer.bias.double() * UNIT, *options)
    assert torch.equal(output.double(), exact)
    units = 2.0 ** layer.exponents().double()[:, None, None]
    return float((exact.abs() * units).max())
