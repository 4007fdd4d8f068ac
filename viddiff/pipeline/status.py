"""Status of a job, for observers."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """Status of a job."""

    stage: str
    """"encode", "decode", "verify" or "compare"."""
    frames: int
    """Number of frames done."""
    total: int | None
    """Number of frames in total, if known."""
    size_bytes: int | None = None
    """Bytes written so far, if any."""
    latency: int | None = None
    """Before the first frame of an encode: how many later frames a frame waits for, at most."""


Observer = Callable[[Status], None]
"""Gets a job's status: once before the first frame of a stage, then again and again."""


def ignore(_: Status) -> None:
    """Ignore the status."""
