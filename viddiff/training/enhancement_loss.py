"""The loss of the enhancement network: squared errors by the benchmark's weights, and a share of SSIM.

    loss of a tile = (1 - ssim_share) * error + ssim_share * dissimilarity

Both are relative to those before enhancement, so a network that does nothing has loss 1.

SSIM: Z. Wang, A. Bovik, H. Sheikh, E. Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE Transactions on Image Processing 13, 2004.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement_config import CORRECTION_UNIT
from viddiff.training.enhancement_samples import TileBatch

SSIM_SHARE = 0.5
"""Share of the released weights. VMAF gains much by it, and PSNR loses next to nothing."""
_WINDOW = 4
"""Side of SSIM's windows, which begin at every position at 1/2 of the luma size: 8x8 luma samples."""
_PEAK = 1023
_C1, _C2 = 0.01**2, 0.03**2
_LEAST = 1e-5
"""Least 1 - SSIM before enhancement to compare with."""


@dataclass(frozen=True)
class Losses:
    """What is left of errors after enhancement at strength 1: of each tile, (B,), or in the mean."""

    error: Tensor
    """Squared error of all planes. About 1 before enhancement."""
    dissimilarity: Tensor
    """1 - SSIM of luma, divided by that before enhancement."""

    def mixed(self, ssim_share: float) -> Tensor:
        """The loss."""
        return (1 - ssim_share) * self.error + ssim_share * self.dissimilarity


def tile_losses(network: EnhancementNetwork, batch: TileBatch) -> Losses:
    """What the network leaves of each tile's error."""
    enhanced = batch.decoded + corrections(network, batch) / CORRECTION_UNIT
    before = _dissimilarity(batch.decoded, batch.original).clamp_min(_LEAST)
    return Losses(squared_error(enhanced, batch), _dissimilarity(enhanced, batch.original) / before)


def squared_error(packed: Tensor, batch: TileBatch) -> Tensor:
    """Of pictures (B, 6, H/2, W/2) for each tile, (B,). That of the decoded tiles is about 1."""
    return ((packed - batch.original).square().mean((2, 3)) * batch.share).sum(1)


def corrections(network: EnhancementNetwork, batch: TileBatch) -> Tensor:
    """The network's correction of each tile, as its decoder would compute it."""
    if network.config.between is None or not batch.between.any():
        return network(batch.decoded, batch.condition).float()  # type: ignore[no-any-return]
    if batch.between.all():
        return network(batch.decoded, batch.condition, batch.hypotheses).float()  # type: ignore[no-any-return]
    result = torch.empty_like(batch.decoded)
    for part, hypotheses in ((~batch.between, None), (batch.between, batch.hypotheses[batch.between])):
        result[part] = network(batch.decoded[part], batch.condition[part], hypotheses).float()
    return result


def _dissimilarity(packed: Tensor, original: Tensor) -> Tensor:
    """1 - SSIM of luma (B,) of pictures (B, 6, H/2, W/2), with plain windows at every second sample."""
    x, y = packed[:, :4] / _PEAK, original[:, :4] / _PEAK
    means = torch.stack([each.mean(1) for each in (x, y, x.square(), y.square(), x * y)], 1)
    columns = functional.avg_pool2d(means, (_WINDOW, 1), 1)
    mean_x, mean_y, square_x, square_y, product = functional.avg_pool2d(columns, (1, _WINDOW), 1).unbind(1)
    brightness = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    covariance = product - mean_x * mean_y
    variances = square_x - mean_x.square() + square_y - mean_y.square()
    structure = (2 * covariance + _C2) / (variances + _C2)
    return 1 - (brightness * structure).mean((1, 2))
