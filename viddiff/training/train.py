"""Training loop over crops of the codec's own samples.

The loss is rate + distortion / lambda (see `loss`). From the first step, networks compute with rounded
weights and activations, exactly as in the decoder. Collectors in other processes keep the samples fresh (see
`samples`).
"""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from viddiff.codec import checkpoint
from viddiff.codec.weights import Codec, codec_of, untrained
from viddiff.training.background import background
from viddiff.training.calibration import SymbolCounts
from viddiff.training.library_selection import choose_library
from viddiff.training.loss import counter, loss_of, motion_bits, run
from viddiff.training.run import Report, RunOptions, run_steps
from viddiff.training.samples import Footage, SampleRing, collect_forever, find_videos, no_samples
from viddiff.training.settings import training_settings
from viddiff.training.state import TrainState
from viddiff.training.validation import Judge

CALIBRATION_ROUNDS = 2
"""Rounds of calibration. Each encodes with the tables of the round before."""
MOTION_EVERY = 3
"""Steps between those that train the motion prior, whose network is small and learns fast."""
RATES_EVERY = 200
"""Steps between updates of the loss's rates."""
_COUNT_EVERY = 4
_GRADIENT_MAX = 30.0


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """Training options. Without `init`, training begins with the untrained DCT codec."""

    batch: int = 12
    validate_minutes: float = 20.0
    capacity: int = 6000
    """Largest number of samples (whole frames) in the cache."""
    crop: int = 128
    """Side of a crop in luma samples."""
    library: int = 8
    """Largest number of pictures in the weights' library. With 0 `steps`, only the library is chosen."""
    collectors: int = 1
    """Processes that keep the samples fresh. 0: collect `first_samples` once, before training."""
    first_samples: int = 200
    """Samples to wait for before the first step."""
    calibration_clips: int = 50
    """Parts of nine frames that give the statistics of the final tables."""


def train(options: TrainOptions, report: Report) -> Codec:
    """Train until time or steps are used up. Writes and returns the averaged weights."""
    with training_settings(options.seed):
        return _train(options, report)


def _train(options: TrainOptions, report: Report) -> Codec:
    options.prepare()
    start = _start(options)
    report({"library_pictures": len(start.library.pictures)})
    if not options.resume:
        checkpoint.save(options.out, start)
    if options.steps == 0:
        return start
    ring = SampleRing(options.samples, options.capacity)
    with _collectors(options, ring, start):
        training = _CodecTraining(options, _begin(options, ring, start), ring)
        run_steps(options, training, report)
    codec = calibrate(training.state.averaged(), options)
    checkpoint.save(options.out, codec)
    return codec


def calibrate(codec: Codec, options: TrainOptions) -> Codec:
    """The codec with tables from its own encodes of training clips."""
    rng, footage = random.Random(options.seed), Footage(options.data, options.crop)
    for _ in range(CALIBRATION_ROUNDS):  # what the encoder chooses depends on the tables it has
        counts = SymbolCounts()
        for _ in range(options.calibration_clips):
            footage.collect(codec, rng, counts.add)
        codec = codec_of(codec.model, codec.motion, counts.tables(), codec.library)
    return codec


def _start(options: TrainOptions) -> Codec:
    """Weights to start from, with a library of pictures from the footage."""
    codec = untrained() if options.init is None else checkpoint.load(options.init)
    library = choose_library(find_videos(options.data), options.library, random.Random(options.seed))
    return codec_of(codec.model, codec.motion, codec.tables, library)


def _begin(options: TrainOptions, ring: SampleRing, start: Codec) -> TrainState:
    state = TrainState.of(start, options.device, options.seed)
    batches = ring.batches(options.batch, options.crop, random.Random(options.seed))
    state.prepare_optimizer(batches, options.learning_rate)
    if options.resume:
        state.restore(options.state)
    return state


@contextmanager
def _collectors(options: TrainOptions, ring: SampleRing, start: Codec) -> Iterator[None]:
    """Collect samples, and wait for the first ones. Collectors end with the block."""
    if options.collectors == 0:
        footage, rng = Footage(options.data, options.crop), random.Random(options.seed)
        while len(ring) < options.first_samples:
            footage.collect(start, rng, ring.add)
    with ExitStack() as stack:
        fixed = (options.data, ring.folder, options.capacity, options.out)
        seeds = (options.seed + 1 + index for index in range(options.collectors))
        started = [background(collect_forever, *fixed, seed, options.crop) for seed in seeds]
        processes = [stack.enter_context(each) for each in started]
        while len(ring) < options.first_samples:
            time.sleep(1)
            if not any(process.is_alive() for process in processes):
                raise no_samples(options.data, options.crop)
        yield


class _CodecTraining:
    """The networks of files without a base, as the loop sees them."""

    def __init__(self, options: TrainOptions, state: TrainState, ring: SampleRing) -> None:
        self.state, self.learner = state, state.learner
        self._options, self._ring, self._rng = options, ring, random.Random(options.seed)
        self._batches = ring.batches(options.batch, options.crop, self._rng)
        self._judge = None if options.valid is None else Judge(options.valid)

    def step(self, share: float) -> dict[str, float]:
        """One optimiser step on residual crops and one frame's motion."""
        state, step = self.state, self.learner.step
        motion = self._ring.motion(self._rng) if step % MOTION_EVERY == 0 else None
        batch = next(self._batches).to(torch.device(self._options.device))
        if step % RATES_EVERY == 0:
            state.renew_rates()
        observe = counter(state.counts)
        counted = observe if step % _COUNT_EVERY == 0 else None
        output = run(state.model.train(), batch, state.rates["y"], state.rates["z"], counted)
        loss, figures = loss_of(output, batch, state.norms, share)
        if motion is not None:
            bits, blocks = motion_bits(state.motion.train(), motion, state.rates, observe, batch.x.device)
            loss = loss + bits / blocks
            figures["motion_bits"] = float(bits.detach())
        state.model.zero_grad(set_to_none=True)
        state.motion.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.learner.parameters.values(), _GRADIENT_MAX)
        if torch.isfinite(norm) and torch.isfinite(loss):
            state.move()
        return {"loss": float(loss.detach()), "gradient": float(norm), **figures}

    def sample_count(self) -> int:
        """Number of samples in the cache."""
        return len(self._ring)

    def save_state(self, path: Path) -> None:
        """Write everything that a resumed run needs."""
        self.state.save(path)

    def save_weights(self) -> None:
        """Write the averaged weights, from which collectors go on."""
        checkpoint.save(self._options.out, self.state.averaged())

    def validation(self) -> dict[str, Any]:
        """Write and validate the averaged weights. Returns values for the log."""
        codec = self.state.averaged()
        checkpoint.save(self._options.out, codec)
        if self._judge is None:
            return {}
        figures = self._judge(codec)
        if self._options.plot is not None:
            self._judge.plot(self._options.plot)
        return figures
