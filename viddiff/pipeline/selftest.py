"""Self test: decode golden files, and compare the hashes of their frames."""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from viddiff.codec.exactness import exact_arithmetic
from viddiff.codec.load_weights import load_weights
from viddiff.codec.open_decoder import Weights
from viddiff.errors import ViddiffError
from viddiff.pipeline.serial import decode
from viddiff.pipeline.weights_search import released_with


@dataclass(frozen=True)
class Check:
    """Result for one golden file on one device."""

    device: str
    threads: int
    file: str
    result: str
    """"same", or what is wrong."""


def golden_folder() -> Path:
    """Folder of the golden files."""
    return Path(str(resources.files("viddiff.golden").joinpath("hashes.json"))).parent


def frames_hash(data: bytes, weights: Weights) -> str:
    """SHA-256 of the samples of all frames (Y, U, V, little-endian)."""
    digest = hashlib.sha256()
    for frame in decode(io.BytesIO(data), weights):
        for plane in frame.planes:
            digest.update(plane.astype(plane.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def checks(folder: Path) -> Iterator[Check]:
    """Decode the golden files in `folder`, each with the released weights that it was made with.

    Uses every device, and on the CPU 1 and 2 threads. Raises ViddiffError if there is no file.
    """
    ledger = folder / "hashes.json"
    known: dict[str, dict[str, str]] = json.loads(ledger.read_text()) if ledger.exists() else {}
    if not known:
        raise ViddiffError(f"{folder} holds no golden files")
    for device, threads in [("cpu", 1), ("cpu", 2)] + [("cuda", 1)] * torch.cuda.is_available():
        codecs: dict[str, Weights] = {}
        for name, entry in sorted(known.items()):
            try:
                digest = entry["weights"]
                if digest not in codecs:
                    codecs[digest] = load_weights(released_with(digest), device)
                with exact_arithmetic(threads):
                    found = frames_hash((folder / name).read_bytes(), codecs[digest])
                result = "same" if found == entry["frames"] else "different frames"
            except (ViddiffError, OSError) as error:
                result = str(error)
            yield Check(device, threads, name, result)
