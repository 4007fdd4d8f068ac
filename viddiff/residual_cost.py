"""What coding the miss of a prediction costs, guessed from its size alone; for decisions only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BUSY = 0.35
"""Share of a block's coefficients that take part; the others are near zero. Found by encoding: half and twice
as much need 1 % more bits."""


def residual_bits(squares: NDArray[Any], samples: int, lmbda: float) -> NDArray[np.float32]:
    """Rate and distortion, in bits, of blocks of so many samples, predicted with this mean squared error.

    Small errors stay as they are and count as distortion; of large ones every doubling costs half a bit for
    each coefficient, as for Gaussian sources at their rate-distortion bound. So it pays less to mend a
    prediction the worse it is. lmbda: squared error that is worth a bit.
    """
    busy = np.float32(samples * _BUSY)
    bits: NDArray[np.float32] = busy * np.log1p(squares.astype(np.float32) / np.float32(_BUSY * lmbda))
    return bits
