"""Choose library pictures for footage: those that predict its frames best."""

import itertools
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.library import Library, LibraryPicture
from viddiff.config import lmbda_of_step, step_of_quality
from viddiff.encoder.lookahead import luma_of
from viddiff.encoder.residual_cost import intra_bits, residual_bits, spectra
from viddiff.errors import ViddiffError
from viddiff.frame import Frame, Plane
from viddiff.media.av1_stills import encode_still
from viddiff.media.video_reader import VideoReader

_SAMPLES, _SAMPLE_BYTES = 240, 512 << 20
"""Largest number of frames to examine, and their memory in bytes."""
_LEAST_SAMPLES = 8
"""Smallest number of frames of one video."""
_RUN = 15
"""Number of frames of a median."""
_EVERY = 4
"""Every so many frames, one is a candidate itself."""
_SEEK = 50
"""Up to this many frames are read rather than skipped by seeking."""
_WORTH = 0.003
"""A picture must save this share of the cost of all frames as stills.

The first pictures of fixed cameras save 0.3 to 0.8, those of moving cameras less than 0.002.
"""
_QUANTISER, _PRESET = 4, 2
"""Quantiser and preset of the pictures: better than any keyframe, because they cost no bits in files."""
_LMBDA = lmbda_of_step(step_of_quality(32, -6.0))


@dataclass
class _Sample:
    """A frame of the footage."""

    frame: Frame
    bit_depth: int
    video: int
    position: int
    """Position among the samples of its video."""
    luma: NDArray[np.uint8] = field(init=False)
    bits: NDArray[np.float16] = field(init=False)
    """(H/8, W/8): bits of each block, predicted by the best picture chosen so far, or by none."""

    def __post_init__(self) -> None:
        self.luma = luma_of(self.frame, self.bit_depth)
        self.bits = intra_bits(self.luma, _LMBDA, 0.0).astype(np.float16)


@dataclass
class _Candidate:
    """A candidate for the library."""

    frame: Frame
    bit_depth: int
    bits: dict[int, NDArray[np.float16]]
    """Bits of the blocks of samples, by sample number, without samples that the picture is made of."""

    def saving(self, samples: list[_Sample]) -> float:
        return sum(
            float(np.maximum(samples[n].bits - bits, 0).sum(dtype=np.float64))
            for n, bits in self.bits.items()
        )


def choose_library(videos: list[Path], most: int, rng: random.Random) -> Library:
    """Up to `most` pictures that predict the videos' frames, those that save most first.

    Empty if nothing comes back, as in footage of moving cameras. Skips videos that cannot be read.
    """
    samples = list(_samples(videos, rng)) if most else []
    candidates = list(_candidates(samples))
    worth = _WORTH * sum(float(sample.bits.sum(dtype=np.float64)) for sample in samples)
    pictures: list[LibraryPicture] = []
    while candidates and len(pictures) < most:
        savings = [candidate.saving(samples) for candidate in candidates]
        best = candidates.pop(int(np.argmax(savings)))
        if max(savings) < worth:
            break
        for number, bits in best.bits.items():
            samples[number].bits = np.minimum(samples[number].bits, bits)
        still = encode_still(best.frame, best.bit_depth, _QUANTISER, _PRESET)
        height, width = best.frame.y.shape
        pictures.append(LibraryPicture(width, height, best.bit_depth, still))
    return Library(tuple(pictures))


def _samples(videos: list[Path], rng: random.Random) -> Iterator[_Sample]:
    """Equally many frames of each video, evenly over its length."""
    left, videos = _SAMPLE_BYTES, rng.sample(videos, min(len(videos), _SAMPLES // _LEAST_SAMPLES))
    for number, video in enumerate(videos):
        with suppress(ViddiffError):  # what cannot be read is left out, as when samples are collected
            for position, (frame, bit_depth) in enumerate(_evenly(video, _SAMPLES // len(videos), left)):
                left -= 3 * frame.y.nbytes
                yield _Sample(frame, bit_depth, number, position)


def _evenly(video: Path, count: int, left: int) -> Iterator[tuple[Frame, int]]:
    """Up to `count` frames with their bit depth, in at most `left` bytes."""
    with VideoReader(video) as reader:
        info, total = reader.info, reader.info.frame_count or _SEEK * count
        count = min(count, left // (3 * info.width * info.height), total)
        stride = total // count if count else 0
        if 0 < stride < _SEEK:
            yield from ((f, info.bit_depth) for f in itertools.islice(reader, 0, stride * count, stride))
            return
    for number in range(count):
        start = Fraction(number * stride) / info.frame_rate
        with VideoReader(video, start=start, frames=1) as reader:
            yield from ((frame, info.bit_depth) for frame in reader)


def _candidates(samples: list[_Sample]) -> Iterator[_Candidate]:
    for _, group in itertools.groupby(range(len(samples)), key=lambda n: samples[n].video):
        numbers = list(group)
        runs = [numbers[i : i + _RUN] for i in range(0, len(numbers), _RUN // 2)]
        runs.append(numbers[:: -(-len(numbers) // (2 * _RUN))])
        for run in (*runs, *([n] for n in numbers[::_EVERY])):
            if len({samples[n].frame.y.shape for n in run}) == 1:
                yield _judged(run, samples)


def _judged(run: list[int], samples: list[_Sample]) -> _Candidate:
    """The median of some samples of a video, judged on samples of the same size that are not close by."""
    own = [samples[n] for n in run]
    y, u, v = (_median([sample.frame.planes[plane] for sample in own]) for plane in range(3))
    frame = Frame(y, u, v)
    luma, depth = luma_of(frame, own[0].bit_depth), own[0].bit_depth
    spread = own[-1].position - own[0].position > 2 * _RUN
    first, last = own[0].position - _RUN // 2, own[-1].position + _RUN // 2
    bits = {}
    for number, sample in enumerate(samples):
        close = sample.video == own[0].video and first <= sample.position <= last and not spread
        if sample.luma.shape == luma.shape and sample.frame.y.shape == frame.y.shape and not close:
            bits[number] = residual_bits(spectra(sample.luma, luma), _LMBDA).astype(np.float16)
    return _Candidate(frame, depth, bits)


def _median(planes: list[Plane]) -> Plane:
    middle = len(planes) // 2
    stack = np.stack(planes)
    stack.partition(middle, axis=0)
    return cast(Plane, stack[middle].copy())
