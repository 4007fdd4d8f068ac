"""How frames are turned and mirrored, so that they stand upright."""

from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from viddiff.frame import VideoInfo

Turn = tuple[int, int, int, int]
"""Signs of a display matrix: where x goes, and where y goes."""
UNTURNED: Turn = (1, 0, 0, 1)
_TURNS: dict[int, Turn] = {0: UNTURNED, 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
"""By clockwise rotation."""
Samples = TypeVar("Samples", bound=NDArray[np.uint8] | NDArray[np.uint16])


def turn_of(info: VideoInfo) -> Turn:
    """How the frame is turned or mirrored; not at all where the display matrix asks for more than that."""
    matrix = info.display.matrix
    if matrix is None:
        return _TURNS[info.rotation]
    a, b, c, d = (int(np.sign(matrix[place])) for place in (0, 1, 3, 4))
    return (a, b, c, d) if (a and d and not (b or c)) or (b and c and not (a or d)) else UNTURNED


def swaps_sides(turn: Turn) -> bool:
    """Whether width becomes height."""
    return not turn[0]


def turned(samples: Samples, turn: Turn) -> Samples:
    """A plane (H, W) or picture (H, W, 3), turned."""
    a, b, c, d = turn
    result = samples if a else samples.swapaxes(0, 1)
    if (a or c) < 0:
        result = result[:, ::-1]
    if (d or b) < 0:
        result = result[::-1]
    return cast(Samples, np.ascontiguousarray(result))
