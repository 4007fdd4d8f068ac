"""Tune the enhancement network to the video that is encoded.

    spans of the video -> SVT-AV1 as in the encode -> tiles -> training, from the loaded weights on
    -> integer differences, rounded more and more coarsely -> the one that saves most, if it saves anything

Every fourth span is held out. What a network saves is judged there: a relative fall of the error is worth
about the same relative fall of the bits (`encoder.strength_choice`).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH, widened
from viddiff.codec.enhancement_module import network_of
from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.file_network import STEPS, pack_network
from viddiff.encoder.strength_choice import SLOPE
from viddiff.errors import CheckpointError, ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.networks.bounds import ACTIVATION_MAX, EXACT_LIMIT, UNIT, WEIGHT_MAX
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement_config import CORRECTION_UNIT, STRENGTH_UNIT, STRENGTHS
from viddiff.pipeline.adaptation import Adaptation
from viddiff.pipeline.encode_inputs import opened_source, opened_video, resources_for
from viddiff.pipeline.encode_job import EncodeJob
from viddiff.pipeline.sample_spans import Samples, samples_of
from viddiff.pipeline.status import Observer, Status
from viddiff.training.enhancement import EnhancementOptions, EnhancementTraining
from viddiff.training.enhancement_loss import corrections
from viddiff.training.enhancement_samples import (
    TILE,
    TileShards,
    code_base,
    shard_paths,
    tiles_of,
    write_shard,
)
from viddiff.training.learner import Learner
from viddiff.training.run import run_steps
from viddiff.training.settings import training_settings

SPAN = 33
"""Frames of a span: a keyframe, and two of SVT-AV1's mini-GOPs."""
_FEWEST, _MOST = 16, 48
"""Numbers of spans. A video of no more than the least is used whole."""
_HELD_OUT = 4
"""One of so many spans is held out. A video of fewer spans gets no network."""
_TILES = 48
"""Of each span, at most."""
_LEARNING_RATE = 2e-3
_STEPS = tuple(1 << n for n in range(STEPS - 1))
"""Differences are rounded to multiples of one of these, in units of the integers."""
_LAST = ("after", "tail")
"""Parts of the names of layers that may be the only ones to differ."""
_DEAD_ZONE = 0.6
"""Least difference that does not become zero, in steps."""
_KEPT = 0.5
"""Share of what the spans that are held out promise that a whole file has kept."""
_BATCH = 16
_LUMA = 4
"""Of the network's planes, the first ones are phases of luma."""
Floats = NDArray[np.float64]


def adapt(job: EncodeJob, observer: Observer) -> Adaptation:
    """Tune the network of a job to its video, for `job.adapt` minutes. Raises ViddiffError, OSError."""
    resources = resources_for(job)
    enhancer = resources.load()
    if not isinstance(enhancer, Enhancer):
        raise CheckpointError("--adapt needs an AV1 base: these weights predict frames")
    with TemporaryDirectory(prefix="viddiff-") as folder, training_settings(0, resources.cores):
        spans = _Spans(job, Path(folder), observer)
        spans.code()
        if not spans.enough:
            return Adaptation(b"", saved_bytes=0)
        learner = _tuned(job, enhancer.weights, spans.training, resources.device, observer)
        judge = _Judge(TileShards(spans.judging), spans.info, enhancer.weights, resources.device)
        average = {name: tensor.cpu() for name, tensor in learner.average.items()}
        found = list(_candidates(enhancer.weights, average, judge, spans.video_bytes))
    best = max(found, key=lambda each: each.worth, default=_Candidate(b"", 0.0))
    network = best.network if best.worth > 0 else b""
    return Adaptation(network, len(best.network), round(best.saved), learner.step)


@dataclass(frozen=True)
class _Candidate:
    network: bytes
    saved: float
    """Bytes that it saves, as far as that is certain."""

    @property
    def worth(self) -> float:
        """Bytes by which the file becomes smaller."""
        return self.saved - len(self.network)


