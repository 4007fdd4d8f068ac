"""Frames, and the properties of their video."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from viddiff.display import Display

Plane = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Frame:
    """One picture in YUV 4:2:0 with its presentation time.

    Planes are C-contiguous. They are uint8 for 8 bits and uint16 for 10 bits, with values 0..2^depth-1.
    """

    y: Plane
    """Luma, (H, W)."""
    u: Plane
    """First chroma plane, (ceil(H/2), ceil(W/2))."""
    v: Plane
    """Second chroma plane, (ceil(H/2), ceil(W/2))."""
    pts: int = 0
    """Presentation time in units of `VideoInfo.time_base`."""
    duration: int = 0
    """How long it is shown, in the same units; 0 if unknown: until the next, or as long as is usual."""

    @property
    def planes(self) -> tuple[Plane, Plane, Plane]:
        """The three planes in the order Y, U, V."""
        return self.y, self.u, self.v


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a whole video. Colour fields hold code points of ISO/IEC 23091-2 (ITU-T H.273)."""

    width: int
    """Luma columns, 16..8192."""
    height: int
    """Luma rows, 16..8192; width * height is at most 35,651,584."""
    bit_depth: int = 8
    """8 or 10."""
    time_base: Fraction = Fraction(1, 25)
    """Seconds for each unit of `Frame.pts`."""
    frame_rate: Fraction = Fraction(25)
    """Nominal frames per second (the average for a variable rate)."""
    primaries: int = 2
    """Colour primaries; 2 is "unspecified"."""
    transfer: int = 2
    """Transfer characteristics; 2 is "unspecified"."""
    matrix: int = 2
    """Matrix coefficients; 2 is "unspecified"."""
    full_range: bool = False
    """True if samples use the full range (JPEG range)."""
    chroma_location: int = 0
    """0 unspecified, 1 left, 2 centre, 3 top-left (libav's AVChromaLocation)."""
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width to height of one sample."""
    rotation: int = 0
    """Clockwise rotation for display, in degrees: 0, 90, 180 or 270."""
    display: Display = field(default_factory=Display)
    """Further display properties."""
    frame_count: int | None = None
    """Number of frames if the source states it. Only a hint, for progress."""


def with_durations(frames: Iterable[Frame], last_duration: Callable[[], int]) -> Iterator[Frame]:
    """`frames` with their durations.

    Each one waits for the next, which tells its duration. `last_duration` gives that of the last one.
    """
    waiting: Frame | None = None
    for frame in frames:
        if waiting is not None:
            yield replace(waiting, duration=frame.pts - waiting.pts)
        waiting = frame
    if waiting is not None:
        yield replace(waiting, duration=last_duration())
