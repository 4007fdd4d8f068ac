"""Weights are found by the hash that a file asks for: released ones, the user's own, and named ones."""

import json
import shutil
import struct
from pathlib import Path

import pytest
from conftest import moving_picture
from test_cli import refused, run, write

import viddiff
from viddiff.codec.tensor_file import stated_hash
from viddiff.codec.weights import Codec
from viddiff.errors import CheckpointError
from viddiff.pipeline.weights_search import (
    keep_copy,
    released_weights,
    user_folder,
    weights_to_decode,
    weights_to_encode,
)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder for weights, which is not there yet."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("VIDDIFF_WEIGHTS", raising=False)
    return tmp_path / "data" / "viddiff" / "weights"


@pytest.fixture(scope="module")
def encoded(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoded")
    write(folder / "a.mkv", moving_picture(32, 32, 2))
    result = run("encode", folder / "a.mkv", "--weights", weights, "-q")
    assert result.exit_code == 0, result.output
    return folder / "a.vdf"


def test_where_it_looked(own: Path, encoded: Path, codec: Codec, tmp_path: Path) -> None:
    message = refused(run("decode", encoded, tmp_path / "a.mp4"))
    assert codec.hash.hex()[:16] in message
    assert "among the released ones" in message
    assert f"in {own}" in message
    assert "--weights" in message
    assert not (tmp_path / "a.mp4").exists()


def test_the_users_folder(own: Path, encoded: Path, weights: Path, codec: Codec, tmp_path: Path) -> None:
    """Where training leaves a copy, among files of all sorts."""
    copy = keep_copy(weights, codec.hash)
    assert copy is not None
    assert (copy.parent, copy.read_bytes()) == (own, weights.read_bytes())
    (own / "a.safetensors").write_bytes(b"junk")
    (own / "b.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{")
    (own / "c.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")
    (own / "d.safetensors").mkdir()
    assert run("decode", encoded, tmp_path / "a.mp4", "-q").exit_code == 0
    assert weights_to_decode(codec.hash, None) == copy
    with viddiff.open(encoded) as video:
        assert len(list(video)) == 2


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_file_or_a_folder_that_is_named(
    own: Path,
    encoded: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    folder: bool,
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    shutil.copy(released_weights("none"), place / "a.safetensors")
    shutil.copy(weights, place / "b.safetensors")
    named = place if folder else place / "b.safetensors"
    if how == "variable":
        monkeypatch.setenv("VIDDIFF_WEIGHTS", str(named))
    options = ["--weights", named] if how == "option" else []
    assert run("decode", encoded, tmp_path / "a.mp4", "-q", *options).exit_code == 0


def test_the_variable_says_what_to_encode_with(
    own: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights_to_encode(None) == released_weights("av1")
    assert weights_to_encode(None, "none") == released_weights("none")
    monkeypatch.setenv("VIDDIFF_WEIGHTS", str(weights))
    assert weights_to_encode(None) == weights
    monkeypatch.setenv("VIDDIFF_WEIGHTS", str(tmp_path))
    assert weights_to_encode(None) == released_weights("av1")
    assert weights_to_encode(None, "none") == released_weights("none")
    with pytest.raises(CheckpointError, match="is a folder"):
        weights_to_encode(tmp_path)


def test_by_hash(own: Path, weights: Path, codec: Codec, released: Codec) -> None:
    assert weights_to_encode(released.hash.hex()[:8]) == released_weights("none")
    assert viddiff.load_weights(released.hash.hex(), "cpu").hash == released.hash
    with pytest.raises(CheckpointError, match="are not here"):
        weights_to_encode(codec.hash.hex()[:12])
    copy = keep_copy(weights, codec.hash)
    assert weights_to_encode(codec.hash.hex()[:12]) == copy
    with pytest.raises(CheckpointError):
        viddiff.load_weights("675f")


def test_released_weights_by_name(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless there is a file of that name."""
    monkeypatch.chdir(tmp_path)
    assert weights_to_encode("enhancement-small") == released_weights("av1")
    assert viddiff.load_weights("small", "cpu").hash.hex() == stated_hash(released_weights("none"))
    for name in ("enhancement", "checkpoints/small"):
        assert weights_to_encode(name) == Path(name)
    Path("small").touch()
    assert weights_to_encode("small") == Path("small")


def test_nobody_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, codec: Codec, weights: Path) -> None:
    """No home directory, or none that can be written: nothing is kept, and nothing fails."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert user_folder() is None
    assert keep_copy(weights, codec.hash) is None
    with pytest.raises(CheckpointError, match="among the released ones; "):
        weights_to_decode(codec.hash, None)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert keep_copy(weights, codec.hash) is None
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert user_folder() is None


def test_a_stated_hash_is_read_without_the_tensors(weights: Path, codec: Codec, tmp_path: Path) -> None:
    assert stated_hash(weights) == codec.hash.hex()
    header = json.dumps({"__metadata__": {"hash": "ab"}}).encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header)
    assert stated_hash(tmp_path / "a") == "ab"
    for data in (b"", b"\0" * 8, struct.pack("<Q", 9) + b"[" * 9, struct.pack("<Q", 4) + b"null"):
        (tmp_path / "b").write_bytes(data)
        assert stated_hash(tmp_path / "b") == ""
    assert stated_hash(tmp_path / "c") == ""