def _candidates(
    origin: EnhancementWeights, average: dict[str, Tensor], judge: "_Judge", video_bytes: float
) -> Iterator[_Candidate]:
    """What the file could carry. average: parameters of the trained network."""
    for last_layers in (False, True):
        for step in _STEPS:
            tuned = rounded(origin, average, step, last_layers)
            if tuned.hash() != origin.hash():
                yield _Candidate(pack_network(origin, tuned), judge.saved(tuned) * video_bytes)


class _Spans:
    """Coded spans of a video, as tiles in two folders."""

    def __init__(self, job: EncodeJob, folder: Path, observer: Observer) -> None:
        self._job, self._observer = job, observer
        self.training, self.judging = folder / "training", folder / "judging"
        self.enough = False
        """Whether there are tiles for both."""
        self._samples = samples_of(replace(job, gop=min(job.gop, SPAN)), _FEWEST, _MOST)
        self.info = self._samples.info
        if self.info.frame_count is None:
            raise ViddiffError(f"--adapt needs to know how long {job.source_name} is, which it does not say")
        if min(self.info.width, self.info.height) < TILE:
            raise ViddiffError(f"--adapt needs frames of {TILE}x{TILE} or more")
        self._keys, self._others = list[int](), list[int]()

    def code(self) -> None:
        """Code all spans. Raises VideoError, OSError."""
        options, rng, done = self._job.options, random.Random(0), 0
        total = round(self._samples.share * (self.info.frame_count or 0))
        self._observer(Status("adapt, samples", 0, total))
        self.training.mkdir()
        self.judging.mkdir()
        for number, frames in enumerate(_spans(self._samples, self.info)):
            quantiser = options.base_quantiser
            base = code_base(frames, quantiser, options.effort.base_preset, options.low_delay)
            held_out = number % _HELD_OUT == _HELD_OUT // 2
            tiles = tiles_of(frames, base, quantiser, rng, _TILES)
            if len(tiles[0]):
                write_shard(self.judging if held_out else self.training, number, tiles)
            self._keys.append(base.sizes[0])
            self._others += base.sizes[1:]
            done += len(frames)
            self._observer(Status("adapt, samples", done, total))
        several = len(self._keys) >= _HELD_OUT
        self.enough = several and all(map(shard_paths, (self.training, self.judging)))

    @property
    def video_bytes(self) -> float:
        """About how many bytes the pictures of the whole video take."""
        frames, gop = self.info.frame_count or 0, self._job.gop
        others = np.mean(self._others) if self._others else 0.0
        keys = max(frames / gop, 1.0)
        return float(keys * np.mean(self._keys) + max(frames - keys, 0.0) * others)


def _spans(samples: Samples, info: VideoInfo) -> Iterator[list[Frame]]:
    """Frames of BASE_BIT_DEPTH of all spans. One may be a little shorter than asked for."""
    for part in samples.parts:
        with opened_source(part) as demuxer, opened_video(part, demuxer) as reader:
            frames = (widened(frame, info.bit_depth) for frame in reader)
            while len(span := list(islice(frames, part.gop))) > part.gop // 2:
                yield span


class _Tuning(EnhancementTraining):
    """Training that tells how far it is."""

    def __init__(
        self,
        options: EnhancementOptions,
        network: EnhancementNetwork,
        tiles: TileShards,
        observer: Observer,
    ) -> None:
        super().__init__(options, network, tiles, None)
        self._observer, self._total = observer, round(60 * options.max_minutes)

    def step(self, share: float) -> dict[str, float]:
        """One step."""
        done = min(int(share * self._total), self._total)
        self._observer(Status("adapt, training", done, self._total, counted="seconds"))
        return super().step(share)


