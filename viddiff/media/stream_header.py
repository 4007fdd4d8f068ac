"""Stream templates: they set HDR10 metadata and field order, for which PyAV has no setting.

A stream that is added from a template takes over its side data. The template is a Matroska file (RFC 9559)
without frames, which this module makes.
"""

import io
import struct

import av
from av.video.stream import VideoStream

from viddiff.display import Display

_CODECS = {"libx264": "V_MPEG4/ISO/AVC", "ffv1": "V_FFV1"}
"""Matroska's names of codecs, by libav's names of encoders."""
_EBML, _DOC_TYPE, _DOC_VERSION = 0x1A45DFA3, 0x4282, 0x4287
_SEGMENT, _INFO, _SCALE, _CLUSTER, _TIME = 0x18538067, 0x1549A966, 0x2AD7B1, 0x1F43B675, 0xE7
_TRACKS, _TRACK, _NUMBER, _UID, _TYPE, _CODEC = 0x1654AE6B, 0xAE, 0xD7, 0x73C5, 0x83, 0x86
_VIDEO, _WIDTH, _HEIGHT, _INTERLACED, _ORDER = 0xE0, 0xB0, 0xBA, 0x9A, 0x9D
_COLOUR, _MAX_CLL, _MAX_FALL, _MASTERING = 0x55B0, 0x55BC, 0x55BD, 0x55D0
_COLOURS, _LUMINANCE = range(0x55D1, 0x55D9), range(0x55D9, 0x55DB)
_ORDERS = {"top first": 1, "bottom first": 6}

Content = bytes | str | int | float | list[bytes]


def template(codec: str, width: int, height: int, display: Display) -> VideoStream:
    """A stream of libav's encoder `codec` (libx264 or ffv1) with these display properties."""
    mastering: list[bytes] = []
    if display.mastering_colours is not None:
        pairs = zip(_COLOURS, display.mastering_colours, strict=True)
        mastering += [_element(kind, value / 50_000) for kind, value in pairs]
    if display.mastering_luminance is not None:
        pairs = zip(_LUMINANCE, display.mastering_luminance, strict=True)
        mastering += [_element(kind, value / 10_000) for kind, value in pairs]
    colour = [_element(_MASTERING, mastering)] if mastering else []
    if display.content_light is not None:
        brightest, mean = display.content_light
        colour += [_element(_MAX_CLL, brightest), _element(_MAX_FALL, mean)]
    video = [_element(_WIDTH, width), _element(_HEIGHT, height)]
    video += [_element(_COLOUR, colour)] if colour else []
    if display.field_order in _ORDERS:
        video += [_element(_INTERLACED, 1), _element(_ORDER, _ORDERS[display.field_order])]
    track = [_element(_NUMBER, 1), _element(_UID, 1), _element(_TYPE, 1), _element(_CODEC, _CODECS[codec])]
    tracks = _element(_TRACKS, [_element(_TRACK, [*track, _element(_VIDEO, video)])])
    parts = [_element(_INFO, [_element(_SCALE, 1_000_000)]), tracks, _element(_CLUSTER, [_element(_TIME, 0)])]
    head = _element(_EBML, [_element(_DOC_TYPE, "matroska"), _element(_DOC_VERSION, 4)])
    file = io.BytesIO(head + _element(_SEGMENT, parts))
    return av.open(file, "r", format="matroska").streams.video[0]


def _element(kind: int, content: Content) -> bytes:
    """An EBML element with a size field of eight bytes."""
    match content:
        case list():
            data = b"".join(content)
        case str():
            data = content.encode("ascii")
        case float():
            data = struct.pack(">d", content)
        case int():
            data = content.to_bytes(8, "big")
        case bytes():
            data = content
    return (
        kind.to_bytes((kind.bit_length() + 7) // 8, "big") + (len(data) | 1 << 56).to_bytes(8, "big") + data
    )
