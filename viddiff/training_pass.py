"""One differentiable pass of encoder and decoder over a batch, with the bits of everything it codes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from viddiff.config import CHROMA_WEIGHT, lmbda_of_step
from viddiff.data import Batch
from viddiff.models.hyperprior import HYPER_MAX, HYPER_TRADE, SYMBOL_MAX, TABLE_COUNT, table_class
from viddiff.models.model import VideoModel
from viddiff.models.residual import STEP_UNIT, SYMBOL_UNIT
from viddiff.rates import Rates, rate_aware_round

_Z_SHARE = 0.5
"""Share of the training samples that have a z."""

Observe = Callable[[str, Tensor, Tensor, Tensor], None]
"""Takes (kind, symbols, tables, weights) of all that is coded, to count them."""


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
    """Code `batch` as the encoder would and reconstruct it as the decoder would; every step has a
    gradient."""
    prediction = model.predict(batch.first, batch.second, batch.step, batch.level)
    y, z = model.analyse(batch.x, prediction)
    steps = batch.step.tolist()
    first = torch.tensor(
        [TABLE_COUNT * table_class(v, s) for v, s in zip(batch.level.tolist(), steps, strict=True)],
        device=y.device,
    )[:, None, None, None]
    lmbda = torch.tensor([lmbda_of_step(s) for s in steps], device=y.device)[:, None, None, None]
    weights = torch.ones_like(prediction.steps)
    weights[:, 64:] = CHROMA_WEIGHT
    trade = (lmbda / ((prediction.steps / STEP_UNIT) ** 2 * weights)).detach()
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
