"""Whether one decoder can go on from one track with the packets of another."""

from av.audio.codeccontext import AudioCodecContext

from viddiff.media.codec_parameters import described
from viddiff.media.libav_errors import FAILURES
from viddiff.tracks import Track

_FLAC_FORMAT = slice(10, 14)
"""Rate, channels and bits in the STREAMINFO of FLAC. The rest says how long the stream is, and its MD5."""
_FLAC_BITS = 0xF0
"""Bits of the last of these bytes that are no part of the length."""


def difference(a: Track, b: Track) -> str:
    """In what the codec parameters of `b` differ from those of `a`, as "rate is 44100, not 48000".

    Empty if they do not.
    """
    pairs = [("kind", a.kind, b.kind), ("codec", a.codec, b.codec), ("time base", a.time_base, b.time_base)]
    details = {**a.details, **b.details}
    pairs += [(name.replace("_", " "), a.details.get(name), b.details.get(name)) for name in details]
    for name, mine, other in pairs:
        if mine != other:
            return f"{name} is {other}, not {mine}"
    if a.description == b.description:
        return ""
    try:
        same = _parameters(a) == _parameters(b)
    except FAILURES:
        return "description cannot be read"
    return "" if same else "codec parameters are others"


def _parameters(track: Track) -> list[object]:
    """What a decoder needs to know. Raises what PyAV does."""
    stream, _ = described(track.format, track.description)
    context = stream.codec_context
    if context is None:
        return []
    extra = context.extradata or b""
    if track.codec == "flac" and len(extra) >= _FLAC_FORMAT.stop:
        extra = extra[_FLAC_FORMAT]
        extra = extra[:-1] + bytes([extra[-1] & _FLAC_BITS])
    found: list[object] = [context.name, extra]
    if isinstance(context, AudioCodecContext):
        form = context.format.name if context.format else None
        found += [context.sample_rate, context.layout.name, form]
    return found
