"""Plot of where the bits of a `.vdf` are, over its frames."""

from pathlib import Path

from viddiff.pipeline.chunk_sizes import GopRow
from viddiff.plots import new_figure, save_figure

PLOT_WIDTH, PLOT_HEIGHT = 64, 8
"""Size of the plot in a terminal, in characters."""


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
