"""Encoder and decoder agree, and options do what they say."""

import io
from itertools import pairwise

import numpy as np
import pytest
from conftest import coded, moving_picture, same

from viddiff.codec.weights import Codec
from viddiff.container.format import KeyChunk, PredictedChunk, Writer
from viddiff.container.reader import Reader
from viddiff.encoder.options import EncodeOptions
from viddiff.encoder.presets import PRESETS
from viddiff.errors import BitstreamError
from viddiff.frame import Frame
from viddiff.metrics.psnr import Distortion
from viddiff.pipeline.serial import decode


def decoded(data: bytes, codec: Codec) -> list[Frame]:
    return list(decode(io.BytesIO(data), codec))


def psnr(originals: list[Frame], frames: list[Frame]) -> float:
    distortion = Distortion(8)
    for original, frame in zip(originals, frames, strict=True):
        distortion.add(original, frame)
    return distortion.psnr_611


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (64, 48), (50, 130)])
@pytest.mark.parametrize("low_delay", [False, True])
def test_decoder_shows_what_the_encoder_reconstructed(
    codec: Codec, size: tuple[int, int], low_delay: bool
) -> None:
    frames = moving_picture(*size, 6)
    data, shown, summary = coded(codec, frames, options=EncodeOptions(low_delay=low_delay))
    assert same(decoded(data, codec), shown)
    assert [f.pts for f in shown] == [f.pts for f in frames]
    assert (summary.frames, summary.keyframes, summary.size_bytes) == (6, 1, len(data))


@pytest.mark.parametrize("count", range(1, 12))
def test_every_length_of_a_mini_gop(codec: Codec, count: int) -> None:
    frames = moving_picture(32, 16, count)
    data, shown, _ = coded(codec, frames, options=EncodeOptions(preset="fastest"))
    assert len(shown) == count
    assert same(decoded(data, codec), shown)


@pytest.mark.parametrize("gop", [1, 2, 9])
def test_keyframes_come_as_asked(codec: Codec, gop: int) -> None:
    options = EncodeOptions(gop=gop, preset="fastest")
    data, shown, summary = coded(codec, moving_picture(32, 32, 12), options=options)
    assert summary.keyframes == -(-12 // gop)
    assert same(decoded(data, codec), shown)


def test_ten_bits(codec: Codec) -> None:
    frames = moving_picture(48, 34, 5, bit_depth=10)
    data, shown, _ = coded(codec, frames, bit_depth=10, options=EncodeOptions(quality=50))
    assert shown[3].y.dtype == np.uint16
    assert (shown[3].y & 3).any(), "the lowest bits are in use"
    assert same(decoded(data, codec), shown)


def test_huffman_codes_the_same_symbols_in_more_bytes(codec: Codec) -> None:
    frames = moving_picture(48, 32, 5)
    ans, shown, _ = coded(codec, frames)
    huffman, shown_too, _ = coded(codec, frames, options=EncodeOptions(entropy="huffman"))
    assert same(shown, shown_too)
    assert same(decoded(huffman, codec), shown)
    assert len(huffman) > len(ans)


def test_a_scene_cut_begins_a_gop(codec: Codec) -> None:
    frames = moving_picture(64, 48, 4)
    dark = [Frame(f.y // 8, f.u, f.v, f.pts + 100) for f in moving_picture(64, 48, 4, seed=5)]
    data, shown, summary = coded(codec, frames + dark)
    assert summary.keyframes == 2
    assert same(decoded(data, codec), shown)


def test_equal_input_gives_equal_files(codec: Codec) -> None:
    frames = moving_picture(48, 32, 6)
    assert coded(codec, frames)[0] == coded(codec, frames)[0]


def test_every_quality_decodes(codec: Codec) -> None:
    frames = moving_picture(32, 16, 2)
    for quality in range(64):
        data, shown, _ = coded(codec, frames, options=EncodeOptions(quality=quality, preset="fastest"))
        assert same(decoded(data, codec), shown), f"{quality = }"


def test_untrained_networks_are_a_working_dct_codec(codec: Codec) -> None:
    frames = moving_picture(64, 48, 5)
    assert psnr(frames, decoded(coded(codec, frames, options=EncodeOptions(quality=56))[0], codec)) > 30


def test_rate_and_psnr_rise_with_quality(released: Codec) -> None:
    frames = moving_picture(64, 48, 5)
    points = []
    for quality in range(0, 64, 9):
        options = EncodeOptions(quality=quality, preset="fastest")
        data, shown, _ = coded(released, frames, options=options)
        points.append((len(data), psnr(frames, shown)))
    assert points == sorted(points)
    assert all(a < b for (_, a), (_, b) in pairwise(points))


@pytest.mark.parametrize("low_delay", [False, True])
def test_coded_size_is_the_information_content(codec: Codec, low_delay: bool) -> None:
    options = EncodeOptions(quality=40, low_delay=low_delay)
    data, _, summary = coded(codec, moving_picture(96, 64, 9), options=options)
    chunks = [chunk for chunk in Reader(io.BytesIO(data)) if isinstance(chunk, PredictedChunk)]
    information = sum(level.bits for level in summary.levels.values()) / 8
    size = sum(len(chunk.payload) for chunk in chunks)
    assert information * 0.999 - 8 < size < information * 1.01 + 64 * len(chunks)


def test_keyframes_cost_what_the_summary_says(codec: Codec) -> None:
    data, _, summary = coded(codec, moving_picture(32, 32, 6), options=EncodeOptions(gop=3))
    keys = [chunk for chunk in Reader(io.BytesIO(data)) if isinstance(chunk, KeyChunk)]
    assert (len(keys), sum(len(k.payload) for k in keys)) == (summary.keyframes, summary.key_bytes)


def test_a_file_without_frames_decodes_to_none(codec: Codec) -> None:
    reader = Reader(io.BytesIO(coded(codec, moving_picture(16, 16, 1))[0]))
    out = io.BytesIO()
    Writer(out, reader.header).finish()
    assert decoded(out.getvalue(), codec) == []


def test_a_cut_off_file_gives_its_frames_then_an_error(codec: Codec, small_file: bytes) -> None:
    got: list[Frame] = []
    frames = decode(io.BytesIO(small_file[:-20]), codec)
    with pytest.raises(BitstreamError, match="the file ends"):
        got.extend(frames)
    assert len(got) == 8


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_a_file_of_the_same_format(codec: Codec, preset: str) -> None:
    frames = moving_picture(48, 32, 11)
    data, shown, summary = coded(codec, frames, options=EncodeOptions(preset=preset))
    assert same(decoded(data, codec), shown)
    predicted = sum(level.frames for level in summary.levels.values())
    assert summary.frames == len(frames) == summary.keyframes + predicted
