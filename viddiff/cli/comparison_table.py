"""A comparison as a table for the terminal, and as JSON values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from viddiff.cli.printing import printable, size_text

if TYPE_CHECKING:
    from viddiff.comparison.results import ComparedFile, Comparison, Video
    from viddiff.metrics.pooling import Pooled

_COLUMNS = ("psnr_y", "psnr_u", "psnr_v", "psnr_611", "ssim", "ms_ssim", "xpsnr_611", "vmaf")
"""Measures in the table of results. XPSNR of the planes is in JSON."""
_POOLED = ("psnr_611", "ms_ssim", "ssim", "xpsnr_611", "vmaf")
_LONGEST = 40
"""Longest name of a file in a table, in characters."""


def table(comparison: "Comparison") -> str:
    """Results, pooled scores and BD-rates."""
    from viddiff.pipeline.measures import BY_NAME

    reference, first = comparison.reference, comparison.files[0]
    measures = [BY_NAME[name] for name in _COLUMNS if name in first.scores]
    head = ["file", "size", "kbit/s", "bpp", *(measure.title for measure in measures)]
    rows = [head]
    for file in (*comparison.files, *comparison.others):
        numbers = [size_text(file.video.size_bytes), f"{file.kbps:.1f}", f"{comparison.bpp(file):.4f}"]
        scores = [measure.text(file.scores[measure.name].overall) for measure in measures]
        rows.append([_short(file.video.name), *numbers, *scores])
    parts = [f"{_short(reference.name)}: {_described(reference)}", _aligned(rows)]
    rows = [["over the frames", "", "mean", "harmonic", "5th perc.", "worst"]]
    for name in _POOLED:
        if name not in first.scores or (name == "ssim" and "ms_ssim" in first.scores):
            continue
        measure = BY_NAME[name]
        for file in comparison.files:
            pooled = file.scores[name]
            figures = (pooled.mean, pooled.harmonic_mean, pooled.p5, pooled.worst)
            rows.append([_short(file.video.name), measure.title, *map(measure.text, figures)])
    parts.append(_aligned(rows, text=2))
    if comparison.bd_rates:
        rows = [["BD-rate", "against", "by", "bits for the same quality"]]
        for rate in comparison.bd_rates:
            shown = f"{rate.percent:+.1f} %" if rate.percent is not None else f"none: {rate.note}"
            rows.append([rate.test, rate.anchor, BY_NAME[rate.measure].title, shown])
        parts.append(_aligned(rows, text=4))
    return "\n\n".join(parts)


def _described(video: "Video") -> str:
    """Size, depth and length in words."""
    info = video.info
    return f"{info.width}x{info.height}, {info.bit_depth} bits, {video.frames} frames, {video.seconds:.1f} s"


def _short(name: str) -> str:
    """A name that fits into a table."""
    name = printable(name)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}...{name[3 - _LONGEST // 2 :]}"


def _aligned(rows: Sequence[Sequence[str]], text: int = 1) -> str:
    """Rows as lines. The first `text` columns are words, to the left; the others numbers, to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place < text else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def plain(comparison: "Comparison") -> dict[str, Any]:
    """The comparison as JSON values."""
    files = [_file(comparison, file) for file in comparison.files]
    return {
        "reference": _video(comparison.reference),
        "files": files,
        "others": [_file(comparison, file) for file in comparison.others],
        "bd_rates": [
            {"test": r.test, "anchor": r.anchor, "measure": r.measure, "percent": r.percent, "note": r.note}
            for r in comparison.bd_rates
        ],
        "facts": comparison.facts,
        "notes": list(comparison.notes),
        "complete": comparison.complete,
        "seconds": comparison.seconds,
    }


def _video(video: "Video") -> dict[str, Any]:
    info = video.info
    return {
        "file": video.path,
        "name": video.name,
        "width": info.width,
        "height": info.height,
        "bit_depth": info.bit_depth,
        "full_range": info.full_range,
        "frame_rate": str(info.frame_rate),
        "frames": video.frames,
        "duration": video.seconds,
        "bytes": video.size_bytes,
    }


def _file(comparison: "Comparison", file: "ComparedFile") -> dict[str, Any]:
    return _video(file.video) | {
        "codec": file.codec,
        "video_bytes": file.video_bytes,
        "kbps": file.kbps,
        "bpp": comparison.bpp(file),
        "compared_bit_depth": file.bit_depth,
        "matched_frames": file.matched,
        "identical_frames": file.identical,
        "missing_frames": [list(span) for span in file.frames.missing()],
        "extra_frames": [list(span) for span in file.frames.extra()],
        "time_difference": file.time_difference,
        "damaged": file.damaged,
        "differences": list(file.differences),
        "notes": list(file.notes),
        "scores": {name: _pooled(pooled) for name, pooled in file.scores.items()},
    }


def _pooled(pooled: "Pooled") -> dict[str, float]:
    return {
        "overall": pooled.overall,
        "mean": pooled.mean,
        "harmonic_mean": pooled.harmonic_mean,
        "p5": pooled.p5,
        "worst": pooled.worst,
    }
