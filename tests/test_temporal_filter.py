"""The noise of a keyframe is averaged out over later frames, and nothing else is."""

from typing import Any

import numpy as np
import pytest
from conftest import coded, same
from numpy.typing import NDArray

from viddiff.codec.weights import Codec
from viddiff.config import QUALITIES, step_of_quality
from viddiff.encoder.options import EncodeOptions
from viddiff.encoder.presets import PRESETS
from viddiff.encoder.temporal_filter import temporally_filtered
from viddiff.frame import Frame, Plane, VideoInfo
from viddiff.pixels import plane_shapes

WIDTH, HEIGHT = 92, 70
NOISE = 4.0


def scene(count: int, speed: int, seed: int = 0, bit_depth: int = 8) -> list[Frame]:
    """A texture without noise that moves by `speed` luma samples a frame (an even number)."""
    rng = np.random.default_rng(seed)
    coarse = [rng.random((24, 24)) for _ in range(3)]
    kind = np.uint8 if bit_depth == 8 else np.uint16
    frames = []
    for time in range(count):
        planes = []
        for index, (rows, cols) in enumerate(plane_shapes(WIDTH, HEIGHT)):
            scale = 6.0 if index == 0 else 3.0
            shift = time * speed / (1 if index == 0 else 2)
            y, x = np.mgrid[:rows, :cols] / scale
            x = x + shift / scale
            top, left = y.astype(int) % 23, x.astype(int) % 23
            fy, fx = y % 1, x % 1
            grid = coarse[index]
            upper = grid[top, left] * (1 - fx) + grid[top, left + 1] * fx
            lower = grid[top + 1, left] * (1 - fx) + grid[top + 1, left + 1] * fx
            values = (40 + 170 * (upper * (1 - fy) + lower * fy)) * 2 ** (bit_depth - 8)
            planes.append(np.ascontiguousarray(values.round().astype(kind)))
        frames.append(Frame(planes[0], planes[1], planes[2], time))
    return frames


def noisy(frames: list[Frame], bit_depth: int = 8) -> list[Frame]:
    rng, scale = np.random.default_rng(1), 2 ** (bit_depth - 8)
    result = []
    for frame in frames:
        planes: list[NDArray[Any]] = []
        for plane in frame.planes:
            values = plane + rng.normal(0, NOISE * scale, plane.shape)
            planes.append(values.round().clip(0, 255 * scale).astype(plane.dtype))
        result.append(Frame(planes[0], planes[1], planes[2], frame.pts))
    return result


def error(a: Frame, b: Frame, bit_depth: int = 8) -> list[float]:
    """Root of the mean squared error of each plane, in 8-bit samples."""
    scale = 2 ** (bit_depth - 8)
    pairs = zip(a.planes, b.planes, strict=True)
    return [float(np.sqrt(((x.astype(float) - y) ** 2).mean())) / scale for x, y in pairs]


def filtered(codec: Codec, frames: list[Frame], quality: int = 32, bit_depth: int = 8) -> Frame:
    return temporally_filtered(
        codec,
        frames[0],
        frames[1:],
        VideoInfo(WIDTH, HEIGHT, bit_depth),
        step_of_quality(quality),
        PRESETS["default"].search,
    )


@pytest.mark.parametrize("speed", [0, 2, 6])
@pytest.mark.parametrize("bit_depth", [8, 10])
def test_noise_is_averaged_out_and_motion_followed(codec: Codec, speed: int, bit_depth: int) -> None:
    clean = scene(9, speed, bit_depth=bit_depth)
    frames = noisy(clean, bit_depth)
    before = error(frames[0], clean[0], bit_depth)
    after = error(filtered(codec, frames, 24, bit_depth), clean[0], bit_depth)
    assert all(a < 0.75 * b for a, b in zip(after, before, strict=True)), (before, after)


def test_another_scene_leaves_no_trace(codec: Codec) -> None:
    frame, rng = scene(1, 0)[0], np.random.default_rng(0)

    def random(plane: Plane) -> Plane:
        return rng.integers(0, 256, plane.shape, np.uint8)

    others = [Frame(random(frame.y), random(frame.u), random(frame.v), pts=time) for time in range(1, 9)]
    assert max(error(filtered(codec, [frame, *others]), frame)) < 1


def test_what_is_alike_stays_as_it_is(codec: Codec) -> None:
    frame = noisy(scene(1, 0))[0]
    assert same([filtered(codec, [frame] * 9)], [frame])
    assert same([filtered(codec, [frame])], [frame])


def test_the_better_the_quality_the_less_is_noise(codec: Codec) -> None:
    frames = noisy(scene(9, 0))
    changes = [error(filtered(codec, frames, quality), frames[0])[0] for quality in (10, 40, QUALITIES - 1)]
    assert changes == sorted(changes, reverse=True)
    assert changes[-1] < 0.25 * changes[0]


def test_keyframes_are_filtered_unless_they_cannot_wait(codec: Codec) -> None:
    clean = scene(9, 0)
    frames = noisy(clean)

    def key_error(options: EncodeOptions) -> float:
        _, shown, _ = coded(codec, frames, options=options)
        return error(shown[0], clean[0])[0]

    waiting, live = (key_error(EncodeOptions(quality=50, low_delay=low)) for low in (False, True))
    assert waiting < 0.75 * live
