"""`viddiff batch` with targets: each file has its own, the manifest knows it, and what does not pay stays."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture
from test_batch import interruptible, lines, objects, states, tree  # noqa: F401 (a fixture)
from test_cli import refused, write

from viddiff.cli import main
from viddiff.file_names import hidden_beside
from viddiff.pipeline.size_target import encode_to_size

Batch = Callable[..., Result]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two videos, of which the second has more frames."""
    folder = tmp_path / "source"
    folder.mkdir()
    write(folder / "a.mkv", moving_picture(64, 48, 6))
    write(folder / "b.mkv", moving_picture(64, 48, 12, seed=1))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def batch(base_weights: Path, source: Path, out: Path) -> Batch:
    """Run a batch of `source` to `out`."""

    def run(*options: object) -> Result:
        common = [
            "--weights",
            base_weights,
            "--workers",
            1,
            "--min-age",
            "0s",
            "--preset",
            "fastest",
            "--json",
            "-q",
        ]
        return CliRunner().invoke(main, [str(a) for a in ["batch", source, out, *common, *options]])

    return run


def alone(source: Path, target: Path, weights: Path, *options: object) -> dict[str, Any]:
    """What `encode` says of a file."""
    common = ["--weights", weights, "--workers", 1, "--preset", "fastest", "--json", "-q"]
    result = CliRunner().invoke(main, [str(a) for a in ["encode", source, target, *common, *options]])
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return values


