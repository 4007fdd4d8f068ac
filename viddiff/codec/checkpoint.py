"""Weights on disk: integers in safetensors, with a hash of exactly what a decoder needs.

    <name>.weight        int8    of each decoder layer
    <name>.bias          int32
    <name>.exponent      int8
    quantisation.table   int16   quantisation steps
    tables.*             int32   frequencies of the entropy coder
    library.*                    pictures, if there are any (see `library`)
    encoder.*            float   what only the encoder uses

The hash leaves out `encoder.*`, so weights with a better encoder decode the same files. Nothing is ever
pickled.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from viddiff.codec.exactness import exact_arithmetic
from viddiff.codec.tensor_file import MAX_HEADER_BYTES, content_hash, read_tensors, write_arrays
from viddiff.codec.weights import Codec, arrays_of, assemble, decoder_tensors, encoder_parts
from viddiff.config import ModelConfig
from viddiff.errors import CheckpointError

MAX_BYTES = 64 << 20
_FORMAT = "viddiff-1"
_WIDTH_LIMIT = 512


def save(path: Path, codec: Codec) -> bytes:
    """Write integer weights to `path`, complete or not at all. Returns the content hash."""
    model = codec.model
    decoder = decoder_tensors(model, codec.motion, codec.tables, codec.library)
    digest = content_hash(model.config, arrays_of(decoder))
    tensors = dict(decoder)
    tensors["encoder.quantisation.factors"] = model.quantisation.factors.detach().cpu()
    for part, module in encoder_parts(model).items():
        for name, tensor in module.state_dict().items():
            tensors[f"encoder.{part}.{name}"] = tensor.detach().cpu().half()
    metadata = {"format": _FORMAT, "config": json.dumps(asdict(model.config)), "hash": digest.hex()}
    write_arrays(path, arrays_of(tensors), metadata)
    return digest


def _config(metadata: dict[str, str]) -> ModelConfig:
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"these weights are not of format {_FORMAT}")
    try:
        values = json.loads(metadata["config"])
        config = ModelConfig(**values)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError("the weights' configuration is damaged") from error
    widths = (config.quarter, config.eighth, config.latent, config.hyper)
    if not isinstance(config.name, str) or not config.name.isprintable() or len(config.name.encode()) > 64:
        raise CheckpointError("the weights' configuration has no usable name")
    if not all(type(width) is int and 1 <= width <= _WIDTH_LIMIT for width in widths) or config.latent != 96:
        raise CheckpointError(f"the weights' configuration has widths {widths}, beyond 1..{_WIDTH_LIMIT}")
    return config


@exact_arithmetic()
def load(path: Path, device: torch.device | str = "cpu") -> Codec:
    """Load weights.

    Raises CheckpointError if anything is wrong with the file. Hostile weights cost at most 256 MiB and four
    times the size of their file.
    """
    metadata, tensors = read_tensors(path, MAX_BYTES, MAX_HEADER_BYTES)
    config, stated = _config(metadata), metadata.get("hash", "")
    return assemble(config, tensors, stated, torch.device(device))
