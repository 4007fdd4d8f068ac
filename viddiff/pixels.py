"""Shapes of the planes of a picture, and padding."""

import numpy as np

from viddiff.frame import Plane


def plane_shapes(width: int, height: int) -> tuple[tuple[int, int], ...]:
    """Shapes (rows, columns) of Y, U and V."""
    chroma = (height + 1) // 2, (width + 1) // 2
    return (height, width), chroma, chroma


def replicate(plane: Plane, shape: tuple[int, int]) -> Plane:
    """Pad a plane to `shape` by repeating its last column and row. One of that shape is returned itself."""
    if plane.shape == shape:
        return plane
    rows, columns = (np.minimum(np.arange(n), m - 1) for n, m in zip(shape, plane.shape, strict=True))
    return plane[np.ix_(rows, columns)]
