"""How far a job is, for whoever watches it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """How far a job is."""

    stage: str
    """"encode", "decode" or "verify"."""
    frames: int
    """How many are done."""
    total: int | None
    """How many there will be, if that is known."""
    size_bytes: int | None = None
    """What is written so far, if anything is."""
    latency: int | None = None
    """Before the first frame of an encode: how many later frames a frame waits for, at most."""


Observer = Callable[[Status], None]
"""Is told how far a job is: once before the first frame of a stage, and then again and again."""


def ignore(_: Status) -> None:
    """Watch nothing."""
