"""Convert libav pictures to numpy planes, and back."""

from typing import cast

import av
import numpy as np
from av.video.plane import VideoPlane
from numpy.typing import NDArray

from viddiff.frame import Plane
from viddiff.pixels import plane_shapes

PIXEL_FORMATS = {8: "yuv420p", 10: "yuv420p10le"}
"""libav's pixel format of our planes, by bit depth."""


def picture_from_planes(planes: tuple[Plane, Plane, Plane], bit_depth: int) -> av.VideoFrame:
    """Copy Y, U, V planes to a new libav picture."""
    height, width = planes[0].shape
    picture = av.VideoFrame(width, height, PIXEL_FORMATS[bit_depth])
    for source, target in zip(planes, picture.planes, strict=True):
        view = _view(target, bit_depth)
        view[:, : source.shape[1]] = source
        view[:, source.shape[1] :] = 0
    return picture


def planes_from_picture(
    picture: av.VideoFrame, bit_depth: int, width: int, height: int
) -> tuple[Plane, Plane, Plane]:
    """Copy the top left width x height samples of the planes of a 4:2:0 libav picture of this depth."""
    y, u, v = (view.copy() for view in _views(picture, bit_depth, width, height))
    return y, u, v


def planes_of_picture(
    picture: av.VideoFrame, bit_depth: int, width: int, height: int
) -> tuple[Plane, Plane, Plane]:
    """The same as `planes_from_picture`, but the picture's own memory where its rows have no gaps.

    A decoder may still refer to it, so it cannot be written.
    """
    views = _views(picture, bit_depth, width, height)
    y, u, v = (view if view.flags.c_contiguous else view.copy() for view in views)
    for plane in (y, u, v):
        plane.flags.writeable = False
    return y, u, v


def planes_from_rgb(samples: NDArray[np.uint8], width: int, height: int) -> tuple[Plane, Plane, Plane]:
    """Convert an RGB picture (H, W, 3) to 8-bit 4:2:0 planes of this size, both sides even."""
    picture = av.VideoFrame.from_ndarray(samples, "rgb24")
    return planes_from_picture(
        picture.reformat(width, height, "yuv420p", interpolation="BICUBIC"), 8, width, height
    )


def _views(picture: av.VideoFrame, bit_depth: int, width: int, height: int) -> list[Plane]:
    """The top left width x height samples of each plane."""
    shapes = plane_shapes(width, height)
    return [_view(plane, bit_depth)[:h, :w] for plane, (h, w) in zip(picture.planes, shapes, strict=True)]


def _view(plane: VideoPlane, bit_depth: int) -> Plane:
    """A libav plane as an array (rows, line size in samples), usually wider than the picture."""
    memory = memoryview(
        cast(bytes, plane)
    )  # PyAV's planes offer the buffer protocol, its stubs do not say so
    if bit_depth == 8:
        return np.frombuffer(memory, np.uint8).reshape(plane.height, plane.line_size)
    return np.frombuffer(memory, np.uint16).reshape(plane.height, plane.line_size // 2)
