"""Enhancement: what AV1 took from a decoded frame, estimated by a small network of exact integers.

    packed (6 planes, 1/2) ─ filters ─ head ─ blocks ─┬────────────────────── + ─ blocks ─ tail ─▶ correction
                                                      └─ down ─ blocks (1/4) ─ up ┘

The network stands outside of AV1's loop: no frame is predicted from an enhanced one. It knows how coarsely
the frame was coded (the condition). Its correction is added at a strength that the encoder chooses for each
block of BLOCK x BLOCK luma samples, for luma and chroma apart; strength 0 leaves the samples as AV1 shows
them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from viddiff.networks.layers import (
    UNIT,
    ConditionedConv2d,
    IntConv2d,
    round_clamp,
    round_relu,
    start_near_zero,
)

BLOCK = 64
"""Side of a block with strengths of its own, luma samples."""
STRENGTHS = 4
"""Strengths are 0 to STRENGTHS - 1, in units of 1/STRENGTH_UNIT."""
STRENGTH_UNIT = 2
GROUPS = 2
"""Groups of planes with strengths of their own: luma; chroma."""
CORRECTION_UNIT = 16
"""Corrections are in 1/CORRECTION_UNIT of a 10-bit level."""
_MIDDLE = 512
_QUANTISER_STEP = 32
_QUANTISER_KNOTS = 9
_LEAD_KNOTS = 4
_RIDGE = 1e-3
CONDITIONS = _QUANTISER_KNOTS + _LEAD_KNOTS + 1
"""Length of the condition."""
_FILTERS = [
    [1 / 32, 1 / 16, 1 / 32, 1 / 16, 1 / 8, 1 / 16, 1 / 32, 1 / 16, 1 / 32],
    [-1 / 4, -1 / 2, -1 / 4, -1 / 2, 3.0, -1 / 2, -1 / 4, -1 / 2, -1 / 4],
    [-1 / 4, 0.0, 1 / 4, -1 / 2, 0.0, 1 / 2, -1 / 4, 0.0, 1 / 4],
    [-1 / 4, -1 / 2, -1 / 4, 0.0, 0.0, 0.0, 1 / 4, 1 / 2, 1 / 4],
]
"""What the first layer begins as: smoothed samples, their Laplacian and gradients, at about one size."""


@dataclass(frozen=True)
class EnhancementConfig:
    """Widths and depths of the network."""

    name: str = "small"
    half: int = 32
    """Channels at 1/2 of the luma size."""
    quarter: int = 48
    """Channels at 1/4."""
    half_blocks: int = 1
    """Blocks at 1/2 before the branch to 1/4, and after it."""
    quarter_blocks: int = 4


SMALL = EnhancementConfig()
LARGE = EnhancementConfig("large", half=64, quarter=96, half_blocks=1, quarter_blocks=6)


def condition_of(quantiser: Tensor, gop_quantiser: Tensor, intra: Tensor) -> Tensor:
    """What the network is told about frames: (B, CONDITIONS) activations.

    quantiser: base_q_idx of the frame, (B,), 0..255. gop_quantiser: the index that the GOP was asked for
    (four times the CRF, at most 255); frames far below it are those that many others are predicted from.
    intra: 1 where the frame is predicted from no other.
    """
    lead = (gop_quantiser - quantiser).clamp(0, _QUANTISER_STEP * (_LEAD_KNOTS - 1))
    parts = [_hats(quantiser, _QUANTISER_KNOTS), _hats(lead, _LEAD_KNOTS), intra[:, None] * UNIT]
    return torch.cat([part.float() for part in parts], 1)


def _hats(x: Tensor, knots: int) -> Tensor:
    """Piecewise linear basis at multiples of _QUANTISER_STEP: (B,) -> (B, knots), which sum to UNIT."""
    at = torch.arange(knots, device=x.device) * _QUANTISER_STEP
    return (UNIT - (x[:, None] - at).abs() * (UNIT // _QUANTISER_STEP)).clamp(min=0)


class ConditionedBlock(nn.Module):
    """x + W2 relu(W1 (3x3 depthwise x, condition)); (B, C, H, W) activations in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = IntConv2d(channels, channels, kernel=3, groups=channels)
        self.inner = ConditionedConv2d(channels, channels, CONDITIONS)
        self.outer = IntConv2d(channels, channels)
        start_near_zero(self.outer)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Apply the block. condition: (B, CONDITIONS)."""
        hidden = round_clamp(self.depthwise(x))
        hidden = round_relu(self.inner(hidden, condition))
        return round_clamp(x + round_clamp(self.outer(hidden)))


class EnhancementNetwork(nn.Module):
    """The correction of decoded frames; see the module's diagram."""

    def __init__(self, config: EnhancementConfig) -> None:
        super().__init__()
        self.config = config
        half, quarter = config.half, config.quarter
        self.filters = IntConv2d(6, 6 * len(_FILTERS), kernel=3, groups=6)
        with torch.no_grad():
            self.filters.weight.copy_(torch.tensor(_FILTERS * 6).view_as(self.filters.weight))
        self.head = ConditionedConv2d(6 * len(_FILTERS), half, CONDITIONS)
        self.before = nn.ModuleList(ConditionedBlock(half) for _ in range(config.half_blocks))
        self.down = IntConv2d(half, quarter, kernel=2, stride=2)
        self.deep = nn.ModuleList(ConditionedBlock(quarter) for _ in range(config.quarter_blocks))
        self.up = IntConv2d(quarter, 4 * half)
        self.after = nn.ModuleList(ConditionedBlock(half) for _ in range(config.half_blocks))
        self.tail = IntConv2d(half, 6)
        start_near_zero(self.up)
        start_near_zero(self.tail)

    def forward(self, packed: Tensor, condition: Tensor) -> Tensor:
        """The correction of `packed` (B, 6, H/2, W/2), 10-bit samples as from `planes.pack`.

        Same shape, integers of at most ACTIVATION_MAX in 1/CORRECTION_UNIT of a 10-bit level. condition:
        (B, CONDITIONS). H and W are multiples of 4.
        """
        with torch.autocast(packed.device.type, enabled=False):  # small differences of large numbers
            x = round_clamp(self.filters(packed - _MIDDLE))
            x = round_clamp(self.head(x, condition))
        for block in self.before:
            x = block(x, condition)
        deep = round_clamp(self.down(x))
        for block in self.deep:
            deep = block(deep, condition)
        x = round_clamp(x + functional.pixel_shuffle(round_clamp(self.up(deep)), 2))
        for block in self.after:
            x = block(x, condition)
        return round_clamp(self.tail(x))

    @torch.no_grad()
    def whiten_(self, packed: Tensor) -> None:
        """Let the head begin with uncorrelated features of unit size (ZCA) of pictures like `packed`."""
        features = round_clamp(self.filters(packed - _MIDDLE)).transpose(0, 1).flatten(1).double() / UNIT
        mean, moments = features.mean(1), torch.cov(features)
        values, vectors = torch.linalg.eigh(moments)
        zca = (vectors * (values + _RIDGE).rsqrt()) @ vectors.T
        more = max(self.config.half - len(zca), 0)
        mixed = torch.randn(more, len(zca), dtype=zca.dtype) / len(zca) ** 0.5
        weight = torch.cat((zca, mixed @ zca))[: self.config.half]
        self.head.weight[:, : len(zca), 0, 0] = weight.float()
        self.head.bias.copy_(-(weight @ mean).float())

    def layers(self) -> dict[str, IntConv2d]:
        """Every layer, by name."""
        return {name: m for name, m in self.named_modules() if isinstance(m, IntConv2d)}

    def macs(self) -> float:
        """Multiply-accumulates for each luma sample."""
        quarter = {id(m) for part in (self.down, self.deep, self.up) for m in part.modules()}
        return sum(m.macs() / (16 if id(m) in quarter else 4) for m in self.layers().values())


def corrected(packed: Tensor, correction: Tensor, strengths: Tensor) -> Tensor:
    """`packed` plus the correction at the blocks' strengths, exact: multiples of 1/32 of a 10-bit level.

    strengths: (B, GROUPS, ceil(H/BLOCK), ceil(W/BLOCK)), integers 0..STRENGTHS-1. `planes.unpack` rounds the
    result to the video's bit depth, half to even, and clamps it.
    """
    rows, columns = packed.shape[2:]
    side = BLOCK // 2
    wide = strengths.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :rows, :columns]
    by_plane = wide.repeat_interleave(torch.tensor([4, 2], device=wide.device), 1)
    return packed + correction * by_plane * (1 / (CORRECTION_UNIT * STRENGTH_UNIT))
