"""Encode the sound of a track as Opus, for files that hold no other."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import av
from av.audio.stream import AudioStream

from viddiff.media.codec_parameters import described
from viddiff.media.opus import BITRATES, OpusTranscoder
from viddiff.tracks import Track, TrackPacket

_OPUS_KBPS = 64
"""Of each channel that is encoded anew."""


class SoundRecoder:
    """Encodes a track as Opus."""

    def __init__(self, track: Track) -> None:
        """Raises PyAV's errors if it cannot be decoded, ValueError if it is no sound."""
        stream, _ = described(track.format, track.description)
        if not isinstance(stream, AudioStream):
            raise ValueError("there is no decoder for it")
        kbps = min(_OPUS_KBPS * max(stream.codec_context.channels, 1), BITRATES[-1])
        self._stream, self._time_base = stream, track.time_base
        self._opus = OpusTranscoder(stream, kbps)
        self.track = replace(
            track,
            codec="opus",
            time_base=self._opus.time_base,
            format="matroska",
            description=self._opus.description,
        )
        """The new track."""

    def feed(self, packet: TrackPacket) -> Iterator[TrackPacket]:
        """The packets that are ready after this one."""
        if not packet.data:
            return iter(())  # it would end the decoder
        coded: av.Packet[Any] = av.Packet(packet.data)
        coded.stream, coded.time_base = self._stream, self._time_base
        coded.pts, coded.dts, coded.duration = packet.pts, packet.pts, packet.duration
        return self._taken(packet.track, coded)

    def finish(self, number: int) -> Iterator[TrackPacket]:
        """The last packets of track `number`."""
        end: av.Packet[Any] = av.Packet()
        end.stream = self._stream
        return self._taken(number, end)

    def _taken(self, number: int, coded: "av.Packet[Any]") -> Iterator[TrackPacket]:
        for pts, duration, data in self._opus.feed(coded):
            yield TrackPacket(number, pts, duration, True, data)
