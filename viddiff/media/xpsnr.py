"""XPSNR by libavfilter, frame by frame.

C. Helmrich, M. Siekmann, S. Becker, S. Bosse, D. Marpe, T. Wiegand, "XPSNR: A low-complexity extension of the
perceptually weighted peak signal-to-noise ratio for high-resolution video quality assessment", ICASSP 2020.
"""

from fractions import Fraction
from typing import cast

import av

from viddiff.errors import VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.libav_errors import FAILURES, reason_of
from viddiff.media.picture_planes import PIXEL_FORMATS, picture_from_planes


class XpsnrMeter:
    """Measures the frames of one video, in order: errors weigh less where and when the original moves."""

    def __init__(self, info: VideoInfo) -> None:
        """For frames of this size, depth and rate. Raises VideoError if libav cannot measure them."""
        self._bit_depth, self._count = info.bit_depth, 0
        # The filter looks at the rate to tell slow from fast video, and at nothing else of the times.
        self._unit = Fraction(1, 1000)
        source = (
            f"video_size={info.width}x{info.height}:pix_fmt={PIXEL_FORMATS[info.bit_depth]}"
            f":time_base={self._unit}:frame_rate={info.frame_rate}"
        )
        try:
            graph = av.filter.Graph()
            self._original, self._decoded = graph.add("buffer", source), graph.add("buffer", source)
            measure, self._sink = graph.add("xpsnr"), graph.add("buffersink")
            self._original.link_to(measure, 0, 0)
            self._decoded.link_to(measure, 0, 1)
            measure.link_to(self._sink)
            graph.configure()
            self._graph = graph
        except FAILURES as error:
            raise VideoError(f"libav cannot measure XPSNR: {reason_of(error)}") from error

    def add(self, original: Frame, decoded: Frame) -> tuple[float, float, float]:
        """XPSNR of Y, U and V of the next frame in dB; infinite without error. Raises VideoError."""
        try:
            for source, frame in ((self._original, original), (self._decoded, decoded)):
                picture = picture_from_planes(frame.planes, self._bit_depth)
                picture.pts, picture.time_base = self._count, self._unit
                source.push(picture)
            self._count += 1
            measured = cast(av.VideoFrame, self._sink.pull()).metadata
            y, u, v = (float(measured[f"lavfi.xpsnr.xpsnr.{plane}"]) for plane in "yuv")
        except FAILURES as error:
            raise VideoError(f"libav cannot measure XPSNR: {reason_of(error)}") from error
        return y, u, v
