"""Encoder options for users."""

from dataclasses import dataclass

from viddiff.config import QUALITIES
from viddiff.encoder.presets import PRESETS, Effort
from viddiff.media.av1_background import LEAST_FRAMES

BASE_GROUP = 16
"""Largest number of frames of an AV1 base that share a chunk: SVT-AV1's mini-GOP."""
_BASE_LOOKAHEAD = 80
"""Frames that SVT-AV1 takes before it returns the first."""
MOST_WAITING = 128
"""Largest number of frames of a GOP that are looked at before its background is decided."""
_BASE_QUANTISERS = 32, 252
"""Quantisers of the best and the lowest quality."""
BASE_QUANTISERS = range(_BASE_QUANTISERS[0], _BASE_QUANTISERS[1] + 1)
"""Quantisers that qualities stand for."""
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
    quantiser: int | None = None
    """Quantiser of an AV1 base, in place of the one that belongs to `quality`."""
    background: bool = True
    """With an AV1 base, GOPs that show the same place may share a background in place of keyframes."""
    excerpt: bool = False
    """The frames stand for a longer video: their last GOP may get a background that only others would use."""

    @property
    def effort(self) -> Effort:
        """The preset's settings."""
        return PRESETS[self.preset]

    @property
    def mini_gop(self) -> int:
        """Largest number of frames coded together."""
        return 1 if self.low_delay else MINI_GOP

    @property
    def base_group(self) -> int:
        """Largest number of frames of an AV1 base that share a chunk."""
        return 1 if self.low_delay else BASE_GROUP

    @property
    def base_quantiser(self) -> int:
        """Quantiser of an AV1 base, in quarters of SVT-AV1's CRF: CRF 63 for quality 0, 8 for 63."""
        if self.quantiser is not None:
            return self.quantiser
        least, most = _BASE_QUANTISERS
        return round(most - (most - least) * self.quality / (QUALITIES - 1))

    @property
    def backgrounds(self) -> bool:
        """Whether GOPs with an AV1 base may have backgrounds."""
        return self.background and self.gop >= LEAST_FRAMES

    def latency(self, base: bool) -> int:
        """Largest number of later frames that a frame waits for, with an AV1 base or without.

        Without one, a keyframe waits for a mini-GOP. With one, SVT-AV1 looks ahead within the GOP, and a GOP
        may wait for the frames of its background.
        """
        if self.low_delay:
            return 0
        waiting = MOST_WAITING if self.backgrounds else 0
        return min(self.gop - 1, waiting + _BASE_LOOKAHEAD + BASE_GROUP) if base else MINI_GOP


def quality_of(quantiser: float) -> float:
    """The quality whose base has this quantiser, 0..63, with a fraction."""
    least, most = _BASE_QUANTISERS
    return (QUALITIES - 1) * (most - quantiser) / (most - least)
