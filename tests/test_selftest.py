"""`viddiff selftest` passes here, and fails for a changed file or hash."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from viddiff.cli import main
from viddiff.pipeline import selftest


@pytest.fixture(autouse=True)
def _keep_threads() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def smallest_golden(copy: Path) -> Path:
    """A golden folder with the two smallest files."""
    source = selftest.golden_folder()
    copy.mkdir()
    known = json.loads((source / "hashes.json").read_text())
    kept = {}
    for name in sorted(known, key=lambda name: (source / name).stat().st_size)[:2]:
        shutil.copy(source / name, copy)
        kept[name] = known[name]
    (copy / "hashes.json").write_text(json.dumps(kept))
    return copy


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = smallest_golden(tmp_path / "golden")
    monkeypatch.setattr(selftest, "golden_folder", lambda: copy)
    return copy


def test_this_machine_passes(folder: Path) -> None:
    result = CliRunner().invoke(main, ["selftest"])
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()][:3] == ["device", "cpu", "cpu"]
    assert all(line.endswith("same") for line in result.stdout.splitlines()[1:])


@pytest.mark.parametrize("damage", ["hash", "file", "weights"])
def test_differences_are_found(folder: Path, damage: str) -> None:
    ledger = folder / "hashes.json"
    known = json.loads(ledger.read_text())
    name, _ = known
    if damage == "file":
        data = bytearray((folder / name).read_bytes())
        data[-60] ^= 1
        (folder / name).write_bytes(data)
    else:
        known[name]["frames" if damage == "hash" else "weights"] = "00" * 32
        ledger.write_text(json.dumps(known))
    result = CliRunner().invoke(main, ["selftest"])
    assert result.exit_code == 1
    assert "decoded files differ" in result.stderr
    assert ("are not released" in result.stdout) == (damage == "weights")
