"""Output of coded groups: to the file, to the totals, and to an observer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from viddiff.container.format import Chunk, KeyChunk, Writer
from viddiff.digest import GopDigest, frame_digest
from viddiff.encoder.coded_group import CodedGroup
from viddiff.encoder.frame_stats import FrameStats
from viddiff.errors import ViddiffError
from viddiff.frame import Frame
from viddiff.pipeline.decoder_buffer import DecoderBuffer
from viddiff.pipeline.interruption import DeferredSignals, uninterrupted
from viddiff.pipeline.summary import EncodeSummary

Observer = Callable[[EncodeSummary], None]
"""Called after every chunk."""


@dataclass(frozen=True)
class CodedChunk:
    """A coded group without its pictures, to be sent between processes."""

    chunk: Chunk
    digests: tuple[bytes, ...] = ()
    """Digests of its decoded frames, in display order."""
    stats: tuple[FrameStats, ...] = ()
    base_bytes: int = 0
    strength_bytes: int = 0

    @classmethod
    def of(cls, group: CodedGroup) -> Self:
        """Replace the group's frames by their digests."""
        digests = tuple(map(frame_digest, group.frames))
        return cls(group.chunk, digests, tuple(group.stats), group.base_bytes, group.strength_bytes)


class Output:
    """Writes chunks and counts them."""

    def __init__(
        self,
        writer: Writer,
        progress: Observer | None = None,
        recording: bool = False,
        shorten: bool = True,
        buffer: DecoderBuffer | None = None,
    ) -> None:
        """recording: the source cannot be read again, so everything coded is kept.

        shorten: Ctrl-C ends the file instead of the work. buffer: takes in all chunks that are written.
        """
        self.buffer = buffer
        self._writer, self._progress, self.recording = writer, progress, recording
        self._shorten = shorten
        self.summary = EncodeSummary()

    def repeat(self, done: Iterable[Chunk]) -> int:
        """Write the chunks of an earlier run, which are whole GOPs. Returns the number of GOPs."""
        for chunk in done:
            self._write(CodedChunk(chunk))
        return self.summary.keyframes

    def sizes(self, chunks: Sequence[Chunk]) -> list[int]:
        """Bytes that the next chunks, which are of one GOP, will take with their background."""
        return self._writer.sizes(chunks)

    def take(self, coded: CodedChunk) -> None:
        """Write the next chunk."""
        self._write(coded)
        if self._progress is not None:
            self._progress(self.summary)

    def recorded(self, frames: Iterable[Frame], signals: DeferredSignals) -> Iterator[Frame]:
        """The frames of a live source up to its end, whatever that is: a signal, or an error of the source.

        What ends it before the first frame is raised.
        """
        source, taken = iter(frames), 0
        while True:
            try:
                with signals.allowed():
                    frame = next(source, None)
            except (KeyboardInterrupt, SystemExit, ViddiffError, OSError) as end:
                if not taken:
                    raise
                self._end_early(end)
                return
            if frame is None:
                return
            taken += 1
            yield frame

    @contextmanager
    def until_interrupted(self) -> Iterator[None]:
        """Let Ctrl-C end the block, if it may; for a recording, any signal or error.

        What was written before can be finished. If there is nothing, the exception continues.
        """
        try:
            yield
        except (KeyboardInterrupt, SystemExit, ViddiffError, OSError, MemoryError) as end:
            ends_file = self.recording or (self._shorten and isinstance(end, KeyboardInterrupt))
            if not self.summary.frames or not ends_file:
                raise
            self._end_early(end)

    def _end_early(self, end: BaseException) -> None:
        self.summary.ended_by = end
        self._writer.cut_short()

    def finish(self) -> EncodeSummary:
        """Complete the file, and return the totals."""
        with uninterrupted():
            try:
                if isinstance(self.summary.ended_by, OSError):
                    raise self.summary.ended_by
                self._writer.finish()
            except OSError as error:  # as of a full disk
                if not (self.recording and self._writer.seekable):
                    raise
                self.summary.ended_by = error
                self._writer.finish_in_place()
        self.summary.size_bytes = self._writer.size_bytes
        return self.summary

    def _write(self, coded: CodedChunk) -> None:
        with uninterrupted():
            if self.buffer is not None:
                self.buffer.take(coded.chunk, *self._writer.sizes([coded.chunk]))
            self._writer.write(coded.chunk)
            self.summary.size_bytes = self._writer.size_bytes
            self.summary.background_bytes = self._writer.background_bytes
            self.summary.network_bytes = self._writer.network_bytes
            self._count(coded)

    def _count(self, coded: CodedChunk) -> None:
        chunk, summary = coded.chunk, self.summary
        times = chunk.times
        if not summary.frames:
            summary.first_pts = times[0]
        summary.last_pts, summary.last_duration = times[-1], chunk.duration
        if isinstance(chunk, KeyChunk):
            summary.frames += 1
            summary.keyframes += 1
            summary.key_bytes += len(chunk.payload)
            if coded.digests:
                summary.gops.append(GopDigest())
        else:
            summary.frames += len(chunk.pts)
        for digest in coded.digests:
            summary.gops[-1].add(digest)
        summary.base_bytes += coded.base_bytes
        summary.strength_bytes += coded.strength_bytes
        for stats in coded.stats:
            summary.levels[stats.level].add(stats)
