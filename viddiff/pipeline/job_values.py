"""Checks of what users choose for encodes and decodes alike."""

from fractions import Fraction
from pathlib import Path
from typing import Any

from viddiff.errors import VideoError


def check_common(job: Any) -> None:
    """ValueError unless the choices that all jobs have are in range."""
    among("device", job.device, ("auto", "cpu", "cuda"))
    for name in ("frames", "workers"):
        value = getattr(job, name)
        if value is not None:
            within(name, value, range(1, 1 << 31))
    if not isinstance(job.start, int | Fraction) or job.start < 0:
        raise ValueError("start is the number of a frame, or seconds as a Fraction, not below 0")
    if job.fps is not None and not 0 < job.fps <= 1000:
        raise ValueError("fps is more than 0 and at most 1000")


def check_source(path: Path, name: str) -> None:
    """VideoError unless a file is there; name: as the user wrote it."""
    if not path.is_file():
        raise VideoError(f"{name!r} is not a file" if not name or path.exists() else f"{name} does not exist")


def with_suffix(path: Path, suffix: str) -> Path:
    """`path` with another extension. VideoError if it has no name, as / and .. have none."""
    try:
        return path.with_suffix(suffix)
    except ValueError as error:
        raise VideoError(f"{str(path)!r} is not a file") from error


def within(name: str, value: int, allowed: range) -> None:
    """ValueError unless a number is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value}, not {allowed[0]} to {allowed[-1]}")


def among(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """ValueError unless a word is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, not one of {', '.join(allowed)}")
