"""Properties of a decoded libav picture: layout, colour, fields and side data."""

import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from typing import Any, cast

import av
from av.sidedata.sidedata import SideData, Type

from viddiff.display import Display, FieldOrder
from viddiff.media.libav_errors import FAILURES

CHROMA_LOCATIONS = ("unspecified", "left", "center", "topleft", "top", "bottomleft", "bottom")
"""libav's names of the values of `VideoInfo.chroma_location`."""
LEFT = 1
LIMITED, FULL = 1, 2  # libav's AVColorRange
UNSPECIFIED, BT709, BT2020 = 2, 1, 9  # H.273 code points

_LOST = {
    Type.A53_CC: "closed captions",
    Type.DYNAMIC_HDR_PLUS: "HDR10+",
    Type.DOVI_RPU_BUFFER: "Dolby Vision",
    Type.DOVI_METADATA: "Dolby Vision",
    Type.DYNAMIC_HDR_VIVID: "HDR Vivid",
    Type.ICC_PROFILE: "ICC profile",
    Type.STEREO3D: "stereo 3D",
    Type.SPHERICAL: "spherical mapping",
    Type.AMBIENT_VIEWING_ENVIRONMENT: "ambient viewing environment",
    Type.S12M_TIMECODE: "time codes",
}
_KINDS = 48
"""More than there are kinds of side data in libav, whose numbers begin with 0."""
_MASTERING = struct.Struct("=20i2i")  # AVMasteringDisplayMetadata: ten fractions and what of them is there
_ONE, _W = 1 << 16, 1 << 30  # 1 in a display matrix: of its first two columns, of its third


class Layout:
    """Properties of a picture's pixel format."""

    def __init__(self, picture: av.VideoFrame) -> None:
        form = picture.format
        self.name = form.name
        self.palette = form.has_palette
        colours = [c for c in form.components if not c.is_alpha]
        self.alpha = self.palette or len(colours) < len(form.components)
        """Whether there is an alpha channel. A palette has one, too."""
        self.rgb = form.is_rgb or self.palette
        bits = 8 if self.palette else max(c.bits for c in colours)
        self.bit_depth = 8 if bits <= 8 else 10
        """Bit depth of the video after conversion."""
        self.gray = len(colours) == 1 and not self.palette
        self.range_assumed = self.gray and picture.color_range not in (LIMITED, FULL)
        """Whether the range is not stated, but the format suggests full range."""
        is_full = picture.color_range == FULL or form.name.startswith("yuvj") or self.range_assumed
        self.full_range = is_full and not self.rgb
        self.subsampled_alike = re.match(r"yuvj?a?420|nv12|nv21|p01", form.name) is not None
        """Whether its chroma is subsampled as 4:2:0."""
        self.stored_alike = form.name in (
            ("yuv420p", "yuvj420p") if self.bit_depth == 8 else ("yuv420p10le",)
        )


def code_point(*values: int) -> int:
    """The first H.273 code point of YUV video among `values`, or "unspecified"."""
    return next((value for value in values if 1 <= value <= 255 and value != UNSPECIFIED), UNSPECIFIED)


def logged_properties(picture: av.VideoFrame) -> tuple[int, Fraction, FieldOrder]:
    """Chroma location, sample aspect ratio and field order, read from the log of libav's showinfo filter.

    PyAV does not show them.
    """
    graph = av.filter.Graph()
    source = graph.add("buffer", source_arguments(picture, Fraction(1, 25)))
    show, sink = graph.add("showinfo", "checksum=0"), graph.add("buffersink")
    level = av.logging.get_level()
    logs: list[tuple[int, str, str]] = []
    try:
        source.link_to(show)
        show.link_to(sink)
        graph.configure()
        av.logging.set_level(av.logging.INFO)
        with av.logging.Capture() as logs:
            graph.push(picture)
            graph.pull()
    except FAILURES:
        pass
    finally:
        av.logging.set_level(level)
    found = re.search(r" cl:(\w+) sar:(\d+)/(\d+) .* i:([PTB]) ", " ".join(line for _, _, line in logs))
    if not found:
        return 0, Fraction(1), "progressive"
    name, width, height = found[1], int(found[2]), int(found[3])
    location = CHROMA_LOCATIONS.index(name) if name in CHROMA_LOCATIONS else 0
    orders: dict[str, FieldOrder] = {"T": "top first", "B": "bottom first"}
    aspect = Fraction(width, height) if width and height else Fraction(1)
    return location, aspect, orders.get(found[4], "progressive")


