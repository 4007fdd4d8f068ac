"""Sound at one rate, with one layout and one sample format, whatever comes."""

from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import av


class Resampler:
    """Converts sound. Gaps become silence and overlaps are cut, so times stay right."""

    def __init__(self, rate: int, layout: str, form: str) -> None:
        """rate: samples per second. layout, form: by libav's names."""
        self._rate, self._layout, self._wanted = rate, layout, form
        self._graph: av.filter.Graph | None = None
        self._form: tuple[int, str, str] | None = None

    def feed(self, frame: av.AudioFrame) -> Iterator[av.AudioFrame]:
        """The sound that is ready after `frame`. Raises PyAV's errors."""
        form = frame.sample_rate, frame.format.name, frame.layout.name
        if form != self._form:  # broadcasts change within
            yield from self.drain()
            self._graph, self._form = self._new_graph(frame), form
        if self._graph is not None:
            self._graph.push(frame)
        yield from self._pulled()

    def drain(self) -> Iterator[av.AudioFrame]:
        """What the filters still hold. The next frame may have any time."""
        if self._graph is not None:
            self._graph.push(None)
        yield from self._pulled()
        self._graph, self._form = None, None

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
            graph.add("aresample", f"{self._rate}:async=1:min_hard_comp=0.02"),
            graph.add(
                "aformat",
                f"sample_fmts={self._wanted}:sample_rates={self._rate}:channel_layouts={self._layout}",
            ),
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
