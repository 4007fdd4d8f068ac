"""Tensors in a safetensors file that may be hostile: read within limits, written completely or not at all."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from viddiff.config import ModelConfig
from viddiff.errors import CheckpointError
from viddiff.networks.enhancement_config import EnhancementConfig

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES = 1 << 20
"""Largest JSON header of any file, in bytes. Once parsed, it takes 20 times as much memory."""
Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name."""


def read_arrays(
    path: Path, max_bytes: int, max_header_bytes: int
) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """The metadata, and the tensors by name as numpy has them.

    max_bytes: largest size of the file. max_header_bytes: largest size of its JSON header. Raises
    CheckpointError for larger files, and for those that cannot be read.
    """
    return _read(path, "np", max_bytes, max_header_bytes)


def read_tensors(
    path: Path, max_bytes: int, max_header_bytes: int
) -> tuple[dict[str, str], dict[str, "Tensor"]]:
    """The same as PyTorch has them."""
    return _read(path, "pt", max_bytes, max_header_bytes)


def _read(
    path: Path, framework: str, max_bytes: int, max_header_bytes: int
) -> tuple[dict[str, str], dict[str, Any]]:
    try:
        if path.stat().st_size > max_bytes:
            raise CheckpointError(f"{path} is larger than {max_bytes >> 20} MiB")
        with open(path, "rb") as raw:
            if int.from_bytes(raw.read(8), "little") > max_header_bytes:
                raise CheckpointError(f"cannot read weights from {path}: its header is too large")
        with safe_open(path, framework=framework) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except (OSError, SafetensorError, TypeError, AttributeError) as error:  # the last two: unknown types
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot read weights from {path}: {reason}") from error


def content_hash(config: ModelConfig | EnhancementConfig, arrays: Arrays) -> bytes:
    """SHA-256, 32 bytes, of the configuration and of every tensor a decoder needs, in order of name.

    Types are named as PyTorch names them.
    """
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} torch.{array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.digest()


def write_arrays(path: Path, arrays: Arrays, metadata: dict[str, str]) -> None:
    """Write a file, complete or not at all."""
    temporary = path.with_name(path.name + ".part")
    save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, temporary, metadata)
    temporary.replace(path)


def stated(path: Path, name: str) -> str:
    """What the metadata of a weights file claim, without loading it: its "hash" in hex, its "format".

    Empty if it claims nothing, or is no weights file.
    """
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= MAX_HEADER_BYTES else {}
        return str(header["__metadata__"][name])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def stated_hash(path: Path) -> str:
    """The hash that a weights file claims, in hex, without loading it. Empty if it claims none."""
    return stated(path, "hash")
