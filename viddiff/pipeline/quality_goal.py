"""A quality that an encode must reach, and how it went."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Judge = Callable[[Path], None]
"""Gets a whole file that has no name yet. TargetError keeps it from getting one, and removes it."""
METRICS = {"vmaf": "vmaf", "psnr": "psnr_611", "xpsnr": "xpsnr_611"}
"""Measures by the names of their options."""
POOLS = {"mean": "mean", "harmonic": "harmonic_mean", "p5": "p5"}
"""Fields of `Pooled` by name."""
BEST_SCORE = 100
"""The most that can be asked for, by any of the measures."""


@dataclass(frozen=True)
class QualityGoal:
    """A score that the frames of an encode must have together. Raises ValueError if it is out of range."""

    metric: str
    """A name of `METRICS`."""
    wanted: float
    """Least score: 0 to 100 for VMAF, dB for the others."""
    pool: str
    """A name of `POOLS`: how the scores of the frames become one."""

    def __post_init__(self) -> None:
        if not 0 < self.wanted <= BEST_SCORE:
            raise ValueError(f"--min-{self.metric} is more than 0 and at most {BEST_SCORE}")
        if self.pool not in POOLS:
            raise ValueError(f"pool is {self.pool!r}, not one of {', '.join(POOLS)}")


@dataclass(frozen=True)
class GoalReport:
    """How the search for a quality goes or went."""

    measure: str
    """Name of the measure, as comparisons use it."""
    pool: str
    wanted: float
    predicted: float | None = None
    """Score that samples promised for this quality, as far as that is known."""
    reached: float | None = None
    """Score of the whole file. None before it is complete, or if it was ended early."""
    sample_encodes: int = 0
    """How often samples were encoded, each at another quality or preset."""
    encodes: int = 0
    """How often the whole video was encoded."""
