"""Neighbours for the enhancement: which frames have them, and what these show, moved."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest import moving_picture

from viddiff.codec import block_motion
from viddiff.codec.base_frames import REACH, DecodedFrame, with_neighbours
from viddiff.codec.block_motion import SearchedFrame, hypotheses
from viddiff.codec.engine.instruction_sets import instruction_sets
from viddiff.frame import Frame
from viddiff.media.av1_headers import Coding

SIZES = ((16, 16), (17, 19), (96, 64), (130, 67))


def textured(width: int, height: int, seed: int = 0) -> Frame:
    """A frame of 10 bits with smooth random texture, so that a place is like no other."""
    rng = np.random.default_rng(seed)

    def plane(rows: int, columns: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
        noise = rng.integers(0, 1024, (rows + 4, columns + 4)).astype(float)
        smooth = sum(noise[y : y + rows, x : x + columns] for y in range(5) for x in range(5))
        return np.clip(512 + 3 * (np.asarray(smooth) / 25 - 512), 0, 1023).astype(np.uint16)

    u, v = (plane(-(-height // 2), -(-width // 2)) for _ in range(2))
    return Frame(plane(height, width), u, v)


def moved(frame: Frame, down: int, right: int) -> Frame:
    """By even numbers of samples, around the borders."""
    y, u, v = (
        np.roll(plane, (down // scale, right // scale), (0, 1))
        for plane, scale in zip(frame.planes, (1, 2, 2), strict=True)
    )
    return Frame(y, u, v)


def frame_of(sizes: Iterable[tuple[int, int]], fill: Callable[[tuple[int, int]], np.ndarray]) -> Frame:
    y, u, v = (fill(size).astype(np.uint16) for size in sizes)
    return Frame(y, u, v)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (6, -10), (-20, 16), (22, 22), (-2, 0)])
def test_motion_is_found_exactly(down: int, right: int) -> None:
    """Inside, where nothing came around a border, the neighbour shows what the frame shows."""
    frame = textured(160, 128)
    (found,) = hypotheses(SearchedFrame(frame), [SearchedFrame(moved(frame, down, right))])
    inside = np.s_[32:-32, 32:-32]
    assert np.array_equal(found.y[inside], frame.y[inside])
    half = np.s_[16:-16, 16:-16]
    assert np.array_equal(found.u[half], frame.u[half])
    assert np.array_equal(found.v[half], frame.v[half])


def test_quarters_of_samples_are_found() -> None:
    """Of a wave that moves by them. The fit takes both directions for independent, so it is not exact."""
    x, y = np.meshgrid(np.arange(128), np.arange(96))

    def wave(by: float) -> Frame:
        luma = 512 + 200 * np.sin((x - by) / 5) + 200 * np.sin((y + (x - by) / 3) / 7)
        chroma = np.full((48, 64), 512, np.uint16)
        return Frame(luma.round().astype(np.uint16), chroma, chroma)

    for by in (0.25, 0.5, 1.75):
        (found,) = hypotheses(SearchedFrame(wave(0)), [SearchedFrame(wave(by))])
        inside = np.s_[16:-16, 16:-16]
        error, before = (
            np.abs(each.y[inside].astype(int) - wave(0).y[inside]).mean() for each in (found, wave(by))
        )
        assert error < 0.6 * before


@pytest.mark.parametrize("size", SIZES)
def test_sizes_and_types_stay(size: tuple[int, int]) -> None:
    frame, other = textured(*size), textured(*size, seed=1)
    found = hypotheses(SearchedFrame(frame), map(SearchedFrame, (other, frame)))
    for each in found:
        assert [plane.shape for plane in each.planes] == [plane.shape for plane in frame.planes]
        assert {plane.dtype for plane in each.planes} == {np.dtype(np.uint16)}
        assert max(plane.max() for plane in each.planes) <= 1023
    rows, columns = (side // 8 * 8 for side in frame.y.shape)  # blocks without padding
    assert np.array_equal(found[1].y[:rows, :columns], frame.y[:rows, :columns])


def test_every_instruction_set_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise and extremes, which leave nothing of a sum's range unused."""
    rng = np.random.default_rng(0)
    for width, height in SIZES:
        sizes = ((height, width), *((-(-height // 2), -(-width // 2)),) * 2)
        frames = [frame_of(sizes, lambda size: rng.integers(0, 1024, size)) for _ in range(2)]
        frames += [frame_of(sizes, partial(np.full, fill_value=level)) for level in (0, 1023)]
        results = []
        for instructions in instruction_sets():
            monkeypatch.setattr(block_motion, "instruction_sets", lambda each=instructions: [each])
            results.append(
                [
                    plane
                    for a in frames
                    for each in hypotheses(SearchedFrame(a), map(SearchedFrame, frames))
                    for plane in each.planes
                ]
            )
        for other in results[1:]:
            assert all(map(np.array_equal, results[0], other))


def test_frames_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="sizes"):
        SearchedFrame(textured(32, 32)).motion_from(SearchedFrame(textured(32, 34)))


# --- which frames --------------------------------------------------------------------------------------


def decoded(*quantisers: int) -> list[DecodedFrame]:
    frame = moving_picture(16, 16, 1)[0]
    return [
        DecodedFrame(SearchedFrame(replace(frame, pts=n)), Coding(quantiser, False))
        for n, quantiser in enumerate(quantisers)
    ]


def neighbours_of(frames: list[DecodedFrame], before: int = 0) -> list[tuple[int, ...]]:
    """Places of the neighbours of each frame after the first `before`."""
    shown = list(with_neighbours(frames[:before][-REACH:], frames[before:]))
    assert [each.own for each in shown] == frames[before:]
    return [tuple(frames.index(other) for other in each.neighbours) for each in shown]


def test_frames_between_better_ones_have_neighbours() -> None:
    hierarchy = decoded(40, 90, 80, 90, 70, 90, 80, 90, 60)
    assert neighbours_of(hierarchy) == [(), (0, 2), (0, 4), (2, 4), (), (4, 6), (4, 8), (6, 8), ()]


def test_neighbours_are_of_the_chunk_or_before_it() -> None:
    """A frame waits for none of another chunk."""
    hierarchy = decoded(40, 90, 80, 90, 70, 90, 80, 90, 60)
    assert neighbours_of(hierarchy, 1) == [(0, 2), (0, 4), (2, 4), (), (4, 6), (4, 8), (6, 8), ()]
    assert neighbours_of(hierarchy[:7], 1) == [(0, 2), (0, 4), (2, 4), (), (4, 6), ()]
    assert neighbours_of(hierarchy, 4) == [(), (4, 6), (4, 8), (6, 8), ()]


def test_equal_frames_have_none() -> None:
    assert neighbours_of(decoded(80, 80, 80, 80)) == [()] * 4
    assert neighbours_of(decoded(80)) == [()]
    assert neighbours_of([]) == []


def test_frames_are_not_held_longer_than_needed() -> None:
    """Each is given when REACH more are there."""
    taken = list[int]()

    def frames() -> Iterator[DecodedFrame]:
        for n, frame in enumerate(decoded(*[80, 90] * 4)):
            taken.append(n)
            yield frame

    for n, _ in enumerate(with_neighbours((), frames())):
        assert len(taken) == min(n + REACH + 1, 8)
