"""Residual coding: a conditional transform that begins as a DCT.

At 1/8 of the size, a position holds the 64 luma and 2 x 16 chroma samples of an 8x8 block.

    analysis    y = DCT(x - prediction) / step + net(...)
    synthesis   IDCT(step * y_hat) + net(step * y_hat, context), then restoration at 1/4, across blocks

The linear parts are trainable and begin as orthonormal DCTs.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from viddiff.config import STEP_COUNT, ModelConfig
from viddiff.networks.layers import (
    IntConv2d,
    ResidualBlock,
    round_clamp,
    round_relu,
    start_near_zero,
    with_planes,
)
from viddiff.networks.predictor import CENTRE, CONDITIONS

SYMBOL_UNIT = 16
"""y_hat is an integer in units of 1/16 of a quantisation step, so that means can be that fine."""
Y_HAT_MAX = 8191
COEFFICIENT_MAX = 4095
"""Largest dequantised coefficient, in units of half an 8-bit sample (orthonormal)."""
STEP_UNIT = 4
"""Quantisation steps are integers in units of 1/4 of an 8-bit sample. y_hat * step < 8191 * 2047 < 2^24."""
STEP_MAX = 2047
_ANCHORS = 4


def dct_basis() -> Tensor:
    """Orthonormal DCT-II of the planes of an 8x8 block: matrix (96 coefficients, 96 samples at 1/8).

    Coefficients 0..63 are luma, 64..79 and 80..95 the chroma planes, each in raster order of rising
    frequency.
    """
    rows = []
    for plane, size in ((0, 8), (1, 4), (2, 4)):
        n = torch.arange(size)
        line = torch.cos(math.pi * (n[None] + 0.5) * n[:, None] / size) * math.sqrt(2 / size)
        line[0] /= math.sqrt(2)
        order = sorted((int(u + v), int(u), int(v)) for u in n for v in n)
        for _, u, v in order:
            picture = line[u][:, None] * line[v][None]
            planes = torch.zeros(1, 6, 4, 4)
            if plane == 0:
                planes[:, :4] = functional.pixel_unshuffle(picture[None, None], 2)
            else:
                planes[:, 3 + plane] = picture
            rows.append(functional.pixel_unshuffle(planes, 4).flatten())
    return torch.stack(rows)


class QuantisationMatrix(nn.Module):
    """Quantisation step for each latent channel and step index.

    2^((QP-4)/6) times a learned factor, which is interpolated between anchors.
    """

    table: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        start = torch.zeros(_ANCHORS, config.latent)
        start[:, 64:] = -0.3  # chroma counts twice, see CHROMA_WEIGHT
        self.factors = nn.Parameter(start)
        self.register_buffer("table", torch.ones(STEP_COUNT, config.latent))
        self.refresh_()

    def _steps(self) -> Tensor:
        index = torch.arange(STEP_COUNT, device=self.factors.device)
        position = (index / (STEP_COUNT - 1) * (_ANCHORS - 1)).clamp(max=_ANCHORS - 1 - 1e-4)
        low = position.floor().long()
        share = (position - low)[:, None]
        log_factor = self.factors[low] * (1 - share) + self.factors[low + 1] * share
        qp = 8 + index[:, None] / 2
        return STEP_UNIT * torch.exp2((qp - 4) / 6) * torch.exp(log_factor)

    def refresh_(self) -> None:
        """Recompute the integer table from the learned factors."""
        with torch.no_grad():
            self.table.copy_(self._steps().round().clamp(1, STEP_MAX))

    def forward(self, step: Tensor) -> Tensor:
        """Steps (B, C, 1, 1), integers in units of 1/4 sample, for step indexes (B,)."""
        table = round_clamp(self._steps(), 1, STEP_MAX) if self.training else self.table
        return table[step][:, :, None, None]


class AnalysisTransform(nn.Module):
    """From residual to latents (encoder only, floating point)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.latent
        self.linear = nn.Conv2d(width, width, 1, bias=False)
        self.net = nn.Sequential(
            nn.Conv2d(2 * width + config.eighth + CONDITIONS, 128, 1),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1, groups=128),
            nn.Conv2d(128, 128, 1),
            nn.ReLU(),
            nn.Conv2d(128, width, 1),
        )
        with torch.no_grad():
            self.linear.weight.copy_(dct_basis()[:, :, None, None] / 4)  # 10-bit samples to 8-bit units
            for parameter in self.net[-1].parameters():
                parameter.mul_(0.02)

    def forward(
        self, x: Tensor, prediction: Tensor, context: Tensor, condition: Tensor, steps: Tensor
    ) -> Tensor:
        """Latents y (B, C, H/8, W/8) in quantisation steps; x and prediction (B, 6, H/2, W/2), 0..1023."""
        scale = STEP_UNIT / steps
        residual = functional.pixel_unshuffle(x - prediction, 4)
        linear = self.linear(residual) * scale
        features = torch.cat(
            (residual / 64, functional.pixel_unshuffle(prediction - CENTRE, 4) / 256, context / 64), 1
        )
        correction = self.net(with_planes(features, condition / 64)) * scale
        latents: Tensor = linear + correction
        return latents


class SynthesisTransform(nn.Module):
    """From latents to the reconstruction, in exact integers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, quarter, eighth = config.latent, config.quarter, config.eighth
        self.linear = IntConv2d(width, width, input_max=COEFFICIENT_MAX)
        self.entry = IntConv2d(width + eighth + CONDITIONS, eighth, input_max=COEFFICIENT_MAX)
        self.block = ResidualBlock(eighth)
        self.exit = IntConv2d(eighth, width)
        self.restore_entry = IntConv2d(24 + quarter + CONDITIONS, quarter)
        self.restore_blocks = nn.Sequential(ResidualBlock(quarter), ResidualBlock(quarter))
        self.restore_exit = IntConv2d(quarter, 24)
        for layer in (self.exit, self.restore_exit):
            start_near_zero(layer)
        with torch.no_grad():
            self.linear.weight.copy_(
                dct_basis().T[:, :, None, None] * 2
            )  # half-sample units to 10-bit samples

    def dequantise(self, y_hat: Tensor, steps: Tensor) -> Tensor:
        """Coefficients in half samples, from y_hat (units of 1/16 step) and integer steps (1/4 sample)."""
        return round_clamp(y_hat * steps * (2.0 / SYMBOL_UNIT / STEP_UNIT), -COEFFICIENT_MAX, COEFFICIENT_MAX)

    def forward(
        self,
        y_hat: Tensor,
        prediction: Tensor,
        contexts: tuple[Tensor, Tensor],
        condition: Tensor,
        steps: Tensor,
    ) -> Tensor:
        """Reconstruction (B, 6, H/2, W/2), integers 0..1023."""
        quarter, eighth = contexts
        coefficients = self.dequantise(y_hat, steps)
        features = round_relu(self.entry(with_planes(torch.cat((coefficients, eighth), 1), condition)))
        correction = round_clamp(self.exit(self.block(features)))
        residual = functional.pixel_shuffle(round_clamp(self.linear(coefficients)) + correction, 4)
        decoded = round_clamp(prediction - CENTRE + residual, -CENTRE, CENTRE - 1)
        packed = functional.pixel_unshuffle(decoded, 2)
        features = round_relu(self.restore_entry(with_planes(torch.cat((packed, quarter), 1), condition)))
        restored = round_clamp(self.restore_exit(self.restore_blocks(features)))
        return round_clamp(decoded + functional.pixel_shuffle(restored, 2), -CENTRE, CENTRE - 1) + CENTRE
