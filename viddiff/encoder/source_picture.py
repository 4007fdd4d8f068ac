"""A picture to encode, in all forms that the encoder needs, each made once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from viddiff.frame import Frame
from viddiff.networks.planes import Planes, planes_of


@dataclass(frozen=True)
class SourcePicture:
    """A frame of the source."""

    frame: Frame
    bit_depth: int
    device: torch.device

    @cached_property
    def planes(self) -> Planes:
        """Padded planes of 10 bits, see `networks.planes`."""
        return planes_of(self.frame, self.bit_depth, self.device)

    @cached_property
    def luma8(self) -> NDArray[np.uint8]:
        """Padded luma (H, W) in 8 bits."""
        return luma8(self.planes)


def luma8(planes: Planes) -> NDArray[np.uint8]:
    """Luma (H, W) in 8 bits, as the search uses it."""
    return (planes[0][0] * 0.25).round().clamp(0, 255).cpu().numpy().astype(np.uint8)
