"""What the benchmark found, as tables, a plot and plain data."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anchors import ANCHORS, Point

from viddiff.pipeline.summary import EncodeSummary
from viddiff.training.metrics import bd_rate, psnr

VIDDIFF = "viddiff"
METRICS = {"psnr_611": "6:1:1 PSNR", "psnr_y": "Y PSNR", "vmaf": "VMAF", "ms_ssim_db": "MS-SSIM"}
"""What BD-rates are given for; names are those of `Fidelity`."""
_COLOURS = {VIDDIFF: "#d62728", "x264": "#1f77b4", "x265": "#2ca02c", "svtav1": "#9467bd"}


@dataclass(frozen=True)
class LevelCost:
    """What the predicted frames of one level of the hierarchy cost together."""

    level: int
    frames: int
    motion_bytes: float
    z_bytes: float
    y_bytes: float
    prediction_psnr: float
    """Luma PSNR of the prediction, in dB."""
    psnr: float
    """Luma PSNR of the reconstruction, in dB."""


@dataclass(frozen=True)
class Ledger:
    """Where the bytes of one file went."""

    quality: int
    size_bytes: int
    keyframes: int
    key_bytes: int
    levels: list[LevelCost]

    @classmethod
    def of(cls, quality: int, summary: EncodeSummary) -> "Ledger":
        """Sum up the encoder's own account."""
        levels = [
            LevelCost(
                level,
                totals.frames,
                totals.bits_motion / 8,
                totals.bits_z / 8,
                totals.bits_y / 8,
                psnr(totals.prediction_mse / totals.frames, 8),
                psnr(totals.mse / totals.frames, 8),
            )
            for level, totals in sorted(summary.levels.items())
        ]
        return cls(quality, summary.size_bytes, summary.keyframes, summary.key_bytes, levels)

    @property
    def other_bytes(self) -> float:
        """Container, and what the entropy coder spends beyond the information content."""
        coded = sum(level.motion_bytes + level.z_bytes + level.y_bytes for level in self.levels)
        return self.size_bytes - self.key_bytes - coded


@dataclass(frozen=True)
class ClipResult:
    """All that was measured on one clip."""

    name: str
    width: int
    height: int
    bit_depth: int
    frames: int
    frame_rate: float
    digest: str
    notes: tuple[str, ...]
    points: dict[str, list[Point]]
    """The curve of every codec by name."""
    ledgers: list[Ledger] = field(default_factory=list)

    def bpp(self, point: Point) -> float:
        """Bits for each luma sample."""
        return point.size_bytes * 8 / (self.frames * self.width * self.height)


@dataclass(frozen=True)
class BdRate:
    """How much more one codec spends than another, or why that cannot be said."""

    clip: str
    test: str
    anchor: str
    metric: str
    percent: float | None
    note: str = ""


def bd_rates(clips: Iterable[ClipResult]) -> list[BdRate]:
    """viddiff against every anchor and each further anchor against the first, by every metric measured."""
    rates = []
    for clip in clips:
        anchors = [name for name in clip.points if name != VIDDIFF]
        pairs = [(VIDDIFF, name) for name in anchors if VIDDIFF in clip.points]
        pairs += [(name, anchors[0]) for name in anchors[1:]]
        for test, anchor in pairs:
            rates += [_bd_rate(clip, test, anchor, metric) for metric in METRICS if _has(clip, metric)]
    return rates


def _has(clip: ClipResult, metric: str) -> bool:
    return all(getattr(p.fidelity, metric) is not None for points in clip.points.values() for p in points)


def _bd_rate(clip: ClipResult, test: str, anchor: str, metric: str) -> BdRate:
    curves = []
    for name in (anchor, test):
        points = clip.points[name]
        curves += [[float(p.size_bytes) for p in points], [getattr(p.fidelity, metric) for p in points]]
    try:
        return BdRate(clip.name, test, anchor, metric, bd_rate(*curves))
    except ValueError as error:
        reason = str(error).replace("PSNR", METRICS[metric])
        reason = reason.replace(" dB", "") if metric == "vmaf" else reason
        return BdRate(clip.name, test, anchor, metric, None, f"{reason} (anchor {anchor}, test {test})")


def mean_text(rates: Sequence[BdRate]) -> str:
    """The mean of the clips that have a BD-rate, and how many those are."""
    known = [rate.percent for rate in rates if rate.percent is not None]
    if not known:
        return f"– (0 of {len(rates)} clips)"
    return f"{sum(known) / len(known):+.1f} % ({len(known)} of {len(rates)} clips)"


def bd_table(rates: Sequence[BdRate], test: str, anchor: str) -> list[list[str]]:
    """Rows of a table of BD-rates: a heading, each clip, the mean; empty if there are none."""
    chosen = [rate for rate in rates if (rate.test, rate.anchor) == (test, anchor)]
    if not chosen:
        return []
    metrics = [metric for metric in METRICS if any(rate.metric == metric for rate in chosen)]
    rows = [["clip", *(METRICS[metric] for metric in metrics)]]
    for clip in dict.fromkeys(rate.clip for rate in chosen):
        cells = {rate.metric: rate for rate in chosen if rate.clip == clip}
        rows.append([clip, *(_percent(cells.get(metric)) for metric in metrics)])
    by_metric = ([rate for rate in chosen if rate.metric == metric] for metric in metrics)
    return [*rows, ["mean", *(mean_text(column) for column in by_metric)]]


def _percent(rate: BdRate | None) -> str:
    return "–" if rate is None or rate.percent is None else f"{rate.percent:+.1f} %"


def pairs_of(rates: Iterable[BdRate]) -> list[tuple[str, str]]:
    """Every (test, anchor) compared, in order."""
    return list(dict.fromkeys((rate.test, rate.anchor) for rate in rates))


