"""Enhance base frames with exact integers."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viddiff.frame import Frame
from viddiff.media.av1_headers import Coding
from viddiff.networks.enhancement import BLOCK, EnhancementNetwork, condition_of, corrected
from viddiff.networks.planes import frame_of, pack, planes_of, unpack
from viddiff.networks.strips import in_strips

Strengths = NDArray[np.int64]
"""Strengths (GROUPS, rows, columns) of a frame's blocks, 0..STRENGTHS-1."""


def blocks_of(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of blocks, each with its own strengths."""
    return -(-height // BLOCK), -(-width // BLOCK)


@dataclass(frozen=True)
class Enhancer:
    """A network with proven bounds."""

    network: EnhancementNetwork
    hash: bytes
    """SHA-256 of everything that decoding depends on."""

    @property
    def name(self) -> str:
        """Name of the network's configuration."""
        return self.network.config.name

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def enhance(
        self, frame: Frame, bit_depth: int, coding: Coding, gop_quantiser: int, strengths: Strengths
    ) -> Frame:
        """The frame with its correction at these strengths. `frame` itself if all of them are 0."""
        if not strengths.any():
            return frame
        return self.correction(frame, bit_depth, coding, gop_quantiser).applied(strengths)

    @torch.inference_mode()
    def correction(self, frame: Frame, bit_depth: int, coding: Coding, gop_quantiser: int) -> "Correction":
        """What the network would change.

        coding: from AV1's headers of the frame. gop_quantiser: index that the encoder requested for the GOP,
        0..255.
        """
        packed = pack(planes_of(frame, bit_depth, self.device))
        numbers = (coding.quantiser, gop_quantiser, int(coding.intra))
        condition = condition_of(*(torch.tensor([number], device=self.device) for number in numbers))
        (correction,) = in_strips(partial(self._strip, condition), 2, packed)
        return Correction(frame, bit_depth, packed, correction)

    def _strip(self, condition: Tensor, packed: Tensor) -> tuple[Tensor]:
        return (self.network(packed, condition),)


@dataclass(frozen=True)
class Correction:
    """A base frame and what the network would change in it."""

    frame: Frame
    bit_depth: int
    packed: Tensor
    """The frame as (1, 6, H/2, W/2), see `networks.planes.pack`."""
    correction: Tensor
    """The same shape, see `networks.enhancement`."""

    @torch.inference_mode()
    def applied(self, strengths: Strengths) -> Frame:
        """The enhanced frame."""
        height, width = self.frame.y.shape
        by_block = torch.from_numpy(strengths).to(self.packed)[None]
        planes = unpack(corrected(self.packed, self.correction, by_block), self.bit_depth)
        return frame_of(planes, width, height, self.bit_depth, self.frame.pts)
