"""In what a file differs from the reference, said in sentences. None of it is hidden in a score."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from viddiff.comparison.results import FrameTable, Span
from viddiff.errors import ViddiffError
from viddiff.frame import VideoInfo

_NAMED = 6
"""Largest number of stretches of frames in a sentence."""
_NOTABLE = Fraction(1, 10)
"""Differences in time that are said, as a part of the distance between frames."""
_UNSPECIFIED = 2


def check_size(file: VideoInfo, reference: VideoInfo, path: Path, reference_path: Path, scale: bool) -> None:
    """Raises ViddiffError if the sizes differ and the file is not to be scaled."""
    ours, theirs = ((info.width, info.height) for info in (reference, file))
    if ours != theirs and not scale:
        raise ViddiffError(
            f"{path} is {theirs[0]}x{theirs[1]} and {reference_path} is {ours[0]}x{ours[1]}, so samples "
            "cannot be compared; --scale brings it to this size"
        )


def differences(reference: VideoInfo, file: VideoInfo, starts: tuple[Fraction, Fraction]) -> tuple[str, ...]:
    """Differences of two videos as a whole. starts: times of their first frames, in seconds, as stored."""
    found = []
    if file.bit_depth != reference.bit_depth:
        found.append(
            f"it has {file.bit_depth} bits and the reference {reference.bit_depth}: both are compared with "
            f"{max(file.bit_depth, reference.bit_depth)} bits"
        )
    if file.full_range != reference.full_range:
        names = ("limited", "full")
        found.append(
            f"it has {names[file.full_range]} range and the reference {names[reference.full_range]} range: "
            "its samples are converted"
        )
    for name in ("primaries", "transfer", "matrix"):
        ours, theirs = getattr(reference, name), getattr(file, name)
        if ours != theirs and _UNSPECIFIED not in (ours, theirs):
            found.append(f"its colour {name} is {theirs} and the reference's {ours}: samples are as they are")
    if file.rotation != reference.rotation:
        found.append(
            f"it is rotated by {file.rotation} degrees and the reference by {reference.rotation}: pictures "
            "are compared as they are stored"
        )
    if abs(starts[1] - starts[0]) * reference.frame_rate > _NOTABLE:
        found.append(
            f"its first frame is stored at {float(starts[1]):.3f} s and the reference's at "
            f"{float(starts[0]):.3f} s"
        )
    return tuple(found)


def frame_differences(table: FrameTable, apart: float, usual: Fraction) -> tuple[str, ...]:
    """Frames without a counterpart, and differences in time. usual: distance of frames in seconds."""
    found = []
    if missing := table.missing():
        found.append(
            f"{_counted(missing)} of the reference {_have(missing)} no frame here: {_named(missing)}"
        )
    if extra := table.extra():
        found.append(f"{_counted(extra)} {_have(extra)} no frame in the reference: {_named(extra)}")
    if apart > _NOTABLE * usual:
        found.append(f"frames of the same time are up to {1000 * apart:.1f} ms apart")
    return tuple(found)


def count(spans: Sequence[Span]) -> int:
    """Number of frames in stretches."""
    return sum(last - first + 1 for first, last in spans)


def _counted(spans: Sequence[Span]) -> str:
    return "1 frame" if count(spans) == 1 else f"{count(spans)} frames"


def _have(spans: Sequence[Span]) -> str:
    return "has" if count(spans) == 1 else "have"


def _named(spans: Sequence[Span]) -> str:
    """Numbers of frames, as far as a sentence holds them."""
    parts = [f"{a}" if a == b else f"{a}-{b}" for a, b in spans[:_NAMED]]
    more = len(spans) - _NAMED
    return ", ".join(parts + ([f"and {more} more stretches"] if more > 0 else []))
