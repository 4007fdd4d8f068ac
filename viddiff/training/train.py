"""Training loop over crops of the codec's own samples.

The loss is rate + distortion / lambda (see `loss`). From the first step, networks compute with rounded
weights and activations, exactly as in the decoder. Collectors in other processes keep the samples fresh (see
`samples`).
"""

import math
import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from viddiff.codec import checkpoint
from viddiff.codec.weights import Codec, codec_of, untrained
from viddiff.errors import ViddiffError
from viddiff.training.calibration import SymbolCounts
from viddiff.training.library_selection import choose_library
from viddiff.training.loss import counter, loss_of, motion_bits, run
from viddiff.training.samples import Batch, MotionSample, SampleRing, collect, collect_forever, find_videos
from viddiff.training.state import TrainState, parameters
from viddiff.training.validation import Judge

CALIBRATION_ROUNDS = 2
"""Rounds of calibration. Each encodes with the tables of the round before."""
REFRESH_MINUTES = 10
"""Minutes between updates of the collectors' weights."""
MOTION_EVERY = 3
"""Steps between those that train the motion prior, whose network is small and learns fast."""
RATES_EVERY = 200
"""Steps between updates of the loss's rates."""
_COUNT_EVERY = 4
_GRADIENT_MAX = 30.0


@dataclass(frozen=True)
class TrainOptions:
    """Training options."""

    data: Path
    """Folder of training videos, searched recursively."""
    out: Path
    """Weights to write. The resume state is beside it."""
    valid: Path | None = None
    """Folder of validation videos. None: no validation."""
    init: Path | None = None
    """Weights to start from. None: the untrained DCT codec."""
    cache: Path | None = None
    """Folder for samples. None: beside `out`."""
    capacity: int = 6000
    """Largest number of samples (whole frames) in the cache."""
    max_minutes: float = 60.0
    """Duration of the training. The learning rate follows it."""
    steps: int | None = None
    """Largest number of steps. 0: only choose the library."""
    batch: int = 12
    crop: int = 128
    """Side of a crop in luma samples."""
    learning_rate: float = 1e-3
    library: int = 8
    """Largest number of pictures in the weights' library."""
    collectors: int = 1
    """Processes that keep the samples fresh. 0: collect `first_samples` once, before training."""
    first_samples: int = 200
    """Samples to wait for before the first step."""
    validate_minutes: float = 20.0
    plot: Path | None = None
    """PNG of the validations, drawn again after each."""
    calibration_clips: int = 50
    """Parts of nine frames that give the statistics of the final tables."""
    resume: bool = False
    seed: int = 0
    device: str = "cpu"


Report = Callable[[dict[str, Any]], None]
"""Takes one line of the log: step, minutes, loss and so on."""


