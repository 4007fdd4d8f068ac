"""Status of a job, for observers."""

from collections.abc import Callable
from dataclasses import dataclass

from viddiff.pipeline.quality_goal import GoalReport


@dataclass(frozen=True)
class Status:
    """Status of a job."""

    stage: str
    """"encode", "decode", "verify", "measure" or "compare", or a step of a search or of an adaptation, as
    "look 1" or "adapt, training"."""
    frames: int
    """Number of frames done; for a training, of seconds."""
    total: int | None
    """The same in total, if known."""
    size_bytes: int | None = None
    """Bytes written so far, if any."""
    latency: int | None = None
    """Before the first frame of an encode: how many later frames a frame waits for, at most."""
    quality_goal: GoalReport | None = None
    """What is known so far of a quality that is searched for."""
    counted: str = "frames"
    """What `frames` are: "frames", or "seconds" of a training."""


Observer = Callable[[Status], None]
"""Gets a job's status: once before the first frame of a stage, then again and again."""


def ignore(_: Status) -> None:
    """Ignore the status."""
