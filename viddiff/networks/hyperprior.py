"""Probability model of the latents: mean and table index of every latent.

    y ---- hyper_analysis ----> z --(entropy coded, index for each channel and quality)--> hyper_synthesis --+
    context c8 (from the decoded references) ----------------------------------------------> trunk <---------+
                                                                                               |
    step 1: half of the symbols (checkerboard in space, alternating over channels) <--- head --+
    step 2: the other half, knowing the first  <--- head <--- trunk, y_hat of step 1 ----------+

Everything is exact integers, so samples of decoded references may be an input.

Sources: mean and scale hyperprior, Minnen et al. 2018; two-step checkerboard, He et al. 2021.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from viddiff.config import ModelConfig
from viddiff.networks.bounds import UNIT
from viddiff.networks.layers import (
    IntConv2d,
    ResidualBlock,
    round_clamp,
    round_relu,
    start_near_zero,
    with_planes,
)
from viddiff.networks.predictor import CONDITIONS
from viddiff.networks.residual import SYMBOL_UNIT, Y_HAT_MAX

TABLE_COUNT = 64
TABLE_CLASSES = 12
"""Classes of frames with their own tables for y: four levels times three ranges of quality."""
SCALE_MIN, SCALE_MAX = 0.06, 60.0
"""Laplace scales of the first and the last table, in quantisation steps; others are log-spaced."""
MEAN_MAX = 255
"""Means are at most MEAN_MAX / SYMBOL_UNIT steps."""
SYMBOL_MAX = 495
"""Largest symbol, so that |SYMBOL_UNIT * symbol + mean| <= Y_HAT_MAX."""
HYPER_MAX = 127
HYPER_TRADE = 0.134
"""Squared error of z, in steps, that is worth one bit.

It equals that of y at lambda = 0.85 * 2^((QP - 12) / 3) for an orthonormal transform.
"""
_INDEX_START = 16
_UPSAMPLED = 48

_LOG_RATIO = math.log(SCALE_MAX / SCALE_MIN) / (TABLE_COUNT - 1)

assert SYMBOL_MAX * SYMBOL_UNIT + MEAN_MAX <= Y_HAT_MAX


def table_class(level: int, step: int) -> int:
    """Class of a frame, 0..TABLE_CLASSES-1. Its tables for y begin at TABLE_COUNT times the class."""
    return 3 * level + (step >= 36) + (step >= 50)


def scale_of_index(index: Tensor) -> Tensor:
    """Laplace scale (in steps) of a table index.

    Used in training and to make the first tables, never to decode.
    """
    return SCALE_MIN * torch.exp(index * _LOG_RATIO)


def checkerboard(like: Tensor) -> Tensor:
    """Symbols of the first step, (1, C, H, W) bool. Neighbours in space and in channel alternate."""
    _, channels, height, width = like.shape
    c = torch.arange(channels, device=like.device)[:, None, None]
    h = torch.arange(height, device=like.device)[None, :, None]
    w = torch.arange(width, device=like.device)[None, None, :]
    return ((c + h + w) % 2 == 0)[None]


class HyperAnalysis(nn.Module):
    """y to z at 1/16 (encoder only, floating point)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(config.latent + CONDITIONS, 64, 2, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, config.hyper, 1),
        )

    def forward(self, y: Tensor, condition: Tensor) -> Tensor:
        """Unrounded z (B, hyper, H/16, W/16)."""
        result: Tensor = self.net(with_planes(torch.log1p(y.abs()), condition / UNIT))
        return result


class EntropyParameters(nn.Module):
    """Table indexes of z, and mean and table index of y in two steps."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, eighth, latent = 96, config.eighth, config.latent
        self.hyper_index = IntConv2d(CONDITIONS, config.hyper)
        self.hyper_entry = IntConv2d(config.hyper, 64)
        self.hyper_up = IntConv2d(64, 4 * _UPSAMPLED)
        self.trunk_entry = IntConv2d(_UPSAMPLED + eighth + CONDITIONS, width)
        self.trunk = ResidualBlock(width)
        self.first = IntConv2d(width, 2 * latent)
        self.join = IntConv2d(width + latent, width)
        self.join_block = ResidualBlock(width)
        self.second = IntConv2d(width, 2 * latent)
        with torch.no_grad():
            for head in (self.first, self.second):
                start_near_zero(head)

    def hyper_indexes(self, condition: Tensor) -> Tensor:
        """Table indexes (B, hyper) of z's channels for `condition` (B, CONDITIONS)."""
        indexes: Tensor = self._index(self.hyper_index(condition[:, :, None, None]))[:, :, 0, 0]
        return indexes

    def trunk_features(self, z_hat: Tensor, context: Tensor, condition: Tensor) -> Tensor:
        """Features for both steps.

        z_hat: integers, |z| <= HYPER_MAX. context: c8.
        """
        hyper = round_relu(self.hyper_entry(z_hat * (UNIT // 4)))
        hyper = functional.pixel_shuffle(round_clamp(self.hyper_up(hyper)), 2)
        joined = with_planes(torch.cat((hyper, context), 1), condition)
        features: Tensor = self.trunk(round_relu(self.trunk_entry(joined)))
        return features

    def first_step(self, trunk: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (in 1/SYMBOL_UNIT) and table index of every latent, from side information only."""
        return self._split(self.first(trunk))

    def second_step(self, trunk: Tensor, y_half: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and table index of every latent, given y_hat of the first step (zero elsewhere)."""
        known = round_clamp(y_half * (UNIT / 4 / SYMBOL_UNIT))
        features = round_relu(self.join(torch.cat((trunk, known), 1)))
        return self._split(self.second(self.join_block(features)))

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, index = parameters.chunk(2, 1)
        return round_clamp(mean * (SYMBOL_UNIT / UNIT), -MEAN_MAX, MEAN_MAX), self._index(index)

    @staticmethod
    def _index(accumulated: Tensor) -> Tensor:
        return round_clamp(accumulated * (8 / UNIT) + _INDEX_START, 0, TABLE_COUNT - 1)
