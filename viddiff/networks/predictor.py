"""Predict a frame from two motion-compensated hypotheses, by attention and refinement.

      hypotheses a, b (B, 6, H/2, W/2)
            |  space to depth, to 1/4
         trunk at 1/4  ->  down to 1/8, blocks  ->  up, added  ->  block
            |                     |                                  |
     attention scores         context c8                      context c4, correction
            |                                                        |
     softmax-like weights over a and b  ------- blend + correction = prediction

The blend weights are e0 / (e0 + e1) with positive integer scores: one IEEE division, then rounding. That is
exact on every machine.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from viddiff.config import ModelConfig
from viddiff.networks.bounds import ACTIVATION_MAX, UNIT
from viddiff.networks.layers import (
    IntConv2d,
    ResidualBlock,
    round_clamp,
    round_relu,
    start_near_zero,
    with_planes,
)

CENTRE = 512
"""Samples 0..1023 are centred by this before they enter a network."""
CONDITIONS = 2
"""Planes that tell the networks the quantisation step and the frame's level."""
_BLEND = 64


class Predictor(nn.Module):
    """Attention over two hypotheses, and a small CNN that refines the blend."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        quarter, eighth = config.quarter, config.eighth
        self.entry = IntConv2d(2 * 24 + CONDITIONS, quarter)
        self.first = ResidualBlock(quarter)
        self.down = IntConv2d(quarter, eighth, kernel=2, stride=2)
        self.middle = ResidualBlock(eighth)
        self.up = IntConv2d(eighth, 4 * quarter)
        self.last = ResidualBlock(quarter)
        self.scores = IntConv2d(quarter, 2 * 4)
        self.correction = IntConv2d(quarter, 24)
        for layer in (self.up, self.scores, self.correction):
            start_near_zero(layer)

    def forward(self, first: Tensor, second: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict a frame.

        first, second: hypotheses (B, 6, H/2, W/2), integers 0..1023. condition: (B, 2) activations.

        Returns the prediction (B, 6, H/2, W/2), integers 0..1023, and the contexts (B, quarter, H/4, W/4) and
        (B, eighth, H/8, W/8).
        """
        packed = functional.pixel_unshuffle(torch.cat((first, second), 1) - CENTRE, 2)
        features = round_relu(self.entry(with_planes(packed, condition)))
        features = self.first(features)
        coarse = self.middle(round_relu(self.down(features)))
        features = round_clamp(features + functional.pixel_shuffle(round_clamp(self.up(coarse)), 2))
        features = self.last(features)
        scores = round_clamp(self.scores(features) + UNIT, 1, ACTIVATION_MAX)
        scores = functional.pixel_shuffle(scores, 2)  # (B, 2, H/2, W/2)
        weight = round_clamp(scores[:, :1] * _BLEND / (scores[:, :1] + scores[:, 1:]), 0, _BLEND)
        blend = (first * weight + second * (_BLEND - weight)) * (1 / _BLEND)
        correction = functional.pixel_shuffle(round_clamp(self.correction(features)), 2)
        prediction = round_clamp(blend + correction, 0, 2 * CENTRE - 1)
        return prediction, features, coarse
