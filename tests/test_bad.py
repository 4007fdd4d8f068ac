"""Files that once broke something, and one for every way to be refused.

Each ends in a result or in one ViddiffError, in bounded time and memory. scripts/fuzz_decode.py adds to them;
see docs/fuzzing.md.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))

import fuzz_targets  # noqa: E402
from fuzz_mutate import joined, mutated_chunks, split  # noqa: E402

FOLDER = Path(__file__).parent / "data" / "bad"
MOST_BYTES = 400_000
"""Limit for all files together."""


@pytest.mark.parametrize("name", fuzz_targets.KINDS)
def test_every_bad_file_ends_well(name: str) -> None:
    target, endings = fuzz_targets.load(name), dict[str, list[str]]()
    for path in sorted((FOLDER / name).glob("*.bin")):
        endings.setdefault(fuzz_targets.check(target, path.read_bytes()), []).append(path.name)
    assert endings, "there are some for each target"
    assert any(ending != "result" for ending in endings)


def test_bad_files_are_small_and_known() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(fuzz_targets.KINDS)
    assert sum(path.stat().st_size for path in files) < MOST_BYTES


def test_cheap_targets_load_no_pytorch() -> None:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "scripts")))
    code = "import sys, fuzz_bytes; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": paths})


def test_what_is_no_viddiff_error_is_found() -> None:
    """The harness notices a target that fails in another way, or takes too much."""

    def wrong(data: bytes) -> None:
        raise IndexError(data)

    before = bytearray(b"\1") * ((fuzz_targets.MEMORY_MIB + 128) << 20)  # an earlier peak hides nothing
    del before

    def greedy(data: bytes) -> None:
        bytearray(b"\1") * ((fuzz_targets.MEMORY_MIB + 64) << 20)

    with pytest.raises(fuzz_targets.Finding, match="IndexError"):
        fuzz_targets.check(wrong, b"")
    with pytest.raises(fuzz_targets.Finding, match="MiB"):
        fuzz_targets.check(greedy, b"")
    assert fuzz_targets.check(len, b"") == "result"  # type: ignore[arg-type]


def test_mutations_are_mended(small_file: bytes) -> None:
    """After any change of chunks, their lengths and checksums are correct."""
    assert joined(split(small_file)) == small_file
    rng, different = random.Random(1), 0
    for seed in range(200):
        data = mutated_chunks(small_file, 1 << 20, seed, lambda part, _: part[:-1] + rng.randbytes(1))
        if random.Random(seed).random() >= 0.1:  # otherwise the file's very bytes are changed
            assert joined(split(data)) == data, f"{seed = }"
            different += data != small_file
    assert different > 100
