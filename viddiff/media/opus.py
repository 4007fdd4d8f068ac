"""Transcode sound to Opus."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any, cast

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Stream

from viddiff.media.codec_parameters import file_of
from viddiff.media.libav_errors import FAILURES

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
        self._graph: av.filter.Graph | None = None
        self._form: tuple[int, str, str] | None = None
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
            yield from self._encoded(self._filtered(frame))
        if not packet.size and packet.dts is None and not self._ended:
            self._ended = True
            yield from self._encoded(self._drained())
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

    def _filtered(self, frame: av.AudioFrame) -> Iterator[av.AudioFrame]:
        form = frame.sample_rate, frame.format.name, frame.layout.name
        if form != self._form:  # broadcasts change within
            yield from self._drained()
            self._graph, self._form = self._new_graph(frame), form
        if self._graph is not None:
            self._graph.push(frame)
        yield from self._pulled()

    def _drained(self) -> Iterator[av.AudioFrame]:
        """What the filters still hold."""
        if self._graph is not None:
            self._graph.push(None)
        yield from self._pulled()

    def _new_graph(self, frame: av.AudioFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        nodes = [
            graph.add_abuffer(
                sample_rate=frame.sample_rate,
                format=frame.format.name,
                layout=frame.layout.name,
                time_base=frame.time_base,
            ),
            # async=1 fills gaps and cuts overlaps, min_hard_comp: of more than this many seconds
            graph.add("aresample", f"{RATE}:async=1:min_hard_comp=0.02"),
            graph.add("aformat", f"sample_fmts=flt:sample_rates={RATE}:channel_layouts={self._layout}"),
            graph.add("abuffersink"),
        ]
        for first, second in pairwise(nodes):
            first.link_to(second)
        graph.configure()
        return graph

    def _pulled(self) -> Iterator[av.AudioFrame]:
        while self._graph is not None:
            try:
                yield cast(av.AudioFrame, self._graph.pull())
            except (av.BlockingIOError, av.EOFError):
                return

    def _encoded(self, frames: Iterator[av.AudioFrame]) -> Iterator[tuple[int, int, bytes]]:
        for frame in frames:
            yield from _timed(self._encoder.encode(frame))


def _timed(packets: "list[av.Packet[Any]]") -> Iterator[tuple[int, int, bytes]]:
    for packet in packets:
        if packet.size and packet.pts is not None:
            yield packet.pts, packet.duration or 960, bytes(packet)
