"""Sound tracks as samples at fixed places of a time line, for encoders that want every sample."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray

from viddiff.media.codec_parameters import described
from viddiff.media.libav_errors import FAILURES, reason_of
from viddiff.media.resampler import Resampler
from viddiff.tracks import Track, TrackPacket

Samples = NDArray[np.float32]
"""(2, N): left and right."""
_LEAP = Fraction(1)
"""Sound that is further from where it was expected (seconds) begins anew: such a gap is not filled here."""


class SoundDecoder:
    """Decodes a track to stereo sound. Damage becomes silence."""

    def __init__(self, track: Track, rate: int, origin: Fraction) -> None:
        """origin: the time of sample 0 (seconds). Raises PyAV's errors if the track cannot be decoded."""
        stream, _ = described(track.format, track.description)
        if not isinstance(stream.codec_context, AudioCodecContext):
            raise ValueError("there is no decoder for it")
        self._kept_alive, self._context = stream, stream.codec_context
        self._context.open(strict=False)
        self._track, self._rate, self._origin = track, rate, origin
        self._resampler = Resampler(rate, "stereo", "fltp")
        self._expected: Fraction | None = None

    def pieces(self, packets: Iterator[TrackPacket]) -> Iterator[tuple[int, Samples]]:
        """Sound with the place of its first sample, in the order of `packets`."""
        for packet in packets:
            for frame in self._decoded(packet):
                yield from self._placed(frame)
        yield from map(self._piece, self._resampler.drain())

    def _decoded(self, packet: TrackPacket) -> list[av.AudioFrame]:
        coded: av.Packet[Any] = av.Packet(packet.data)
        coded.pts = coded.dts = packet.pts
        coded.duration, coded.time_base = packet.duration, self._track.time_base
        try:
            return [frame for frame in self._context.decode(coded) if frame.pts is not None]
        except FAILURES:
            return []

    def _placed(self, frame: av.AudioFrame) -> Iterator[tuple[int, Samples]]:
        try:
            at = (frame.pts or 0) * Fraction(frame.time_base or self._track.time_base)
            if self._expected is None or abs(at - self._expected) > _LEAP:
                yield from map(self._piece, self._resampler.drain())
            self._expected = at + Fraction(frame.samples, frame.sample_rate)
            yield from map(self._piece, self._resampler.feed(frame))
        except FAILURES:
            self._expected = None

    def _piece(self, frame: av.AudioFrame) -> tuple[int, Samples]:
        at = (frame.pts or 0) * Fraction(frame.time_base or Fraction(1, self._rate))
        return round((at - self._origin) * self._rate), cast(Samples, frame.to_ndarray())


class SoundTimeline:
    """Samples of a time line in blocks, in order. Where there is no sound, there is silence."""

    def __init__(self, pieces: Iterator[tuple[int, Samples]], block: int, first: int) -> None:
        """block: samples in a block. first: number of the first block to take."""
        self._pieces, self._block, self._number = pieces, block, first
        self._ahead: tuple[int, Samples] | None = None

    def take(self) -> Samples:
        """The next block, (2, block)."""
        samples = np.zeros((2, self._block), np.float32)
        start, self._number = self._number * self._block, self._number + 1
        stop = start + self._block
        while (piece := self._ahead or next(self._pieces, None)) is not None:
            at, sound = piece
            end = at + sound.shape[1]
            since, until = max(at, start), min(end, stop)
            if since < until:
                samples[:, since - start : until - start] = sound[:, since - at : until - at]
            self._ahead = piece if end > stop else None
            if end >= stop:
                break
        return samples


def why_undecodable(track: Track) -> str:
    """Why a track cannot be decoded, "" if it can."""
    try:
        SoundDecoder(track, 48_000, Fraction(0))
    except FAILURES as error:
        return reason_of(error)
    return ""
