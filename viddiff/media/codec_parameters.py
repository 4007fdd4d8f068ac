"""A track's codec parameters as a small media file, which every libav can read and write."""

import io
from collections.abc import Callable
from fractions import Fraction

import av
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.stream import Stream

from viddiff.media.libav_errors import FAILURES
from viddiff.tracks import FORMATS

PLACEHOLDER = b"\0\0"
"""Stands for the first packet of a stream where none is known."""
_SAMPLES = bytes(8 * 840)
"""Whole samples of any PCM of up to 8 channels: only with a packet does .mp4 refuse some."""
_BITEXACT = 0x400  # libav's AVFMT_FLAG_BITEXACT: nothing random, no versions


def file_of(form: str, add: Callable[[OutputContainer], Stream], sample: bytes | None = None) -> bytes:
    """Bytes of a media file in libav's format `form`, with the stream that `add` adds.

    sample: a packet to write. Raises PyAV's errors if the format cannot hold the stream.
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


def add_copy(container: OutputContainer, template: Stream) -> Stream:
    """A new stream of `container` with the codec parameters of `template`.

    Raises what PyAV does. Whether the format holds it shows only when the file is written: PyAV refuses what
    libav's table of a format lacks, but Matroska, for one, holds all sound that .wav does. So a stream that
    is refused is added as plain PCM first and then given its parameters.
    """
    try:
        return container.add_stream_from_template(template, opaque=True)
    except ValueError:
        if template.type != "audio" or template.codec_context is None:
            raise
    pcm = av.open(io.BytesIO(_SAMPLES), "r", format="s16le").streams.audio[0]
    stream = container.add_stream_from_template(pcm, opaque=True)
    BitStreamFilterContext("null", in_stream=template, out_stream=stream)
    stream.codec_context.codec_tag = "\0\0\0\0"  # of the source's format; the muxer takes its own
    stream.time_base = template.time_base
    return stream


def describe(stream: Stream, sample: bytes) -> tuple[str, bytes] | None:
    """A format and a file in it with this stream and this packet. None if no format can hold it.

    libav takes missing parameters from the packet, and some formats need a packet to be complete.
    """
    for form in FORMATS:
        try:
            data = file_of(form, lambda container: add_copy(container, stream), sample)
            with av.open(io.BytesIO(data), "r", format=form) as again:
                if [codec_name(s) for s in again.streams] == [codec_name(stream)]:
                    return form, data
        except FAILURES:
            continue
    return None


def described(form: str, data: bytes) -> tuple[Stream, bytes]:
    """The stream of such a file and its packet. Raises what PyAV does, ValueError if it is not one stream."""
    container = av.open(io.BytesIO(data), "r", format=form, metadata_errors="replace")
    (stream,) = container.streams
    sample = next((bytes(packet) for packet in container.demux(stream) if packet.size), PLACEHOLDER)
    return stream, sample


def holds(form: str, template: Stream, sample: bytes) -> bool:
    """Whether a file of libav's format `form` can hold such a stream: one is written and read again."""

    def add(container: OutputContainer) -> Stream:
        return add_copy(container, template)

    if codec_name(template).startswith("pcm_"):
        sample = _SAMPLES
    try:
        data = file_of(form, add, sample)
        with av.open(io.BytesIO(data), "r", format=form) as again:
            # .mov takes some data that nobody finds in it any more: it is read as of no codec
            found = [(stream.type, bool(codec_name(stream))) for stream in again.streams]
            return found == [(template.type, True)]
    except FAILURES:
        if sample != PLACEHOLDER:
            return False
    try:
        return bool(file_of(form, add))
    except FAILURES:
        return False


def codec_name(stream: Stream) -> str:
    """Name of a stream's codec in libav. Empty if it has none."""
    context = stream.codec_context
    return str(context.codec.canonical_name if context else getattr(stream, "name", None) or "")
