"""Convert frames to RGB, by the matrix and range of the video."""

from dataclasses import replace
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

from viddiff.errors import VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.filter_chain import linked
from viddiff.media.libav_errors import FAILURES
from viddiff.media.picture_planes import picture_from_planes
from viddiff.media.picture_properties import CHROMA_LOCATIONS, FULL, LIMITED, UNSPECIFIED, source_arguments

_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020"}
"""libav's names of H.273's linear matrices."""
_HD_HEIGHT, _HD_WIDTH = 576, 1024
"""Without a stated matrix, larger pictures count as BT.709, others as BT.601, as in players."""
RgbImage = NDArray[np.uint8] | NDArray[np.uint16]


def matrix_of(info: VideoInfo) -> int:
    """The stated matrix; without one, that which players take for pictures of this size."""
    if info.matrix != UNSPECIFIED:
        return info.matrix
    return 1 if info.width > _HD_WIDTH or info.height > _HD_HEIGHT else 6


class RgbConverter:
    """Converts the frames of one video to RGB. Transfer and primaries stay: HDR is not mapped to SDR."""

    def __init__(self, info: VideoInfo) -> None:
        """Raises VideoError if libav cannot invert the video's matrix."""
        matrix = matrix_of(info)
        if matrix not in _MATRICES:
            raise VideoError(f"colours of matrix {matrix} cannot be turned into RGB")
        self._info, self._matrix = replace(info, matrix=matrix), _MATRICES[matrix]
        self._graph: av.filter.Graph | None = None

    def __call__(self, frame: Frame) -> RgbImage:
        """(H, W, 3): uint8 for 8-bit video, uint16 with 0..65535 for 10-bit video. Raises VideoError."""
        info, picture = self._info, picture_from_planes(frame.planes, self._info.bit_depth)
        picture.pts, picture.time_base = 0, info.time_base
        picture.colorspace, picture.color_range = info.matrix, FULL if info.full_range else LIMITED
        try:
            if self._graph is None:
                self._graph = self._made(source_arguments(picture, info.time_base))
            self._graph.push(picture)
            pixels = cast(av.VideoFrame, self._graph.pull()).to_ndarray()
            return cast(RgbImage, np.ascontiguousarray(pixels))
        except FAILURES as error:
            raise VideoError(f"a frame cannot be turned into RGB: {error}") from error

    def _made(self, arguments: str) -> av.filter.Graph:
        info = self._info
        location = CHROMA_LOCATIONS[info.chroma_location].replace("unspecified", "unknown")
        scale = (
            f"flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:in_color_matrix={self._matrix}"
            f":in_range={'full' if info.full_range else 'limited'}:out_range=full:in_chroma_loc={location}"
        )
        form = "rgb24" if info.bit_depth == 8 else "rgb48le"
        return linked(("buffer", arguments), ("scale", scale), ("format", form), ("buffersink", ""))
