"""Measure the enhancement network on clips: BD-rate of SVT-AV1 with it against SVT-AV1 alone.

    scripts/enhancement_gain.py CLIP... --weights FILE [--frames N] [--noise SIGMA] [--cache DIR]

Strengths are chosen by rate and distortion. Their bits are estimated by entropy: for each frame and group of
planes, one strength for all blocks, or one for each block, coded given the most common one of the frame.
Rates are the bytes of the AV1 stream and these bits. Qualities are PSNRs over all frames. Three ways are
compared: strength 1 everywhere, one strength for each frame, one for each block.
"""

import argparse
import hashlib
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from viddiff.codec import enhancement_weights
from viddiff.frame import Frame
from viddiff.media.av1_headers import Coding
from viddiff.media.video_reader import VideoReader
from viddiff.networks.enhancement import BLOCK, STRENGTHS, EnhancementNetwork, condition_of, corrected
from viddiff.networks.planes import pack, planes_of, unpack
from viddiff.training.enhancement_samples import PLANE_WEIGHTS, Base, code_base
from viddiff.training.enhancement_scenes import with_noise
from viddiff.training.metrics import bd_rate, psnr

CRFS = (24, 32, 40, 48, 56)
PLANES = ("y", "u", "v")
SIDES = (BLOCK, BLOCK // 2, BLOCK // 2)
_ROUNDS = 3
Errors = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One clip at one CRF."""

    bits: float
    errors: Errors
    """Squared errors of each frame, plane, strength and block: (T, 3, STRENGTHS, blocks)."""
    samples: tuple[int, int, int]
    """Samples of each plane in all frames."""


def read(path: Path, count: int, noise: float) -> list[Frame]:
    """The first frames of a clip, with noise of this standard deviation (8-bit levels)."""
    with VideoReader(path, frames=count) as reader:
        if reader.info.bit_depth != 8:
            raise SystemExit(f"{path} does not have 8 bits")
        frames = list(reader)
    return with_noise(frames, random.Random(path.name), (noise, noise)) if noise else frames


def coded(frames: list[Frame], crf: int, preset: int, cache: Path | None) -> Base:
    """`code_base`, with a cache on disk."""
    if cache is None:
        return code_base(frames, crf, preset=preset)
    digest = hashlib.sha256(b"".join(p.tobytes() for f in frames for p in f.planes))
    path = cache / f"{digest.hexdigest()[:16]}-{crf}-{preset}.npz"
    if not path.exists():
        base = code_base(frames, crf, preset=preset)
        cache.mkdir(parents=True, exist_ok=True)
        planes = {n: np.stack([f.planes[i] for f in base.frames]) for i, n in enumerate(PLANES)}
        numbers = np.array([(c.quantiser, c.intra, s) for c, s in zip(base.codings, base.sizes, strict=True)])
        np.savez(path, numbers=numbers, **planes)
    with np.load(path) as file:
        decoded = [Frame(y, u, v) for y, u, v in zip(*(file[n] for n in PLANES), strict=True)]
        numbers = file["numbers"].tolist()
    codings = [Coding(quantiser, bool(intra)) for quantiser, intra, _ in numbers]
    return Base(decoded, codings, [size for _, _, size in numbers])


@torch.inference_mode()
def measure(frames: list[Frame], base: Base, crf: int, network: EnhancementNetwork) -> Point:
    """Squared errors for all strengths."""
    errors = []
    for frame, shown, coding in zip(frames, base.frames, base.codings, strict=True):
        packed = pack(planes_of(shown, 8, torch.device("cpu")))
        numbers = (coding.quantiser, min(4 * crf, 255), coding.intra)
        correction = network(packed, condition_of(*(torch.tensor([int(n)]) for n in numbers)))
        rows, columns = (-(-2 * side // BLOCK) for side in packed.shape[2:])
        by_strength = []
        for strength in range(STRENGTHS):
            strengths = torch.full((1, 2, rows, columns), float(strength))
            result = unpack(corrected(packed, correction, strengths), 8)
            by_strength.append(
                [
                    _block_errors(plane[0].numpy() / 4, original, side, rows, columns)
                    for plane, original, side in zip(result, frame.planes, SIDES, strict=True)
                ]
            )
        errors.append(np.array(by_strength).swapaxes(0, 1))
    sizes = [len(frames) * p.size for p in frames[0].planes]
    return Point(8.0 * sum(base.sizes), np.array(errors), (sizes[0], sizes[1], sizes[2]))


def _block_errors(
    plane: NDArray[np.float32], original: NDArray[np.generic], side: int, rows: int, columns: int
) -> Errors:
    """Squared errors of blocks of `side` samples, (rows * columns,). Padding does not count."""
    height, width = original.shape
    squares = np.zeros((rows * side, columns * side))
    squares[:height, :width] = np.square(plane[:height, :width] - original)
    return squares.reshape(rows, side, columns, side).sum((1, 3)).ravel()


def mse(point: Point, choice: NDArray[np.int64]) -> Errors:
    """Mean squared error of each plane for chosen strengths (T, 2, blocks)."""
    by_plane = choice[:, [0, 1, 1], None, :]
    return np.take_along_axis(point.errors, by_plane, 2).sum((0, 2, 3)) / np.array(point.samples)


def log_error(errors: Errors) -> float:
    """Natural logarithm of the error behind the 6:1:1 PSNR."""
    return float(np.log(np.maximum(errors, 1e-3)) @ PLANE_WEIGHTS)


def choose(point: Point, worth: float, blocks: bool) -> tuple[NDArray[np.int64], float]:
    """Strengths (T, 2, blocks) and their bits, for so many units of `log_error` a bit; blocks: whether
    blocks may differ within a frame.
    """
    frames, _, _, count = point.errors.shape
    scale = np.array(PLANE_WEIGHTS) / np.array(point.samples)
    choice = np.zeros((frames, 2, count), np.int64)
    total = 0.0
    for group, planes in enumerate(((0,), (1, 2))):
        cost = np.zeros((frames, STRENGTHS, count))
        before = mse(point, np.zeros((frames, 2, count), np.int64))
        for plane in planes:
            cost += scale[plane] / max(before[plane], 1e-3) * point.errors[:, plane]
        uniform = np.full(STRENGTHS, math.log2(STRENGTHS) + 0.5)  # bits of a frame's strength
        apart = 2.0  # bits of saying that blocks differ
        table = np.where(np.eye(STRENGTHS, dtype=bool), 0.5, 3.0)
        for _ in range(_ROUNDS):
            plain = cost.sum(2) + worth * uniform  # (T, S)
            result = np.repeat(plain.argmin(1)[:, None], count, 1)
            bits = uniform[plain.argmin(1)].copy()
            different = np.zeros(frames, bool)
            if blocks:
                ways = cost[:, None] + worth * table[None, :, :, None]  # (T, default, S, blocks)
                varied = ways.min(2).sum(2) + worth * (uniform + apart)
                default = varied.argmin(1)
                different = varied.min(1) < plain.min(1)
                best = np.take_along_axis(ways, default[:, None, None, None], 1)[:, 0].argmin(1)
                spent = uniform[default] + apart + table[default[:, None], best].sum(1)
                result, bits = np.where(different[:, None], best, result), np.where(different, spent, bits)
                counts = np.full((STRENGTHS, STRENGTHS), 0.3)
                np.add.at(counts, (np.repeat(default[different], count), best[different].ravel()), 1)
                table = -np.log2(counts / counts.sum(1, keepdims=True))
                apart = -math.log2((different.sum() + 0.5) / (frames + 1))
                stay = -math.log2((frames - different.sum() + 0.5) / (frames + 1))
                bits = bits + np.where(different, 0, stay)
            shares = (
                np.bincount(np.where(different, 0, plain.argmin(1))[~different], minlength=STRENGTHS) + 0.3
            )
            uniform = -np.log2(shares / shares.sum())
        choice[:, group], total = result, total + float(bits.sum())
    return choice, total


def curves(points: list[Point], way: str) -> tuple[list[float], list[Errors], list[float]]:
    """(bits, mean squared errors by plane, bits of side information) of each point, for one of WAYS."""
    errors = [mse(p, np.zeros((len(p.errors), 2, p.errors.shape[3]), np.int64)) for p in points]
    rates = [p.bits for p in points]
    if way == "base":
        return rates, errors, [0.0] * len(points)
    slope = np.gradient([log_error(e) for e in errors], rates)
    result: tuple[list[float], list[Errors], list[float]] = ([], [], [])
    for point, gradient in zip(points, slope, strict=True):
        if way == "one":
            choice, side = np.full((len(point.errors), 2, point.errors.shape[3]), 2), 0.0
        else:
            choice, side = choose(point, abs(float(gradient)), way == "block")
        for column, value in zip(result, (point.bits + side, mse(point, choice), side), strict=True):
            column.append(value)
    return result


WAYS = ("one", "frame", "block")


def report(points: list[Point]) -> dict[str, object]:
    """BD-rates in percent for each way, by plane for blocks, and gain in dB at each CRF."""

    def quality(errors: Errors, plane: int | None) -> float:
        if plane is None:
            return -10 / math.log(10) * log_error(errors)
        return psnr(float(errors[plane]), 8)

    rates, before, _ = curves(points, "base")
    line: dict[str, object] = {}
    for way in WAYS:
        bits, after, side = curves(points, way)
        for plane in (None, 0, 1, 2) if way == "block" else (None,):
            name = way if plane is None else f"{way}_{PLANES[plane]}"
            qualities = ([quality(e, plane) for e in errors] for errors in (before, after))
            line[name] = round(bd_rate(rates, next(qualities), bits, next(qualities)), 2)
        if way == "block":
            line["db"] = [
                round(quality(a, None) - quality(b, None), 3) for a, b in zip(after, before, strict=True)
            ]
            line["side_percent"] = [round(100 * s / r, 2) for s, r in zip(side, rates, strict=True)]
    return line


def main() -> None:
    """Measure the clips of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--noise", type=float, default=0.0, metavar="SIGMA")
    parser.add_argument("--preset", type=int, default=4)
    parser.add_argument("--cache", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line for each clip")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network, _ = enhancement_weights.load(arguments.weights)
    lines = []
    for clip in arguments.clips:
        frames = read(clip, arguments.frames, arguments.noise)
        points = [
            measure(frames, coded(frames, crf, arguments.preset, arguments.cache), crf, network)
            for crf in CRFS
        ]
        lines.append({"clip": clip.stem, "frames": len(frames), "noise": arguments.noise, **report(points)})
        print(json.dumps(lines[-1]), flush=True)
        if arguments.json is not None:
            with open(arguments.json, "a", encoding="utf-8") as file:
                file.write(json.dumps(lines[-1]) + "\n")
    names = [*WAYS, *(f"block_{plane}" for plane in PLANES)]
    print({name: round(sum(float(line[name]) for line in lines) / len(lines), 2) for name in names})


if __name__ == "__main__":
    main()
