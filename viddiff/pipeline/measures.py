"""Measures of quality that frames get, and how each is pooled over a video."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from viddiff.errors import ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.vmaf import VMAF_SIDE, VmafMeter, has_vmaf
from viddiff.metrics.pooling import overall_psnr, overall_xpsnr
from viddiff.metrics.psnr import psnr, squared_errors
from viddiff.metrics.ssim import MS_SSIM_SIDE, similarity
from viddiff.metrics.xpsnr import XpsnrMeter

MOST_DB = 100.0
"""PSNR and XPSNR of a frame without any error, in dB, and the highest that a frame gets."""
METRICS = ("psnr", "ssim", "xpsnr", "vmaf")
"""What a user can ask for."""
Rule = Callable[[NDArray[np.float64]], float]


@dataclass(frozen=True)
class Measure:
    """A number that frames get. Higher is better."""

    name: str
    """Name in tables and JSON."""
    title: str
    """Name for people."""
    metric: str
    """Which of `METRICS` gives it."""
    unit: str
    digits: int
    """Digits after the point that say something."""
    overall: Rule | None = None
    """How the scores of frames become that of a video. None: the mean."""

    def text(self, score: float) -> str:
        """The score for people, without its unit."""
        return f"{score:.{self.digits}f}"


MEASURES = (
    Measure("psnr_y", "PSNR Y", "psnr", "dB", 2, overall_psnr),
    Measure("psnr_u", "PSNR U", "psnr", "dB", 2, overall_psnr),
    Measure("psnr_v", "PSNR V", "psnr", "dB", 2, overall_psnr),
    Measure("psnr_611", "PSNR 6:1:1", "psnr", "dB", 2),
    Measure("ssim", "SSIM", "ssim", "", 4),
    Measure("ms_ssim", "MS-SSIM", "ssim", "", 4),
    Measure("xpsnr_y", "XPSNR Y", "xpsnr", "dB", 2, overall_xpsnr),
    Measure("xpsnr_u", "XPSNR U", "xpsnr", "dB", 2, overall_xpsnr),
    Measure("xpsnr_v", "XPSNR V", "xpsnr", "dB", 2, overall_xpsnr),
    Measure("xpsnr_611", "XPSNR 6:1:1", "xpsnr", "dB", 2),
    Measure("vmaf", "VMAF", "vmaf", "", 2),
)
"""All measures in the order of tables. A 6:1:1 one is (6 Y + U + V) / 8, for frames as for a video."""
BY_NAME = {measure.name: measure for measure in MEASURES}


def choose(metrics: Iterable[str] | None) -> tuple[tuple[str, ...], list[str]]:
    """The metrics to use, and notes for the user. None: all that this machine has.

    PSNR is always one of them. Raises ValueError for an unknown one, ViddiffError if VMAF is asked for and
    there is none.
    """
    if metrics is None:
        if has_vmaf():
            return METRICS, []
        return METRICS[:-1], [
            "VMAF is left out: it needs an ffmpeg with libvmaf, which pip install 'viddiff[vmaf]' brings"
        ]
    wanted = {"psnr", *metrics}
    if unknown := wanted.difference(METRICS):
        raise ValueError(f"metrics are {', '.join(METRICS)}, and not {', '.join(sorted(unknown))}")
    if "vmaf" in wanted and not has_vmaf():
        raise ViddiffError(
            "VMAF needs an ffmpeg with libvmaf: pip install 'viddiff[vmaf]', or put one on PATH"
        )
    return tuple(name for name in METRICS if name in wanted), []


def measured(metrics: Iterable[str], info: VideoInfo) -> tuple[Measure, ...]:
    """The measures of frames of this size. MS-SSIM and VMAF need some samples a side."""
    least = {"ms_ssim": MS_SSIM_SIDE, "vmaf": VMAF_SIDE}
    side = min(info.width, info.height)
    return tuple(m for m in MEASURES if m.metric in metrics and side >= least.get(m.name, 0))


class Meters:
    """Measures pairs of frames, all of one form, in order of time. Use it in a `with` statement."""

    def __init__(self, metrics: Iterable[str], info: VideoInfo) -> None:
        """info: form of the frames. Raises ViddiffError."""
        self._metrics, self._info = tuple(metrics), info
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._pool = stack.enter_context(ThreadPoolExecutor(1))
            info = self._info
            xpsnr = XpsnrMeter(info.width, info.height, info.bit_depth, info.frame_rate)
            self._xpsnr = xpsnr if "xpsnr" in self._metrics else None
            measures = [measure.name for measure in measured(self._metrics, info)]
            vmaf = VmafMeter(info) if "vmaf" in measures else None
            self._vmaf = vmaf and stack.enter_context(vmaf)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, original: Frame, decoded: Frame) -> dict[str, float]:
        """Scores of the next pair by measure, but for VMAF. Raises ViddiffError.

        PSNR and XPSNR of a plane are as they are: beyond MOST_DB, and infinite without error.
        """
        similar = self._pool.submit(self._similarity, original, decoded)
        if self._vmaf is not None:
            self._vmaf.add(original, decoded)
        errors = squared_errors(original, decoded)
        scores = _planes("psnr", [psnr(error, self._info.bit_depth) for error in errors])
        if self._xpsnr is not None:
            scores |= _planes("xpsnr", self._xpsnr.add(original, decoded))
        return scores | similar.result()

    def vmaf(self) -> list[float] | None:
        """VMAF of all pairs, if it is measured. No pair can follow. Raises ViddiffError."""
        return None if self._vmaf is None else self._vmaf.scores()

    def _similarity(self, original: Frame, decoded: Frame) -> dict[str, float]:
        if "ssim" not in self._metrics:
            return {}
        found = similarity(original.y, decoded.y, self._info.bit_depth)
        return {"ssim": found.ssim} | ({} if found.ms_ssim is None else {"ms_ssim": found.ms_ssim})


def _planes(name: str, scores: Iterable[float]) -> dict[str, float]:
    y, u, v = scores
    most = [min(score, MOST_DB) for score in (y, u, v)]
    return {
        f"{name}_y": y,
        f"{name}_u": u,
        f"{name}_v": v,
        f"{name}_611": (6 * most[0] + most[1] + most[2]) / 8,
    }
