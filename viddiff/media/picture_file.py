"""Pictures as AVIF, JPEG or PNG: turned upright, with square samples, of any width.

RGB of `media.rgb` -> size -> rotation -> the colours of the format -> an encoder of libav
"""

import io
import os
import struct
import zlib
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from viddiff.config import SIZES, allowed_size
from viddiff.errors import LimitError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_stills import PRESET
from viddiff.media.filter_chain import linked
from viddiff.media.libav_errors import FAILURES, reason_of
from viddiff.media.orientation import UNTURNED, swaps_sides, turn_of, turned
from viddiff.media.picture_properties import BT709, BT2020, FULL, UNSPECIFIED, source_arguments
from viddiff.media.rgb import RgbConverter, RgbImage
from viddiff.media.scheduling import kept_scheduling

FORMATS = (".avif", ".jpg", ".jpeg", ".png")
"""Extensions of the pictures that are written."""
_AVIF_QUANTISER = 20
_AVIF_SIDE = 4
"""SVT-AV1's smallest width and height."""
_JPEG_QUALITY = 3
"""libav's quantiser of JPEG, 1 to 31: at 3, a loss is hardly seen."""
_LAMBDA = 118
"""libav's units of quality in one of them."""
_SRGB_TRANSFER, _PQ, _HLG = 13, 16, 18
_MARK = b"viddiff"
_PNG_START = 33  # signature and IHDR
_FREE_BOX = struct.pack(">I4s", 8 + len(_MARK), b"free") + _MARK
_COMMENT = b"\xff\xfe" + struct.pack(">H", 2 + len(_MARK)) + _MARK


def encode_picture(frame: Frame, info: VideoInfo, form: str, width: int | None = None) -> bytes:
    """A frame of a video as a picture file, as players show it. Equal arguments give equal bytes.

    form: one of FORMATS. width: of the picture; by default every sample of the frame is kept. .png is exact:
    8 bits for 8-bit video, 16 bits for 10-bit video. .jpg has 8 bits; HDR is not mapped to SDR. Raises
    VideoError, and LimitError for sizes that the codec does not have.
    """
    turn = turn_of(info)
    size = upright_size(info, width)
    if form == ".avif" and min(size) < _AVIF_SIDE:
        raise LimitError(
            f"the picture would have {size[0]}x{size[1]} pixels; .avif needs {_AVIF_SIDE} a side"
        )
    try:
        rgb = _scaled(RgbConverter(info)(frame), size[::-1] if swaps_sides(turn) else size)
        picture = _picture(turned(rgb, turn))
        encoders = {".png": _png, ".avif": _avif}
        return encoders.get(form, _jpeg)(picture, info)
    except FAILURES as error:
        raise VideoError(f"the frame cannot be written as {form}: {reason_of(error)}") from error


def upright_size(info: VideoInfo, width: int | None = None) -> tuple[int, int]:
    """Width and height of a video's frames as players show them, or of this width in the same shape.

    Raises LimitError for sizes that the codec does not have; but the height may be as little as 1.
    """
    aspect, one = info.sample_aspect_ratio, Fraction(1)
    shown = info.width * max(aspect, one), info.height / min(aspect, one)
    if swaps_sides(turn_of(info)):
        shown = shown[::-1]
    width = width or round(shown[0])
    height = max(round(width * shown[1] / shown[0]), 1)
    if not allowed_size(max(width, 16), max(height, 16)):
        raise LimitError(f"the picture would have {width}x{height} pixels; sizes of {SIZES} are supported")
    return width, height


def written_by_viddiff(path: Path) -> bool:
    """Whether a file is a picture with the mark of `encode_picture`, or is empty."""
    with suppress(OSError), open(path, "rb") as file:
        start = file.read(4096)
        file.seek(-min(file.seek(0, os.SEEK_END), len(_FREE_BOX)), os.SEEK_END)
        ends_with_box = file.read() == _FREE_BOX
        if start.startswith(b"\x89PNG"):
            return start[_PNG_START:].startswith(_text_chunk())
        if start.startswith(b"\xff\xd8"):
            return _COMMENT in start
        return not start or ends_with_box
    return False


def _scaled(rgb: RgbImage, size: tuple[int, int]) -> RgbImage:
    """The picture with this width and height."""
    if rgb.shape[1::-1] == size:
        return rgb
    picture = _picture(rgb)
    scale = f"{size[0]}:{size[1]}:flags=lanczos+accurate_rnd"
    scaled = _through(picture, ("scale", scale), ("format", picture.format.name))
    return cast(RgbImage, scaled.to_ndarray())


