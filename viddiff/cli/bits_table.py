"""Table and plot of where the bits of a `.vdf` are: its GOPs and chunks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from viddiff.config import Limits
from viddiff.container.format import KeyChunk
from viddiff.container.gop_table import usual_step
from viddiff.container.reader import Reader
from viddiff.plots import new_figure, save_figure

PLOT_WIDTH, PLOT_HEIGHT = 64, 8
"""Size of the plot in a terminal, in characters."""


@dataclass
class GopRow:
    """A GOP: its place in INDEX, and its chunks."""

    frame: int
    """Number of its keyframe, from 0."""
    start: float
    """Seconds after the first frame."""
    background: bool = False
    """Whether it begins with a background, whose bytes are not counted here."""
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
    video, first, last = reader.header.video, 0, 0
    step = usual_step(video)
    for offset, chunk in reader.scan(lambda fault: None):
        times = (chunk.pts,) if isinstance(chunk, KeyChunk) else chunk.pts
        if isinstance(chunk, KeyChunk):
            first = first if rows else chunk.pts
            start = float((chunk.pts - first) * video.time_base)
            if rows:
                rows[-1].end = start
            rows.append(GopRow(chunk.first, start, chunk.background != b""))
        rows[-1].chunks.append((len(times), reader.end - offset))
        last = times[-1]
    if rows:
        rows[-1].end = float((last + step - first) * video.time_base)
    return rows


def _steps(rows: list[GopRow]) -> tuple[list[float], list[float]]:
    """Corners of a line of kilobits per frame over the frame number."""
    across, up, frame = list[float](), list[float](), 0
    for frames, size in (chunk for row in rows for chunk in row.chunks):
        across += [frame, frame + frames]
        up += [size / 125 / frames] * 2
        frame += frames
    return across, up


def plot_text(rows: list[GopRow]) -> str:
    """Plot of kilobits per frame for each chunk, in characters."""
    import plotille

    across, up = _steps(rows)
    figure = plotille.Figure()
    figure.width, figure.height = PLOT_WIDTH, PLOT_HEIGHT
    figure.set_x_limits(0, across[-1])
    figure.set_y_limits(0, max(up) * 1.05)
    figure.x_label, figure.y_label = "frame", "kbit per frame"
    figure.with_colors = False
    figure.register_label_formatter(float, _label)
    figure.register_label_formatter(int, _label)
    figure.plot(across, up)
    return str(figure.show())


def _label(number: float, chars: int, delta: float, left: bool = False) -> str:
    """Label in the form that plotille asks for."""
    text = f"{number:.4g}"
    return text.ljust(chars) if left else text.rjust(chars)


def plot_png(rows: list[GopRow], target: Path) -> None:
    """The same plot as a PNG. Raises ViddiffError if matplotlib is missing or `target` cannot be written."""
    across, up = _steps(rows)
    figure = new_figure(9, 3)
    axes = figure.add_subplot()
    axes.fill_between(across, up, linewidth=0.5)
    for row in rows:
        axes.axvline(row.frame, color="0.8", linewidth=0.5, zorder=0)
    axes.set(xlabel="frame", ylabel="kbit per frame", xlim=(0, across[-1]), ylim=(0, None))
    save_figure(figure, target)
