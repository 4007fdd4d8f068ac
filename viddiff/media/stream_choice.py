"""Which of several video streams is taken: the one that is named, or the first that shows moving pictures."""

from typing import Any, cast

import av
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from viddiff.errors import VideoError
from viddiff.media.demuxer import Demuxer
from viddiff.media.libav_errors import FAILURES
from viddiff.media.track_selection import video_missing

_LOOKED_AT = 16 << 20
"""Bytes of video that are read to find out what each stream shows."""
_MOVING = 2
"""Pictures that a stream has to show; with one it is a poster."""


def choose_stream(demuxer: Demuxer, number: int | None = None) -> tuple[VideoStream, str | None]:
    """The stream to take and a note if there were others. VideoError if there is none with a decoder.

    number: of the stream that the user names, from 0.

    The default one comes before others, and a stream that shows nothing last: of an empty program of a
    broadcast, encrypted, or of a codec without a decoder.
    """
    streams = demuxer.videos
    if not streams:
        raise VideoError(f"{demuxer.name} has no video")
    if number is not None:
        if number >= len(streams):
            raise video_missing(demuxer, number)
        demuxer.chosen = streams[number].index
        return streams[number], None
    if len(streams) == 1:
        return streams[0], None
    if demuxer.chosen is None:
        shown = _pictures_shown(demuxer, streams)
        rated = sorted(streams, key=lambda s: (-shown[s.index], Disposition.default not in s.disposition))
        demuxer.chosen = rated[0].index
    (place,) = (n for n, stream in enumerate(streams) if stream.index == demuxer.chosen)
    if place == 0:
        return streams[0], f"took the first of {len(streams)} video streams"
    return streams[
        place
    ], f"took video stream {place + 1} of {len(streams)}, the first that shows moving pictures"


def _pictures_shown(demuxer: Demuxer, streams: list[VideoStream]) -> dict[int, int]:
    """Number of pictures of each stream, by its index, up to _MOVING.

    For a source that can be read only once, this is what the header promises.
    """
    again = demuxer.again()
    if again is None:
        return {stream.index: _MOVING * _promising(stream) for stream in streams}
    shown = {stream.index: 0 for stream in streams}
    wanted = next((s for s in streams if Disposition.default in s.disposition), streams[0]).index
    size = 0
    try:
        with again:
            known = [
                again.streams[index] for index in shown if again.streams[index].codec_context is not None
            ]
            for packet in again.demux(known):
                size += packet.size
                shown[packet.stream.index] += _count(packet)
                if shown[wanted] >= _MOVING or size > _LOOKED_AT:
                    break
    except FAILURES:
        pass
    return {index: min(count, _MOVING) for index, count in shown.items()}


def _promising(stream: VideoStream) -> bool:
    context = cast(VideoCodecContext | None, stream.codec_context)
    return context is not None and context.width > 0 < context.height


def _count(packet: "av.Packet[Any]") -> int:
    try:
        return len(packet.decode())
    except FAILURES:
        return 0