def _tuned(
    job: EncodeJob, origin: EnhancementWeights, folder: Path, device: str, observer: Observer
) -> Learner:
    """Train for the minutes of a job."""
    assert job.adapt is not None
    options = EnhancementOptions(
        data=folder,
        out=folder / "tuned.safetensors",
        max_minutes=job.adapt,
        learning_rate=_LEARNING_RATE,
        device=device,
    )
    network = network_of(origin).requires_grad_(True).to(device)
    tuning = _Tuning(options, network, TileShards(folder), observer)
    run_steps(options, tuning, lambda _: None)
    return tuning.learner


class _Judge:
    """Judges networks on tiles of the spans that are held out."""

    def __init__(self, tiles: TileShards, info: VideoInfo, origin: EnhancementWeights, device: str) -> None:
        self._tiles, self._device = tiles, device
        step = 1 << BASE_BIT_DEPTH - info.bit_depth
        self._rounding = (step**2 - 1) / 12
        self._before = self._errors(origin)

    def saved(self, weights: EnhancementWeights) -> float:
        """Which share of the bits a network is expected to save, less the standard error of that."""
        gains = (self._before - self._errors(weights)) / self._before.mean() / SLOPE
        return _KEPT * float(gains.mean() - gains.std() / len(gains) ** 0.5)

    @torch.inference_mode()
    def _errors(self, weights: EnhancementWeights) -> Tensor:
        """Of each tile, as it is shown: enhanced at its best strengths, and rounded to the video's depth."""
        network, found = network_of(weights).to(self._device), list[Tensor]()
        for batch in self._tiles.batches(_BATCH, len(self._tiles)):
            batch = batch.to(self._device)
            correction, missing = corrections(network, batch), batch.original - batch.decoded
            squares = torch.stack(
                [
                    (missing - correction * (strength / (STRENGTH_UNIT * CORRECTION_UNIT)))
                    .square()
                    .mean((2, 3))
                    for strength in range(STRENGTHS)
                ]
            )
            planes = squares * batch.share
            luma, chroma = planes[..., :_LUMA].sum(2), planes[..., _LUMA:].sum(2)
            found.append(luma.amin(0) + chroma.amin(0) + self._rounding * batch.share.sum(1))
        return torch.cat(found).cpu()


def rounded(
    origin: EnhancementWeights, average: dict[str, Tensor], step: int, last_layers: bool
) -> EnhancementWeights:
    """Weights whose integers differ from those of `origin` by multiples of `step`, as the trained ones do.

    average: parameters of the trained network. last_layers: leave the layers before the last blocks as they
    are, and so outputs of layers whose sums could leave the exact range.
    """
    integers = dict(origin.integers)
    for name in origin.config.layers():
        if last_layers and not any(part in _LAST for part in name.split(".")):
            continue
        parts = (integers[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias", "exponent"))
        weight, bias, exponent = parts
        scale = np.exp2(exponent)
        by_output = scale[:, None, None, None]
        wanted = average[f"{name}.weight"].double().numpy() * by_output
        new_weight = weight + _rounded(wanted - weight, step)
        new_weight -= step * np.sign(new_weight) * (np.abs(new_weight) > WEIGHT_MAX)
        wanted = average[f"{name}.bias"].double().numpy() * scale
        new_bias = bias + UNIT * _rounded(wanted - bias / UNIT, step)
        reach = ACTIVATION_MAX * np.abs(new_weight).reshape(len(weight), -1).sum(1) + np.abs(new_bias)
        fits = (reach < EXACT_LIMIT) & (np.abs(new_weight).reshape(len(weight), -1).max(1) <= WEIGHT_MAX)
        integers[f"{name}.weight"] = np.where(fits[:, None, None, None], new_weight, weight).astype(np.int8)
        integers[f"{name}.bias"] = np.where(fits, new_bias, bias).astype(np.int32)
    return EnhancementWeights(origin.config, integers)


def _rounded(differences: Floats, step: int) -> Floats:
    """Multiples of `step`. More than what is nearest to zero becomes zero, because zeros take fewest bits."""
    multiples = np.rint(differences / step) * (np.abs(differences) >= _DEAD_ZONE * step)
    result: Floats = step * multiples
    return result
