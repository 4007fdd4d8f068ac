"""Released weights and golden files are found from anywhere, in an editable and in a wheel installation."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """if True:
    import sys
    from pathlib import Path
    import viddiff
    from viddiff.codec.tensor_file import stated_hash
    from viddiff.pipeline.selftest import golden_folder
    from viddiff.pipeline.weights_search import weights_to_encode
    weights = weights_to_encode(None)
    assert len(stated_hash(weights)) == 64, weights
    assert weights_to_encode(stated_hash(weights)[:8]) == weights
    assert (golden_folder() / "hashes.json").exists(), golden_folder()
    print(Path(viddiff.__file__).parent, weights)
"""


def run_in(folder: Path, *arguments: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_from_another_folder(tmp_path: Path) -> None:
    """As it is installed here."""
    assert str(ROOT / "viddiff") in run_in(tmp_path, "-c", PROGRAM)


def builders() -> bool:
    """Whether what builds wheels is here, so that nothing has to be fetched."""
    if not (importlib.util.find_spec("pip") and importlib.util.find_spec("setuptools")):
        return False
    return int(importlib.metadata.version("setuptools").split(".")[0]) >= 77


@pytest.mark.skipif(not builders(), reason="a wheel is built by pip and setuptools 77 or later")
def test_a_wheel(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("viddiff", "checkpoints", "tests/data/golden"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.nb?"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-q")
    run_in(tmp_path, "-m", "pip", "wheel", str(source), *options, "-w", str(tmp_path))
    (wheel,) = tmp_path.glob("viddiff-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"viddiff/py.typed", "viddiff/checkpoints/small.safetensors"} <= names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "viddiff").rglob("*.py")}
    assert modules <= names
    run_in(tmp_path, "-m", "pip", "install", *options, "--target", str(target), str(wheel))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = run_in(elsewhere, "-c", PROGRAM, PYTHONPATH=str(target)).split()
    assert all(place.startswith(str(target)) for place in found), found
