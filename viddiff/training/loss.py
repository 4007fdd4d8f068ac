"""Loss: one differentiable pass of encoder and decoder over a batch, with the bits of all symbols."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from viddiff.config import CHROMA_WEIGHT, lmbda_of_step
from viddiff.networks.hyperprior import HYPER_MAX, HYPER_TRADE, SYMBOL_MAX, TABLE_COUNT, table_class
from viddiff.networks.model import VideoModel
from viddiff.networks.motion_prior import MergeCandidates, MotionPrior
from viddiff.networks.residual import STEP_UNIT, SYMBOL_UNIT
from viddiff.training.calibration import SymbolCounts
from viddiff.training.rates import Rates, rate_aware_round
from viddiff.training.samples import Batch, MotionSample

_Z_SHARE = 0.5
"""Share of training samples that have a z."""

Observe = Callable[[str, Tensor, Tensor, Tensor], None]
"""Takes (kind, symbols, tables, weights) of everything that is coded, to count it."""


@dataclass(frozen=True)
class PassOutput:
    """Pictures (B, 6, H/2, W/2), 0..1023, and bits (B,)."""

    prediction: Tensor
    reconstruction: Tensor
    bits_y: Tensor
    bits_z: Tensor


def run(
    model: VideoModel, batch: Batch, rates_y: Rates, rates_z: Rates, observe: Observe | None = None
) -> PassOutput:
    """Code `batch` as the encoder would, and reconstruct it as the decoder would.

    Every step has a gradient.
    """
    prediction = model.predict(batch.first, batch.second, batch.step, batch.level)
    y, z = model.analyse(batch.x, prediction)
    steps = batch.step.tolist()
    first = torch.tensor(
        [TABLE_COUNT * table_class(v, s) for v, s in zip(batch.level.tolist(), steps, strict=True)],
        device=y.device,
    )[:, None, None, None]
    lmbda = torch.tensor([lmbda_of_step(s) for s in steps], device=y.device)[:, None, None, None]
    worth = torch.ones_like(prediction.steps)
    worth[:, 64:] = CHROMA_WEIGHT
    trade = (lmbda / ((prediction.steps / STEP_UNIT) ** 2 * worth)).detach()
    weight = batch.weight[:, None, None, None]
    collected: list[Tensor] = []

    def quantise(mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        rows = index + first
        values = y - mean / SYMBOL_UNIT
        symbols = rate_aware_round(values, lambda s: rates_y.bits(s, rows), trade, SYMBOL_MAX)
        collected.append((rates_y.bits(symbols, rows, values, trade) * mask).sum((1, 2, 3)))
        if observe is not None:
            coded = mask.expand_as(index).bool() & (index > 0)
            observe("y", symbols[coded], rows[coded], weight.expand_as(rows)[coded])
        return symbols

    index_z = model.entropy_parameters.hyper_indexes(prediction.condition)[:, :, None, None].expand_as(z)
    z_hat = rate_aware_round(z, lambda s: rates_z.bits(s, index_z), HYPER_TRADE, HYPER_MAX)
    bits_z = rates_z.bits(z_hat, index_z, z, HYPER_TRADE).sum((1, 2, 3))
    if observe is not None:
        coded = index_z > 0
        observe("z", z_hat[coded], index_z[coded], weight.expand_as(z_hat)[coded])
    # Encoders leave z out where it does not pay, so every frame must be decodable without it.
    kept = (torch.rand(len(z), device=z.device) < _Z_SHARE).to(z.dtype)
    z_hat, bits_z = z_hat * kept[:, None, None, None], bits_z * kept
    y_hat = model.code_latents(z_hat, prediction, quantise)
    reconstruction = model.reconstruct(y_hat, prediction)
    return PassOutput(prediction.samples, reconstruction, collected[0] + collected[1], bits_z)


def weighted_error(a: Tensor, b: Tensor) -> Tensor:
    """Weighted squared error per luma sample, in 8-bit units: (B,)."""
    squares = ((a - b) ** 2).sum((2, 3)) / 16
    pixels = 4 * a.shape[2] * a.shape[3]
    return (squares[:, :4].sum(1) + CHROMA_WEIGHT * squares[:, 4:].sum(1)) / pixels


def loss_of(
    output: PassOutput, batch: Batch, norms: list[float], share: float
) -> tuple[Tensor, dict[str, float]]:
    """The loss, and values for the log (means over the batch, as if crops had been drawn uniformly).

    The loss is rate + distortion / lambda in bits per luma sample, with the lambda of each crop's step. It is
    divided by `norms`, a running mean for each range of steps (updated here), so that every quality counts
    alike.

    share: how much of the training is done, 0..1. At first, the loss also pulls the prediction towards the
    frame.
    """
    x = batch.x
    pixels = 4 * x.shape[2] * x.shape[3]
    lmbda = torch.tensor([lmbda_of_step(step) for step in batch.step.tolist()], device=x.device)
    distortion = weighted_error(output.reconstruction, x)
    predicted = weighted_error(output.prediction, x)
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
    hint = 0.1 * max(0.0, 1 - 2 * share)
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


def counter(counts: SymbolCounts) -> Observe:
    """A function that counts everything it observes."""

    def observe(kind: str, symbols: Tensor, indexes: Tensor, weights: Tensor) -> None:
        values, rows = (t.detach().to(torch.int64).cpu().numpy() for t in (symbols, indexes))
        counts.count(kind, values, rows, weights.cpu().numpy())

    return observe


class _MotionMeter:
    """Bits of a given quadtree under the motion prior, differentiable."""

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

    def merges(self, level: int, index: Tensor, candidates: MergeCandidates) -> Tensor:
        numbers = torch.where(index < 0, 0, candidates.number_of(self.levels[level]))
        coded = (index >= 0).to(self.bits.dtype)
        self._add("merges", numbers.to(self.bits.dtype), index.clamp(min=0).to(self.bits.dtype), coded)
        return numbers

    def changes(self, level: int, index: Tensor, mask: Tensor, expected: Tensor) -> Tensor:
        values = self.levels[level] - expected
        self._add("changes", values, index, mask)
        return values


def motion_bits(
    motion: MotionPrior, sample: MotionSample, rates: dict[str, Rates], observe: Observe, device: torch.device
) -> tuple[Tensor, int]:
    """Bits of both fields of a frame, and the number of their 8x8 blocks."""
    bits = torch.zeros((), device=device)
    changes: list[Tensor] | None = None
    count = 0
    for levels, others, condition in zip(sample.levels, sample.others, sample.conditions, strict=True):
        meter = _MotionMeter([level.to(device) for level in levels], rates, observe)
        changes = motion.code_field(others.to(device), changes, condition.to(device), meter)
        bits, count = bits + meter.bits, count + levels[-1][0, 0].numel()
    return bits, count
