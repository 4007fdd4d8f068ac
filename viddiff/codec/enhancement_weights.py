"""Weights of the enhancement network on disk: integers in safetensors, proven exact when they are loaded.

For each layer: `<name>.weight` int8, `<name>.bias` int32, `<name>.exponent` int8. The metadata hold the
format, the configuration as JSON and a SHA-256 over both, which names exactly what a decoder needs.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from viddiff.codec.tensor_file import content_hash, read_tensors, write_tensors
from viddiff.errors import CheckpointError
from viddiff.networks.enhancement import EnhancementConfig, EnhancementNetwork

FORMAT = "viddiff-enhancement-1"
"""What a file says that it is."""
_MAX_BYTES = 4 << 20
_MAX_HEADER_BYTES = 1 << 16
_MAX_WIDTH, _MAX_DEPTH = 256, 16
_PARTS = {"weight": torch.int8, "bias": torch.int32, "exponent": torch.int8}


def integers(network: EnhancementNetwork) -> dict[str, Tensor]:
    """The integer tensors that a decoder computes with, by name."""
    tensors = {}
    for name, layer in network.layers().items():
        for (part, kind), value in zip(_PARTS.items(), layer.integers(), strict=True):
            tensors[f"{name}.{part}"] = value.to("cpu", kind).contiguous()
    return tensors


def assemble(config: EnhancementConfig, tensors: dict[str, Tensor]) -> EnhancementNetwork:
    """A network of these integers, ready for use. Raises CheckpointError unless all its sums stay exact."""
    network = EnhancementNetwork(config)
    layers = network.layers()
    if tensors.keys() != {f"{name}.{part}" for name in layers for part in _PARTS}:
        raise CheckpointError("the enhancement weights are not those of this network's layers")
    for name, layer in layers.items():
        parts = [tensors[f"{name}.{part}"] for part in _PARTS]
        if [part.dtype for part in parts] != list(_PARTS.values()):
            raise CheckpointError(f"layer {name} does not hold integers")
        layer.set_integers(*parts)
    network.to(memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def save(path: Path, network: EnhancementNetwork) -> bytes:
    """Write the network's integers to `path`, complete or not at all; returns the content hash."""
    tensors = integers(network)
    digest = content_hash(network.config, tensors)
    metadata = {"format": FORMAT, "config": json.dumps(asdict(network.config)), "hash": digest.hex()}
    write_tensors(path, tensors, metadata)
    return digest


def load(path: Path, device: torch.device | str = "cpu") -> tuple[EnhancementNetwork, bytes]:
    """The network and its content hash. Raises CheckpointError on anything but sound weights."""
    metadata, tensors = read_tensors(path, _MAX_BYTES, _MAX_HEADER_BYTES)
    config = _config(metadata)
    network = assemble(config, tensors)
    digest, stated = content_hash(config, tensors), metadata.get("hash", "")
    if digest.hex() != stated:
        raise CheckpointError(
            f"the weights' content has hash {digest.hex()[:16]} but they claim {stated[:16]}"
        )
    return network.to(device), digest


def _config(metadata: dict[str, str]) -> EnhancementConfig:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"these weights are not of format {FORMAT}")
    try:
        config = EnhancementConfig(**json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError("the weights' configuration is damaged") from error
    name, widths = config.name, (config.half, config.quarter)
    if not isinstance(name, str) or not name.isprintable() or len(name.encode()) > 64:
        raise CheckpointError("the weights' configuration has no usable name")
    if not all(type(width) is int and 1 <= width <= _MAX_WIDTH for width in widths):
        raise CheckpointError(f"the weights' configuration has widths {widths}, beyond 1..{_MAX_WIDTH}")
    depths = (config.half_blocks, config.quarter_blocks)
    if not all(type(depth) is int and 0 <= depth <= _MAX_DEPTH for depth in depths):
        raise CheckpointError(f"the weights' configuration has depths {depths}, beyond 0..{_MAX_DEPTH}")
    return config
