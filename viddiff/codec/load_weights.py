"""Weights of any kind, from their file."""

from pathlib import Path

from viddiff.codec import enhancement_weights
from viddiff.codec.enhancer import EngineName, Enhancer
from viddiff.codec.open_decoder import Weights
from viddiff.codec.tensor_file import stated
from viddiff.errors import CheckpointError


def load_weights(
    path: Path, device: str = "cpu", engine: EngineName | None = None, threads: int = 1
) -> Weights:
    """Load networks that predict frames, or networks that enhance them.

    engine: what computes the networks that enhance, see `Enhancer`. Raises CheckpointError if anything is
    wrong with the file, or if the compiled engine does not have its networks.
    """
    if stated(path, "format") == enhancement_weights.FORMAT:
        return Enhancer(enhancement_weights.load(path), device, engine, threads)
    if engine == "compiled":
        raise CheckpointError(
            f"--engine compiled needs an AV1 base: PyTorch runs the networks of {path.name}"
        )
    from viddiff.codec import checkpoint

    return checkpoint.load(path, device)