def summary(rates: Sequence[BdRate]) -> str:
    """BD-rates as text for the terminal."""
    parts = []
    for test, anchor in pairs_of(rates):
        rows = bd_table(rates, test, anchor)
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        parts.append("\n".join([f"BD-rate of {test} against {anchor}", *lines]))
    notes = [f"{rate.clip}: {rate.note}" for rate in rates if rate.note]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def markdown(clips: Sequence[ClipResult], rates: Sequence[BdRate], facts: Mapping[str, str]) -> str:
    """The whole report."""
    parts = ["# Benchmark", "\n".join(f"- {name}: {text}" for name, text in facts.items())]
    for test, anchor in pairs_of(rates):
        parts += [f"## BD-rate of {test} against {_title(anchor)}", _table(bd_table(rates, test, anchor))]
    notes = [f"- {rate.clip}, {METRICS[rate.metric]}: {rate.note}" for rate in rates if rate.note]
    if notes:
        parts += ["No BD-rate:", "\n".join(notes)]
    parts += ["## Speed, all clips together", _table(_speed_rows(clips))]
    for clip in clips:
        parts.append(f"## {clip.name}")
        parts.append(f"{clip.width}x{clip.height}, {clip.bit_depth} bits, {clip.frames} frames.")
        parts += [f"{note[0].upper()}{note[1:]}." for note in clip.notes]
        parts.append(_table(_point_rows(clip)))
        if clip.ledgers:
            parts += ["Where viddiff's bytes went:", _table(_ledger_rows(clip.ledgers))]
    return "\n\n".join(parts) + "\n"


def _title(name: str) -> str:
    return ANCHORS[name].title if name in ANCHORS else name


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _speed_rows(clips: Sequence[ClipResult]) -> list[list[str]]:
    rows = [["codec", "encode fps", "decode fps", "encode frames per CPU s", "decode frames per CPU s"]]
    for name in dict.fromkeys(name for clip in clips for name in clip.points):
        measured = [(clip, point) for clip in clips for point in clip.points.get(name, ())]
        frames = sum(clip.frames for clip, _ in measured)
        spent = [
            sum(getattr(getattr(point, work), unit) for _, point in measured)
            for unit in ("wall_s", "cpu_s")
            for work in ("encode", "decode")
        ]
        rows.append([_title(name), *(f"{frames / seconds:.2f}" for seconds in spent)])
    return rows


def _point_rows(clip: ClipResult) -> list[list[str]]:
    heading = "codec,setting,bytes,bpp,Y dB,U dB,V dB,6:1:1 dB,VMAF,MS-SSIM,encode fps,decode fps"
    rows = [heading.split(",")]
    for name, points in clip.points.items():
        for point in points:
            f = point.fidelity
            figures = [f"{value:.2f}" for value in (f.psnr_y, f.psnr_u, f.psnr_v, f.psnr_611)]
            figures.append("–" if f.vmaf is None else f"{f.vmaf:.2f}")
            figures.append("–" if f.ms_ssim is None else f"{f.ms_ssim:.5f}")
            figures += [f"{clip.frames / spent.wall_s:.1f}" for spent in (point.encode, point.decode)]
            setting = f"q {point.setting}" if name == VIDDIFF else f"crf {point.setting}"
            rows.append([name, setting, f"{point.size_bytes}", f"{clip.bpp(point):.4f}", *figures])
    return rows


def _ledger_rows(ledgers: Sequence[Ledger]) -> list[list[str]]:
    heading = "quality,part,frames,bytes,share,motion,z,y,prediction dB,reconstruction dB"
    rows = [heading.split(",")]
    for ledger in ledgers:
        quality, blank = f"{ledger.quality}", [""] * 5
        share = 100 / ledger.size_bytes
        keys = [f"{ledger.keyframes}", f"{ledger.key_bytes}", f"{share * ledger.key_bytes:.1f} %"]
        rows.append([quality, "keyframes", *keys, *blank])
        for level in ledger.levels:
            parts = (level.motion_bytes, level.z_bytes, level.y_bytes)
            total = [f"{level.frames}", f"{sum(parts):.0f}", f"{share * sum(parts):.1f} %"]
            split = [f"{part:.0f}" for part in parts]
            psnrs = [f"{level.prediction_psnr:.2f}", f"{level.psnr:.2f}"]
            rows.append([quality, f"level {level.level}", *total, *split, *psnrs])
        other = ["", f"{ledger.other_bytes:.0f}", f"{share * ledger.other_bytes:.1f} %"]
        rows.append([quality, "other", *other, *blank])
    return rows


def plot(clips: Sequence[ClipResult], path: Path) -> None:
    """Rate-distortion curves as a PNG, one panel a clip."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter

    columns = min(len(clips), 3)
    rows = math.ceil(len(clips) / columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5.2 * columns, 3.9 * rows), squeeze=False)
    for axis in axes.flat[len(clips) :]:
        axis.set_visible(False)
    for clip, axis in zip(clips, axes.flat, strict=False):
        for name, points in clip.points.items():
            curve = sorted((clip.bpp(point), point.fidelity.psnr_611) for point in points)
            style = {"color": _COLOURS[name], "lw": 2.2 if name == VIDDIFF else 1.3, "ms": 3.5}
            axis.plot(*zip(*curve, strict=True), "o-", label=_title(name), **style)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(f"{clip.name}, {clip.frames} frames", fontsize=10)
        axis.set_xlabel("bits per pixel")
        axis.set_ylabel("6:1:1 PSNR, dB")
        axis.grid(True, which="both", alpha=0.25)
        axis.legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, infinities as None: what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
