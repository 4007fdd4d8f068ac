"""Transcode sound to Opus."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Stream

from viddiff.media.codec_parameters import file_of
from viddiff.media.libav_errors import FAILURES
from viddiff.media.resampler import Resampler

RATE = 48000
SILENCE = b"\xf8\xff\xfe"
"""An Opus packet of 20 ms of silence."""
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 8: "7.1"}
"""Layouts by number of channels. Other numbers become stereo."""
BITRATES = range(6, 511)
"""Bitrates of Opus, in kbit/s."""


class OpusTranscoder:
    """Decodes the packets of a stream and encodes them as Opus. Gaps become silence, so times stay right."""

    def __init__(self, stream: AudioStream, kbps: int) -> None:
        """Raises PyAV's errors if the stream cannot be decoded."""
        self._layout = LAYOUTS.get(stream.codec_context.channels, "stereo")
        self._kbps, self._stream = kbps, stream
        self._resampler = Resampler(RATE, self._layout, "flt")
        self._ended = False
        self._encoder = av.CodecContext.create("libopus", "w")
        self._configure(self._encoder)
        self._encoder.open()
        self.time_base = Fraction(1, RATE)
        """Time base of the packets."""
        self.description = self._describe()
        """A Matroska file with a stream of this kind."""

    def feed(self, packet: "av.Packet[Any]") -> Iterator[tuple[int, int, bytes]]:
        """pts, duration and bytes of the packets that are ready after `packet`.

        An empty packet ends the stream.
        """
        try:
            frames = cast(list[av.AudioFrame], packet.decode())
        except FAILURES:  # damage becomes silence
            frames = []
        for frame in frames:
            yield from self._encoded(self._resampler.feed(frame))
        if not packet.size and packet.dts is None and not self._ended:
            self._ended = True
            yield from self._encoded(self._resampler.drain())
            yield from _timed(self._encoder.encode(None))

    def _configure(self, context: AudioCodecContext) -> None:
        context.sample_rate, context.layout, context.format = RATE, self._layout, "flt"
        context.bit_rate, context.time_base = 1000 * self._kbps, Fraction(1, RATE)
        context.options = {"mapping_family": "-1"}

    def _describe(self) -> bytes:
        def add(container: OutputContainer) -> Stream:
            stream = container.add_stream("libopus", rate=RATE)
            self._configure(stream.codec_context)
            return stream

        return file_of("matroska", add, SILENCE)

    def _encoded(self, frames: Iterator[av.AudioFrame]) -> Iterator[tuple[int, int, bytes]]:
        for frame in frames:
            yield from _timed(self._encoder.encode(frame))


def _timed(packets: "list[av.Packet[Any]]") -> Iterator[tuple[int, int, bytes]]:
    for packet in packets:
        if packet.size and packet.pts is not None:
            yield packet.pts, packet.duration or 960, bytes(packet)
