"""Statistics of a predicted frame."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FrameStats:
    """Cost of one predicted frame."""

    time: int
    level: int
    step: int
    bits_motion: float
    bits_z: float
    bits_y: float
    prediction_mse: float
    """Mean squared error of the prediction (8-bit luma)."""
    mse: float
    """Mean squared error of the reconstruction (8-bit luma)."""
    bits_still: float = 0.0
    """Bits of the still, if the frame is coded as one. All other bits are zero then."""

    @property
    def bits(self) -> float:
        """All bits of the frame."""
        return self.bits_motion + self.bits_z + self.bits_y + self.bits_still

    def as_still(self, size_bytes: int, mse: float) -> "FrameStats":
        """The same frame, coded as a still."""
        return FrameStats(
            self.time, self.level, self.step, 0.0, 0.0, 0.0, self.prediction_mse, mse, 8.0 * size_bytes
        )
