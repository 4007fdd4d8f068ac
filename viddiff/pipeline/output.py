"""Where an encoder's chunks go: into the file, into the totals, and to whoever watches."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from viddiff.container.format import Chunk, KeyChunk, Writer
from viddiff.digest import GopDigest
from viddiff.encoder.gop_encoder import EncodeSummary

Observer = Callable[[EncodeSummary], None]
"""Called after every chunk."""


class Output:
    """Writes chunks and counts them."""

    def __init__(self, writer: Writer, summary: EncodeSummary, progress: Observer | None = None) -> None:
        self._writer, self.summary, self._progress = writer, summary, progress

    def repeat(self, done: Iterable[Chunk]) -> int:
        """Take the chunks of an earlier run, which are whole GOPs; the number of these."""
        for chunk in done:
            self._write(chunk, ())
        return self.summary.keyframes

    def take(self, chunk: Chunk, digests: Sequence[bytes]) -> None:
        """Take the next chunk and the digests of the frames that it decodes to, in display order."""
        self._write(chunk, digests)
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

    def _write(self, chunk: Chunk, digests: Sequence[bytes]) -> None:
        with uninterrupted():
            self._writer.write(chunk)
            self._count(chunk, digests)

    def _count(self, chunk: Chunk, digests: Sequence[bytes]) -> None:
        if digests and isinstance(chunk, KeyChunk):
            self.summary.gops.append(GopDigest())
        for digest in digests:
            self.summary.gops[-1].add(digest)
        if isinstance(chunk, KeyChunk):
            self.summary.frames += 1
            self.summary.keyframes += 1
            self.summary.key_bytes += len(chunk.payload)
        else:
            self.summary.frames += len(chunk.pts)
        self.summary.size_bytes = self._writer.size_bytes


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
