"""Sizes, limits and presets, each stated once."""

from dataclasses import dataclass
from fractions import Fraction

Start = int | Fraction
"""Where a part of a video begins: number of a frame from 0, or seconds after the first frame."""


def start_text(start: Start) -> str:
    """How a message names it: 7, or "at 1.5 s"."""
    return str(start) if isinstance(start, int) else f"at {float(start):g} s"


BIT_DEPTHS = (8, 10)
"""Bits of a sample."""
MIN_SIDE = 16
"""Smallest width or height, in luma samples."""
MAX_WIDTH = 4096
MAX_HEIGHT = 2304
MAX_GOP = 1024
"""Most frames from one keyframe to the next."""
MAX_PAYLOAD = 64 << 20
"""Largest payload of a chunk of a `.vdf`, in bytes."""


@dataclass(frozen=True)
class Limits:
    """What a reader of files accepts; more is refused before anything is allocated for it."""

    pixels: int = MAX_WIDTH * MAX_HEIGHT
    """Most luma samples of a frame; by default all that the format allows."""
    frames: int = 10_000_000
    """Most frames of a file: 46 hours at 60 Hz by default."""


QUALITIES = 64
"""`--quality` runs from 0 (smallest file) to QUALITIES - 1 (best picture)."""

FRAME_MULTIPLE = 16
"""Inside the codec, sizes are padded by replication to this multiple (luma samples)."""
STEP_COUNT = 96
"""Quantisation steps: step k stands for QP 8 + k/2 on the scale of H.264, where 6 QP double the step."""
LEVELS = 4
"""Levels of the hierarchy of predicted frames: 0 for anchors (P), 3 for frames that nothing refers to."""


@dataclass(frozen=True)
class ModelConfig:
    """Widths of the networks; everything else about the architecture is fixed."""

    name: str = "small"
    quarter: int = 48
    """Feature channels at 1/4 of the luma size (also the predictor's context there)."""
    eighth: int = 96
    """Feature channels at 1/8."""
    latent: int = 96
    """Channels of y at 1/8: one for each sample of an 8x8 luma block and its two 4x4 chroma blocks."""
    hyper: int = 16
    """Channels of z at 1/16."""


def step_of_quality(quality: int, level_offset: float = 0.0) -> int:
    """Quantisation step index of a frame: quality 63 is QP 14.5, 0 is QP 46; offsets are in QP.

    Raises nothing; the result is clamped to 0..STEP_COUNT-1.
    """
    step = round(2 * (46 - quality / 2 + level_offset - 8))
    return min(max(step, 0), STEP_COUNT - 1)


def qp_of_step(step: int) -> float:
    """QP (H.264 scale) of a quantisation step index."""
    return 8 + step / 2


def lmbda_of_step(step: int) -> float:
    """Squared error (8-bit samples) that is worth one bit: 0.85 * 2^((QP - 12) / 3), as in H.264/HEVC
    reference encoders."""
    return float(0.85 * 2 ** ((qp_of_step(step) - 12) / 3))


CHROMA_WEIGHT = 2.0
"""Worth of chroma's squared error beside luma's: a 6:1:1 PSNR asks for about that."""
