"""Whether this machine decodes as all others do: files of the past against the hashes of their frames."""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from viddiff.codec import checkpoint
from viddiff.errors import ViddiffError
from viddiff.pipeline.machine import prepare_process, released_for
from viddiff.pipeline.serial import decode


@dataclass(frozen=True)
class Check:
    """One golden file, decoded on one device."""

    device: str
    threads: int
    file: str
    result: str
    """"same", or what went wrong."""


def golden_folder() -> Path:
    """Where the golden files are, or would be."""
    try:
        return Path(str(resources.files("viddiff.golden").joinpath("hashes.json"))).parent
    except ModuleNotFoundError:  # run from a checkout that is not installed
        return Path(__file__).parent.parent / "tests" / "data" / "golden"


def frames_hash(data: bytes, codec: checkpoint.Codec) -> str:
    """SHA-256 of the samples of all frames, Y, U, V, as stored little-endian."""
    digest = hashlib.sha256()
    for frame in decode(io.BytesIO(data), codec):
        for plane in frame.planes:
            digest.update(plane.astype(plane.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def checks(folder: Path, weights: set[str] | None = None) -> Iterator[Check]:
    """Decode the golden files in `folder` with the released weights that each was made with.

    On every device, and on the CPU with 1 and 2 threads. weights: their hashes, in hex, if only files of some
    are to be decoded. Raises ViddiffError if there is no file.
    """
    ledger = folder / "hashes.json"
    known: dict[str, dict[str, str]] = json.loads(ledger.read_text()) if ledger.exists() else {}
    if weights is not None:
        known = {name: entry for name, entry in known.items() if entry["weights"] in weights}
    if not known:
        raise ViddiffError(f"{folder} holds no golden files")
    for device, threads in [("cpu", 1), ("cpu", 2)] + [("cuda", 1)] * torch.cuda.is_available():
        prepare_process()
        torch.set_num_threads(threads)
        codecs: dict[str, checkpoint.Codec] = {}
        for name, entry in sorted(known.items()):
            try:
                digest = entry["weights"]
                if digest not in codecs:
                    codecs[digest] = checkpoint.load(released_for(bytes.fromhex(digest)), device)
                found = frames_hash((folder / name).read_bytes(), codecs[digest])
                result = "same" if found == entry["frames"] else "different frames"
            except (ViddiffError, OSError) as error:
                result = str(error)
            yield Check(device, threads, name, result)
