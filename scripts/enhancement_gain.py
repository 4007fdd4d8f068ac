"""What the enhancement network gains on clips: BD-rate of our files against the AV1 base alone in them.

    scripts/enhancement_gain.py CLIP... [--weights FILE] [--frames N] [--noise SIGMA] [--preset NAME]

A line of JSON for each clip and one for their mean: BD-rates in percent by the 6:1:1 PSNR and by that of
each plane, and for each quality the decibels gained (6:1:1) and the bytes of strengths in percent of the
base's. The rate is that of the base and the strengths, without the container.
"""

import argparse
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import torch

from viddiff.codec.base_gop_decoder import BaseGopDecoder
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.load_weights import load_weights
from viddiff.encoder.base_gop_encoder import BaseGopEncoder
from viddiff.encoder.options import EncodeOptions
from viddiff.frame import Frame, VideoInfo
from viddiff.media.video_reader import VideoReader
from viddiff.metrics.bd_rate import bd_rate
from viddiff.metrics.psnr import Distortion
from viddiff.pipeline.weights_search import released_weights
from viddiff.training.enhancement_scenes import with_noise

QUALITIES = (54, 45, 36, 27, 18, 9)
"""About CRF 16, 24, 32, 40, 48, 55."""


@dataclass
class Point:
    """A clip at one quality."""

    base: Distortion
    shown: Distortion
    base_bytes: int = 0
    strength_bytes: int = 0


@dataclass
class Curve:
    """Bytes and PSNRs of a clip, the best quality first."""

    rates: list[float] = field(default_factory=list)
    psnrs: list[tuple[float, ...]] = field(default_factory=list)
    """6:1:1, Y, U, V."""

    def add(self, rate: float, distortion: Distortion) -> None:
        """Take in the next point."""
        self.rates.append(rate)
        self.psnrs.append((distortion.psnr_611, *distortion.psnr_yuv))


def measure(frames: list[Frame], info: VideoInfo, enhancer: Enhancer, options: EncodeOptions) -> Point:
    """Encode a clip, and compare what its base and the whole show."""
    encoder = BaseGopEncoder(enhancer, info, options)
    decoder = BaseGopDecoder(encoder.header, None)
    point = Point(Distortion(info.bit_depth), Distortion(info.bit_depth))
    originals, bases = iter(frames), iter(frames)
    coded = (group for part in encoder.groups(frames) for group in encoder.encode(part))
    for group in (*coded, *encoder.flush()):
        point.base_bytes += group.base_bytes
        point.strength_bytes += group.strength_bytes
        for frame in group.frames:
            point.shown.add(next(originals), frame)
        for frame in decoder.decode(group.chunk):
            point.base.add(next(bases), frame)
    return point


def gain(points: list[Point]) -> dict[str, object]:
    """The figures of a clip's line."""
    before, after = Curve(), Curve()
    for point in points:
        before.add(point.base_bytes, point.base)
        after.add(point.base_bytes + point.strength_bytes, point.shown)
    line: dict[str, object] = {}
    for index, name in enumerate(("yuv", "y", "u", "v")):
        old, new = ([psnr[index] for psnr in curve.psnrs] for curve in (before, after))
        line[name] = round(bd_rate(before.rates, old, after.rates, new), 2)
        if not index:
            line["db"] = [round(b - a, 3) for a, b in zip(old, new, strict=True)]
    line["side"] = [round(100 * p.strength_bytes / p.base_bytes, 2) for p in points]
    return line


def main() -> None:
    """Measure the clips of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--weights", type=Path, default=None, help="released ones by default")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--noise", type=float, default=0.0, metavar="SIGMA", help="8-bit levels")
    parser.add_argument("--preset", default="default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    enhancer = load_weights(arguments.weights or released_weights("av1"))
    if not isinstance(enhancer, Enhancer):
        parser.error("these weights do not enhance")
    lines = []
    for clip in arguments.clips:
        with VideoReader(clip, frames=arguments.frames) as reader:
            frames, info = list(reader), reader.info
        if arguments.noise:
            frames = with_noise(frames, random.Random(clip.name), (arguments.noise, arguments.noise))
        options = (EncodeOptions(quality=quality, preset=arguments.preset) for quality in QUALITIES)
        points = [measure(frames, info, enhancer, option) for option in options]
        lines.append({"clip": clip.stem, "frames": len(frames), "noise": arguments.noise, **gain(points)})
        print(json.dumps(lines[-1]), flush=True)
    means = {
        n: round(sum(float(str(line[n])) for line in lines) / len(lines), 2) for n in ("yuv", "y", "u", "v")
    }
    print(json.dumps({"clip": "mean", **means}))


if __name__ == "__main__":
    main()