@pytest.mark.parametrize(
    ("options", "target"),
    [
        (["--min-psnr", 36], {"min_psnr": 36, "pool": "mean"}),
        (["--size", "4k"], {"size": 4000}),
        (["--bitrate", "90k", "--verify"], {"bitrate": 90_000}),
        (
            ["--maxrate", "80k", "--bufsize", "30k"],
            {"quality": 32, "maxrate": 80_000, "bufsize": 30_000},
        ),
    ],
)
def test_each_file_reaches_the_target(
    batch: Batch, source: Path, out: Path, base_weights: Path, tmp_path: Path, options: list[Any], target: Any
) -> None:
    result = batch(*options)
    assert result.exit_code == 0, result.output
    assert tree(out) == {"a.mkv.vdf", "b.mkv.vdf", "manifest.jsonl"}
    for line, name in zip(lines(out), ("a.mkv", "b.mkv"), strict=True):
        data = (out / f"{name}.vdf").read_bytes()
        alone(source / name, tmp_path / name, base_weights, *options)
        assert data == (tmp_path / name).read_bytes(), "as `encode` makes it"
        assert (line["bytes"], line["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert line["target"] == target
        assert line["verified"] == ("--verify" in options)
    assert set(states(batch(*options)).values()) == {"skipped"}


def test_a_changed_target_encodes_again(batch: Batch, out: Path) -> None:
    assert batch("--min-psnr", 34).exit_code == 0
    before = (out / "a.mkv.vdf").read_bytes()
    for options in (["--min-psnr", 38], ["--min-psnr", 38, "--pool", "p5"], ["--size", "4k"], []):
        assert set(states(batch(*options)).values()) == {"done"}, options
        assert set(states(batch(*options)).values()) == {"skipped"}, options
    assert (out / "a.mkv.vdf").read_bytes() != before
    assert set(states(batch("--quality", 20)).values()) == {"skipped"}, "a quality is not compared"


def percent_between(source: Path, base_weights: Path, tmp_path: Path) -> float:
    """A share of their sources that one of two files has at quality 32, and the other has not."""
    shares = []
    for name in ("a.mkv", "b.mkv"):
        size = alone(source / name, tmp_path / name, base_weights)["bytes"]
        shares.append(100 * size / (source / name).stat().st_size)
    assert max(shares) > 1.1 * min(shares)
    return float(sum(shares)) / 2


def test_what_does_not_pay_is_left_as_it_is(
    batch: Batch, source: Path, out: Path, base_weights: Path, tmp_path: Path
) -> None:
    """It is no failure, it is not tried again, and its source is never deleted."""
    percent = percent_between(source, base_weights, tmp_path)
    first = states(batch("--max-encoded-percent", percent, "--dry-run"))
    assert set(first.values()) == {"planned"}
    result = batch("--max-encoded-percent", percent, "--delete-source")
    assert result.exit_code == 0, result.output
    found = states(result)
    assert sorted(found.values()) == ["done", "too_large"]
    (kept,) = (name.removesuffix(".vdf") for name, state in found.items() if state == "too_large")
    assert [file.name for file in source.iterdir()] == [kept]
    assert f"{kept}.vdf" not in tree(out)
    assert not list(out.glob(".*"))
    (line,) = (line for line in lines(out) if line["too_large"])
    assert "% are wanted" in line["too_large"]
    assert (line["error"], line["bytes"], line["verified"]) == (None, None, False)
    assert line["target"] == {"quality": 32, "max_encoded_percent": pytest.approx(percent)}
    *units, totals = objects(result)
    assert (totals["done"], totals["too_large"], totals["failed"]) == (1, 1, 0)
    assert {unit["reason"] for unit in units} == {None, line["too_large"]}

    again = batch("--max-encoded-percent", percent, "--delete-source")
    assert states(again) == {f"{kept}.vdf": "too_large"}
    assert len(lines(out)) == 2, "it is known"
    assert states(batch("--max-encoded-percent", percent, "--gop", 9)) == {f"{kept}.vdf": "too_large"}
    assert len(lines(out)) == 3, "with other options it might have been smaller"
    assert states(batch("--max-encoded-percent", 1000, "--delete-source")) == {f"{kept}.vdf": "done"}
    assert list(source.iterdir()) == []


def test_what_does_not_pay_any_more_keeps_its_file_and_source(batch: Batch, source: Path, out: Path) -> None:
    assert batch("--verify").exit_code == 0
    data = (out / "a.mkv.vdf").read_bytes()
    assert set(states(batch("--max-encoded-percent", 1, "--delete-source")).values()) == {"too_large"}
    assert (out / "a.mkv.vdf").read_bytes() == data
    assert len(list(source.iterdir())) == 2
    assert "kept" not in batch("--delete-source").output, "the first file counts for the first target"
    assert list(source.iterdir()) == []


def test_a_target_that_cannot_be_reached_is_a_failure(batch: Batch, source: Path, out: Path) -> None:
    result = batch("--min-psnr", 99, "--delete-source")
    assert result.exit_code == 3
    assert set(states(result).values()) == {"failed"}
    assert all("even at quality 63" in line["error"] for line in lines(out))
    assert len(list(source.iterdir())) == 2


def test_a_full_manifest_keeps_a_sized_file_from_its_name(
    batch: Batch, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("viddiff.pipeline.batch.manifest.os.fsync", full)
    assert "No space left" in refused(batch("--size", "4k"))
    assert not list(out.glob("*.vdf"))
    assert not list(out.glob(".*"))


def test_what_a_kill_has_left_is_removed(batch: Batch, source: Path, out: Path) -> None:
    """Also passes of a search, which cannot be continued."""
    target = out / "a.mkv.vdf"
    out.mkdir()

    def leave() -> None:
        hidden_beside(target, ".lock").touch()
        first = hidden_beside(target, ".0123abcd.part")
        for left in (first, hidden_beside(first, ".4567cdef.part")):
            left.write_bytes(b"part")

    leave()
    (out / ".a.mkv.vdf.mine.part").write_bytes(b"somebody's")
    for _ in range(2):
        assert batch("--size", "4k").exit_code == 0
        assert sorted(file.name for file in out.glob(".*")) == [".a.mkv.vdf.mine.part"]
        leave()


def test_ctrl_c_in_a_search_leaves_nothing(batch: Batch, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = list[object]()

    def interrupted(job: Any, run: Any, *others: Any) -> Any:
        def stop(single: Any, watch: Any) -> Any:
            passes.append(single)
            if len(passes) == 3:
                raise KeyboardInterrupt
            return run(single, watch)

        return encode_to_size(job, stop, *others)

    monkeypatch.setattr("viddiff.pipeline.encode_file.encode_to_size", interrupted)
    assert batch("--size", "4k").exit_code == 130
    assert tree(out) == {"manifest.jsonl"}
    assert lines(out) == []


def test_vmaf_without_ffmpeg_ends_the_batch_at_once(
    batch: Batch, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("viddiff.media.vmaf.find_ffmpeg", lambda _: None)
    assert "viddiff[vmaf]" in refused(batch("--min-vmaf", 90))
    assert lines(out) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--size", "1M", "--min-psnr", "40"], "one of"),
        (["--size", "1M", "--quality", "20"], "--quality"),
        (["--pool", "p5"], "--pool"),
        (["--size", "1M", "--max-encoded-percent", "80"], "--size"),
        (["--max-encoded-percent", "0"], "more than 0"),
    ],
)
def test_wrong_use(batch: Batch, out: Path, options: list[str], why: str) -> None:
    assert why in refused(batch(*options), 2)
    assert not out.exists()
