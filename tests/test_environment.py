"""Nothing is taken for granted of the place where commands run: home, caches, streams, encodings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import moving_picture
from test_cli import write

from viddiff import compiled

PLAIN = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")} | {
    "OMP_NUM_THREADS": "1"
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write(path, moving_picture(32, 32, 3))
    return path


def shell(
    command: str, folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `command` with $V for viddiff."""
    return subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=PLAIN | {"V": f"{sys.executable} -m viddiff", "HOME": str(folder)} | (environment or {}),
        capture_output=True,
        timeout=300,
    )


@pytest.mark.parametrize("redirected", ["<&- >&- 2>&-", "--json 2>/dev/full"])
def test_closed_streams(clip: Path, base_weights: Path, tmp_path: Path, redirected: str) -> None:
    """The file is whole: nothing that is said goes into it."""
    shutil.copy(clip, tmp_path / "a.mkv")
    result = shell(f"$V encode a.mkv --weights {base_weights} --workers 1 {redirected}", tmp_path)
    assert result.returncode == 0, result.stderr
    result = shell(f"$V decode a.vdf --strict --weights {base_weights} --workers 1 {redirected}", tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "a.mp4", "a.vdf"]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("$V encode a.mkv - >&-", "Error: stdout is closed"),
        ("$V encode a.mkv - >/dev/full", "Error: No space left on device"),
        ("$V decode - a.mp4 <&-", "Error: stdin is closed"),
        ("$V encode - a.vdf <&-", "Error: stdin cannot be read"),
        ("$V info --model >/dev/full", "Error: No space left on device"),
        ("$V --help >/dev/full", "No space left on device"),
    ],
)
def test_streams_that_are_needed(
    clip: Path, base_weights: Path, tmp_path: Path, command: str, says: str
) -> None:
    shutil.copy(clip, tmp_path / "a.mkv")
    result = shell(command, tmp_path)
    assert result.returncode == 1, result.stderr
    assert says in result.stderr.decode()
    assert b"Traceback" not in result.stderr
    assert b"Exception ignored" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def viddiff(*arguments: bytes | str, **environment: str) -> bytes:
    """What a command prints that ends well."""
    result = subprocess.run(
        [sys.executable, "-m", "viddiff", *arguments],
        env=PLAIN | {"HOME": "/nonexistent"} | environment,
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_names_of_any_bytes(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    """Said on a terminal that has only ASCII."""
    source, folder = os.fsencode(clip), os.fsencode(tmp_path)
    for name in (b"a\xff\xfe\x80 \n;$(c)'\"", "映画".encode()):
        there, vdf, back = (folder + b"/" + name + suffix for suffix in (b".mkv", b".vdf", b".mp4"))
        shutil.copyfile(source, there)
        said = viddiff(
            "encode", there, "--json", "-q", "--workers", "1", "--weights", str(base_weights), **ASCII
        )
        assert json.loads(said)["input"] == os.fsdecode(there)
        viddiff("decode", vdf, "--workers", "1", "--weights", str(base_weights), **ASCII)
        assert os.path.exists(back)


@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "ascii:strict"}, {"LANG": "xx_XX.any"}])
def test_any_encoding_of_the_terminal(
    clip: Path, base_weights: Path, tmp_path: Path, small_file: bytes, environment: dict[str, str]
) -> None:
    for name in ("grün".encode(), b"a\xff"):
        path = os.fsencode(tmp_path) + b"/" + name + b".vdf"
        with open(path, "wb") as file:
            file.write(small_file)
        assert b"keyframes" in viddiff("info", path, **environment)


def test_no_cache_can_be_written(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    """Of numba: no home, and nothing beside the source."""
    shutil.copy(clip, tmp_path / "a.mkv")
    nowhere = tmp_path / "nowhere"
    nowhere.touch()
    environment = {"HOME": str(nowhere), "NUMBA_CACHE_DIR": str(nowhere), "TMPDIR": str(tmp_path)}
    environment["NUMBA_CACHE_LOCATOR_CLASSES"] = (
        "UserProvidedCacheLocator"  # as if the package were read-only
    )
    result = shell(f"$V encode a.mkv --weights {base_weights} --workers 1 -q", tmp_path, environment)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "a.vdf").exists()


def test_a_cache_that_fails_costs_nothing_but_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.FunctionCache.save_overload", fail)
    monkeypatch.setattr("numba.core.caching.FunctionCache.load_overload", fail)

    def double(x: int) -> int:
        return 2 * x

    assert compiled.compiled(double)(4) == 8
