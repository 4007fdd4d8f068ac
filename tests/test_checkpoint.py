"""Weights on disk survive a round trip, and damaged ones are refused."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, coded, moving_picture, same
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from viddiff.codec import checkpoint
from viddiff.codec.weights import Codec, codec_of, fresh, parametric_tables
from viddiff.errors import CheckpointError
from viddiff.pipeline.serial import decode

Tensors = dict[str, Tensor]
Metadata = dict[str, str]


def rewrite(source: Path, target: Path, change: Callable[[Tensors, Metadata], None]) -> Path:
    tensors = load_file(source)
    with safe_open(source, framework="pt") as file:
        metadata = dict(file.metadata())
    change(tensors, metadata)
    save_file(tensors, target, metadata)
    return target


def named(tensors: Tensors, ending: str) -> str:
    return next(n for n in sorted(tensors) if n.endswith(ending) and not n.startswith("encoder."))


def test_weights_come_back(codec: Codec, weights: Path) -> None:
    loaded = checkpoint.load(weights)
    assert (loaded.hash, loaded.name) == (codec.hash, "tiny")
    frames = moving_picture(32, 32, 3)
    data, shown, _ = coded(codec, frames)
    assert same(list(decode(io.BytesIO(data), loaded)), shown)


def test_saving_again_changes_nothing(weights: Path, codec: Codec, tmp_path: Path) -> None:
    loaded = checkpoint.load(weights)
    again = tmp_path / "again.safetensors"
    assert checkpoint.save(again, loaded) == codec.hash
    assert [p.name for p in tmp_path.iterdir()] == ["again.safetensors"]


def test_the_encoder_is_not_part_of_the_hash(weights: Path, codec: Codec, tmp_path: Path) -> None:
    def change(tensors: Tensors, _: Metadata) -> None:
        for name in tensors:
            if name.startswith("encoder.analysis_transform"):
                tensors[name] *= 0.9

    loaded = checkpoint.load(rewrite(weights, tmp_path / "other.safetensors", change))
    assert loaded.hash == codec.hash
    data, shown, _ = coded(loaded, moving_picture(32, 32, 3))
    assert same(list(decode(io.BytesIO(data), codec)), shown), "an old decoder reads a new encoder's files"


def test_every_seed_has_its_own_hash() -> None:
    networks = [fresh(TINY, seed) for seed in (0, 0, 1)]
    hashes = [codec_of(*pair, parametric_tables()).hash for pair in networks]
    assert hashes[0] == hashes[1] != hashes[2]


def flip_weight(tensors: Tensors, _: Metadata) -> None:
    tensors[named(tensors, ".weight")].view(-1)[0] += 1


def flip_bias(tensors: Tensors, _: Metadata) -> None:
    tensors[named(tensors, ".bias")][0] += 1


def raise_weights(tensors: Tensors, _: Metadata) -> None:
    for name in tensors:
        if name.endswith(".weight") and not name.startswith("encoder."):
            tensors[name].fill_(127)
        if name.endswith(".bias") and not name.startswith("encoder."):
            tensors[name].fill_(2**24)


def raise_exponent(tensors: Tensors, _: Metadata) -> None:
    tensors[named(tensors, ".exponent")].fill_(100)


def lower_exponent(tensors: Tensors, _: Metadata) -> None:
    tensors[named(tensors, ".exponent")].fill_(-3)


def float_weights(tensors: Tensors, _: Metadata) -> None:
    name = named(tensors, ".weight")
    tensors[name] = tensors[name].float()


def drop_layer(tensors: Tensors, _: Metadata) -> None:
    del tensors[named(tensors, ".weight")]


def drop_encoder(tensors: Tensors, _: Metadata) -> None:
    del tensors[next(n for n in tensors if n.startswith("encoder."))]


def reshape_layer(tensors: Tensors, _: Metadata) -> None:
    name = named(tensors, ".bias")
    tensors[name] = torch.cat((tensors[name], tensors[name]))


def zero_steps(tensors: Tensors, _: Metadata) -> None:
    tensors["quantisation.table"].zero_()


def huge_steps(tensors: Tensors, _: Metadata) -> None:
    tensors["quantisation.table"].fill_(30000)


def zero_frequencies(tensors: Tensors, _: Metadata) -> None:
    tensors["tables.y"][0] = 0


def negative_frequencies(tensors: Tensors, _: Metadata) -> None:
    tensors["tables.changes"][0] = -5


def fewer_tables(tensors: Tensors, _: Metadata) -> None:
    sums = tensors["tables.flags"].cumsum(0)
    end = int((sums % 65536 == 0).nonzero()[5]) + 1
    tensors["tables.flags"] = tensors["tables.flags"][:end].clone()


def no_tables(tensors: Tensors, _: Metadata) -> None:
    tensors["tables.z"] = torch.zeros(0, dtype=torch.int32)


def other_hash(_: Tensors, metadata: Metadata) -> None:
    metadata["hash"] = "00" * 32


def no_hash(_: Tensors, metadata: Metadata) -> None:
    del metadata["hash"]


def no_metadata(_: Tensors, metadata: Metadata) -> None:
    metadata.clear()


def other_format(_: Tensors, metadata: Metadata) -> None:
    metadata["format"] = "viddiff-99"


def broken_config(_: Tensors, metadata: Metadata) -> None:
    metadata["config"] = "{"


def list_config(_: Tensors, metadata: Metadata) -> None:
    metadata["config"] = "[1, 2]"


def huge_config(_: Tensors, metadata: Metadata) -> None:
    metadata["config"] = metadata["config"].replace('"quarter": 8', '"quarter": 100000')


def wider_config(_: Tensors, metadata: Metadata) -> None:
    metadata["config"] = metadata["config"].replace('"quarter": 8', '"quarter": 9')


CHANGES = [
    flip_weight,
    flip_bias,
    raise_weights,
    raise_exponent,
    lower_exponent,
    float_weights,
    drop_layer,
    drop_encoder,
    reshape_layer,
    zero_steps,
    huge_steps,
    zero_frequencies,
    negative_frequencies,
    fewer_tables,
    no_tables,
    other_hash,
    no_hash,
    no_metadata,
    other_format,
    broken_config,
    list_config,
    huge_config,
    wider_config,
]


@pytest.mark.parametrize("change", CHANGES)
def test_unsound_weights_are_refused(
    weights: Path, tmp_path: Path, change: Callable[[Tensors, Metadata], None]
) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(rewrite(weights, tmp_path / "bad.safetensors", change))
    assert len(str(caught.value)) > 10


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      ", b"PK\x03\x04" + bytes(99)]
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


def test_missing_and_cut_off_files_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        checkpoint.load(tmp_path / "none.safetensors")
    short = tmp_path / "short.safetensors"
    short.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        checkpoint.load(short)
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path)


def test_a_file_of_other_weights_names_both(small_file: bytes, codec: Codec) -> None:
    other = codec_of(*fresh(TINY, 7), parametric_tables())
    with pytest.raises(CheckpointError) as caught:
        next(decode(io.BytesIO(small_file), other))
    assert codec.hash.hex()[:16] in str(caught.value)
    assert other.hash.hex()[:16] in str(caught.value)