def source_arguments(picture: av.VideoFrame, time_base: Fraction) -> str:
    """Arguments of libav's "buffer" filter for pictures like this one."""
    return (
        f"video_size={picture.width}x{picture.height}:pix_fmt={picture.format.name}"
        f":time_base={time_base.numerator}/{time_base.denominator}"
        f":colorspace={picture.colorspace}:range={picture.color_range}"
    )


def display_of(picture: av.VideoFrame, field_order: FieldOrder) -> Display:
    """HDR10 metadata and display matrix from a picture's side data."""
    side = _side_data(picture)
    colours = luminance = light = None
    mastering = side.get(Type.MASTERING_DISPLAY_METADATA, b"")
    if len(mastering) >= _MASTERING.size:
        *numbers, has_colours, has_luminance = _MASTERING.unpack_from(mastering)
        values = [Fraction(a, b) if b else Fraction(0) for a, b in _pairs(numbers)]
        colours = _within(values[:8], 50_000, 1 << 16) if has_colours else None
        luminance = _within([values[9], values[8]], 10_000, 1 << 32) if has_luminance else None
    level = side.get(Type.CONTENT_LIGHT_LEVEL, b"")
    if len(level) >= 8:
        light = _within([Fraction(n) for n in struct.unpack_from("=2I", level)], 1, 1 << 16)
    matrix = _unusual(side.get(Type.DISPLAYMATRIX, b""))
    return Display(colours, luminance, light, field_order, matrix)


def side_data_lost(picture: av.VideoFrame) -> list[str]:
    """Names of side data that a `.vdf` cannot hold."""
    return list(dict.fromkeys(_LOST[kind] for kind in _side_data(picture) if kind in _LOST))


def _side_data(picture: av.VideoFrame) -> dict[Type, bytes]:
    """By kind. PyAV shows none at all if it has no name for one of them: those are taken off then."""
    for shown in (picture, None):
        with suppress(*FAILURES):
            known = shown or _without_unknown(picture)
            sides = cast(Iterable[SideData], known.side_data)  # PyAV's stubs say what one of them is
            return {data.type: bytes(cast(Any, data)) for data in sides}
    return {}


def _without_unknown(picture: av.VideoFrame) -> av.VideoFrame:
    """The picture without side data that PyAV has no name for. Raises what PyAV does."""
    graph, known = av.filter.Graph(), {int(cast(Any, kind.value)) for kind in Type}
    unknown = [number for number in range(_KINDS) if number not in known]
    source = graph.add("buffer", source_arguments(picture, Fraction(1, 25)))
    filters = [graph.add("sidedata", f"mode=delete:type={number}") for number in unknown]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    graph.push(picture)
    return cast(av.VideoFrame, graph.pull())


def _pairs(numbers: list[int]) -> list[tuple[int, int]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _within(values: list[Fraction], units: int, end: int) -> tuple[int, ...] | None:
    numbers = tuple(round(value * units) for value in values)
    return numbers if all(0 <= number < end for number in numbers) and any(numbers) else None


def _unusual(data: bytes) -> tuple[int, ...] | None:
    """A display matrix that is no plain rotation by a multiple of 90 degrees, or None."""
    if len(data) < 36:
        return None
    matrix = struct.unpack_from("=9i", data)
    a, b, u, c, d, v, _, _, w = matrix
    plain = (u, v, w) == (0, 0, _W) and {abs(a), abs(b)} == {0, _ONE}
    return None if plain and (a, c) == (d, -b) else matrix
