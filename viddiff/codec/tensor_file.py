"""Tensors in a safetensors file that may be hostile: read within limits, written completely or not at all."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from viddiff.config import ModelConfig
from viddiff.errors import CheckpointError
from viddiff.networks.enhancement import EnhancementConfig


def read_tensors(
    path: Path, max_bytes: int, max_header_bytes: int
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors by name.

    max_bytes: largest size of the file. max_header_bytes: largest size of its JSON header, which takes 20
    times as much memory once it is parsed. Raises CheckpointError for larger files, and for those that cannot
    be read.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise CheckpointError(f"{path} is larger than {max_bytes >> 20} MiB")
        with open(path, "rb") as raw:
            if int.from_bytes(raw.read(8), "little") > max_header_bytes:
                raise CheckpointError(f"cannot read weights from {path}: its header is too large")
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read weights from {path}: {error}") from error


def content_hash(config: ModelConfig | EnhancementConfig, tensors: dict[str, Tensor]) -> bytes:
    """SHA-256, 32 bytes, of the configuration and of every tensor a decoder needs, in order of name."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.digest()


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a file, complete or not at all."""
    temporary = path.with_name(path.name + ".part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
    temporary.replace(path)
