"""Encoder options for users."""

from dataclasses import dataclass

from viddiff.encoder.presets import PRESETS, Effort

MINI_GOP = 8
"""Largest number of frames coded together. 4 need more bits; 16 need more as often as fewer."""


@dataclass(frozen=True)
class EncodeOptions:
    """Encoder options."""

    quality: int = 32
    """0 (smallest file) to 63 (best picture)."""
    gop: int = 128
    """Largest number of frames from one keyframe to the next, 1..MAX_GOP."""
    low_delay: bool = False
    """Predict from past frames only, so that no frame waits for a later one."""
    entropy: str = "ans"
    """"ans" or "huffman"."""
    preset: str = "default"
    """A name of PRESETS: how much work the encoder does."""

    @property
    def effort(self) -> Effort:
        """The preset's settings."""
        return PRESETS[self.preset]

    @property
    def mini_gop(self) -> int:
        """Largest number of frames coded together."""
        return 1 if self.low_delay else MINI_GOP

    @property
    def latency(self) -> int:
        """Largest number of later frames that a frame waits for. A keyframe waits for a mini-GOP."""
        return 0 if self.low_delay else MINI_GOP
