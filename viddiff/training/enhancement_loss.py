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
_WINDOW, _STRIDE = 8, 2
_PEAK = 1023
_C1, _C2 = 0.01**2, 0.03**2
_LEAST = 1e-5
"""Least 1 - SSIM before enhancement to compare with."""


@dataclass(frozen=True)
class TileLosses:
    """What is left of each tile's error after enhancement at strength 1."""

    error: Tensor
    """(B,), squared error of all planes. About 1 before enhancement."""
    dissimilarity: Tensor
    """(B,), 1 - SSIM of luma, divided by that before enhancement."""

    def mixed(self, ssim_share: float) -> Tensor:
        """The loss of each tile, (B,)."""
        return (1 - ssim_share) * self.error + ssim_share * self.dissimilarity


def tile_losses(network: EnhancementNetwork, batch: TileBatch) -> TileLosses:
    """What the network leaves of each tile's error."""
    enhanced = batch.decoded + corrections(network, batch) / CORRECTION_UNIT
    error = ((enhanced - batch.original).square().mean((2, 3)) * batch.share).sum(1)
    original = _luma(batch.original)
    before = _dissimilarity(_luma(batch.decoded), original).clamp_min(_LEAST)
    return TileLosses(error, _dissimilarity(_luma(enhanced), original) / before)


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


def _luma(packed: Tensor) -> Tensor:
    """Luma (B, 1, H, W), 0 to 1, of six planes (B, 6, H/2, W/2)."""
    return functional.pixel_shuffle(packed[:, :4], 2) / _PEAK


def _dissimilarity(picture: Tensor, original: Tensor) -> Tensor:
    """1 - SSIM (B,) of luma (B, 1, H, W), 0 to 1, with plain windows at every second sample."""
    mean, mean_original = _means(picture), _means(original)
    variance = _means(picture.square()) - mean.square()
    variance_original = _means(original.square()) - mean_original.square()
    covariance = _means(picture * original) - mean * mean_original
    brightness = (2 * mean * mean_original + _C1) / (mean.square() + mean_original.square() + _C1)
    structure = (2 * covariance + _C2) / (variance + variance_original + _C2)
    return 1 - (brightness * structure).mean((1, 2, 3))


def _means(plane: Tensor) -> Tensor:
    return functional.avg_pool2d(plane, _WINDOW, _STRIDE)
