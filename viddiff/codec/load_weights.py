"""Weights of any kind, from their file."""

from pathlib import Path

import torch

from viddiff.codec import checkpoint, enhancement_weights
from viddiff.codec.enhancer import Engine, Enhancer
from viddiff.codec.open_decoder import Weights


def load_weights(path: Path, device: torch.device | str = "cpu", engine: Engine | None = None) -> Weights:
    """Load networks that predict frames, or networks that enhance them.

    engine: what computes the networks that enhance, see `Enhancer`. Raises CheckpointError if anything is
    wrong with the file.
    """
    if checkpoint.stated(path, "format") == enhancement_weights.FORMAT:
        return Enhancer(*enhancement_weights.load(path, device), engine)
    return checkpoint.load(path, device)
