"""What the benchmark found, as pictures: rate-distortion curves, and how much smaller files are."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from report import BdRate, Clip

from viddiff.plots import new_figure, use_log_rates

if TYPE_CHECKING:
    from viddiff.plots import Figure

_METRIC = "psnr_611"
_COLOURS = ("#1f6f8b", "#e07a1f", "#7b3fa0", "#4d7c2a", "#b3262e", "#555555")
_MARKERS = "os^Dvx"


def curves_plot(clips: Sequence[Clip], titles: Mapping[str, str], path: Path) -> None:
    """Rate-distortion curves as a PNG, one panel a clip. Raises ViddiffError without matplotlib."""
    columns = min(len(clips), 3)
    rows = math.ceil(len(clips) / columns)
    figure = new_figure(5.2 * columns, 3.9 * rows, "the plot")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(clips) :]:
        axis.set_visible(False)
    for clip, axis in zip(clips, axes.flat, strict=False):
        for name, points in clip.points.items():
            curve = sorted((clip.bpp(point), point.fidelity.psnr_611) for point in points)
            axis.plot(*zip(*curve, strict=True), "o-", label=titles[name], lw=1.5, ms=3.5)
        use_log_rates(axis)
        axis.set_title(f"{clip.name}, {clip.frames} frames", fontsize=10)
        axis.set(xlabel="bits per pixel", ylabel="6:1:1 PSNR, dB")
        axis.grid(True, which="both", alpha=0.25)
        axis.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)


def sizes_plots(
    rates: Sequence[BdRate], tests: Sequence[str], titles: Mapping[str, str], folder: Path
) -> Iterator[Path]:
    """For each test an SVG `size-NAME.svg` of its BD-rates by clip, where there are any. Yields the paths.

    Raises ViddiffError without matplotlib.
    """
    for test in tests:
        chosen = [rate for rate in rates if rate.test == test and rate.metric == _METRIC]
        if any(rate.percent is not None for rate in chosen):
            path = folder / f"size-{test}.svg"
            _save(_sizes(chosen, titles), path)
            yield path


def _sizes(rates: Sequence[BdRate], titles: Mapping[str, str]) -> "Figure":
    """A row for each clip, the one that gains most against the last anchor at the bottom, and their mean."""
    anchors = list(dict.fromkeys(rate.anchor for rate in rates))
    by_clip = dict[str, dict[str, float]]()
    for rate in rates:
        if rate.percent is not None:
            by_clip.setdefault(rate.clip, {})[rate.anchor] = rate.percent
    clips = sorted(by_clip, key=lambda clip: by_clip[clip].get(anchors[-1], 0.0))
    figure = new_figure(9, 1.5 + 0.27 * (len(clips) + 1), "the plot")
    axes = figure.subplots()
    for anchor, colour, marker in zip(anchors, _COLOURS, _MARKERS, strict=False):
        known = {row: by_clip[clip][anchor] for row, clip in enumerate(clips, 1) if anchor in by_clip[clip]}
        mean = sum(known.values()) / len(known)
        label = f"{titles[anchor]}: mean {mean:+.1f} %"
        axes.plot(list(known.values()), list(known), marker, color=colour, ms=6, label=label)
        axes.plot(mean, 0, marker, color=colour, ms=9)
    axes.axvline(0, color="#333333", lw=1.2)
    axes.axhline(0.5, color="#999999", lw=0.8)
    axes.set_yticks(range(len(clips) + 1), ["mean", *(Path(clip).stem for clip in clips)])
    axes.set_xlim(right=max(axes.get_xlim()[1], 2.0))
    axes.xaxis.set_major_formatter("{x:g} %")
    figure.supxlabel("size of the file at equal 6:1:1 PSNR, against the other codec (BD-rate)", fontsize=10)
    axes.grid(True, alpha=0.3)
    figure.legend(loc="outside upper center", ncols=min(len(anchors), 3), frameon=False, fontsize=9)
    return figure


def _save(figure: "Figure", path: Path) -> None:
    """Write an SVG that is the same every time."""
    import matplotlib

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": path.name}
    with matplotlib.rc_context(style):
        figure.savefig(path, metadata={"Date": None, "Creator": None})
