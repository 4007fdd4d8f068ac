"""Frames as RGB are what the matrix and range of the video make of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from viddiff.errors import VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.rgb import RgbConverter

KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""Weights of red and blue in luma, by H.273's number of the matrix."""
COLOURS = [(81, 90, 240), (145, 54, 34), (41, 240, 110), (235, 128, 128), (16, 128, 128), (120, 100, 160)]
"""Y, U, V in 8 bits."""


def flat(colour: tuple[int, int, int], depth: int, width: int, height: int) -> Frame:
    kind, scale = (np.uint8, 1) if depth == 8 else (np.uint16, 4)
    shapes = (height, width), (height // 2, width // 2), (height // 2, width // 2)
    y, u, v = (np.full(shape, n * scale, kind) for shape, n in zip(shapes, colour, strict=True))
    return Frame(y, u, v)


def expected(colour: tuple[float, float, float], matrix: int, full: bool) -> list[float]:
    """R, G, B from 0 to 1."""
    y, u, v = colour
    luma = y / 255 if full else (y - 16) / 219
    pb, pr = ((n - 128) / (255 if full else 224) for n in (u, v))
    red, blue = KR_KB[matrix]
    r, b = luma + 2 * (1 - red) * pr, luma + 2 * (1 - blue) * pb
    return [min(max(n, 0), 1) for n in (r, (luma - red * r - blue * b) / (1 - red - blue), b)]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("matrix", sorted(KR_KB))
def test_matrices_and_ranges(matrix: int, depth: int, full: bool) -> None:
    convert = RgbConverter(VideoInfo(32, 16, depth, matrix=matrix, full_range=full))
    for colour in COLOURS:
        picture = convert(flat(colour, depth, 32, 16))
        assert picture.shape == (16, 32, 3)
        assert picture.dtype == (np.uint8 if depth == 8 else np.uint16)
        assert np.ptp(picture.reshape(-1, 3).astype(int), axis=0).max() <= (1 if depth == 8 else 256)
        wanted: Any = np.array(expected(colour if depth == 8 or not full else _at_full(colour), matrix, full))
        found = picture[8, 16] / (255 if depth == 8 else 65535)
        assert np.abs(found - wanted).max() < 0.008, (colour, found, wanted)


def _at_full(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    """What 10-bit samples of the full range are in 8 bits."""
    y, u, v = colour
    return y * 4 * 255 / 1023, *((n * 4 - 512) * 255 / 1023 + 128 for n in (u, v))  # type: ignore[return-value]


def test_an_unknown_matrix_is_guessed_by_size() -> None:
    small, large = VideoInfo(64, 32), VideoInfo(1280, 720)
    for info, matrix in ((small, 6), (large, 1)):
        frame = flat(COLOURS[1], 8, info.width, info.height)
        assert np.array_equal(RgbConverter(info)(frame), RgbConverter(replace(info, matrix=matrix))(frame))


@pytest.mark.parametrize("matrix", [0, 8, 10, 14])
def test_other_matrices_are_refused(matrix: int) -> None:
    with pytest.raises(VideoError, match="cannot be turned into RGB"):
        RgbConverter(VideoInfo(32, 32, matrix=matrix))


def test_odd_sizes() -> None:
    rng = np.random.default_rng(0)
    y, u, v = (rng.integers(16, 236, shape, np.uint8) for shape in ((17, 33), (9, 17), (9, 17)))
    assert RgbConverter(VideoInfo(33, 17))(Frame(y, u, v)).shape == (17, 33, 3)
