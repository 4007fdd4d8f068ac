"""Where coded groups go: into the file, into the totals, and to whoever watches."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from viddiff.container.format import Chunk, KeyChunk, Writer
from viddiff.digest import GopDigest, frame_digest
from viddiff.encoder.coded_group import CodedGroup
from viddiff.encoder.frame_encoder import FrameStats
from viddiff.pipeline.summary import EncodeSummary

Observer = Callable[[EncodeSummary], None]
"""Called after every chunk."""


@dataclass(frozen=True)
class CodedChunk:
    """A coded group without its pictures, which is what a process hands over."""

    chunk: Chunk
    digests: tuple[bytes, ...] = ()
    """Of the frames that it decodes to, in display order."""
    stats: tuple[FrameStats, ...] = ()
    base_bytes: int = 0
    strength_bytes: int = 0

    @classmethod
    def of(cls, group: CodedGroup) -> Self:
        """Keep digests of the group's frames."""
        digests = tuple(map(frame_digest, group.frames))
        return cls(group.chunk, digests, tuple(group.stats), group.base_bytes, group.strength_bytes)


class Output:
    """Writes chunks and counts them."""

    def __init__(self, writer: Writer, progress: Observer | None = None) -> None:
        self._writer, self._progress = writer, progress
        self.summary = EncodeSummary()

    def repeat(self, done: Iterable[Chunk]) -> int:
        """Take the chunks of an earlier run, which are whole GOPs; the number of these."""
        for chunk in done:
            self._write(CodedChunk(chunk))
        return self.summary.keyframes

    def take(self, coded: CodedChunk) -> None:
        """Take the next chunk."""
        self._write(coded)
        if self._progress is not None:
            self._progress(self.summary)

    @contextmanager
    def until_interrupted(self) -> Iterator[None]:
        """Ctrl-C ends the block; what was taken before can be finished, unless it is nothing."""
        try:
            yield
        except KeyboardInterrupt:
            if not self.summary.frames:
                raise
            self.summary.interrupted = True
            self._writer.cut_short()

    def finish(self) -> EncodeSummary:
        """Complete the file; the totals."""
        with uninterrupted():
            self._writer.finish()
        self.summary.size_bytes = self._writer.size_bytes
        return self.summary

    def _write(self, coded: CodedChunk) -> None:
        with uninterrupted():
            self._writer.write(coded.chunk)
            self.summary.size_bytes = self._writer.size_bytes
            self._count(coded)

    def _count(self, coded: CodedChunk) -> None:
        chunk, summary = coded.chunk, self.summary
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


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no other thread is interrupted
        return
    waiting = False

    def wait(*_: object) -> None:
        nonlocal waiting
        waiting = True

    before = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting:
        raise KeyboardInterrupt
