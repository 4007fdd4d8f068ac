"""Rate-distortion curves of codecs, and their BD-rates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from viddiff.comparison.results import BdRate, ComparedFile, Curve
from viddiff.metrics.bd_rate import bd_rate
from viddiff.pipeline.measures import BY_NAME


@dataclass(frozen=True)
class Axis:
    """A scale of quality for curves. Equal steps on it are about equally visible."""

    measure: str
    """Name of the measure."""
    title: str
    unit: str
    decibels_of_rest: bool = False
    """The score is a share of 1: the scale is -10 log10(1 - score)."""

    def of(self, file: ComparedFile) -> float:
        """Quality of a file on this scale."""
        score = file.scores[self.measure].overall
        if not self.decibels_of_rest:
            return score
        return math.inf if score >= 1 else -10 * math.log10(1 - score)


AXES = (
    Axis("psnr_611", BY_NAME["psnr_611"].title, " dB"),
    Axis("xpsnr_611", BY_NAME["xpsnr_611"].title, " dB"),
    Axis("ms_ssim", "MS-SSIM", " dB", decibels_of_rest=True),
    Axis("vmaf", "VMAF", ""),
)
"""Scales that curves and BD-rates are given for, as far as they are measured."""


def curves(files: Sequence[ComparedFile], others: Sequence[ComparedFile]) -> tuple[Curve, ...]:
    """Files by codec, where there are several, and other codecs' encodes of the reference."""
    found = []
    for other, group in ((False, files), (True, others)):
        titles = [file.video.name.partition(" CRF ")[0] if other else file.codec for file in group]
        for title in dict.fromkeys(titles):
            points = [file for file, its in zip(group, titles, strict=True) if its == title]
            if len(points) > 1:
                rising = sorted(points, key=lambda point: point.kbps)
                found.append(Curve(title, other, tuple(rising)))
    return tuple(found)


def axes(found: Sequence[Curve]) -> tuple[Axis, ...]:
    """Scales on which all curves have points."""
    points = [point for curve in found for point in curve.points]
    return tuple(axis for axis in AXES if points and all(axis.measure in point.scores for point in points))


def bd_rates(found: Sequence[Curve]) -> tuple[BdRate, ...]:
    """Every curve of files against every other codec; where there is none, against the first curve."""
    tests = [curve for curve in found if not curve.other]
    anchors = [curve for curve in found if curve.other]
    if not anchors:
        anchors, tests = tests[:1], tests[1:]
    pairs = [(test, anchor) for test in tests for anchor in anchors]
    return tuple(_bd_rate(test, anchor, axis) for test, anchor in pairs for axis in axes(found))


def _bd_rate(test: Curve, anchor: Curve, axis: Axis) -> BdRate:
    numbers = [
        [number(point) for point in curve.points]
        for curve in (anchor, test)
        for number in (lambda point: point.kbps, axis.of)
    ]
    try:
        percent = bd_rate(*numbers, measure=axis.title, unit=axis.unit)
    except ValueError as error:
        return BdRate(test.title, anchor.title, axis.measure, None, str(error))
    return BdRate(test.title, anchor.title, axis.measure, percent)
