"""Coding order of the frames of a mini-GOP, and the references of each."""

from collections.abc import Iterator
from dataclasses import dataclass

from viddiff.config import LEVELS


@dataclass(frozen=True)
class FramePlan:
    """One predicted frame. Times are display positions, counted from the GOP's keyframe (0)."""

    time: int
    first: int
    """Time of the first reference."""
    second: int
    """Time of the second reference; may equal the first."""
    level: int
    """0 for an anchor, up to LEVELS - 1 for frames that no frame refers to."""


def hierarchical(previous: int, count: int) -> list[FramePlan]:
    """`count` frames after `previous`: the last one first, from the past; then halves, quarters and so on.

    The anchor's second reference is the GOP's keyframe: its better quality lasts where nothing moves.
    """
    anchor = previous + count
    return [FramePlan(anchor, previous, 0, 0), *_between(previous, anchor, 1)]


def _between(first: int, second: int, level: int) -> Iterator[FramePlan]:
    queue = [(first, second, level)]
    while queue:
        first, second, level = queue.pop(0)
        if second - first < 2:
            continue
        middle = (first + second) // 2
        yield FramePlan(middle, first, second, min(level, LEVELS - 1))
        queue += [(first, middle, level + 1), (middle, second, level + 1)]


def low_delay(previous: int, count: int) -> list[FramePlan]:
    """`count` frames after `previous`, each predicted from the two before it."""
    return [FramePlan(t, t - 1, max(t - 2, 0), 0) for t in range(previous + 1, previous + count + 1)]


def plan(previous: int, count: int, delayed: bool) -> list[FramePlan]:
    """Coding order of `count` frames after time `previous`. `delayed` allows references from the future."""
    return hierarchical(previous, count) if delayed else low_delay(previous, count)
