"""Enhancement: what AV1 took from a decoded frame, estimated by a small network of exact integers.

    packed (6 planes, 1/2) ─ filters ─ head ─ blocks ─┬────────────────────── + ─ blocks ─ tail ─▶ correction
                                                      └─ down ─ blocks (1/4) ─ up ┘

A frame between better ones is seen together with what these show, moved to where it shows the same
(`codec.block_motion`). Its network, the part `between`, has the same layers and three more, whose result is
added to the head's. It gives, besides a correction, the shares of the differences that are added:

    differences (12 planes, 1/2) ─ 1x1, ReLU ─ 3x3 depthwise ─ 1x1 ─ + ─▶ blocks …

The network stands outside of AV1's loop: no frame is predicted from an enhanced one. It knows how coarsely
the frame was coded (the condition). Its correction is added at a strength that the encoder chooses for each
block of BLOCK x BLOCK luma samples, for luma and chroma apart; strength 0 leaves the samples as AV1 shows
them.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from viddiff.networks import enhancement_config
from viddiff.networks.bounds import UNIT
from viddiff.networks.enhancement_config import (
    BLOCK,
    CONDITIONS,
    CORRECTION_UNIT,
    DIFFERENCE_MAX,
    DIFFERENCES,
    FILTERS,
    HYPOTHESES,
    INTEGERS,
    MIDDLE,
    PLANES,
    SHARE_RANGE,
    SHARE_UNIT,
    SHARES,
    STRENGTH_UNIT,
    EnhancementConfig,
    TrunkConfig,
)
from viddiff.networks.layers import ConditionedConv2d, IntConv2d, round_clamp, round_relu, start_near_zero

_RIDGE = 1e-3
_INT16 = (-32767, 32767)
_FILTERS = [
    [1 / 32, 1 / 16, 1 / 32, 1 / 16, 1 / 8, 1 / 16, 1 / 32, 1 / 16, 1 / 32],
    [-1 / 4, -1 / 2, -1 / 4, -1 / 2, 3.0, -1 / 2, -1 / 4, -1 / 2, -1 / 4],
    [-1 / 4, 0.0, 1 / 4, -1 / 2, 0.0, 1 / 2, -1 / 4, 0.0, 1 / 4],
    [-1 / 4, -1 / 2, -1 / 4, 0.0, 0.0, 0.0, 1 / 4, 1 / 2, 1 / 4],
]
"""What the first layer begins as: smoothed samples, their Laplacian and gradients, at about one size."""
_ENLARGED = 8.0
"""What the first layer of differences multiplies them by at first: most are a few levels."""


def condition_of(quantiser: Tensor, gop_quantiser: Tensor, intra: Tensor) -> Tensor:
    """What the network is told about frames, (B, CONDITIONS), see `enhancement_config.condition_of`."""
    numbers = (x.cpu().numpy() for x in (quantiser, gop_quantiser, intra))
    return torch.from_numpy(enhancement_config.condition_of(*numbers)).to(quantiser.device, torch.float32)


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


class Trunk(nn.Module):
    """All layers from a picture to results; see the module's diagram."""

    def __init__(self, config: TrunkConfig, results: int) -> None:
        super().__init__()
        half, quarter = config.half, config.quarter
        self.filters = IntConv2d(PLANES, PLANES * FILTERS, kernel=3, groups=PLANES)
        with torch.no_grad():
            self.filters.weight.copy_(torch.tensor(_FILTERS * PLANES).view_as(self.filters.weight))
        self.head = ConditionedConv2d(PLANES * FILTERS, half, CONDITIONS)
        self.before = nn.ModuleList(ConditionedBlock(half) for _ in range(config.half_blocks))
        self.down = IntConv2d(half, quarter, kernel=2, stride=2)
        self.deep = nn.ModuleList(ConditionedBlock(quarter) for _ in range(config.quarter_blocks))
        self.up = IntConv2d(quarter, 4 * half)
        self.after = nn.ModuleList(ConditionedBlock(half) for _ in range(config.half_blocks))
        self.tail = IntConv2d(half, results)
        start_near_zero(self.up)
        start_near_zero(self.tail)

    def layers(self) -> dict[str, IntConv2d]:
        """Every layer, by name."""
        return {name: m for name, m in self.named_modules() if isinstance(m, IntConv2d)}

    def seen(self, packed: Tensor, condition: Tensor) -> Tensor:
        """Activations (B, half, H/2, W/2) of pictures as in `EnhancementNetwork.forward`."""
        with torch.autocast(packed.device.type, enabled=False):  # small differences of large numbers
            x = round_clamp(self.filters(packed - MIDDLE))
            return round_clamp(self.head(x, condition))

    def deepened(self, x: Tensor, condition: Tensor) -> Tensor:
        """What the last layer reads, activations (B, half, H/2, W/2), from those of `seen`."""
        x, condition = _in_computed_type(x), _in_computed_type(condition)
        for block in self.before:
            x = block(x, condition)
        deep = round_clamp(self.down(x))
        for block in self.deep:
            deep = block(deep, condition)
        x = round_clamp(x + functional.pixel_shuffle(round_clamp(self.up(deep)), 2))
        for block in self.after:
            x = block(x, condition)
        return x

    def results(self, features: Tensor) -> Tensor:
        """Activations (B, results, H/2, W/2) from what the last layer reads."""
        return round_clamp(self.tail(features))