def _picture(rgb: RgbImage) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(rgb, "rgb24" if rgb.dtype == np.uint8 else "rgb48le")
    picture.pts, picture.time_base = 0, Fraction(1, 25)
    return picture


def _through(picture: av.VideoFrame, *filters: tuple[str, str]) -> av.VideoFrame:
    graph = linked(("buffer", source_arguments(picture, Fraction(1, 25))), *filters, ("buffersink", ""))
    graph.push(picture)
    return cast(av.VideoFrame, graph.pull())


def _context(codec: str, picture: av.VideoFrame) -> VideoCodecContext:
    context = cast(VideoCodecContext, av.CodecContext.create(codec, "w"))
    context.width, context.height, context.pix_fmt = picture.width, picture.height, picture.format.name
    context.time_base, context.sample_aspect_ratio = Fraction(1, 25), Fraction(1)
    context.thread_count = 1
    return context


def _png(picture: av.VideoFrame, info: VideoInfo) -> bytes:
    if picture.format.name == "rgb48le":
        picture = _through(picture, ("format", "rgb48be"))
    if _beyond_srgb(info):
        picture.color_primaries, picture.color_trc = info.primaries, info.transfer
    context = _context("png", picture)
    data = b"".join(map(bytes, context.encode(picture) + context.encode(None)))
    return data[:_PNG_START] + _text_chunk() + data[_PNG_START:]


def _text_chunk() -> bytes:
    """PNG's name of the software that wrote it."""
    text = b"tEXtSoftware\0" + _MARK
    return struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))


def _jpeg(picture: av.VideoFrame, info: VideoInfo) -> bytes:
    picture = _yuv(picture, "bt601", "yuvj420p")
    context = _context("mjpeg", picture)
    context.options = {"flags": "+qscale", "global_quality": str(_JPEG_QUALITY * _LAMBDA)}
    data = b"".join(map(bytes, context.encode(picture) + context.encode(None)))
    at = 4 + int.from_bytes(data[4:6], "big") if data[2:4] == b"\xff\xe0" else 2  # behind JFIF's header
    return data[:at] + _COMMENT + data[at:]


def _avif(picture: av.VideoFrame, info: VideoInfo) -> bytes:
    matrix = BT2020 if info.matrix == BT2020 else BT709
    form = "yuv420p" if info.bit_depth == 8 else "yuv420p10le"
    picture = _yuv(picture, "bt2020" if matrix == BT2020 else "bt709", form)
    out = io.BytesIO()
    with av.open(out, "w", format="avif") as file:
        stream = file.add_stream("libsvtav1", rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = picture.width, picture.height, form
        context.thread_count = 1
        context.color_primaries = info.primaries if info.primaries != UNSPECIFIED else BT709
        context.color_trc = info.transfer if info.transfer != UNSPECIFIED else _SRGB_TRANSFER
        context.colorspace, context.color_range = matrix, FULL
        context.options = {
            "preset": str(PRESET),
            "qp": str(_AVIF_QUANTISER),
            "svtav1-params": "avif=1:lp=1",
        }
        with kept_scheduling():
            context.open()
        picture.pts = 0
        file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    return out.getvalue() + _FREE_BOX


def _yuv(picture: av.VideoFrame, matrix: str, form: str) -> av.VideoFrame:
    """RGB as 4:2:0 of the full range."""
    scale = f"flags=bicubic+accurate_rnd+full_chroma_int:out_color_matrix={matrix}:out_range=full"
    return _through(picture, ("scale", scale), ("format", form))


def _beyond_srgb(info: VideoInfo) -> bool:
    """Whether colours look wrong where they are taken for those of sRGB, as those of pictures are."""
    return info.primaries >= BT2020 or info.transfer in (_PQ, _HLG)


def notes_on(info: VideoInfo, form: str) -> list[str]:
    """What a user should know of such a picture of this video."""
    notes = []
    if form in (".jpg", ".jpeg") and _beyond_srgb(info):
        notes.append(f"{form} cannot say that colours are HDR or wide: they look pale; .avif and .png can")
    if info.display.matrix is not None and turn_of(info) == UNTURNED:
        notes.append("the display matrix of the video is not applied")
    return notes
