"""Device of the networks."""

import torch

from viddiff.errors import ViddiffError


def choose_device(name: str) -> str:
    """Name of the device: "cpu" or "cuda".

    "auto" is CUDA if that is available. Raises ViddiffError for "cuda" if it is not.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ViddiffError("no CUDA device is available")
    return "cuda" if found and name != "cpu" else "cpu"
