"""Hostile weights are refused in one sentence, in bounded memory, without running code, or decode exactly."""

import json
import os
import pickle
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, exact_reach, moving_picture
from safetensors.torch import load_file, save_file
from torch import Tensor

import viddiff
from viddiff.codec import checkpoint
from viddiff.codec.coding_order import FramePlan
from viddiff.codec.entropy import SymbolDecoder, SymbolEncoder
from viddiff.codec.frame_decoder import HEADER_WIDTHS, MODES_FOLLOW, decode_frame
from viddiff.codec.motion_templates import MIRRORED, ZERO
from viddiff.codec.reference import Reference
from viddiff.codec.tensor_file import content_hash
from viddiff.codec.weights import Codec, arrays_of, decoder_layers
from viddiff.config import STEP_COUNT
from viddiff.errors import CheckpointError
from viddiff.networks.bounds import EXACT_LIMIT, WEIGHT_MAX
from viddiff.networks.layers import IntConv2d
from viddiff.networks.planes import planes_of
from viddiff.pipeline.weights_search import released_weights

MARGIN, FACTOR = 256 << 20, 4
"""Promise of `checkpoint.load`: bytes, and times the size of the file."""
Header = dict[str, Any]


def split(data: bytes) -> tuple[Header, bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header: Header | bytes, body: bytes, size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def config_of(header: Header, **values: Any) -> None:
    header["__metadata__"]["config"] = json.dumps(json.loads(header["__metadata__"]["config"]) | values)


def with_tensor(header: Header, body: bytes, kind: str, size: int) -> bytes:
    header["extra"] = {"dtype": kind, "shape": [8], "data_offsets": [len(body), len(body) + size]}
    return joined(header, body + bytes(size))


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, (f"touch '{self.mark}'",)


def hostile(sound: bytes, mark: Path) -> Iterator[tuple[str, bytes]]:
    """Files by name. Unpickling one of them would create the file `mark`."""
    header, body = split(sound)

    def copy() -> Header:
        duplicate: Header = json.loads(json.dumps(header))
        return duplicate

    names = sorted(name for name in header if name != "__metadata__")
    weight = next(name for name in names if name.endswith(".weight") and not name.startswith("encoder."))
    for size in (0, 1, 7, 8, 9, 100, len(sound) - len(body) - 1, len(sound) - len(body), len(sound) - 1):
        yield f"cut to {size}", sound[:size]
    for size in (0, 1, 1 << 20, 90_000_000, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        yield f"a header of {size}", joined(header, body, size)
    yield "bytes after the last tensor", sound + b"x"
    yield "nothing but metadata", joined({"__metadata__": header["__metadata__"]}, b"")
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    yield "a hundred thousand tensors", joined(copy() | {f"{n:x}": empty for n in range(100_000)}, body)
    yield "a header that nests", joined(b"[" * 500_000, b"")
    yield "no UTF-8", joined(b'{"\xff": 1}', body)
    yield "a huge tensor", with_tensor(copy(), body, "U8", 8) + bytes(9 << 20)
    long = copy() | {
        "extra": {"dtype": "U8", "shape": [12 << 20], "data_offsets": [len(body), len(body) + (12 << 20)]}
    }
    yield "a huge unknown tensor", joined(long, body + bytes(12 << 20))
    for kind, size in (("BF16", 16), ("F8_E4M3", 8), ("F64", 64), ("BOOL", 8), ("I64", 64), ("XX", 8)):
        yield f"an unknown tensor of {kind}", with_tensor(copy(), body, kind, size)
    for shape in ([1 << 62, 1 << 62], [1 << 40], [-1], [1 << 70], [0, 1 << 62], "8", [8.0], []):
        changed = copy()
        changed[weight]["shape"] = shape
        yield f"shape {shape}", joined(changed, body)
    for offsets in (
        [0, 0],
        [0, 1 << 62],
        [1 << 63, 1 << 63],
        [5, 1],
        [-1, 5],
        header[names[0]]["data_offsets"],
    ):
        changed = copy()
        changed[names[-1]]["data_offsets"] = offsets
        yield f"offsets {offsets}", joined(changed, body)
    twice = json.dumps(header).encode()[:-1] + f',"{weight}":{json.dumps(header[names[0]])}'.encode() + b"}"
    yield "two tensors of a name", joined(twice, body)
    for change in (
        {"quarter": 512, "eighth": 512, "hyper": 512},
        {"quarter": 1 << 40},
        {"quarter": -1},
        {"hyper": 0},
        {"latent": 95},
        {"quarter": 8.0},
        {"quarter": True},
        {"name": "\x1b[2J"},
        {"name": "\ud800"},
        {"name": "é" * 33},
        {"name": None},
        {"other": 1},
    ):
        changed = copy()
        config_of(changed, **change)
        yield f"config with {change!a}", joined(changed, body)
    for text in ("[" * 100_000, '{"quarter":' * 50_000, "null", "", "1" * 10_000):
        changed = copy()
        changed["__metadata__"]["config"] = text
        yield f"config {text[:9]}.. of {len(text)}", joined(changed, body)
    yield "a pickle", pickle.dumps(Bomb(mark))
    archive = mark.with_suffix(".pt")
    torch.save({"weight": Bomb(mark)}, archive)
    yield "PyTorch's archive", archive.read_bytes()
    yield "an archive under a header", joined(b"{}", archive.read_bytes())
    np.save(mark.with_suffix(".npy"), np.array([Bomb(mark)], object), allow_pickle=True)
    yield "numpy's pickle", mark.with_suffix(".npy").read_bytes()


UNDER_A_LIMIT = """
import json, resource, sys
from pathlib import Path
from viddiff.codec import checkpoint
from viddiff.errors import CheckpointError

sound, folder, margin, factor = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
checkpoint.load(sound)
results = {}
for path in sorted(folder.iterdir()):
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + margin + factor * path.stat().st_size, most))
    try:
        checkpoint.load(path)
        results[path.name] = "loaded"
    except CheckpointError as error:
        results[path.name] = str(error)
print(json.dumps(results))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no way here to tell what is taken")
def test_hostile_files_are_refused_within_bounded_memory(weights: Path, tmp_path: Path) -> None:
    folder, mark, names = tmp_path / "files", tmp_path / "mark", list[str]()
    folder.mkdir()
    for number, (name, data) in enumerate(hostile(weights.read_bytes(), mark)):
        (folder / f"{number:03}.safetensors").write_bytes(data)
        names.append(name)
    arguments = [str(weights), str(folder), str(MARGIN), str(FACTOR)]
    env = os.environ | {"PYTHONPATH": str(Path(viddiff.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT, *arguments], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = dict(zip(names, json.loads(done.stdout).values(), strict=True))
    for name, answer in answers.items():
        assert answer != "loaded", name
        assert 10 < len(answer.split(str(folder))[-1]) < 400, f"{name}: {answer}"
        assert len(answer.splitlines()) == 1, name
    assert not mark.exists(), "something was unpickled"


def rewritten(source: Path, target: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """The same weights with a change, and a correct hash."""
    header, _ = split(source.read_bytes())
    tensors = load_file(source)
    change(tensors)
    decoder = {name: tensor for name, tensor in tensors.items() if not name.startswith("encoder.")}
    metadata = dict(header["__metadata__"])
    metadata["hash"] = content_hash(TINY, arrays_of(decoder)).hex()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target, metadata)
    return target


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["quantisation.factors", "analysis_transform.linear.weight"])
def test_an_encoder_without_numbers_is_refused(
    weights: Path, tmp_path: Path, part: str, value: float
) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[f"encoder.{part}"].view(-1)[3] = value

    with pytest.raises(CheckpointError, match="finite"):
        checkpoint.load(rewritten(weights, tmp_path / "bad.safetensors", change))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64, torch.int8, torch.complex64, torch.bool])
def test_an_encoder_of_other_numbers_is_refused(weights: Path, tmp_path: Path, kind: torch.dtype) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        name = "encoder.analysis_transform.linear.weight"
        tensors[name] = tensors[name].to(kind)

    with pytest.raises(CheckpointError, match="finite"):
        checkpoint.load(rewritten(weights, tmp_path / "bad.safetensors", change))


TABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": lambda table: torch.cat((torch.zeros(1, dtype=torch.int32), table)),
    "negative": lambda table: torch.cat((torch.tensor([-1, 1], dtype=torch.int32), table)),
    "a sum too small": lambda table: table[:-1],
    "a sum that wraps": lambda table: torch.full((2 << 16,), 1 << 16, dtype=torch.int32),
    "a table too many": lambda table: torch.cat((table, torch.tensor([65535, 1], dtype=torch.int32))),
    "none": lambda table: table[:0],
    "64 bits": lambda table: table.long(),
    "floating": lambda table: table.float(),
    "two dimensions": lambda table: table[None],
    "no escape": lambda table: torch.cat((torch.tensor([1 << 16], dtype=torch.int32), table)),
    "as wide as the sum": lambda table: torch.cat((torch.ones(1 << 16, dtype=torch.int32), table)),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("field", ["y", "z", "flags", "changes", "modes", "merges"])
def test_tables_are_checked(weights: Path, tmp_path: Path, field: str, name: str) -> None:
    """The hash is correct."""

    def change(tensors: dict[str, Tensor]) -> None:
        tensors[f"tables.{field}"] = TABLES[name](tensors[f"tables.{field}"])

    with pytest.raises(CheckpointError, match="table"):
        checkpoint.load(rewritten(weights, tmp_path / "bad.safetensors", change))


def test_the_card_of_the_released_weights_names_their_hash(released: Codec) -> None:
    card = released_weights("none").with_suffix(".md").read_text()
    stated = re.findall(r"^\| hash \| `([0-9a-f]{64})` \|$", card, re.M)
    assert stated == [released.hash.hex()]


# --- weights that are accepted cannot leave the exact range ----------------------------------------------


def extreme(tensors: dict[str, Tensor], layers: dict[str, IntConv2d], rng: np.random.Generator) -> None:
    """All tensors of the decoder at the limits: sums reach 2^24 - 1."""
    for name, layer in layers.items():
        weight = tensors[f"{name}.weight"]
        fan_in = weight[0].numel()
        reach = (EXACT_LIMIT - 1) // layer.input_max  # of the sum of absolute weights
        signs = rng.choice([-1, 1], weight.shape) if rng.random() < 0.7 else np.ones(weight.shape, int)
        values = signs * min(WEIGHT_MAX, reach // fan_in)
        if rng.random() < 0.3:  # few weights, as large as can be
            places = rng.random((len(weight), fan_in)).argsort(1).reshape(weight.shape)
            values = np.where(places < reach // WEIGHT_MAX, signs * WEIGHT_MAX, 0)
        room = EXACT_LIMIT - 1 - layer.input_max * np.abs(values).reshape(len(values), -1).sum(1)
        share = rng.choice([-1.0, 0.0, 1.0])
        tensors[f"{name}.weight"] = torch.from_numpy(values.astype(np.int8))
        tensors[f"{name}.bias"] = torch.from_numpy((share * room).astype(np.int32))
        exponents = rng.choice([0, 6, 9, 14, 30], len(values), p=[0.1, 0.3, 0.3, 0.2, 0.1])
        tensors[f"{name}.exponent"] = torch.from_numpy(exponents.astype(np.int8))
    steps = rng.choice([1, 2, 100, 2047], tensors["quantisation.table"].shape)
    tensors["quantisation.table"] = torch.from_numpy(steps.astype(np.int16))


def noise(rng: np.random.Generator) -> bytes:
    """A stream that starts like a frame, with valid templates, and continues with noise."""
    stream = SymbolEncoder()
    begin = [rng.integers(STEP_COUNT), ZERO + MODES_FOLLOW * rng.integers(2), rng.choice([ZERO, MIRRORED]), 0]
    stream.put_bits(np.array(begin, np.int64), HEADER_WIDTHS)
    words = rng.integers(0, 1 << 32, rng.integers(1, 800))
    stream.put_bits(words, np.full(len(words), 32))
    return stream.finish()


@pytest.mark.parametrize("seed", range(12))
def test_extreme_weights_are_exact_on_hostile_streams(
    seed: int, weights: Path, codec: Codec, tmp_path: Path
) -> None:
    """Every sum of every layer equals that in float64, and no activation exceeds the proof's assumption."""
    rng = np.random.default_rng(seed)
    layers = decoder_layers(codec.model, codec.motion)
    path = tmp_path / "extreme.safetensors"
    wild = checkpoint.load(rewritten(weights, path, lambda tensors: extreme(tensors, layers, rng)))
    reaches = list[float]()

    def check(layer: IntConv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        reaches.append(exact_reach(layer, inputs, output))

    for layer in decoder_layers(wild.model, wild.motion).values():
        layer.register_forward_hook(check)
    first, second = (planes_of(frame, 8, torch.device("cpu")) for frame in moving_picture(32, 32, 2))
    references = (Reference(0, first), Reference(2, second))
    decoded = decode_frame(wild, FramePlan(1, 0, 2, 1), references, SymbolDecoder(noise(rng)), 8)
    assert len(reaches) > len(layers) // 2
    assert 0.9 * EXACT_LIMIT < max(reaches) < EXACT_LIMIT, "the test reaches the bound"
    for plane in decoded.planes:
        assert torch.equal(plane, plane.round())
        assert 0 <= plane.min() <= plane.max() <= 1023
