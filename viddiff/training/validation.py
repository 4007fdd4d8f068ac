"""Validation of weights on real files of validation clips."""

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

from viddiff.codec.weights import Codec
from viddiff.container.format import Writer
from viddiff.encoder.gop_encoder import GopEncoder
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import ViddiffError, VideoError
from viddiff.media.video_reader import VideoReader
from viddiff.metrics.bd_rate import bd_rate
from viddiff.metrics.psnr import Distortion
from viddiff.pipeline.output import Output
from viddiff.pipeline.serial import decode, encode
from viddiff.plots import new_figure, save_figure
from viddiff.training.samples import find_videos

QUALITIES = (22, 34, 46)
FRAMES = 17
"""Frames of each clip: a keyframe and two mini-GOPs."""

Curve = list[tuple[float, float]]
"""(bits per luma sample, 6:1:1 PSNR in dB) for each quality."""


class Judge:
    """Compares codecs with the first one, on the clips of a folder."""

    def __init__(self, folder: Path) -> None:
        """Videos that cannot be read are left out. Raises VideoError if there are no others."""
        self.videos = [video for video in find_videos(folder) if _is_readable(video)]
        if not self.videos:
            raise VideoError(f"no video in {folder} can be read")
        self.baseline: dict[Path, Curve] = {}
        self.newest: dict[Path, Curve] = {}
        self.rates: list[float] = []
        """BD-rates of all codecs after the first."""

    def __call__(self, codec: Codec) -> dict[str, Any]:
        """Values for the log: mean BD-rate in percent; the first time, the curves."""
        curves = {video: rate_distortion(codec, video, QUALITIES, FRAMES) for video in self.videos}
        self.newest = curves
        if not self.baseline:
            self.baseline = curves
            return {"validation_points": {video.stem: curve for video, curve in curves.items()}}
        rates = []
        for video, curve in curves.items():
            with suppress(ValueError):  # qualities of this clip do not overlap
                rates.append(bd_rate(*zip(*self.baseline[video], strict=True), *zip(*curve, strict=True)))
        if not rates:
            return {"validation_clips": 0}
        self.rates.append(sum(rates) / len(rates))
        return {"validation_bd_rate": round(self.rates[-1], 2), "validation_clips": len(rates)}

    def plot(self, target: Path) -> None:
        """Draw the curves of the first and the newest codec, and the BD-rates, as a PNG.

        Raises ViddiffError if matplotlib is missing, OSError if `target` cannot be written.
        """
        figure = new_figure(11, 5)
        curves, progress = figure.subplots(1, 2, width_ratios=(2, 1))
        for number, video in enumerate(self.newest):
            for points, style in ((self.baseline[video], ":"), (self.newest[video], "-o")):
                label = video.stem if style != ":" else None
                curves.plot(
                    *zip(*points, strict=True), style, color=f"C{number % 10}", markersize=3, label=label
                )
        curves.set(xscale="log", xlabel="bits per pixel", ylabel="6:1:1 PSNR, dB", title="dotted: at first")
        figure.legend(loc="outside lower center", fontsize=7, ncols=5)
        progress.plot(range(len(self.rates) + 1), [0.0, *self.rates], "-o", markersize=3)
        progress.set(xlabel="validation", ylabel="BD-rate against the first, %")
        save_figure(figure, target)


def _is_readable(video: Path) -> bool:
    """Whether the frames of a clip that count can be read."""
    with suppress(ViddiffError), VideoReader(video, frames=FRAMES) as reader:
        return len(list(reader)) > 0
    return False


def rate_distortion(codec: Codec, video: Path, qualities: tuple[int, ...], frames: int) -> Curve:
    """(bits per luma sample, 6:1:1 PSNR) of the first frames of a video, from real files."""
    points = []
    with VideoReader(video, frames=frames) as reader:
        originals, info = list(reader), reader.info
    for quality in qualities:
        file = io.BytesIO()
        encoder = GopEncoder(codec, info, EncodeOptions(quality=quality))
        summary = encode(originals, encoder, Output(Writer(file, encoder.header)))
        distortion = Distortion(info.bit_depth)
        file.seek(0)
        for original, decoded in zip(originals, decode(file, codec), strict=True):
            distortion.add(original, decoded)
        points.append(
            (8 * summary.size_bytes / (len(originals) * info.width * info.height), distortion.psnr_611)
        )
    return points
