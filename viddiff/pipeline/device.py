"""Device of the networks."""

import ctypes
import sys
from pathlib import Path

from viddiff.errors import ViddiffError


def choose_device(name: str, engine: str | None = None) -> str:
    """Name of the device: "cpu" or "cuda".

    "auto" is CUDA if that is available, but not for the compiled engine, which is for CPUs. PyTorch is loaded
    only if it could find a GPU. Raises ViddiffError for "cuda" if it finds none.
    """
    if name == "cpu" or engine == "compiled" or (name == "auto" and not _driver_is_there()):
        return "cpu"
    import torch

    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ViddiffError("no CUDA device is available")
    return "cuda" if found else "cpu"


def _driver_is_there() -> bool:
    """Whether this machine has a driver for a GPU that PyTorch calls CUDA: by NVIDIA, or AMD's ROCm."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True
