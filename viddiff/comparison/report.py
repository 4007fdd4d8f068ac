"""A comparison as one HTML file, which loads nothing from elsewhere."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from viddiff.comparison.charts import bits_chart, colour, curve_colour, rate_chart, score_chart
from viddiff.comparison.curves import axes
from viddiff.comparison.results import ComparedFile, Comparison, Video, WorstFrame
from viddiff.pipeline.measures import BY_NAME

GENERATOR = "viddiff compare"
"""What the head of a report says made it."""
_HEAD_BYTES = 1024
_CHARTS = ("vmaf", "xpsnr_y", "psnr_y", "ms_ssim", "ssim")
"""Measures with a chart, the most telling first. SSIM only where there is no MS-SSIM."""
_COLUMNS = ("vmaf", "xpsnr_611", "psnr_611", "ms_ssim", "ssim", "psnr_y", "psnr_u", "psnr_v")
"""Measures in the table of results."""
_POOLED = ("vmaf", "xpsnr_611", "psnr_611", "ms_ssim", "ssim")
"""Measures whose pooled scores are listed."""


def is_report(path: Path) -> bool:
    """Whether a file is a report of a comparison."""
    with open(path, "rb") as file:
        return f'content="{GENERATOR}"'.encode() in file.read(_HEAD_BYTES)


def report(comparison: Comparison) -> bytes:
    """The HTML file. Raises ViddiffError if matplotlib is missing."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"svg": _svg, "picture": _picture, "thousands": _thousands}
    text = resources.files("viddiff.comparison").joinpath("report.html.jinja").read_text("utf-8")
    html = environment.from_string(text).render(_values(comparison))
    return html.encode("utf-8", "replace")


def _values(comparison: Comparison) -> dict[str, Any]:
    """What the template shows."""
    files, first = comparison.files, comparison.files[0]
    charts = [name for name in _CHARTS if name in first.scores and not _replaced(name, first)]
    return {
        "generator": GENERATOR,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "reference": comparison.reference,
        "described": _described(comparison.reference),
        "legend": [(file.video.name, colour(number)) for number, file in enumerate(files)],
        "rows": [_row(comparison, file) for file in (*files, *comparison.others)],
        "columns": [BY_NAME[name] for name in _COLUMNS if name in first.scores],
        "known": tuple(first.scores),
        "best": _best(comparison),
        "remarks": _shared_remarks(files),
        "others": len(comparison.others),
        "charts": [(BY_NAME[name].title, score_chart(files, name)) for name in charts],
        "bits": bits_chart(files),
        "by_chunk": [file.video.name for file in files if file.bits_by_chunk],
        "curves": [
            (curve.title, curve_colour(comparison, number), curve.other)
            for number, curve in enumerate(comparison.curves)
        ],
        "rates": [(axis.title, rate_chart(comparison, axis)) for axis in axes(comparison.curves)],
        "bd": _bd_table(comparison),
        "bd_notes": [rate for rate in comparison.bd_rates if rate.note],
        "pooled": [
            (BY_NAME[name], [(file, file.scores[name]) for file in files])
            for name in _POOLED
            if name in first.scores and not _replaced(name, first)
        ],
        "worst": [(file, file.worst) for file in files if file.worst],
        "worst_text": _worst_text,
        "facts": comparison.facts,
        "notes": comparison.notes,
    }


def _replaced(name: str, file: ComparedFile) -> bool:
    """Whether a measure is left out for a better one."""
    return name == "ssim" and "ms_ssim" in file.scores


def _described(video: Video) -> str:
    """Size, depth, length and rate in words."""
    info = video.info
    parts = [f"{info.width}\u00d7{info.height}", f"{info.bit_depth} bits"]
    parts += ["full range"] * info.full_range
    parts += [f"{video.frames} frames", f"{video.seconds:.1f} s", f"{float(info.frame_rate):.4g} frames/s"]
    return ", ".join(parts)


def _row(comparison: Comparison, file: ComparedFile) -> dict[str, Any]:
    """A row of the table of results."""
    return {
        "name": file.video.name,
        "codec": file.codec,
        "kilobytes": file.video.size_bytes / 1000,
        "kbps": file.kbps,
        "bpp": comparison.bpp(file),
        "scores": {name: pooled.overall for name, pooled in file.scores.items()},
    }


def _best(comparison: Comparison) -> dict[str, float]:
    """The best score of the files by measure, where there are several files."""
    if len(comparison.files) < 2:
        return {}
    names = comparison.files[0].scores
    return {name: max(file.scores[name].overall for file in comparison.files) for name in names}


def _remarks(file: ComparedFile) -> Sequence[str]:
    """What a reader has to know before the scores."""
    damage = ["frames were lost to damage and are compared as they are shown"] * file.damaged
    return [*damage, *file.differences, *file.notes]


def _shared_remarks(files: Sequence[ComparedFile]) -> list[tuple[str, str]]:
    """Names of files, and a remark on all of them."""
    found = dict[str, list[str]]()
    for file in files:
        for remark in _remarks(file):
            found.setdefault(remark, []).append(file.video.name)
    return [(", ".join(names), remark) for remark, names in found.items()]


def _bd_table(comparison: Comparison) -> dict[str, Any]:
    """Rows of BD-rates: a test and an anchor, and a number for each measure."""
    names = list(dict.fromkeys(rate.measure for rate in comparison.bd_rates))
    pairs = list(dict.fromkeys((rate.test, rate.anchor) for rate in comparison.bd_rates))
    found = {(rate.test, rate.anchor, rate.measure): rate.percent for rate in comparison.bd_rates}
    return {
        "titles": [BY_NAME[name].title for name in names],
        "rows": [(*pair, [found.get((*pair, name)) for name in names]) for pair in pairs],
    }


def _worst_text(frame: WorstFrame) -> str:
    """A frame in words."""
    measure = BY_NAME[frame.measure]
    score = f"{measure.title} {measure.text(frame.score)} {measure.unit}"
    return f"frame {frame.reference}, {frame.time:.2f} s: {score}"


def _svg(text: str) -> Markup:
    """A plot of ours, which holds no text of others."""
    return Markup(text)


def _picture(data: bytes) -> str:
    """Address of a picture that holds the picture."""
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def _thousands(number: float, digits: int = 0) -> str:
    return f"{number:,.{digits}f}".replace(",", "\u2009")
