"""Where the bits of a `.vdf` are: its GOPs and their chunks."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from viddiff.config import Limits
from viddiff.container.excerpt import stated_duration
from viddiff.container.format import KeyChunk
from viddiff.container.gop_table import usual_step
from viddiff.container.reader import Reader
from viddiff.errors import BitstreamError


@dataclass
class GopRow:
    """A GOP: its place in INDEX, and its chunks."""

    frame: int
    """Number of its keyframe, from 0."""
    start: float
    """Seconds after the first frame."""
    background: bool = False
    """Whether it begins with a background, whose bytes are not counted here."""
    background_bytes: int = 0
    """Bytes of that background, if this is the first GOP that uses this copy of it."""
    end: float = 0.0
    """Start of the next GOP, or end of the last frame."""
    chunks: list[tuple[int, int]] = field(default_factory=list)
    """Frames and bytes of each chunk, the keyframe first."""

    @property
    def frames(self) -> int:
        """Number of frames."""
        return sum(frames for frames, _ in self.chunks)

    @property
    def size(self) -> int:
        """Bytes of the pictures, with the framing of their chunks."""
        return sum(size for _, size in self.chunks)

    def plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        seconds = self.end - self.start
        return {
            "start": round(self.start, 3),
            "frame": self.frame,
            "frames": self.frames,
            "bytes": self.size,
            "kbps": self.size / 125 / seconds if seconds > 0 else 0.0,
            "background": self.background,
            "chunks": [list(chunk) for chunk in self.chunks],
        }


def gop_table(file: BinaryIO, limits: Limits) -> list[GopRow]:
    """GOPs of a file, as far as it is intact. Reads the whole file. Raises BitstreamError, LimitError."""
    file.seek(0)
    reader, rows = Reader(file, limits), list[GopRow]()
    video, first, last, frames = reader.header.video, 0, 0, 0
    seen: set[int | None] = set()
    for offset, chunk in reader.scan(lambda fault: None):
        times = chunk.times
        if isinstance(chunk, KeyChunk):
            first = first if rows else chunk.pts
            start = float((chunk.pts - first) * video.time_base)
            if rows:
                rows[-1].end = start
            fresh = chunk.background_offset is not None and chunk.background_offset not in seen
            seen.add(chunk.background_offset)
            new_bytes = len(chunk.background or b"") if fresh else 0
            rows.append(GopRow(chunk.first, start, chunk.background != b"", new_bytes))
        rows[-1].chunks.append((len(times), reader.end - offset))
        last, frames = times[-1], chunk.first + len(times)
    if rows:
        lasts = 0
        with suppress(BitstreamError):  # INDEX is damaged, or frames are missing
            lasts = stated_duration(reader, frames)
        rows[-1].end = float((last + (lasts or usual_step(video)) - first) * video.time_base)
    return rows
