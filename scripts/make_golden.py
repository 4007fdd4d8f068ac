"""Make the golden files: coded with the released weights, to be decoded to the same frames for ever.

    python scripts/make_golden.py

writes tests/data/golden/*.vdf and, in hashes.json beside them, the SHA-256 of the weights that each needs and
of its decoded frames. A file that exists is never replaced: a change that breaks one breaks its users' files.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from conftest import coded, moving_picture  # noqa: E402

from viddiff import checkpoint  # noqa: E402
from viddiff.codec import EncodeOptions  # noqa: E402
from viddiff.machine import released_weights  # noqa: E402
from viddiff.selftest import frames_hash  # noqa: E402

FOLDER = ROOT / "tests" / "data" / "golden"
# Name: width, height, frames, bit depth, options.
FILES = {
    "plain": (80, 48, 12, 8, EncodeOptions(quality=36, gop=10)),
    "low-delay-odd": (35, 33, 6, 8, EncodeOptions(quality=28, low_delay=True)),
    "huffman": (64, 48, 9, 8, EncodeOptions(quality=20, entropy="huffman")),
    "ten-bit": (48, 32, 5, 10, EncodeOptions(quality=50)),
    "best": (48, 32, 9, 8, EncodeOptions(quality=63)),
    "smallest": (96, 64, 9, 8, EncodeOptions(quality=0)),
}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    ledger = FOLDER / "hashes.json"
    hashes = json.loads(ledger.read_text()) if ledger.exists() else {}
    codec = checkpoint.load(released_weights())
    for name, (width, height, count, bit_depth, options) in FILES.items():
        path = FOLDER / f"{name}-{codec.hash.hex()[:8]}.vdf"
        if path.exists():
            print(f"{path.name} stays as it is")
            continue
        data, _, _ = coded(codec, moving_picture(width, height, count, bit_depth), bit_depth, options)
        path.write_bytes(data)
        hashes[path.name] = {"weights": codec.hash.hex(), "frames": frames_hash(data, codec)}
        print(f"{path.name}: {len(data)} bytes")
    ledger.write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
