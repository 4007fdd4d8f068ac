"""A track's codec parameters as a small media file, a form that any libav reads and writes."""

import io
from collections.abc import Callable
from typing import Any

import av
from av.container import OutputContainer
from av.stream import Stream

from viddiff.failures import FAILURES
from viddiff.tracks import FORMATS

_BITEXACT = 0x400  # libav's AVFMT_FLAG_BITEXACT: nothing random, no versions


def file_of(form: str, fill: Callable[[OutputContainer], object]) -> bytes:
    """The bytes of a media file in libav's format `form` that `fill` writes. Raises what PyAV does."""
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        container.flags |= _BITEXACT
        fill(container)
        container.start_encoding()
    return out.getvalue()


def describe(stream: Stream, first: "av.Packet[Any] | None") -> tuple[str, bytes] | None:
    """A format, and a file of it with this stream and its first packet, if any; None if no format can."""

    def fill(container: OutputContainer) -> None:
        copy = container.add_stream_from_template(stream, opaque=True)
        if first is not None:
            packet = av.Packet(bytes(first))
            packet.time_base, packet.is_keyframe = first.time_base, True
            packet.pts = packet.dts = 0
            packet.stream = copy
            container.mux(packet)

    for form in FORMATS:
        try:
            data = file_of(form, fill)
            with av.open(io.BytesIO(data), "r", format=form) as again:
                if [codec_name(s) for s in again.streams] == [codec_name(stream)]:
                    return form, data
        except FAILURES:
            continue
    return None


def described(form: str, data: bytes) -> Stream:
    """The stream of such a file. Raises what PyAV does, ValueError if it is not one stream."""
    (stream,) = av.open(io.BytesIO(data), "r", format=form, metadata_errors="replace").streams
    return stream


def codec_name(stream: Stream) -> str:
    """libav's name of a stream's codec; empty if it has none."""
    context = stream.codec_context
    return str(context.codec.canonical_name if context else stream.name or "")
