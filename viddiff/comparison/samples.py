"""Bring frames of different bit depth or range to one form, so that samples can be compared.

The form has the larger of both depths and the range of the reference. ITU-T H.273 says what samples mean, for
n bits, luma E' of 0..1 and chroma of -0.5..0.5:

    limited   Y = 2^(n-8) (219 E' + 16)     C = 2^(n-8) (224 E' + 128)
    full      Y = (2^n - 1) E'              C = (2^n - 1) E' + 2^(n-1)

So 8 bits of limited range become 10 bits by multiplying with 4, without any loss. Other changes round to the
nearest sample.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from viddiff.frame import Frame, Plane


@dataclass(frozen=True)
class Form:
    """What samples mean."""

    bit_depth: int
    """8 or 10."""
    full_range: bool

    def scale(self, chroma: bool) -> tuple[float, float]:
        """Samples for each unit of E', and the sample for E' = 0."""
        if self.full_range:
            return (1 << self.bit_depth) - 1, (1 << self.bit_depth - 1) if chroma else 0
        unit = 1 << self.bit_depth - 8
        return (224 * unit, 128 * unit) if chroma else (219 * unit, 16 * unit)


class ToForm:
    """Turns frames of one form into another, by a table."""

    def __init__(self, source: Form, target: Form) -> None:
        self._tables = None
        if source != target:
            self._tables = tuple(_table(source, target, chroma) for chroma in (False, True))

    def __call__(self, frame: Frame) -> Frame:
        """The frame in the other form. One that has it is returned itself."""
        if self._tables is None:
            return frame
        luma, chroma = self._tables
        y, u, v = (_looked_up(t, p) for t, p in zip((luma, chroma, chroma), frame.planes, strict=True))
        return replace(frame, y=y, u=u, v=v)


def _looked_up(table: NDArray[np.uint16], plane: Plane) -> Plane:
    found: Plane = table[plane]
    return found


def _table(source: Form, target: Form, chroma: bool) -> NDArray[np.uint16]:
    """The other sample for every sample."""
    (unit, zero), (new_unit, new_zero) = source.scale(chroma), target.scale(chroma)
    samples = np.arange(1 << source.bit_depth)
    moved = (samples - zero) * new_unit / unit + new_zero
    kind = np.uint8 if target.bit_depth == 8 else np.uint16
    table: NDArray[np.uint16] = np.floor(moved + 0.5).clip(0, (1 << target.bit_depth) - 1).astype(kind)
    return table
