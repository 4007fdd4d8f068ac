"""A track's codec parameters as a small media file, a form that any libav reads and writes."""

import io
from collections.abc import Callable
from fractions import Fraction

import av
from av.container import OutputContainer
from av.stream import Stream

from viddiff.media.libav_errors import FAILURES
from viddiff.tracks import FORMATS

_BITEXACT = 0x400  # libav's AVFMT_FLAG_BITEXACT: nothing random, no versions


def file_of(form: str, add: Callable[[OutputContainer], Stream], sample: bytes | None = None) -> bytes:
    """The bytes of a media file in libav's format `form`: the stream that `add` adds, with a packet if given.

    Raises what PyAV does where the format cannot hold the stream.
    """
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        container.flags |= _BITEXACT
        stream = add(container)
        container.start_encoding()
        if sample is not None:
            packet = av.Packet(sample)
            packet.pts, packet.dts, packet.duration, packet.time_base = 0, 0, 1, Fraction(1, 100)
            packet.is_keyframe, packet.stream = True, stream
            container.mux(packet)
    return out.getvalue()


def describe(stream: Stream, sample: bytes) -> tuple[str, bytes] | None:
    """A format, and a file of it with this stream and this packet; None if no format can.

    libav takes what it still misses from the packet, and some formats need one to be whole.
    """
    for form in FORMATS:
        try:
            data = file_of(
                form, lambda container: container.add_stream_from_template(stream, opaque=True), sample
            )
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
