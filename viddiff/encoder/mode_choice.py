"""Mode choice: which hypotheses each block uses (`networks.modes`)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from viddiff.config import CHROMA_WEIGHT
from viddiff.encoder.residual_cost import residual_bits, spectra
from viddiff.networks.modes import BOTH, FIRST, SECOND, neighbours

_MODES = (FIRST, BOTH, SECOND)
_MODE_BITS = 0.5
"""Approximate extra bits of a block that uses one hypothesis."""
_UNLIKE_BITS = 0.3
"""Approximate extra bits for each of eight neighbours with another mode."""
_CHROMA_SLOPE = 5.6
"""Bits of a block's chroma plane for every e-fold growth of its prediction error."""
_ROUNDS = 2


def choose_modes(x: Tensor, first: Tensor, second: Tensor, lmbda: float) -> Tensor:
    """Modes (1, 1, R, C) int64 that predict packed picture x well and are similar in neighbouring blocks.

    first, second: packed hypotheses. lmbda: squared error per bit. Method: iterated conditional modes (Besag
    1986) over four colours of blocks that do not touch.
    """
    guesses = (first, (first + second) / 2, second)
    costs = torch.stack([_miss_bits(x, guess, lmbda) for guess in guesses])[:, None]
    costs += costs.new_tensor([_MODE_BITS * (mode != BOTH) for mode in _MODES])[:, None, None, None]
    values = torch.tensor(_MODES, device=x.device)[:, None, None, None]
    modes = values[costs.argmin(0), 0, 0, 0][None]
    grid = torch.arange(modes.shape[2], device=x.device)[:, None] % 2 * 2
    colours = grid + torch.arange(modes.shape[3], device=x.device) % 2
    for colour in (0, 3, 1, 2) * _ROUNDS:
        around = torch.stack(neighbours(modes, True) + neighbours(modes, False))
        unlike = (around[None, :, 0, 0] != values).to(costs.dtype).sum(1)[:, None]
        best = (costs + _UNLIKE_BITS * unlike).argmin(0)
        modes = torch.where(colours == colour, values[best, 0, 0, 0][None], modes)
    return modes


def _miss_bits(x: Tensor, guess: Tensor, lmbda: float) -> Tensor:
    """Bits (R, C) of the error if `guess` predicts the blocks of x, both packed (1, 6, 4 R, 4 C), 10 bits."""
    bits = residual_bits(spectra(_luma(x), _luma(guess)), lmbda)
    rows, cols = bits.shape
    chroma = (x - guess)[0, 4:] / 4
    energies = (chroma**2).view(2, rows, 4, cols, 4).sum((2, 4)).cpu().numpy()
    grown = np.log1p(energies * (CHROMA_WEIGHT / (_CHROMA_SLOPE * lmbda)))
    return torch.from_numpy(bits + _CHROMA_SLOPE * grown.sum(0)).to(x.device)


def _luma(packed: Tensor) -> NDArray[np.float32]:
    """Luma (8 R, 8 C) in 8-bit units."""
    luma: NDArray[np.float32] = (functional.pixel_shuffle(packed[:, :4], 2)[0, 0] / 4).cpu().numpy()
    return luma
