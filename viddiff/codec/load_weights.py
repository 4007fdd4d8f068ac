"""Load weights of either kind."""

from pathlib import Path

import torch

from viddiff.codec import checkpoint, enhancement_weights
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.exactness import exact_arithmetic
from viddiff.codec.open_decoder import Weights


@exact_arithmetic()
def load_weights(path: Path, device: torch.device | str = "cpu") -> Weights:
    """Networks that predict frames, or that enhance them.

    Raises CheckpointError if anything is wrong with the file.
    """
    if checkpoint.stated(path, "format") == enhancement_weights.FORMAT:
        return Enhancer(*enhancement_weights.load(path, device))
    return checkpoint.load(path, device)
