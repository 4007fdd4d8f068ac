"""Motion compensation against its definition, sample by sample in integers."""

import numpy as np
import pytest
import torch
from torch import Tensor

from viddiff.errors import CheckpointError
from viddiff.networks.warp import BLOCK, CHROMA_TAPS, LUMA_TAPS, OVERLAP, MotionCompensation

ROWS, COLS = 3, 4
Taps = tuple[tuple[int, ...], ...]


def sample(plane: np.ndarray, x: int, y: int, vector: np.ndarray, taps: Taps) -> int:
    """Prediction of the sample at (x, y) by a vector (in 1/len(taps) samples)."""
    (whole_x, phase_x), (whole_y, phase_y) = (divmod(int(v), len(taps)) for v in vector)
    before, total = len(taps[0]) // 2 - 1, 0
    for k, down in enumerate(taps[phase_y]):
        for m, across in enumerate(taps[phase_x]):
            row = min(max(y + whole_y + k - before, 0), plane.shape[0] - 1)
            col = min(max(x + whole_x + m - before, 0), plane.shape[1] - 1)
            total += down * across * int(plane[row, col])
    whole, rest = divmod(total, 4096)
    return min(max(whole + (rest > 2048 or (rest == 2048 and whole % 2)), 0), 1023)


def expected(plane: np.ndarray, field: np.ndarray, taps: Taps, overlap: np.ndarray, side: int) -> np.ndarray:
    """The whole picture, with overlap in sixteenths."""
    result, grain = np.zeros_like(plane), BLOCK // side
    for y, x in np.ndindex(plane.shape):
        row, col, i, j = y // side, x // side, y % side, x % side
        own = sample(plane, x, y, field[:, row, col], taps)
        near = (
            (row - 1, col, i, j),
            (row + 1, col, side - 1 - i, j),
            (row, col - 1, j, i),
            (row, col + 1, side - 1 - j, i),
        )
        blend = 0
        for r, c, depth, along in near:
            if 0 <= r < ROWS and 0 <= c < COLS:
                cell = overlap[depth * grain : (depth + 1) * grain, along * grain : (along + 1) * grain]
                blend += int(cell.sum()) * (sample(plane, x, y, field[:, r, c], taps) - own)
        unit = 16 * grain * grain
        result[y, x] = own + (blend + unit // 2) // unit
    return result


@pytest.fixture(scope="module")
def planes() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    y, u, v = (
        torch.randint(0, 1024, (1, ROWS * side, COLS * side), generator=draw).float() for side in (8, 4, 4)
    )
    y[:, :8, :8] = 1023  # so that filters overshoot
    return y, u, v


@pytest.mark.parametrize("name", ["none", "released", "most"])
def test_every_sample(planes: tuple[Tensor, Tensor, Tensor], name: str) -> None:
    windows = {"none": torch.zeros(8, 8), "released": torch.tensor(OVERLAP), "most": torch.full((8, 8), 4)}
    compensation = MotionCompensation()
    compensation.set_overlap(windows[name].to(torch.int8))
    draw = torch.Generator().manual_seed(1)
    vectors = torch.randint(-50, 51, (1, 2, ROWS, COLS), generator=draw)
    vectors[0, :, 0, 0], vectors[0, :, 2, 3] = torch.tensor((-9000, 17)), torch.tensor((8191, -8191))
    vectors[0, :, 1, 1] = vectors[0, :, 1, 2]
    found = compensation(planes, vectors)
    overlap, field = windows[name].numpy().astype(int), vectors[0].numpy()
    for plane, result, taps, side in zip(
        planes, found, (LUMA_TAPS, CHROMA_TAPS, CHROMA_TAPS), (8, 4, 4), strict=True
    ):
        wanted = expected(plane[0].numpy().astype(int), field, taps, overlap, side)
        np.testing.assert_array_equal(result[0].numpy(), wanted)


def test_one_vector_for_all_knows_no_overlap(planes: tuple[Tensor, Tensor, Tensor]) -> None:
    vectors = torch.full((1, 2, ROWS, COLS), 7)
    plain = MotionCompensation()
    plain.set_overlap(torch.zeros(8, 8, dtype=torch.int8))
    for a, b in zip(MotionCompensation()(planes, vectors), plain(planes, vectors), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "window",
    [
        torch.full((8, 8), 5, dtype=torch.int8),
        torch.full((8, 8), -1, dtype=torch.int8),
        torch.zeros(4, 8, dtype=torch.int8),
        torch.zeros(8, 8),
    ],
    ids=["beyond the unit", "negative", "shape", "kind"],
)
def test_other_weights_are_refused(window: Tensor) -> None:
    with pytest.raises(CheckpointError, match="overlapped blocks"):
        MotionCompensation().set_overlap(window)
