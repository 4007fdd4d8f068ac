"""Squared errors of a decoded video, and its PSNR.

The PSNR of a plane comes from its mean squared error over all frames of the video. The combined PSNR is

    PSNR_611 = (6 PSNR_Y + PSNR_U + PSNR_V) / 8,

with JVET's usual weights for 4:2:0. (The mean of the PSNRs of single frames gives other, higher values.)
"""

import math
from dataclasses import dataclass, field

import cv2

from viddiff.frame import Frame


def squared_errors(a: Frame, b: Frame) -> tuple[float, float, float]:
    """Mean squared error of each plane, in squared sample values of the frames' bit depth."""
    means = []
    for plane_a, plane_b in zip(a.planes, b.planes, strict=True):
        if plane_a.shape != plane_b.shape or plane_a.dtype != plane_b.dtype:
            raise ValueError(
                f"frames differ in form: {plane_a.shape} {plane_a.dtype} and {plane_b.shape} {plane_b.dtype}"
            )
        total = round(cv2.norm(plane_a, plane_b, cv2.NORM_L2SQR))  # a sum of integers, far below 2^53
        means.append(total / plane_a.size)
    return means[0], means[1], means[2]


def psnr(mse: float, bit_depth: int) -> float:
    """Peak signal-to-noise ratio in dB, with peak 2^bit_depth - 1. Infinite without error."""
    peak = (1 << bit_depth) - 1
    return math.inf if mse == 0 else 10 * math.log10(peak * peak / mse)


@dataclass
class Distortion:
    """Squared errors, summed over the frames of a video."""

    bit_depth: int
    frames: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """For each plane, the sum of the mean squared errors of its frames."""

    def add(self, original: Frame, decoded: Frame) -> None:
        """Add one frame."""
        self.sums = [s + e for s, e in zip(self.sums, squared_errors(original, decoded), strict=True)]
        self.frames += 1

    @property
    def mse(self) -> tuple[float, float, float]:
        """Mean squared error of Y, U and V over all frames."""
        if not self.frames:
            raise ValueError("no frame was compared")
        y, u, v = (s / self.frames for s in self.sums)
        return y, u, v

    @property
    def psnr_yuv(self) -> tuple[float, float, float]:
        """PSNR of Y, U and V in dB."""
        y, u, v = (psnr(mse, self.bit_depth) for mse in self.mse)
        return y, u, v

    @property
    def psnr_611(self) -> float:
        """(6 PSNR_Y + PSNR_U + PSNR_V) / 8 in dB."""
        y, u, v = self.psnr_yuv
        return (6 * y + u + v) / 8
