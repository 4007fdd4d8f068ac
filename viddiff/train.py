"""Training: one flat loop over crops of the codec's own samples.

Loss: rate + distortion / lambda, in bits per pixel, lambda = 0.85 * 2^((QP - 12) / 3) for each sample's own
step, scaled by a
running mean for its quality so that every quality counts alike. Chroma's squared error counts twice (a 6:1:1
PSNR asks for
about that). Networks compute with rounded weights and activations from the first step, exactly as the
decoder will.
"""

import io
import json
import math
import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from viddiff import checkpoint
from viddiff.calibration import SymbolCounts
from viddiff.checkpoint import Codec
from viddiff.codec import EncodeOptions, decode, encode
from viddiff.config import CHROMA_WEIGHT, STEP_COUNT, ModelConfig
from viddiff.data import Batch, MotionSample, SampleRing, collect, collect_forever, find_videos
from viddiff.errors import CheckpointError, ViddiffError
from viddiff.metrics import Distortion, bd_rate
from viddiff.models.hyperprior import TABLE_CLASSES
from viddiff.models.model import VideoModel
from viddiff.models.motion_prior import MotionPrior
from viddiff.rates import Rates
from viddiff.training_pass import Observe, PassOutput, run
from viddiff.video import VideoReader
from viddiff.whitening import WhitenedLayer, whiten

CALIBRATION_ROUNDS = 2
"""Times that the final tables are taken from encodes with the tables of the time before."""
REFRESH_MINUTES = 10
"""Minutes after which the collectors are given the newest weights."""
MOTION_EVERY = 3
RATES_EVERY = 200
"""Steps after which the loss takes its bits from newer counts of symbols."""
_FADE = 0.8
_COUNT_EVERY = 4
_WHITENING_BATCHES = 12
_GRADIENT_MAX = 30.0
"""Steps from one that trains the motion prior to the next."""


@dataclass(frozen=True)
class TrainOptions:
    """What a user can choose."""

    data: Path
    """Folder of videos to train on, searched recursively."""
    out: Path
    """Weights to write; the resume state stands beside it."""
    valid: Path | None = None
    """Folder of videos to judge by; none: no validation."""
    init: Path | None = None
    """Weights to start from; none: the untrained DCT codec."""
    cache: Path | None = None
    """Folder for samples; none: beside `out`."""
    capacity: int = 6000
    """Most samples (whole frames) in the cache."""
    max_minutes: float = 60.0
    """The schedule fits this time."""
    steps: int | None = None
    """Stop after this many steps at the latest."""
    batch: int = 12
    crop: int = 128
    """Side of a crop, luma samples."""
    learning_rate: float = 1e-3
    collectors: int = 1
    """Processes that keep the samples fresh; 0: collect `first_samples` once, before training."""
    first_samples: int = 200
    """Samples to wait for before the first step."""
    validate_minutes: float = 20.0
    calibration_clips: int = 50
    """Stretches of nine frames to take the final tables' statistics from."""
    resume: bool = False
    seed: int = 0
    device: str = "cpu"


