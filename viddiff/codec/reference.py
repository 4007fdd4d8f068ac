"""Decoded frames as references: the whole state of the codec."""

from dataclasses import dataclass

from torch import Tensor

from viddiff.networks.planes import Planes


@dataclass(frozen=True)
class Reference:
    """A decoded frame, with its motion."""

    time: int
    planes: Planes
    motion: tuple[tuple[int, Tensor], ...] = ()
    """For a predicted frame: time of the reference and vectors (1, 2, H/8, W/8) int64, for both fields."""
