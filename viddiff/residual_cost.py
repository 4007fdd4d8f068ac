"""What coding the miss of a prediction costs, guessed from its size alone; for decisions only."""

from typing import Any

import numba
import numpy as np

_BUSY = 0.35
"""Share of a block's coefficients that take part; the others are near zero. Found by encoding: half and twice
as much need 1 % more bits."""


@numba.njit(cache=True, nogil=True)
def residual_bits(squares: Any, samples: int, lmbda: float) -> Any:
    """Rate and distortion, in bits, of blocks of so many samples, predicted with this mean squared error.

    Small errors stay as they are and count as distortion; of large ones every doubling costs half a bit for
    each coefficient, as for Gaussian sources at their rate-distortion bound. So it pays less to mend a
    prediction the worse it is. squares: an array or one number; lmbda: squared error that is worth a bit.
    """
    return samples * _BUSY * np.log1p(squares / (_BUSY * lmbda))
