"""Weights of the enhancement network on disk: integers in safetensors, proven exact when they are loaded.

For each layer: `<name>.weight` int8, `<name>.bias` int32, `<name>.exponent` int8. The metadata hold the
format, the configuration as JSON and a SHA-256 over both, which names exactly what a decoder needs.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from viddiff.codec.tensor_file import Arrays, content_hash, read_arrays, write_arrays
from viddiff.errors import CheckpointError
from viddiff.networks.bounds import prove
from viddiff.networks.enhancement_config import INTEGERS, EnhancementConfig, TrunkConfig

FORMAT = "viddiff-enhancement-1"
"""What a file says that it is."""
_MAX_BYTES = 4 << 20
_MAX_HEADER_BYTES = 1 << 16
_MAX_WIDTH, _MAX_DEPTH = 256, 16


@dataclass(frozen=True, eq=False)
class EnhancementWeights:
    """Integers of a network. Raises CheckpointError unless they are its layers' and all sums stay exact."""

    config: EnhancementConfig
    integers: Arrays
    """`<layer>.weight`, `<layer>.bias` and `<layer>.exponent`."""

    def __post_init__(self) -> None:
        layers = self.config.layers()
        if self.integers.keys() != {f"{name}.{part}" for name in layers for part in INTEGERS}:
            raise CheckpointError("the enhancement weights are not those of this network's layers")
        for name, layer in layers.items():
            parts = [self.integers[f"{name}.{part}"] for part in INTEGERS]
            if [part.dtype for part in parts] != list(INTEGERS.values()):
                raise CheckpointError(f"layer {name} does not hold integers")
            prove(*parts, shape=layer.shape)

    def hash(self) -> bytes:
        """SHA-256 of everything that decoding depends on."""
        return content_hash(self.config, self.integers)


def save(path: Path, weights: EnhancementWeights) -> bytes:
    """Write the weights to `path`, complete or not at all; returns their hash."""
    digest = weights.hash()
    metadata = {"format": FORMAT, "config": json.dumps(asdict(weights.config)), "hash": digest.hex()}
    write_arrays(path, weights.integers, metadata)
    return digest


def load(path: Path) -> EnhancementWeights:
    """The weights. Raises CheckpointError on anything but sound ones."""
    metadata, integers = read_arrays(path, _MAX_BYTES, _MAX_HEADER_BYTES)
    weights = EnhancementWeights(_config(metadata), integers)
    digest, stated = weights.hash().hex(), metadata.get("hash", "")
    if digest != stated:
        raise CheckpointError(f"the weights' content has hash {digest[:16]} but they claim {stated[:16]}")
    return weights


def _config(metadata: dict[str, str]) -> EnhancementConfig:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"these weights are not of format {FORMAT}")
    try:
        stated = json.loads(metadata["config"])
        between = stated.pop("between", None)
        trunk = None if between is None else TrunkConfig(**between)
        config = EnhancementConfig(**stated, between=trunk)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError("the weights' configuration is damaged") from error
    if not isinstance(config.name, str) or not config.name.isprintable() or len(config.name.encode()) > 64:
        raise CheckpointError("the weights' configuration has no usable name")
    for each in (config, config.between):
        if each is not None:
            _check_sizes(each)
    return config


def _check_sizes(config: TrunkConfig) -> None:
    widths, depths = (config.half, config.quarter), (config.half_blocks, config.quarter_blocks)
    if not all(type(width) is int and 1 <= width <= _MAX_WIDTH for width in widths):
        raise CheckpointError(f"the weights' configuration has widths {widths}, beyond 1..{_MAX_WIDTH}")
    if not all(type(depth) is int and 0 <= depth <= _MAX_DEPTH for depth in depths):
        raise CheckpointError(f"the weights' configuration has depths {depths}, beyond 0..{_MAX_DEPTH}")
