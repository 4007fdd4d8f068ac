"""What the benchmark found, as tables and plain data."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from points import Point

from viddiff.metrics.bd_rate import bd_rate

METRICS = {"psnr_611": "6:1:1 PSNR", "psnr_y": "Y PSNR", "vmaf": "VMAF"}
"""What BD-rates are given for; names are those of `Fidelity`."""


@dataclass(frozen=True)
class Clip:
    """A clip and all that was measured on it."""

    name: str
    width: int
    height: int
    bit_depth: int
    frames: int
    frame_rate: float
    digest: str
    """SHA-256 of its frames."""
    notes: tuple[str, ...]
    """What had to be changed in reading it."""
    points: dict[str, list[Point]] = field(default_factory=dict)
    """The curve of every codec by name."""

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


def bd_rates(clips: Iterable[Clip], tests: Sequence[str]) -> list[BdRate]:
    """Each test against every anchor and each further anchor against the first, by every metric measured."""
    rates = []
    for clip in clips:
        anchors = [name for name in clip.points if name not in tests]
        pairs = [(test, anchor) for test in tests for anchor in anchors]
        pairs += [(name, anchors[0]) for name in anchors[1:]]
        for test, anchor in pairs:
            rates += [_bd_rate(clip, test, anchor, metric) for metric in METRICS if _has(clip, metric)]
    return rates


def _has(clip: Clip, metric: str) -> bool:
    return all(getattr(p.fidelity, metric) is not None for points in clip.points.values() for p in points)


def _bd_rate(clip: Clip, test: str, anchor: str, metric: str) -> BdRate:
    curves = []
    for name in (anchor, test):
        points = clip.points[name]
        curves += [[float(p.size_bytes) for p in points], [getattr(p.fidelity, metric) for p in points]]
    unit = "" if metric == "vmaf" else " dB"
    try:
        percent = bd_rate(*curves, measure=METRICS[metric], unit=unit)
        return BdRate(clip.name, test, anchor, metric, percent)
    except ValueError as error:
        return BdRate(clip.name, test, anchor, metric, None, f"{error} (anchor {anchor}, test {test})")


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


def summary(rates: Sequence[BdRate], titles: Mapping[str, str]) -> str:
    """BD-rates as text for the terminal."""
    parts = []
    for test, anchor in pairs_of(rates):
        rows = bd_table(rates, test, anchor)
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        parts.append("\n".join([f"BD-rate of {titles[test]} against {titles[anchor]}", *lines]))
    notes = [f"{rate.clip}: {rate.note}" for rate in rates if rate.note]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def markdown(
    clips: Sequence[Clip], rates: Sequence[BdRate], titles: Mapping[str, str], facts: Mapping[str, str]
) -> str:
    """The whole report."""
    parts = ["# Benchmark", "\n".join(f"- {name}: {text}" for name, text in facts.items())]
    for test, anchor in pairs_of(rates):
        heading = f"## BD-rate of {titles[test]} against {titles[anchor]}"
        parts += [heading, _table(bd_table(rates, test, anchor))]
    notes = [f"- {rate.clip}, {METRICS[rate.metric]}: {rate.note}" for rate in rates if rate.note]
    if notes:
        parts += ["No BD-rate:", "\n".join(notes)]
    parts += ["## Speed, all clips together", _table(_speed_rows(clips, titles))]
    for clip in clips:
        parts.append(f"## {clip.name}")
        parts.append(f"{clip.width}x{clip.height}, {clip.bit_depth} bits, {clip.frames} frames.")
        parts += [f"{note[0].upper()}{note[1:]}." for note in clip.notes]
        parts.append(_table(_point_rows(clip)))
        for name, points in clip.points.items():
            rows = _ledger_rows(points)
            if rows:
                parts += [f"Where the bytes of {titles[name]} went:", _table(rows)]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _speed_rows(clips: Sequence[Clip], titles: Mapping[str, str]) -> list[list[str]]:
    rows = [["codec", "encode", "decode"]]
    for name in dict.fromkeys(name for clip in clips for name in clip.points):
        measured = [(clip.frames, point) for clip in clips for point in clip.points.get(name, ())]
        frames = sum(count for count, _ in measured)
        spent = (sum(getattr(p, work).cpu_s for _, p in measured) for work in ("encode", "decode"))
        rows.append([titles[name], *(f"{frames / seconds:.2f} fps" for seconds in spent)])
    return rows


def _point_rows(clip: Clip) -> list[list[str]]:
    psnrs = ["Y dB", "U dB", "V dB", "6:1:1 dB"]
    rows = [["codec", "setting", "bytes", "bpp", *psnrs, "VMAF", "encode fps", "decode fps"]]
    for name, points in clip.points.items():
        for point in points:
            f = point.fidelity
            figures = [f"{value:.2f}" for value in (f.psnr_y, f.psnr_u, f.psnr_v, f.psnr_611)]
            figures.append("–" if f.vmaf is None else f"{f.vmaf:.2f}")
            figures += [f"{clip.frames / spent.cpu_s:.1f}" for spent in (point.encode, point.decode)]
            rows.append([name, f"{point.setting}", f"{point.size_bytes}", f"{clip.bpp(point):.4f}", *figures])
    return rows


def _ledger_rows(points: Sequence[Point]) -> list[list[str]]:
    """The encoder's own tables under one heading; empty if it has none."""
    columns = list(dict.fromkeys(key for point in points for row in point.ledger for key in row))
    rows = [
        [f"{point.setting}", *(_cell(row.get(column)) for column in columns)]
        for point in points
        for row in point.ledger
    ]
    return [["setting", *columns], *rows] if rows else []


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, infinities as None: what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
