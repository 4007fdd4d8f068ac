"""Curves of a comparison as SVG."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from viddiff.comparison.curves import Axis
from viddiff.comparison.results import ComparedFile, Comparison
from viddiff.pipeline.measures import BY_NAME
from viddiff.plots import INK, new_figure, svg_text, use_log_rates

if TYPE_CHECKING:
    from viddiff.plots import Axes, Figure

COLOURS = ("#0a7bc2", "#e0631a", "#0f9d6b", "#c2579f", "#c99700", "#6f5bd0", "#8a6a4a", "#7a8794")
"""Lines of files, one after the other. They differ on white and on black, and without red or green."""
PURPOSE = "--html"
_WIDTH, _HEIGHT = 9.0, 2.5
_MOST_POINTS = 1200
"""Points of a curve. More frames are drawn as the mean and the range of a few each."""
Floats = NDArray[np.float64]


def colour(number: int) -> str:
    """Colour of the file with this number."""
    return COLOURS[number % len(COLOURS)]


def curve_colour(comparison: Comparison, number: int) -> str:
    """Colour of the curve with this number: none that a file has, as far as there are enough."""
    return colour(len(comparison.files) + number)


def score_chart(files: Sequence[ComparedFile], measure: str) -> str:
    """Scores of all frames of all files by time. Where a frame is missing, the curve has a gap."""
    figure, axes = _new()
    for number, file in enumerate(files):
        table = file.frames
        scores = np.full(len(table.times), np.nan)
        scores[table.matched] = table.scores(measure)
        _curve(axes, table.times, scores, colour(number))
    known = BY_NAME[measure]
    axes.set(xlabel="seconds", ylabel=f"{known.title}{f', {known.unit}' if known.unit else ''}")
    axes.margins(x=0.01)
    return svg_text(figure, f"score {measure}")


def bits_chart(files: Sequence[ComparedFile]) -> str:
    """Kilobits of all frames of all files by time."""
    figure, axes = _new()
    for number, file in enumerate(files):
        table = file.frames
        there = table.file >= 0
        _curve(axes, table.times[there], table.bits()[there] / 1000, colour(number), steps=True)
    axes.set(xlabel="seconds", ylabel="kbit per frame")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    return svg_text(figure, "bits")


def rate_chart(comparison: Comparison, axis: Axis) -> str:
    """Quality over rate of all curves."""
    figure, axes = _new(4.4, 3.4)
    for number, curve in enumerate(comparison.curves):
        rates = [point.kbps for point in curve.points]
        quality = [axis.of(point) for point in curve.points]
        style = "--" if curve.other else "-"
        line = curve_colour(comparison, number)
        axes.plot(rates, quality, style, color=line, linewidth=1.8, marker="o", markersize=4.5)
    use_log_rates(axes)
    axes.set(
        xlabel="kbit/s, logarithmic",
        ylabel=axis.title + axis.unit.replace(" ", ", "),
    )
    return svg_text(figure, f"rate {axis.measure}")


def _new(width: float = _WIDTH, height: float = _HEIGHT) -> "tuple[Figure, Axes]":
    figure = new_figure(width, height, PURPOSE)
    axes = figure.add_subplot()
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.xaxis.label.set(color=INK, fontsize=10)
    axes.yaxis.label.set(color=INK, fontsize=10)
    for side, spine in axes.spines.items():
        spine.set(color=INK, alpha=0.35, visible=side == "bottom")
    axes.grid(True, axis="both", color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _curve(axes: "Axes", times: Floats, values: Floats, line: str, steps: bool = False) -> None:
    """A curve, with the range of the values around it where there are too many for the width."""
    each = -(-len(times) // _MOST_POINTS)
    if each > 1:
        padded = np.pad(values, (0, -len(values) % each), constant_values=np.nan)
        groups = np.ma.masked_invalid(padded.reshape(-1, each))
        times = times[::each]
        low, values, high = (found.filled(np.nan) for found in (groups.min(1), groups.mean(1), groups.max(1)))
        axes.fill_between(times, low, high, color=line, alpha=0.18, linewidth=0)
    style = "steps-post" if steps else "default"
    axes.plot(times, values, color=line, linewidth=1.4, drawstyle=style, solid_joinstyle="round")
