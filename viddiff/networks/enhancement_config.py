"""The enhancement network in plain numbers: what its module, the compiled engine and the format agree on."""

from dataclasses import asdict, dataclass
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from viddiff.networks.bounds import UNIT

BLOCK = 64
"""Side of a block with strengths of its own, luma samples."""
STRENGTHS = 4
"""Strengths are 0 to STRENGTHS - 1, in units of 1/STRENGTH_UNIT."""
STRENGTH_UNIT = 2
GROUPS = 2
"""Groups of planes with strengths of their own: luma; chroma."""
CORRECTION_UNIT = 16
"""Corrections are in 1/CORRECTION_UNIT of a 10-bit level."""
PLANES = 6
"""Planes at half size: four luma phases, U and V."""
FILTERS = 4
"""Filters of each plane in the first layer."""
MIDDLE = 512
"""Samples of 10 bits enter the network minus this."""
HYPOTHESES = 2
"""Pictures of neighbours that a frame between them is seen with."""
DIFFERENCES = PLANES * HYPOTHESES
"""Planes of what they differ by from the frame."""
DIFFERENCE_MAX = 511
"""Differences are limited to this many 10-bit levels."""
SHARES = GROUPS * HYPOTHESES
"""Shares of differences that are added at each position: for luma and chroma, from each neighbour."""
SHARE_RANGE = (-16, 64)
"""Smallest and largest share, in units of 1/(CORRECTION_UNIT * SHARE_UNIT)."""
SHARE_UNIT = 4
_QUANTISER_STEP = 32
_QUANTISER_KNOTS = 9
_LEAD_KNOTS = 4
CONDITIONS = _QUANTISER_KNOTS + _LEAD_KNOTS + 1
"""Length of the condition."""
INTEGERS = {"weight": np.int8, "bias": np.int32, "exponent": np.int8}
"""Parts of a layer, as they are stored."""
BETWEEN = "between."
"""Begins the names of the layers for frames between better ones."""
_AT_HALF, _AT_QUARTER = 4, 16


@dataclass(frozen=True)
class TrunkConfig:
    """Widths and depths of the layers from a picture to results."""

    half: int = 32
    """Channels at 1/2 of the luma size."""
    quarter: int = 48
    """Channels at 1/4."""
    half_blocks: int = 1
    """Blocks at 1/2 before the branch to 1/4, and after it."""
    quarter_blocks: int = 4

    def trunk(self, results: int) -> dict[str, "LayerForm"]:
        """The layers from a picture to so many results, by name."""
        half, quarter, filtered = self.half, self.quarter, PLANES * FILTERS
        layers = {
            "filters": LayerForm((filtered, 1, 3, 3), _AT_HALF),
            "head": LayerForm((half, filtered + CONDITIONS, 1, 1), _AT_HALF, CONDITIONS),
            "down": LayerForm((quarter, half, 2, 2), _AT_QUARTER),
            "up": LayerForm((4 * half, quarter, 1, 1), _AT_QUARTER),
            "tail": LayerForm((results, half, 1, 1), _AT_HALF),
        }
        for name, channels in self.blocks().items():
            area = _AT_QUARTER if name.startswith("deep") else _AT_HALF
            layers[f"{name}.depthwise"] = LayerForm((channels, 1, 3, 3), area)
            layers[f"{name}.inner"] = LayerForm((channels, channels + CONDITIONS, 1, 1), area, CONDITIONS)
            layers[f"{name}.outer"] = LayerForm((channels, channels, 1, 1), area)
        return layers

    def trunk_between(self) -> dict[str, "LayerForm"]:
        """The layers for a frame between better ones, by name."""
        return self.trunk(PLANES + SHARES) | {
            "differences": LayerForm((self.half, DIFFERENCES, 1, 1), _AT_HALF),
            "smoothing": LayerForm((self.half, 1, 3, 3), _AT_HALF),
            "joining": LayerForm((self.half, self.half, 1, 1), _AT_HALF),
        }

    def blocks(self) -> dict[str, int]:
        """Channels of every block, by name, in the order in which they run."""
        parts = (
            ("before", self.half_blocks, self.half),
            ("deep", self.quarter_blocks, self.quarter),
            ("after", self.half_blocks, self.half),
        )
        return {f"{part}.{n}": channels for part, count, channels in parts for n in range(count)}


@dataclass(frozen=True)
class EnhancementConfig(TrunkConfig):
    """The network: its layers for a frame alone, and those for a frame between better ones."""

    name: str = "small"
    between: TrunkConfig | None = None
    """Without it, every frame is seen alone."""

    def layers(self) -> dict[str, "LayerForm"]:
        """Every layer, by name. Those for frames between better ones begin with BETWEEN."""
        layers = self.trunk(PLANES)
        if self.between is not None:
            layers |= {BETWEEN + name: layer for name, layer in self.between.trunk_between().items()}
        return layers

    def parameters(self) -> int:
        """Weights and biases of all layers."""
        return sum(prod(layer.shape) + layer.shape[0] for layer in self.layers().values())

    def macs(self, between: bool = False) -> float:
        """Multiply-accumulates for each luma sample of a frame alone, or of one between better ones."""
        layers = self.layers().items()
        return sum(layer.macs / layer.area for name, layer in layers if name.startswith(BETWEEN) is between)


@dataclass(frozen=True)
class LayerForm:
    """Size of a layer."""

    shape: tuple[int, int, int, int]
    """Of its weights: outputs, inputs, rows, columns."""
    area: int
    """Luma samples for each position of its result."""
    conditions: int = 0
    """How many of its inputs, the last ones, are the condition, which is the same at every position."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates for each position of its result."""
        return prod(self.shape) - self.shape[0] * self.conditions


SMALL = EnhancementConfig(between=TrunkConfig())
_LARGE = TrunkConfig(half=48, quarter=80, half_blocks=2)
LARGE = EnhancementConfig(**asdict(_LARGE), name="large", between=_LARGE)
NETWORKS = {config.name: config for config in (SMALL, LARGE)}
"""Networks that can be trained, by name."""


def condition_of(quantiser: ArrayLike, gop_quantiser: ArrayLike, intra: ArrayLike) -> NDArray[np.int64]:
    """What the network is told about frames: (..., CONDITIONS) activations, for arguments of one shape (...).

    quantiser: base_q_idx of the frame, 0..255. gop_quantiser: the index that the GOP was asked for (four
    times the CRF, at most 255); frames far below it are those that many others are predicted from. intra: 1
    where the frame is predicted from no other.
    """
    own, asked, alone = (np.asarray(x, np.int64) for x in (quantiser, gop_quantiser, intra))
    lead = (asked - own).clip(0, _QUANTISER_STEP * (_LEAD_KNOTS - 1))
    parts = (_hats(own, _QUANTISER_KNOTS), _hats(lead, _LEAD_KNOTS), alone[..., None] * UNIT)
    return np.concatenate(parts, -1)


def _hats(x: NDArray[np.int64], knots: int) -> NDArray[np.int64]:
    """Piecewise linear basis at multiples of _QUANTISER_STEP: (...) -> (..., knots), which sum to UNIT."""
    at = np.arange(knots) * _QUANTISER_STEP
    hats: NDArray[np.int64] = (UNIT - np.abs(x[..., None] - at) * (UNIT // _QUANTISER_STEP)).clip(0)
    return hats
