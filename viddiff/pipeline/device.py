"""Where the networks run."""

import torch

from viddiff.errors import ViddiffError


def choose_device(name: str) -> str:
    """The device "cpu" or "cuda", which "auto" takes if it is there. Raises ViddiffError if it is not."""
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ViddiffError("no CUDA device is available")
    return "cuda" if found and name != "cpu" else "cpu"
