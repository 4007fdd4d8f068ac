"""Frames as any browser shows them: upright, 8 bits, limited range, even sides."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction

import av

from viddiff.errors import VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.filters import Formatter
from viddiff.media.libav_errors import FAILURES, reason_of
from viddiff.media.orientation import swaps_sides, turn_of, turned
from viddiff.media.picture_planes import picture_from_planes
from viddiff.media.picture_properties import FULL, LIMITED
from viddiff.media.rgb import matrix_of
from viddiff.pixels import plane_shapes, replicate

_LEAST_SIDE = 16


class BrowserPictures:
    """Converts the frames of one video. Colours stay: HDR is not mapped to SDR."""

    def __init__(self, info: VideoInfo, scale: Fraction = Fraction(1)) -> None:
        """scale: of both sides, 0 to 1."""
        self._info, self._turn = info, turn_of(info)
        width, height, aspect = info.width, info.height, info.sample_aspect_ratio
        if swaps_sides(self._turn):
            width, height, aspect = height, width, 1 / aspect
        self._whole = width + width % 2, height + height % 2
        size = self._whole if scale == 1 else (_even(width * scale), _even(height * scale))
        self.info = replace(
            info,
            width=size[0],
            height=size[1],
            bit_depth=8,
            full_range=False,
            matrix=matrix_of(info),
            sample_aspect_ratio=aspect,
        )
        """Properties of the pictures."""
        self._formatter = Formatter(self.info)

    def __call__(self, frame: Frame) -> av.VideoFrame:
        """The picture, without a time. Raises VideoError."""
        shapes = plane_shapes(*self._whole)
        planes = [turned(plane, self._turn) for plane in frame.planes]
        y, u, v = (replicate(plane, shape) for plane, shape in zip(planes, shapes, strict=True))
        with conversion_errors():
            picture = picture_from_planes((y, u, v), self._info.bit_depth)
            picture.pts, picture.time_base = 0, self._info.time_base
            picture.color_range = FULL if self._info.full_range else LIMITED
            picture.colorspace = self.info.matrix
            return self._formatter(picture)


@contextmanager
def conversion_errors() -> Iterator[None]:
    """Raise what PyAV raises as VideoError."""
    try:
        yield
    except FAILURES as error:
        raise VideoError(f"it cannot be brought into a form for browsers: {reason_of(error)}") from error


def _even(side: Fraction) -> int:
    """The nearest even side that is not too small."""
    return max(2 * round(side / 2), _LEAST_SIDE)
