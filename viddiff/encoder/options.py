"""What a user can choose about encoding."""

from dataclasses import dataclass

from viddiff.encoder.presets import PRESETS, Effort

MINI_GOP = 8
"""Most frames that are coded together, in a hierarchy; 4 need more bits, 16 as often more as fewer."""


@dataclass(frozen=True)
class EncodeOptions:
    """What a user can choose."""

    quality: int = 32
    """0 (smallest) to 63 (best)."""
    gop: int = 128
    """Most frames from one keyframe to the next, 1..MAX_GOP."""
    low_delay: bool = False
    """Predict from the past alone, so that no frame waits for a later one."""
    entropy: str = "ans"
    """"ans" or "huffman"."""
    preset: str = "default"
    """Effort of the encoder, a name of PRESETS."""

    @property
    def effort(self) -> Effort:
        """What the preset stands for."""
        return PRESETS[self.preset]

    @property
    def mini_gop(self) -> int:
        """Most frames that are coded together."""
        return 1 if self.low_delay else MINI_GOP

    @property
    def latency(self) -> int:
        """How many later frames have to come before one leaves, at most: a keyframe waits for a mini-GOP."""
        return 0 if self.low_delay else MINI_GOP