def train(options: TrainOptions, report: Report) -> Codec:
    """Train until time or steps are used up. Writes and returns the averaged weights."""
    torch.manual_seed(options.seed)
    torch.set_flush_denormal(True)  # vanishing gradients would slow the processor down many times
    rng = random.Random(options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    start = _start(options)
    report({"library_pictures": len(start.library.pictures)})
    if not options.resume:
        checkpoint.save(options.out, start)
    if options.steps == 0:
        return start
    ring = SampleRing(options.cache or options.out.with_suffix(".samples"), options.capacity)
    collectors = _start_collectors(options, ring, start)
    try:
        state = _begin(options, ring, start)
        _loop(options, state, ring, rng, report)
    finally:
        for process in collectors:
            process.terminate()
            process.join()
    codec = calibrate(state.averaged(), options)
    checkpoint.save(options.out, codec)
    return codec


def calibrate(codec: Codec, options: TrainOptions) -> Codec:
    """The codec with tables from its own encodes of training clips."""
    rng, videos = random.Random(options.seed), find_videos(options.data)
    for _ in range(CALIBRATION_ROUNDS):  # what the encoder chooses depends on the tables it has
        counts = SymbolCounts()
        for _ in range(options.calibration_clips):
            collect(rng.choice(videos), codec, rng, counts.add)
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
        state.restore(_resume_path(options))
    return state


def _resume_path(options: TrainOptions) -> Path:
    return options.out.with_suffix(".resume")


def _start_collectors(options: TrainOptions, ring: SampleRing, start: Codec) -> list[Any]:
    if options.collectors == 0:
        videos, rng = find_videos(options.data), random.Random(options.seed)
        while len(ring) < options.first_samples:
            collect(rng.choice(videos), start, rng, ring.add)
        return []
    context = multiprocessing.get_context("spawn")
    processes = []
    for index in range(options.collectors):
        arguments = (
            options.data,
            ring.folder,
            options.capacity,
            options.out,
            options.seed + 1 + index,
        )
        process = context.Process(target=collect_forever, args=arguments, daemon=True)
        process.start()
        processes.append(process)
    while len(ring) < options.first_samples:
        time.sleep(1)
        if not any(process.is_alive() for process in processes):
            raise ViddiffError(f"no samples could be collected from {options.data}")
    return processes


def _loop(
    options: TrainOptions, state: TrainState, ring: SampleRing, rng: random.Random, report: Report
) -> None:
    batches = ring.batches(options.batch, options.crop, rng)
    began = time.monotonic() - state.seconds
    next_line, next_valid = state.seconds + 60, state.seconds + 60 * options.validate_minutes
    sums: dict[str, list[float]] = {}
    judge = None if options.valid is None else Judge(options.valid)
    refreshed = state.seconds
    while True:
        state.seconds = time.monotonic() - began
        share = state.seconds / (60 * options.max_minutes)
        if options.steps is not None:
            share = max(share, state.step / options.steps)
        if share >= 1:
            break
        for group in state.optimizer.param_groups:
            group["lr"] = group["pace"] * options.learning_rate * _schedule(share, state.step)
        motion = ring.motion(rng) if state.step % MOTION_EVERY == 0 else None
        line = _step(options, state, next(batches), motion, share)
        for name, value in line.items():
            sums.setdefault(name, []).append(value)
        state.step += 1
        if state.seconds >= next_line:
            report(
                {
                    "step": state.step,
                    "minutes": round(state.seconds / 60, 2),
                    "samples": len(ring),
                    **{name: round(sum(values) / len(values), 5) for name, values in sums.items()},
                }
            )
            sums, next_line = {}, state.seconds + 60
            state.save(_resume_path(options))
            if state.seconds >= refreshed + 60 * REFRESH_MINUTES:
                _save(options, state)
                refreshed = state.seconds
        if judge is not None and state.seconds >= next_valid:
            report(_validation(options, state, judge))
            next_valid = time.monotonic() - began + 60 * options.validate_minutes
    state.save(_resume_path(options))
    if judge is not None:
        report(_validation(options, state, judge))


def _save(options: TrainOptions, state: TrainState) -> Codec:
    codec = state.averaged()
    checkpoint.save(options.out, codec)
    return codec


def _validation(options: TrainOptions, state: TrainState, judge: Judge) -> dict[str, Any]:
    figures = judge(_save(options, state))
    if options.plot is not None:
        judge.plot(options.plot)
    return {"step": state.step, "minutes": round(state.seconds / 60, 2), **figures}


def _schedule(share: float, step: int) -> float:
    """Factor of the learning rate: warm-up over 100 steps, then a cosine down to 2 %."""
    return min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def _step(
    options: TrainOptions, state: TrainState, batch: Batch, motion: MotionSample | None, share: float
) -> dict[str, float]:
    """One optimiser step on residual crops and one frame's motion. Returns values for the log."""
    batch = batch.to(torch.device(options.device))
    if state.step % RATES_EVERY == 0:
        state.renew_rates()
    observe = counter(state.counts)
    counted = observe if state.step % _COUNT_EVERY == 0 else None
    output = run(state.model.train(), batch, state.rates["y"], state.rates["z"], counted)
    loss, figures = loss_of(output, batch, state.norms, share)
    if motion is not None:
        bits, blocks = motion_bits(state.motion.train(), motion, state.rates, observe, batch.x.device)
        loss = loss + bits / blocks
        figures["motion_bits"] = float(bits.detach())
    state.model.zero_grad(set_to_none=True)
    state.motion.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    moved = [p for _, p in parameters(state.model, state.motion)]
    norm = torch.nn.utils.clip_grad_norm_(moved, _GRADIENT_MAX)
    if torch.isfinite(norm) and torch.isfinite(loss):
        state.move()
    return {"loss": float(loss.detach()), "gradient": float(norm), **figures}
