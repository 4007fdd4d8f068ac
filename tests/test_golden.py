"""Golden files decode to the known frames. scripts/make_golden.py makes them."""

import io
import json
from pathlib import Path

import pytest

from viddiff.codec.load_weights import load_weights
from viddiff.codec.open_decoder import Weights
from viddiff.container.reader import Reader
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.selftest import frames_hash
from viddiff.pipeline.weights_search import released_weights

FOLDER = Path(__file__).parent / "data" / "golden"
LEDGER = FOLDER / "hashes.json"
HASHES: dict[str, dict[str, str]] = json.loads(LEDGER.read_text()) if LEDGER.exists() else {}


@pytest.mark.parametrize("name", sorted(name for name in HASHES if name.startswith("plain")))
def test_a_file_finds_the_released_weights_that_it_was_made_with(name: str) -> None:
    with open(FOLDER / name, "rb") as file:
        video = decode_video(file, FOLDER / name, Resources(workers=1))
        assert len(list(video.frames)) == video.frame_count


def weights_of(digest: str) -> Weights:
    """The released weights with this hash."""
    for path in sorted(released_weights("none").parent.glob("*.safetensors")):
        codec = load_weights(path)
        if codec.hash.hex() == digest:
            return codec
    pytest.fail(f"the weights {digest[:16]} are no longer released")


@pytest.mark.parametrize("name", sorted(HASHES))
def test_golden(name: str) -> None:
    data = (FOLDER / name).read_bytes()
    assert Reader(io.BytesIO(data)).header.model_hash.hex() == HASHES[name]["weights"]
    codec = weights_of(HASHES[name]["weights"])
    assert frames_hash(data, codec) == HASHES[name]["frames"]


def test_every_golden_file_is_in_the_ledger() -> None:
    assert {path.name for path in FOLDER.glob("*.vdf")} == set(HASHES)
