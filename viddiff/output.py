"""Where an encoder's chunks go: into the file, into the totals, and to whoever watches."""

from collections.abc import Callable, Iterable

from viddiff.container import Chunk, KeyChunk, Writer
from viddiff.encoder import EncodeSummary

Observer = Callable[[EncodeSummary], None]
"""Called after every chunk."""


class Output:
    """Writes chunks and counts them."""

    def __init__(self, writer: Writer, summary: EncodeSummary, progress: Observer | None = None) -> None:
        self._writer, self.summary, self._progress = writer, summary, progress

    def repeat(self, done: Iterable[Chunk]) -> int:
        """Take the chunks of an earlier run, which are whole GOPs; the number of these."""
        for chunk in done:
            self._write(chunk)
        return self.summary.keyframes

    def take(self, chunk: Chunk) -> None:
        """Take the next chunk."""
        self._write(chunk)
        if self._progress is not None:
            self._progress(self.summary)

    def finish(self) -> EncodeSummary:
        """Complete the file; the totals."""
        self._writer.finish()
        self.summary.size_bytes = self._writer.size_bytes
        return self.summary

    def _write(self, chunk: Chunk) -> None:
        self._writer.write(chunk)
        if isinstance(chunk, KeyChunk):
            self.summary.frames += 1
            self.summary.keyframes += 1
            self.summary.key_bytes += len(chunk.payload)
        else:
            self.summary.frames += len(chunk.pts)
        self.summary.size_bytes = self._writer.size_bytes