class TrunkBetween(Trunk):
    """The layers for a frame between better ones."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__(config, PLANES + SHARES)
        nn.init.zeros_(self.tail.weight[PLANES:])
        half = config.half
        self.differences = IntConv2d(DIFFERENCES, half)
        self.smoothing = IntConv2d(half, half, kernel=3, groups=half)
        self.joining = IntConv2d(half, half)
        start_near_zero(self.joining)
        with torch.no_grad():
            both_signs = torch.cat((torch.eye(DIFFERENCES), -torch.eye(DIFFERENCES)))[:half]
            self.differences.weight[: len(both_signs), :, 0, 0] = _ENLARGED * both_signs
            self.smoothing.weight.mul_(0.1).add_(1 / 16)
            self.smoothing.weight[:, :, 1, 1] += 1 / 2

    def differ(self, differences: Tensor) -> Tensor:
        """What is added to the activations of `seen`, for differences (B, DIFFERENCES, H/2, W/2)."""
        with torch.autocast(differences.device.type, enabled=False):
            return round_clamp(
                self.joining(round_clamp(self.smoothing(round_relu(self.differences(differences)))))
            )


class EnhancementNetwork(Trunk):
    """The correction of decoded frames; see the module's diagrams."""

    def __init__(self, config: EnhancementConfig) -> None:
        super().__init__(config, PLANES)
        self.config = config
        if config.between is not None:
            self.between = TrunkBetween(config.between)

    def forward(self, packed: Tensor, condition: Tensor, hypotheses: Tensor | None = None) -> Tensor:
        """The correction of `packed` (B, 6, H/2, W/2), 10-bit samples as from `planes.pack`.

        Same shape, integers that fit in 16 bits, in 1/CORRECTION_UNIT of a 10-bit level. condition:
        (B, CONDITIONS). hypotheses: (B, DIFFERENCES, H/2, W/2), for frames between better ones: what the one
        before shows, and then the one after. H and W are multiples of 4.
        """
        return self.studied(packed, condition, hypotheses)[1]

    def studied(
        self, packed: Tensor, condition: Tensor, hypotheses: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the last layer reads, activations (B, half, H/2, W/2), and the correction, as `forward`."""
        if hypotheses is None:
            features = self.deepened(self.seen(packed, condition), condition)
            return features, self.results(features)
        trunk, differences = self.between, differences_of(packed, hypotheses)
        features = trunk.deepened(
            round_clamp(trunk.seen(packed, condition) + trunk.differ(differences)), condition
        )
        results = trunk.results(features).float()
        shares = round_clamp(results[:, PLANES:], *SHARE_RANGE)
        by_plane = shares.repeat_interleave(torch.tensor([4, 2] * HYPOTHESES, device=shares.device), 1)
        added = (by_plane * differences).reshape(-1, HYPOTHESES, *packed.shape[1:]).sum(1)
        return features, round_clamp(results[:, :PLANES] + added * (1 / SHARE_UNIT), *_INT16)

    @torch.no_grad()
    def whiten_(self, packed: Tensor) -> None:
        """Let the head begin with uncorrelated features of unit size (ZCA) of pictures like `packed`."""
        features = round_clamp(self.filters(packed - MIDDLE)).transpose(0, 1).flatten(1).double() / UNIT
        mean, moments = features.mean(1), torch.cov(features)
        values, vectors = torch.linalg.eigh(moments)
        zca = (vectors * (values + _RIDGE).rsqrt()) @ vectors.T
        more = max(self.config.half - len(zca), 0)
        mixed = torch.randn(more, len(zca), dtype=zca.dtype) / len(zca) ** 0.5
        weight = torch.cat((zca, mixed @ zca))[: self.config.half]
        self.head.weight[:, : len(zca), 0, 0] = weight.float()
        self.head.bias.copy_(-(weight @ mean).float())

    def integers(self) -> dict[str, NDArray[Any]]:
        """The integers that a decoder computes with: `<layer>.weight`, `<layer>.bias`, `<layer>.exponent`."""
        integers = dict[str, NDArray[Any]]()
        for name, layer in self.layers().items():
            for (part, kind), value in zip(INTEGERS.items(), layer.integers(), strict=True):
                integers[f"{name}.{part}"] = value.detach().cpu().numpy().astype(kind, "C")
        return integers

    @classmethod
    def of_integers(cls, config: EnhancementConfig, integers: Mapping[str, NDArray[Any]]) -> Self:
        """A network of these integers, in evaluation mode. Raises CheckpointError unless sums stay exact."""
        network = cls(config)
        for name, layer in network.layers().items():
            layer.set_integers(*(torch.from_numpy(np.array(integers[f"{name}.{part}"])) for part in INTEGERS))
        network.to(memory_format=torch.channels_last)
        return network.eval().requires_grad_(False)


def differences_of(packed: Tensor, hypotheses: Tensor) -> Tensor:
    """Of hypotheses from what the frame shows, (B, DIFFERENCES, H/2, W/2), limited to DIFFERENCE_MAX."""
    return (hypotheses - packed.repeat(1, HYPOTHESES, 1, 1)).clamp(-DIFFERENCE_MAX, DIFFERENCE_MAX)


def _in_computed_type(x: Tensor) -> Tensor:
    """Activations in the type in which autocast, if it is on, lets convolutions compute.

    Most of a step's time goes to sums and roundings between convolutions, which bfloat16 halves. Of its
    integers, those up to 256 are exact, and most activations are smaller.
    """
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


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
