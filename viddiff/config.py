"""Sizes, limits and scales of the codec, each defined once."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

Start = int | Fraction
"""Where a part of a video begins: a frame number from 0, or seconds after the first frame."""


def start_text(start: Start) -> str:
    """The start as text for a message: `7`, or `at 1.5 s`."""
    return str(start) if isinstance(start, int) else f"at {float(start):g} s"


def nominal_rate(rate: Fraction) -> Fraction:
    """Exact rate for a rounded one: 24000/1001 for 23.976, 30000/1001 for 29.97, and so on."""
    exact = Fraction(ceil(rate) * 1000, 1001)
    return exact if rate.denominator > 1 and abs(rate - exact) < Fraction(1, 200) else rate


BIT_DEPTHS = (8, 10)
"""Supported bits per sample."""
MIN_SIDE = 16
"""Smallest width or height, in luma samples."""
MAX_SIDE = 8192
"""Largest width or height, in luma samples."""
MAX_PIXELS = 35_651_584
"""Most luma samples of a frame: 8192x4352, upright or not."""
USUAL_PIXELS = 4096 * 2304
"""Most luma samples of a frame that a reader of files accepts unless it is asked to accept more."""
MAX_GOP = 1024
"""Largest number of frames from one keyframe to the next."""
MAX_PAYLOAD = 64 << 20
"""Largest payload of a chunk of a `.vdf`, in bytes."""
SIZES = f"{MIN_SIDE} to {MAX_SIDE} a side and up to {MAX_PIXELS} pixels"
"""How a message names the sizes that `allowed_size` allows."""


def allowed_size(width: int, height: int) -> bool:
    """Whether the format has frames of this size, in luma samples."""
    return min(width, height) >= MIN_SIDE and max(width, height) <= MAX_SIDE and width * height <= MAX_PIXELS


@dataclass(frozen=True)
class Limits:
    """What a reader accepts. It refuses more before it allocates memory."""

    pixels: int = USUAL_PIXELS
    """Largest number of luma samples of a frame."""
    frames: int = 10_000_000
    """Largest number of frames of a file. The default is 46 hours at 60 Hz."""


QUALITIES = 64
"""`--quality` runs from 0 (smallest file) to QUALITIES - 1 (best picture)."""

FRAME_MULTIPLE = 16
"""Inside the codec, sizes are padded to multiples of this many luma samples."""
STEP_COUNT = 96
"""Number of quantisation steps. Step k is QP 8 + k/2 on the scale of H.264: 6 QP double the step size."""
LEVELS = 4
"""Levels of the hierarchy of predicted frames: 0 for anchors, 3 for frames that no frame refers to."""


@dataclass(frozen=True)
class ModelConfig:
    """Widths of the networks. The rest of the architecture is fixed."""

    name: str = "small"
    quarter: int = 48
    """Feature channels at 1/4 of the luma size, also those of the predictor's context."""
    eighth: int = 96
    """Feature channels at 1/8."""
    latent: int = 96
    """Channels of y at 1/8: one for each sample of an 8x8 luma block and its two 4x4 chroma blocks."""
    hyper: int = 16
    """Channels of z at 1/16."""


def step_of_quality(quality: int, level_offset: float = 0.0) -> int:
    """Quantisation step index of a frame, clamped to 0..STEP_COUNT-1.

    Quality 63 is QP 14.5, quality 0 is QP 46. `level_offset` is in QP.
    """
    step = round(2 * (46 - quality / 2 + level_offset - 8))
    return min(max(step, 0), STEP_COUNT - 1)


def qp_of_step(step: int) -> float:
    """QP (H.264 scale) of a quantisation step index."""
    return 8 + step / 2


def lmbda_of_step(step: int) -> float:
    """Lambda: the squared error (8-bit samples) that is worth one bit.

    0.85 * 2^((QP - 12) / 3), as in the reference encoders of H.264 and HEVC.
    """
    return float(0.85 * 2 ** ((qp_of_step(step) - 12) / 3))


CHROMA_WEIGHT = 2.0
"""Weight of the squared error of chroma relative to luma, close to what 6:1:1 PSNR implies."""