@dataclass
class _State:
    """Everything that a resumed run needs."""

    model: VideoModel
    motion: MotionPrior
    average: dict[str, Tensor]
    """Exponential moving average of all parameters; what is saved and judged."""
    counts: SymbolCounts
    """Symbols of late, from which the loss takes its bits."""
    optimizer: torch.optim.Optimizer = field(init=False)
    whitened: dict[str, WhitenedLayer] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    rates: dict[str, Rates] = field(default_factory=dict)
    """Bits of each kind of symbol, renewed from the counts every RATES_EVERY steps."""
    norms: list[float] = field(default_factory=lambda: [0.0] * (STEP_COUNT // 8))
    """Running mean of the loss for each range of eight steps."""


Report = Callable[[dict[str, Any]], None]
"""Takes one line of the log: step, minutes, loss and so on."""


def train(options: TrainOptions, report: Report) -> Codec:
    """Train until the time or the steps are spent; returns (and has written) the averaged weights."""
    torch.manual_seed(options.seed)
    torch.set_flush_denormal(True)  # vanishing gradients would slow the processor down many times
    rng = random.Random(options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    ring = SampleRing(options.cache or options.out.with_suffix(".samples"), options.capacity)
    collectors = _start_collectors(options, ring)
    try:
        state = _begin(options, ring)
        _loop(options, state, ring, rng, report)
    finally:
        for process in collectors:
            process.terminate()
            process.join()
    codec = calibrate(_averaged(state), options)
    checkpoint.save(options.out, codec.model, codec.motion, codec.tables)
    return codec


def calibrate(codec: Codec, options: TrainOptions) -> Codec:
    """The codec with tables from the statistics of its own encodes of training clips."""
    rng, videos = random.Random(options.seed), find_videos(options.data)
    for _ in range(CALIBRATION_ROUNDS):  # what the encoder chooses depends on the tables it has
        counts = SymbolCounts()
        for _ in range(options.calibration_clips):
            collect(rng.choice(videos), codec, rng, counts.add)
        codec = checkpoint.codec_of(codec.model, codec.motion, counts.tables())
    return codec


def _begin(options: TrainOptions, ring: SampleRing) -> _State:
    model, motion = checkpoint.fresh(ModelConfig(), options.seed)
    start = None if options.init is None else checkpoint.load(options.init)
    if start is not None:
        model, motion = checkpoint.fresh(start.model.config, options.seed)
        model.load_state_dict(start.model.state_dict())
        motion.load_state_dict(start.motion.state_dict())
    model.to(device=options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    motion.to(options.device)
    average = {n: p.detach().clone() for n, p in _parameters(model, motion)}
    state = _State(model, motion, average, SymbolCounts(None if start is None else start.tables))
    saved = _restore(state, _resume_path(options)) if options.resume else {}
    _renew_rates(state)
    batches = ring.batches(options.batch, options.crop, random.Random(options.seed))

    def feed() -> None:
        model.train()
        for _ in range(_WHITENING_BATCHES):
            run(model, next(batches).to(options.device), state.rates["y"], state.rates["z"])

    state.whitened = whiten(model, feed)
    leaves = _leaves(state)
    linear = [p for n, p in leaves.items() if ".linear." in n]  # a DCT to begin with: move it gently
    others = [p for n, p in leaves.items() if ".linear." not in n]
    groups = [{"params": others, "pace": 1.0}, {"params": linear, "pace": 0.1}]
    state.optimizer = torch.optim.AdamW(groups, options.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    for name, leaf in leaves.items():
        if f"exp_avg.{name}" in saved:
            state.optimizer.state[leaf] = {
                key: saved[f"{key}.{name}"].to(leaf.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
    return state


def _leaves(state: _State) -> dict[str, torch.nn.Parameter]:
    """What the optimiser moves: the steps of whitened layers, and all other parameters."""
    leaves = {f"whitened.{name}": layer.step for name, layer in state.whitened.items()}
    within = {id(p) for layer in state.whitened.values() for p in layer.layer.parameters()}
    return leaves | {n: p for n, p in _parameters(state.model, state.motion) if id(p) not in within}


def _parameters(model: VideoModel, motion: MotionPrior) -> list[tuple[str, torch.nn.Parameter]]:
    return [
        *((f"model.{n}", p) for n, p in model.named_parameters()),
        *((f"motion.{n}", p) for n, p in motion.named_parameters()),
    ]


def _start_collectors(options: TrainOptions, ring: SampleRing) -> list[Any]:
    if options.collectors == 0:
        videos, rng = find_videos(options.data), random.Random(options.seed)
        codec = checkpoint.untrained() if options.init is None else checkpoint.load(options.init)
        while len(ring) < options.first_samples:
            collect(rng.choice(videos), codec, rng, ring.add)
        return []
    context = multiprocessing.get_context("spawn")
    processes = []
    for index in range(options.collectors):
        arguments = (
            options.data,
            ring.folder,
            options.capacity,
            options.init,
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


def _loop(options: TrainOptions, state: _State, ring: SampleRing, rng: random.Random, report: Report) -> None:
    batches = ring.batches(options.batch, options.crop, rng)
    began = time.monotonic() - state.seconds
    next_line, next_valid = state.seconds + 60, state.seconds + 60 * options.validate_minutes
    sums: dict[str, list[float]] = {}
    baseline: dict[str, list[tuple[float, float]]] = {}
    while True:
        state.seconds = time.monotonic() - began
        share = state.seconds / (60 * options.max_minutes)
        if options.steps is not None:
            share = max(share, state.step / options.steps)
        if share >= 1:
            break
        for group in state.optimizer.param_groups:
            group["lr"] = group["pace"] * options.learning_rate * _schedule(share, state.step)
        motion = (
            ring.motion(rng) if state.step % MOTION_EVERY == 0 else None
        )  # its network is small and learns fast
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
            _save_state(state, _resume_path(options))
            if int(state.seconds / 60) % REFRESH_MINUTES == 0:
                _save(options, state)
        if options.valid is not None and state.seconds >= next_valid:
            _validate(options, state, baseline, report)
            next_valid = time.monotonic() - began + 60 * options.validate_minutes
    if options.valid is not None:
        _validate(options, state, baseline, report)


def _schedule(share: float, step: int) -> float:
    """Warm-up over 100 steps, then a cosine down to 2 %."""
    return min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def _step(
    options: TrainOptions, state: _State, batch: Batch, motion: MotionSample | None, share: float
) -> dict[str, float]:
    """One optimiser step on residual crops and one frame's motion; returns figures for the log."""
    model, device = state.model.train(), options.device
    batch = batch.to(device)
    if state.step % RATES_EVERY == 0:
        _renew_rates(state)
    counting = state.step % _COUNT_EVERY == 0
    observe = _counter(state.counts) if counting else None
    output = run(model, batch, state.rates["y"], state.rates["z"], observe)
    loss, figures = _loss(output, batch, state.norms, share)
    if motion is not None:
        bits, count = motion_bits(state.motion.train(), motion, state.rates, _counter(state.counts), device)
        loss = loss + bits / count
        figures["motion_bits"] = float(bits.detach())
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(
        [p for _, p in _parameters(state.model, state.motion)], _GRADIENT_MAX
    )
    if torch.isfinite(norm) and torch.isfinite(loss):
        for layer in state.whitened.values():
            layer.gather()
        state.optimizer.step()
        for layer in state.whitened.values():
            layer.apply()
    decay = min(0.999, (state.step + 1) / (state.step + 20))
    with torch.no_grad():
        for name, parameter in _parameters(state.model, state.motion):
            state.average[name].lerp_(parameter, 1 - decay)
    return {"loss": float(loss.detach()), "gradient": float(norm), **figures}


def _renew_rates(state: _State) -> None:
    tables, device = state.counts.tables(), next(state.model.parameters()).device
    for kind in ("y", "z", "flags", "changes"):
        classes = TABLE_CLASSES if kind == "y" else 1
        state.rates[kind] = Rates.of(getattr(tables, kind), classes, device)
    state.counts.fade(_FADE)


def _counter(counts: SymbolCounts) -> Observe:
    def observe(kind: str, symbols: Tensor, indexes: Tensor, weights: Tensor) -> None:
        values, rows = (t.detach().to(torch.int64).cpu().numpy() for t in (symbols, indexes))
        counts.count(kind, values, rows, weights.cpu().numpy())

    return observe


def _squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Weighted squared error per luma pixel of each sample, in 8-bit units: (B,)."""
    squares = ((a - b) ** 2).sum((2, 3)) / 16
    pixels = 4 * a.shape[2] * a.shape[3]
    return (squares[:, :4].sum(1) + CHROMA_WEIGHT * squares[:, 4:].sum(1)) / pixels


def _loss(
    output: PassOutput, batch: Batch, norms: list[float], share: float
) -> tuple[Tensor, dict[str, float]]:
    x = batch.x
    pixels = 4 * x.shape[2] * x.shape[3]
    qp = 8 + batch.step.to(x) / 2
    lmbda = 0.85 * torch.exp2((qp - 12) / 3)
    distortion = _squared_error(output.reconstruction, x)
    predicted = _squared_error(output.prediction, x)
    rate = (output.bits_y + output.bits_z) / pixels
    cost = rate + distortion / lmbda
    scale = torch.empty_like(cost)
    typical = float((batch.weight * cost.detach()).mean())
    for i, (step, value) in enumerate(zip(batch.step.tolist(), cost.tolist(), strict=True)):
        bucket = min(step // 8, len(norms) - 1)
        value *= float(batch.weight[i])
        before = norms[bucket] or typical
        norms[bucket] = 0.99 * before + 0.01 * value
        scale[i] = 1 / max(norms[bucket], 1e-4)
    hint = 0.1 * max(0.0, 1 - 2 * share)  # early on, pull the prediction itself towards the frame
    loss = (batch.weight * scale * (cost + hint * predicted / lmbda)).mean()
    figures = {
        name: float((batch.weight * values.detach()).mean())
        for name, values in (
            ("cost", cost),
            ("bpp", rate),
            ("bpp_z", output.bits_z / pixels),
            ("mse", distortion),
            ("mse_prediction", predicted),
        )
    }
    return loss, figures


class _MotionMeter:
    """Bits of a known quadtree under the prior, differentiable."""

    def __init__(self, levels: list[Tensor], rates: dict[str, Rates], observe: Observe) -> None:
        self.levels, self.rates, self.observe = levels, rates, observe
        self.bits = torch.zeros((), device=levels[0].device)

    def _add(self, kind: str, symbols: Tensor, index: Tensor, mask: Tensor) -> None:
        self.bits = self.bits + (self.rates[kind].bits(symbols, index) * mask).sum()
        coded = mask > 0
        self.observe(kind, symbols[coded], index[coded], mask[coded])

    def flags(self, level: int, index: Tensor, mask: Tensor, parent: Tensor) -> Tensor:
        flags = (self.levels[level] != parent).any(1, keepdim=True).to(index.dtype)
        self._add("flags", flags, index, mask)
        return flags

    def changes(self, level: int, index: Tensor, mask: Tensor, expected: Tensor) -> Tensor:
        values = self.levels[level] - expected
        self._add("changes", values, index, mask)
        return values


def motion_bits(
    motion: MotionPrior, sample: MotionSample, rates: dict[str, Rates], observe: Observe, device: str
) -> tuple[Tensor, int]:
    """Bits of a frame's two fields, and the number of their 8x8 blocks."""
    bits = torch.zeros((), device=device)
    changes: list[Tensor] | None = None
    count = 0
    for levels, condition in zip(sample.levels, sample.conditions, strict=True):
        meter = _MotionMeter([level.to(device) for level in levels], rates, observe)
        rows, cols = levels[-1].shape[2:]
        changes = motion.code_field(rows, cols, changes, condition.to(device), meter)
        bits, count = bits + meter.bits, count + rows * cols
    return bits, count


# --- saving, resuming, judging
# -----------------------------------------------------------------------------------------


def _averaged(state: _State) -> Codec:
    model, motion = checkpoint.fresh(state.model.config)
    with torch.no_grad():
        for name, parameter in _parameters(model, motion):
            parameter.copy_(state.average[name])
    model.to(next(state.model.parameters()).device)
    motion.to(next(state.model.parameters()).device)
    return checkpoint.codec_of(model, motion, state.counts.tables())


def _save(options: TrainOptions, state: _State) -> Codec:
    codec = _averaged(state)
    checkpoint.save(options.out, codec.model, codec.motion, codec.tables)
    return codec


def _resume_path(options: TrainOptions) -> Path:
    return options.out.with_suffix(".resume")


def _save_state(state: _State, path: Path) -> None:
    tensors = {f"average.{n}": t for n, t in state.average.items()}
    tensors |= {f"parameter.{n}": p.detach() for n, p in _parameters(state.model, state.motion)}
    for name, leaf in _leaves(state).items():
        for key, value in state.optimizer.state.get(leaf, {}).items():
            tensors[f"{key}.{name}"] = value
    tensors |= {f"counts.{kind}": torch.from_numpy(c.copy()) for kind, c in state.counts.counts.items()}
    about = {
        "step": state.step,
        "seconds": state.seconds,
        "norms": state.norms,
        "config": asdict(state.model.config),
    }
    temporary = path.with_name(path.name + ".part")
    save_file({n: t.contiguous().cpu() for n, t in tensors.items()}, temporary, {"about": json.dumps(about)})
    temporary.replace(path)


def _restore(state: _State, path: Path) -> dict[str, Tensor]:
    """Continue from `path`; returns the optimiser's part of it, by name."""
    try:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
    except (OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"cannot resume from {path}: {error}") from error
    with torch.no_grad():
        for name, parameter in _parameters(state.model, state.motion):
            parameter.copy_(tensors[f"parameter.{name}"])
            state.average[name].copy_(tensors[f"average.{name}"])
    for kind, counts in state.counts.counts.items():
        if f"counts.{kind}" in tensors:
            counts[:] = tensors[f"counts.{kind}"].numpy()
    state.step, state.seconds, state.norms = int(about["step"]), float(about["seconds"]), list(about["norms"])
    return tensors


def _validate(
    options: TrainOptions, state: _State, baseline: dict[str, list[tuple[float, float]]], report: Report
) -> None:
    """Real files of the validation clips: bytes and PSNR at three qualities, and the BD-rate against the
    first validation."""
    assert options.valid is not None
    codec = _save(options, state)
    rates = []
    for video in find_videos(options.valid):
        points = rate_distortion(codec, video, (22, 34, 46))
        first = baseline.setdefault(str(video), points)
        try:
            rates.append(
                bd_rate(
                    [p[0] for p in first],
                    [p[1] for p in first],
                    [p[0] for p in points],
                    [p[1] for p in points],
                )
            )
        except ValueError:
            continue
    report(
        {
            "step": state.step,
            "minutes": round(state.seconds / 60, 2),
            "validation_bd_rate": round(sum(rates) / max(len(rates), 1), 2),
            "clips": len(rates),
            "points": {Path(v).stem: baseline[v] for v in baseline}
            if not rates or max(map(abs, rates)) == 0
            else {},
        }
    )


def rate_distortion(
    codec: Codec, video: Path, qualities: tuple[int, ...], frames: int = 17
) -> list[tuple[float, float]]:
    """(bits per pixel, 6:1:1 PSNR) of the first frames of a video, from real files."""
    points = []
    with VideoReader(video, frames=frames) as reader:
        originals, info = list(reader), reader.info
    for quality in qualities:
        file = io.BytesIO()
        summary = encode(originals, info, file, codec, EncodeOptions(quality=quality))
        distortion = Distortion(info.bit_depth)
        file.seek(0)
        for original, decoded in zip(originals, decode(file, codec), strict=True):
            distortion.add(original, decoded)
        points.append(
            (8 * summary.size_bytes / (len(originals) * info.width * info.height), distortion.psnr_611)
        )
    return points
