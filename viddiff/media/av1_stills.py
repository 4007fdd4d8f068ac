"""AV1 stills: one picture each, encoded by SVT-AV1 and decoded bit-exactly by dav1d.

A still is the smallest valid AV1 stream of one picture: two OBUs in the low-overhead format (AV1
specification, section 5.3), and nothing else.

    sequence header OBU (type 1) | frame OBU (type 6)

Both have a size field and no extension. There is no temporal delimiter. The header costs about 12 bytes. The
picture is coded at `padded_size(width, height)`, padded by repeating the last column and row; the decoder
crops it. Film grain is not applied, even if a stream asks for it.
"""

import itertools
from fractions import Fraction
from typing import Literal, cast

import av
from av.video.codeccontext import VideoCodecContext

from viddiff.config import MAX_PIXELS, MAX_SIDE
from viddiff.errors import BitstreamError, LimitError, VideoError
from viddiff.frame import Frame
from viddiff.media.av1_obus import ObuType, iter_obus, without_delimiters
from viddiff.media.libav_errors import FAILURES
from viddiff.media.picture_planes import PIXEL_FORMATS, picture_from_planes, planes_from_picture
from viddiff.media.scheduling import kept_scheduling
from viddiff.pixels import plane_shapes, replicate

QUANTISER_RANGE = range(1, 64)
"""SVT-AV1's fixed quantiser. 63 gives the smallest picture."""
PRESET = 4
"""SVT-AV1's preset, 0 (slowest) to 10. Below 4, small gains cost much time."""

_MIN_SIDE = 64  # some releases of SVT-AV1 refuse less, and odd sizes


def padded_size(width: int, height: int) -> tuple[int, int]:
    """Coded size of a picture: even, and at least 64 in both directions."""
    return max(_MIN_SIDE, width + width % 2), max(_MIN_SIDE, height + height % 2)


def encode_still(frame: Frame, bit_depth: int, quantiser: int, preset: int = PRESET) -> bytes:
    """Encode one picture. Equal arguments give equal bytes."""
    if bit_depth not in PIXEL_FORMATS:
        raise ValueError(f"a still has 8 or 10 bits per sample, not {bit_depth}")
    if quantiser not in QUANTISER_RANGE:
        raise ValueError(f"the quantiser of a still lies in 1..63, not {quantiser}")
    height, width = frame.y.shape
    _check_limits(width, height)
    coded_width, coded_height = padded_size(width, height)
    shapes = plane_shapes(coded_width, coded_height)
    y, u, v = (replicate(plane, shape) for plane, shape in zip(frame.planes, shapes, strict=True))
    picture = picture_from_planes((y, u, v), bit_depth)
    context = _context("libsvtav1", "w")
    context.width, context.height = coded_width, coded_height
    context.pix_fmt = PIXEL_FORMATS[bit_depth]
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.options = {"preset": str(preset), "qp": str(quantiser), "svtav1-params": "avif=1:lp=1"}
    try:
        with kept_scheduling():
            context.open()
        packets = context.encode(picture) + context.encode(None)
    except FAILURES as error:
        raise VideoError(f"the AV1 encoder failed on a {width}x{height} picture: {error}") from error
    still = without_delimiters(b"".join(map(bytes, packets)))
    if not _is_still(still):
        raise VideoError("the AV1 encoder did not write a single still picture")
    return still


def decode_still(data: bytes, width: int, height: int, bit_depth: int, threads: int = 1) -> Frame:
    """Decode one picture of exactly this size and depth. The result does not depend on `threads`."""
    if bit_depth not in PIXEL_FORMATS:
        raise BitstreamError(f"a still has 8 or 10 bits per sample, not {bit_depth}")
    _check_limits(width, height)
    if not _is_still(data):
        raise BitstreamError("a keyframe must be one AV1 sequence header and one AV1 frame")
    coded_width, coded_height = padded_size(width, height)
    context = _context("libdav1d", "r")
    context.thread_count = threads
    context.options = {
        "max_pixels": str(coded_width * coded_height),  # dav1d refuses larger frames before allocating them
        "max_frame_delay": "1",
        "export_side_data": "film_grain",  # handed over as side data, therefore not applied
    }
    try:
        pictures = context.decode(av.Packet(data)) + context.decode(None)
    except MemoryError:  # one of FFmpegError, too, but no fault of the picture, whose size is known
        raise
    except FAILURES as error:
        raise BitstreamError("a keyframe is damaged: its AV1 picture cannot be decoded") from error
    if len(pictures) != 1:
        raise BitstreamError(f"a keyframe must hold one picture, not {len(pictures)}")
    picture = pictures[0]
    found = (picture.width, picture.height, picture.format.name)
    expected = (coded_width, coded_height, PIXEL_FORMATS[bit_depth])
    if found != expected:
        raise BitstreamError(
            f"a keyframe is {picture.width}x{picture.height} {picture.format.name} where "
            f"{coded_width}x{coded_height} {PIXEL_FORMATS[bit_depth]} was expected"
        )
    return Frame(*planes_from_picture(picture, bit_depth, width, height))


def _is_still(data: bytes) -> bool:
    """Whether a stream is what this module writes; BitstreamError if its structure is broken."""
    types = [obu.type for obu in itertools.islice(iter_obus(data), 3)]
    return types == [ObuType.SEQUENCE_HEADER, ObuType.FRAME]


def _check_limits(width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise LimitError(
            f"a keyframe of {width}x{height} is beyond {MAX_SIDE} a side and {MAX_PIXELS} pixels"
        )


def _context(codec: str, mode: Literal["r", "w"]) -> VideoCodecContext:
    context = cast(VideoCodecContext, av.CodecContext.create(codec, mode))
    context.thread_count = 1
    return context
