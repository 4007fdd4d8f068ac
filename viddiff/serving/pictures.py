"""Pictures of a movie in segments of H.264, made one after the other.

GOPs -> frames from the one that is shown where a segment begins -> pictures for browsers -> H.264
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack

from viddiff.errors import BitstreamError
from viddiff.frame import Frame
from viddiff.media.browser_pictures import BrowserPictures
from viddiff.media.segment_writer import TICKS, PictureSegment
from viddiff.pipeline.gop_decoding import decode_gop_from
from viddiff.serving.movie import Movie
from viddiff.serving.segments import Check, go_on


class Pictures:
    """Makes segments in order from one on. The next one goes on where the decoder is."""

    def __init__(self, movie: Movie, number: int) -> None:
        """number: of the first segment."""
        self._movie, self._number = movie, number
        self._stack, self._check = ExitStack(), go_on
        self._base_only: bool | None = None
        self._frames: Iterator[Frame] = iter(())
        self._held: Frame | None = None
        self._ahead: Frame | None = None
        self._decoding = 0.0

    def segment(self, check: Check) -> Iterator[bytes]:
        """The bytes of the next segment, as soon as some are complete. Close it after any exception.

        Each frame is shown until the next one. Frames that are lost are shown as the one before, if there is
        one, or as the one after. Raises ViddiffError, and what `check` raises.
        """
        movie, self._check = self._movie, check
        at, until = movie.timeline.span(self._number)
        while at < until:
            rendition = movie.pace.rendition
            self._begin_at(at, rendition.base_only)
            convert = BrowserPictures(movie.info, rendition.scale)
            writer = PictureSegment(convert.info)
            for frame, since, stop in self._shown(at, until):
                check()
                begun = time.perf_counter()
                data = writer.write(convert(frame), since, stop)
                self._count(stop - since, time.perf_counter() - begun)
                at = stop
                if data:
                    yield data
                if movie.pace.rendition != rendition:
                    break
            yield writer.finish()
        self._number += 1

    def close(self) -> None:
        """Close the file and free the memory."""
        self._frames = iter(())
        self._held = self._ahead = None
        self._stack.close()

    def _begin_at(self, tick: int, base_only: bool) -> None:
        """Decode from this time on, unless the decoder is already there."""
        if self._base_only == base_only:
            return
        self.close()
        movie, self._base_only = self._movie, base_only
        self._frames = self._decoded(tick, base_only)
        self._ahead = self._next()
        if self._ahead is None:
            raise BitstreamError("no frame can be decoded")
        self._held = self._ahead
        while self._ahead is not None and movie.timeline.tick(self._ahead.pts) <= tick:
            self._held, self._ahead = self._ahead, self._next()
        self._decoding = 0.0  # the start says nothing about the pace

    def _shown(self, at: int, until: int) -> Iterator[tuple[Frame, int, int]]:
        """Frames with the ticks from which and until which they are shown, without gaps."""
        tick = self._movie.timeline.tick
        while at < until:
            while self._ahead is not None and tick(self._ahead.pts) <= at:
                self._held, self._ahead = self._ahead, self._next()
            stop = until if self._ahead is None else min(tick(self._ahead.pts), until)
            assert self._held is not None
            yield self._held, at, stop
            at = stop

    def _next(self) -> Frame | None:
        begun = time.perf_counter()
        frame = next(self._frames, None)
        self._decoding += time.perf_counter() - begun
        return frame

    def _decoded(self, tick: int, base_only: bool) -> Iterator[Frame]:
        """Frames from the one that is shown at this time, or from one before it, up to the end."""
        movie = self._movie
        timeline, weights = movie.timeline, movie.weights(base_only)
        file = self._stack.enter_context(movie.open())
        since = timeline.origin + int(tick / (TICKS * timeline.unit))
        for gop in movie.gops[timeline.gop_at(movie.gops, tick) :]:
            for part in decode_gop_from(file, gop, weights, movie.reading, since, self._watch):
                if isinstance(part, Frame):
                    yield part
                elif part.lost or part.faults:
                    movie.note_damage(part)

    def _watch(self) -> None:
        self._check()

    def _count(self, ticks: int, encoding: float) -> None:
        decoding, self._decoding = self._decoding, 0.0
        self._movie.keep_pace(ticks / TICKS, decoding, encoding)
