"""Checks that jobs share: of their options and of their files."""

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

from viddiff.errors import VideoError
from viddiff.pipeline.output_file import OutputFile


def check_common(job: Any) -> None:
    """Raises ValueError unless the common options are in range."""
    check_engine(job.engine, job.device)
    for name in ("frames", "workers"):
        value = getattr(job, name)
        if value is not None:
            within(name, value, range(1, 1 << 31))
    check_start("start", job.start)
    if job.fps is not None and not 0 < job.fps <= 1000:
        raise ValueError("fps is more than 0 and at most 1000")


def check_engine(engine: str | None, device: str) -> None:
    """Raises ValueError unless the engine and the device are known and go together."""
    among("device", device, ("auto", "cpu", "cuda"))
    if engine is not None:
        among("engine", engine, ("compiled", "torch"))
    if engine == "compiled" and device == "cuda":
        raise ValueError("the compiled engine runs on a CPU: give either --engine compiled or --device cuda")


def check_start(name: str, value: Any) -> None:
    """Raises ValueError unless a value says where in a video something is."""
    if not isinstance(value, int | Fraction) or value < 0:
        raise ValueError(f"{name} is the number of a frame, or seconds as a Fraction, not below 0")


def check_files(sources: Iterable[str | os.PathLike[str]], output: OutputFile | None) -> None:
    """Raises ViddiffError if a source does not exist, or if writing `output` would lose a file.

    sources: as the user wrote them.
    """
    paths = list[Path]()
    for source in sources:
        paths.append(Path(source))
        check_source(paths[-1], os.fspath(source))
    if output is not None:
        output.check(*paths)


def check_source(path: Path, name: str) -> None:
    """Raises VideoError unless the file exists. name: as the user wrote it."""
    if not path.is_file():
        raise VideoError(f"{name!r} is not a file" if not name or path.exists() else f"{name} does not exist")


def with_suffix(path: Path, suffix: str) -> Path:
    """`path` with another extension. Raises VideoError if it has no name, like / and .."""
    try:
        return path.with_suffix(suffix)
    except ValueError as error:
        raise VideoError(f"{str(path)!r} is not a file") from error


def within(name: str, value: int, allowed: range) -> None:
    """Raises ValueError unless a number is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value}, not {allowed[0]} to {allowed[-1]}")


def among(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises ValueError unless a word is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, not one of {', '.join(allowed)}")
