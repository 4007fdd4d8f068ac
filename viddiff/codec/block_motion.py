"""Pictures of a neighbouring frame, moved to where a frame shows the same things.

The decoder finds the motion by itself, between two frames of the AV1 base that it has decoded, so no bits
are spent on it. Blocks of 8x8 have vectors in quarter samples: full search at a quarter of the size, then
blocks of 16x16 and 8x8 refine what their neighbours found.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.engine.instruction_sets import instruction_sets
from viddiff.codec.engine.native_kernels import kernels
from viddiff.frame import Frame, Plane

MARGIN = 32
"""Samples by which a plane's border is repeated on every side."""
SHRINK = 4
"""The first search sees pictures smaller by this factor."""
ALIGNMENT = 32
"""Pictures are padded to multiples of it, which are whole blocks in the smaller pictures."""
Vectors = NDArray[np.int32]
"""(rows, columns, 2): vertical and horizontal, quarter samples of luma, for blocks of 8x8."""


@dataclass(frozen=True, eq=False)
class SearchedFrame:
    """A frame of 10 bits, and what searches and fetching need of it, made once."""

    frame: Frame

    @cached_property
    def size(self) -> tuple[int, int]:
        """Rows and columns of luma, padded to multiples of ALIGNMENT."""
        rows, columns = (-(-side // ALIGNMENT) * ALIGNMENT for side in self.frame.y.shape)
        return rows, columns

    @cached_property
    def luma(self) -> NDArray[np.uint16]:
        """Luma with its border repeated by MARGIN samples around the padded picture."""
        return _extended(self.frame.y, *self.size)

    @cached_property
    def chroma(self) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """U and V with their borders repeated by MARGIN samples."""
        rows, columns = (side // 2 for side in self.size)
        return _extended(self.frame.u, rows, columns), _extended(self.frame.v, rows, columns)

    @cached_property
    def small(self) -> NDArray[np.uint16]:
        """Luma with its margins, smaller by SHRINK."""
        luma = self.luma
        result = np.empty((luma.shape[0] // SHRINK, luma.shape[1] // SHRINK), np.uint16)
        _kernel("shrink", luma.ctypes.data, *result.shape, result.ctypes.data)
        return result

    def motion_from(self, reference: "SearchedFrame") -> Vectors:
        """Where this frame's blocks come from in another one of the same size."""
        if reference.frame.y.shape != self.frame.y.shape:
            raise ValueError("frames of different sizes")
        rows, columns = self.size
        coarse = np.zeros((rows // 32, columns // 32, 2), np.int32)
        large = np.zeros((rows // 16, columns // 16, 2), np.int32)
        vectors = np.zeros((rows // 8, columns // 8, 2), np.int32)
        pictures = (self.luma, reference.luma, self.small, reference.small)
        addresses = [each.ctypes.data for each in pictures]
        fields = [each.ctypes.data for each in (coarse, large, vectors)]
        _kernel("match", *addresses, rows, columns, *fields)
        return vectors

    def moved(self, vectors: Vectors) -> Frame:
        """The frame that these vectors fetch from this one."""
        planes = []
        rows, columns = vectors.shape[:2]
        for source, plane, side in zip((self.luma, *self.chroma), self.frame.planes, (8, 4, 4), strict=True):
            result = np.empty((rows * side, columns * side), np.uint16)
            numbers = (rows, columns, _TAPS.ctypes.data, result.ctypes.data, result.strides[0])
            _kernel("fetch", source.ctypes.data, source.strides[0], side, vectors.ctypes.data, *numbers)
            planes.append(np.ascontiguousarray(result[: plane.shape[0], : plane.shape[1]]))
        y, u, v = planes
        return Frame(y, u, v, self.frame.pts)


def hypotheses(frame: SearchedFrame, neighbours: Iterable[SearchedFrame]) -> list[Frame]:
    """What each neighbour shows, moved to where `frame` shows it."""
    return [neighbour.moved(frame.motion_from(neighbour)) for neighbour in neighbours]


def _extended(plane: Plane, rows: int, columns: int) -> NDArray[np.uint16]:
    samples = np.ascontiguousarray(plane, np.uint16)
    result = np.empty((rows + 2 * MARGIN, columns + 2 * MARGIN), np.uint16)
    _kernel("extend", samples.ctypes.data, *samples.shape, result.ctypes.data, *result.shape)
    return result


def _kernel(name: str, *arguments: int) -> None:
    kernels(instruction_sets()[0])[name](*arguments)


_TAPS = np.array(
    [
        (0, 64, 0, 0), (-2, 58, 10, -2), (-4, 54, 16, -2), (-6, 46, 28, -4),
        (-4, 36, 36, -4), (-4, 28, 46, -6), (-2, 16, 54, -4), (-2, 10, 58, -2),
    ],
    np.int32,
)  # fmt: skip
"""HEVC's interpolation filters for chroma (ITU-T H.265, 8.5.3.3.3.3), for eighths of a sample."""
