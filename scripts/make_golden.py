"""Make golden files: encoded with the released weights, to be decoded to the same frames forever.

    python scripts/make_golden.py

It writes tests/data/golden/*.vdf. hashes.json beside them has the SHA-256 of the weights that each file
needs, and of its decoded frames. Existing files are never replaced: a change that breaks one breaks users'
files. tests/data/library has such a file whose weights have a library, with its picture.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from conftest import coded, fixed_camera, moving_picture, tuned  # noqa: E402

from viddiff.codec import checkpoint, enhancement_weights  # noqa: E402
from viddiff.codec.enhancer import Enhancer  # noqa: E402
from viddiff.codec.file_network import adapted, pack_network  # noqa: E402
from viddiff.codec.library import Library, LibraryPicture  # noqa: E402
from viddiff.codec.load_weights import load_weights  # noqa: E402
from viddiff.codec.open_decoder import Weights  # noqa: E402
from viddiff.codec.weights import Codec, codec_of  # noqa: E402
from viddiff.encoder.options import EncodeOptions  # noqa: E402
from viddiff.frame import Frame  # noqa: E402
from viddiff.media.av1_stills import encode_still  # noqa: E402
from viddiff.pipeline.selftest import frames_hash  # noqa: E402
from viddiff.pipeline.weights_search import released_weights  # noqa: E402

FOLDER, LIBRARY = (ROOT / "tests" / "data" / name for name in ("golden", "library"))
Ledger = dict[str, dict[str, str]]
# Name: width, height, frames, bit depth, options.
FILES = {
    "plain": (80, 48, 12, 8, EncodeOptions(quality=36, gop=10)),
    "low-delay-odd": (35, 33, 6, 8, EncodeOptions(quality=28, low_delay=True)),
    "huffman": (64, 48, 9, 8, EncodeOptions(quality=20, entropy="huffman")),
    "ten-bit": (48, 32, 5, 10, EncodeOptions(quality=50)),
    "best": (48, 32, 9, 8, EncodeOptions(quality=63)),
    "smallest": (96, 64, 9, 8, EncodeOptions(quality=0)),
}


# Of a fixed camera, whose GOPs share a background.
BACKGROUND = (96, 80, 45, 8, EncodeOptions(quality=30, gop=20))
# Large enough that updates of both last layers pay.
UPDATES = (256, 192, 33, 8, EncodeOptions(quality=30, preset="slower"))


def main() -> None:
    """Make all golden files that do not exist yet."""
    codec = checkpoint.load(released_weights("none"))
    with ledger(FOLDER) as hashes:
        plain("", codec, hashes)
        enhancer = Enhancer(enhancement_weights.load(released_weights("av1")))
        plain("base-", enhancer, hashes)
        width, height, count, bit_depth, options = BACKGROUND
        frames = [fixed_camera(width, height, bit_depth)(number) for number in range(count)]
        one("base-background", enhancer, frames, bit_depth, options, hashes)
        width, height, count, bit_depth, options = UPDATES
        frames = moving_picture(width, height, count, bit_depth)
        one("base-updates", enhancer, frames, bit_depth, options, hashes)
        own = adapted(enhancer, pack_network(enhancer.weights, tuned(enhancer.weights, every=8)))
        one("base-network", own, moving_picture(80, 48, 12), 8, EncodeOptions(quality=30), hashes)
        large = load_weights(ROOT / "checkpoints" / "enhancement-large.safetensors")
        one("base-large", large, moving_picture(80, 48, 12), 8, EncodeOptions(quality=30), hashes)
    with ledger(LIBRARY) as hashes:
        from_library(codec, hashes)


@contextmanager
def ledger(folder: Path) -> Iterator[Ledger]:
    """Read the hashes by file name, and write them at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "hashes.json"
    hashes: Ledger = json.loads(path.read_text()) if path.exists() else {}
    yield hashes
    path.write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n")


def plain(prefix: str, weights: Weights, hashes: Ledger) -> None:
    """Files of many kinds, whose keyframes are stills or begin an AV1 base."""
    for name, (width, height, count, bit_depth, options) in FILES.items():
        frames = moving_picture(width, height, count, bit_depth)
        one(prefix + name, weights, frames, bit_depth, options, hashes)


def one(
    name: str, weights: Weights, frames: list[Frame], bit_depth: int, options: EncodeOptions, hashes: Ledger
) -> None:
    """A file of this name."""
    path = FOLDER / f"{name}-{weights.hash.hex()[:8]}.vdf"
    if path.exists():
        print(f"{path.name} stays as it is")
        return
    data, _, _ = coded(weights, frames, bit_depth, options)
    path.write_bytes(data)
    released = (weights.origin if isinstance(weights, Enhancer) else None) or weights
    hashes[path.name] = {"weights": weights.hash.hex(), "frames": frames_hash(data, released)}
    print(f"{path.name}: {len(data)} bytes")


def from_library(codec: Codec, hashes: Ledger) -> None:
    """A file whose keyframe is predicted from a picture of the same scene."""
    path = LIBRARY / f"{codec.hash.hex()[:8]}.vdf"
    if path.exists():
        print(f"{path.name} stays as it is")
        return
    frames = moving_picture(64, 48, 9)
    still = encode_still(frames[0], 8, 4)
    library = Library((LibraryPicture(64, 48, 8, still),))
    knowing = codec_of(codec.model, codec.motion, codec.tables, library)
    data, _, _ = coded(knowing, frames)
    path.write_bytes(data)
    path.with_suffix(".obu").write_bytes(still)
    hashes[path.name] = {"weights": codec.hash.hex(), "frames": frames_hash(data, knowing)}
    print(f"{path.name}: {len(data)} bytes, and {len(still)} of the library")


if __name__ == "__main__":
    main()
