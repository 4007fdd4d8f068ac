"""`viddiff batch`: a mirrored tree, what is done and what is not, and nothing lost."""

import hashlib
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from conftest import moving_picture
from test_cli import refused, write

from viddiff.cli import main
from viddiff.codec.tensor_file import stated_hash
from viddiff.container.format import Writer
from viddiff.container.part_file import PartFile
from viddiff.encoder.base_gop_encoder import BaseGopEncoder
from viddiff.errors import VerificationError
from viddiff.file_names import hidden_beside
from viddiff.pipeline.batch import run as batch
from viddiff.pipeline.batch.flushing import flush_folder
from viddiff.pipeline.batch.manifest import Manifest
from viddiff.pipeline.batch.units import Shard, Unit, find_units
from viddiff.pipeline.batch.weights_map import WeightsMap
from viddiff.pipeline.encode_file import CodedFile, encode_file
from viddiff.pipeline.weights_search import released_weights

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
Encoder = Callable[..., Result]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write(path, moving_picture(32, 32, 5))
    return path


@pytest.fixture
def source(clip: Path, tmp_path: Path) -> Path:
    """A tree of two videos, and what else cameras and people leave there."""
    folder = tmp_path / "source"
    (folder / "door" / "night").mkdir(parents=True)
    shutil.copy(clip, folder / "a.mkv")
    shutil.copy(clip, folder / "door" / "night" / "b.MKV")
    for name in ("photo.jpg", "door/notes.txt", ".hidden.mkv", "door/._b.mkv"):
        (folder / name).write_text("not a video")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def options_of(weights: Path) -> list[object]:
    """How these tests encode: two GOPs, quickly."""
    return ["--gop", 3, "--weights", weights, "--preset", "fastest", "--workers", 1]


@pytest.fixture
def encode(base_weights: Path, source: Path, out: Path) -> Encoder:
    """Run a batch of `source` to `out`."""

    def run(*options: object, sources: tuple[object, ...] = (source,), age: str = "0s") -> Result:
        arguments = ["batch", *sources, out, *options_of(base_weights), "--min-age", age, *options]
        return CliRunner().invoke(main, [str(a) for a in arguments])

    return run


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Make SIGINT work, and keep the handlers of signals as they are."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def tree(folder: Path) -> set[str]:
    """All files below a folder, without archived weights."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("weights/")}


def lines(out: Path, name: str = "manifest.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def states(result: Result) -> dict[str, str]:
    """States by output, of a batch with --json."""
    return {unit["output"]: unit["state"] for unit in objects(result) if "state" in unit}


def test_a_tree_is_mirrored_and_recorded(
    encode: Encoder, source: Path, out: Path, base_weights: Path, clip: Path
) -> None:
    result = encode("--verify")
    assert result.exit_code == 0, result.output
    assert tree(out) == {"a.mkv.vdf", "door/night/b.MKV.vdf", "manifest.jsonl"}
    assert "2 done" in result.stderr
    assert "1 .jpg, 1 .txt" in result.stderr
    for line, name in zip(lines(out), ("a.mkv", "door/night/b.MKV"), strict=True):
        data, seen = (out / f"{name}.vdf").read_bytes(), (source / name).stat()
        assert line["source"] == str(source / name)
        assert line["output"] == f"{name}.vdf"
        assert (line["size"], line["mtime_ns"]) == (seen.st_size, seen.st_mtime_ns)
        assert (line["bytes"], line["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert line["weights"] == stated_hash(base_weights)
        assert (line["frames"], line["verified"], line["error"]) == (5, True, None)
    single = source / "single.vdf"
    arguments = ["encode", clip, single, *options_of(base_weights)]
    assert CliRunner().invoke(main, [str(a) for a in arguments]).exit_code == 0
    assert single.read_bytes() == (out / "a.mkv.vdf").read_bytes(), "as `encode` makes it"


def test_what_is_done_is_skipped_until_it_changes(encode: Encoder, source: Path, out: Path) -> None:
    assert encode().exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.vdf")}
    result = encode("--json")
    assert set(states(result).values()) == {"skipped"}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.vdf")} == before
    assert len(lines(out)) == 2
    write(source / "a.mkv", moving_picture(32, 32, 3))
    (out / "door" / "night" / "b.MKV.vdf").unlink()
    result = encode("--json")
    assert states(result) == {"a.mkv.vdf": "done", "door/night/b.MKV.vdf": "done"}, result.output
    assert lines(out)[2]["frames"] == 3
    assert set(states(encode("--json")).values()) == {"skipped"}


def test_a_file_that_the_manifest_does_not_know_is_never_replaced(encode: Encoder, out: Path) -> None:
    assert encode().exit_code == 0
    (out / "manifest.jsonl").unlink()
    kept = (out / "a.mkv.vdf").read_bytes()
    (out / "door" / "night" / "b.MKV.vdf").write_bytes(b"somebody's")
    result = encode()
    assert result.exit_code == 3
    assert result.stderr.count("not as the manifest records it") >= 2
    assert (out / "a.mkv.vdf").read_bytes() == kept
    assert (out / "door" / "night" / "b.MKV.vdf").read_bytes() == b"somebody's"


def test_dry_run_writes_nothing(encode: Encoder, out: Path) -> None:
    result = encode("--dry-run", "--json")
    assert result.exit_code == 0
    assert set(states(result).values()) == {"planned"}
    assert objects(result)[-1]["planned"] == 2
    assert not out.exists()


def test_one_bad_file_does_not_stop_the_others(encode: Encoder, source: Path, out: Path) -> None:
    (source / "0.mp4").write_bytes(b"no video")
    result = encode("--json", "-q")
    assert result.exit_code == 3
    *_, totals = objects(result)
    assert (totals["done"], totals["failed"]) == (2, 1)
    assert [failure["source"] for failure in totals["failures"]] == [str(source / "0.mp4")]
    assert "0.mp4" in result.stderr.splitlines()[-1]
    (failed,) = (line for line in lines(out) if line["error"])
    assert "cannot be read as a video" in failed["error"]
    assert tree(out) == {"a.mkv.vdf", "door/night/b.MKV.vdf", "manifest.jsonl"}


def test_any_error_of_one_file_is_its_own(
    encode: Encoder, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = encode_file

    def broken(job: Any, *others: Any) -> Any:
        if job.source.name == "a.mkv":
            raise ZeroDivisionError("unforeseen")
        return original(job, *others)

    monkeypatch.setattr(batch, "encode_file", broken)
    result = encode()
    assert result.exit_code == 3
    assert "ZeroDivisionError: unforeseen" in result.stderr
    assert "door/night/b.MKV.vdf" in tree(out)


def test_an_unreadable_folder_and_file(
    encode: Encoder, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for root, who may read everything."""
    scan = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("night"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    os.mkfifo(source / "pipe.mp4")
    (source / "gone.mp4").symlink_to(source / "nowhere.mp4")
    result = encode("--json")
    assert result.exit_code == 3
    reasons = {Path(f["source"]).name: f["reason"] for f in objects(result)[-1]["failures"]}
    assert set(reasons) == {"night", "pipe.mp4", "gone.mp4"}
    assert "Permission denied" in reasons["night"]
    assert "not a regular file" in reasons["pipe.mp4"]
    assert "a.mkv.vdf" in tree(out)
    for glob in ("**/*.MKV", "*/*/*.MKV"):
        result = encode("--json", sources=(source / glob,))
        assert [Path(f["source"]).name for f in objects(result)[-1]["failures"]] == ["night"], result.output


def test_young_files_are_left_alone(encode: Encoder, source: Path, out: Path) -> None:
    hour, now = 3600, time.time()
    os.utime(source / "a.mkv", (now - hour, now - hour))
    result = encode("--json", age="10m")
    assert result.exit_code == 0
    assert states(result) == {"a.mkv.vdf": "done", "door/night/b.MKV.vdf": "waiting"}
    assert states(encode("--older-than", "7d", "--json"))["door/night/b.MKV.vdf"] == "waiting"
    os.utime(source / "door/night/b.MKV", (now + 100 * hour, now + 100 * hour))
    assert states(encode("--json", age="10m"))["door/night/b.MKV.vdf"] == "done", "the clock was wrong"


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_file_that_grows_is_left_alone(
    encode: Encoder, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Also if it keeps an old time, as a copy does."""
    path, old = source / "a.mkv", time.time() - 86400
    os.utime(path, (old, old))
    os.utime(source / "door/night/b.MKV", (old, old))

    def grow() -> None:
        with open(path, "ab") as file:
            file.write(b"more")
        os.utime(path, (old, old))

    original = PartFile.finish

    def finish(self: PartFile) -> None:
        if "a.mkv" in self.path.name:
            grow()
        original(self)

    if moment == "before":
        monkeypatch.setattr("viddiff.pipeline.batch.run.time.sleep", lambda _: grow())
    else:
        monkeypatch.setattr(PartFile, "finish", finish)
    result = encode("--json", age="60s")
    monkeypatch.undo()
    assert result.exit_code == 0, result.output
    assert states(result) == {"a.mkv.vdf": "waiting", "door/night/b.MKV.vdf": "done"}
    assert tree(out) == {"door/night/b.MKV.vdf", "manifest.jsonl"}
    assert states(encode("--json"))["a.mkv.vdf"] == "done"


def test_shards_are_complete_and_disjoint(encode: Encoder, clip: Path, source: Path, out: Path) -> None:
    units = [Unit(f"camera{n % 7}/{n}.mp4", Path(f"/{n}")) for n in range(500)]
    for count in (1, 2, 3, 8):
        shards = [[u for u in units if Shard(n, count).holds(u.name)] for n in range(count)]
        assert sorted(u.name for shard in shards for u in shard) == sorted(u.name for u in units)
        assert min(map(len, shards)) > 500 / count / 2
    for n in range(4):
        shutil.copy(clip, source / f"{n}.mkv")
    done = [states(encode("--shard", f"{n}/3", "--json")) for n in range(3)]
    assert sum(map(len, done)) == 6
    assert set().union(*done) == tree(out) - {f"manifest.{n}-of-3.jsonl" for n in range(3)}
    assert [len(lines(out, f"manifest.{n}-of-3.jsonl")) for n in range(3)] == [len(d) for d in done]
    assert set(states(encode("--json")).values()) == {"skipped"}, "all manifests are read"


@pytest.mark.parametrize("shard", ["2/2", "x", "1", "0/0", "-1/2"])
def test_wrong_shards(encode: Encoder, shard: str) -> None:
    refused(encode("--shard", shard), 2)


def test_sources_of_all_kinds(
    clip: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("door/c.dav", "door/d[1].mp4", "-", "@e.mp4"):
        (source / name).touch()
    (tmp_path / "list.txt").write_text("# what matters\n\nsource/a.mkv\nsource/door\n../x.mp4\n")

    def names(*sources: str) -> set[str]:
        return set(find_units(sources, tmp_path / "out").units)

    assert names("source") == {"a.mkv", "door/night/b.MKV", "door/d[1].mp4", "@e.mp4"}
    assert names("source/") == names("source/../source/.") == names(str(source)) == names("source")
    assert names("source/door", "source/a.mkv") == {"a.mkv", "night/b.MKV", "d[1].mp4"}
    assert names("source/*/night") == {"door/night/b.MKV"}
    assert names("source/**") == names("source")
    assert names("source/**/*.MKV") == names("source/**/**/*.MKV") == {"door/night/b.MKV"}
    assert names("*/door/**/[!x]*") == {f"source/door/{name}" for name in ("d[1].mp4", "night/b.MKV")}
    assert names(f"{tmp_path}/**/night/*") == {"source/door/night/b.MKV"}
    assert names("source/door/*.dav") == {"c.dav"}, "the glob says that it is a video"
    assert names("source/door/*") == {"d[1].mp4", "night/b.MKV"}
    assert names("source/door/c.dav") == {"c.dav"}, "so does a name"
    assert names("source/door/d[1].mp4") == {"d[1].mp4"}
    assert names("nothing*.mp4") == set()
    listed = {"source/a.mkv", "source/door/night/b.MKV", "source/door/d[1].mp4", "x.mp4"}
    assert names("@list.txt") == listed
    found = find_units(["source/-", "./source/@e.mp4", "@list.txt"], tmp_path / "out").units
    assert all(unit.path.is_absolute() for unit in found.values())
    assert found["x.mp4"].problem == "it does not exist"
    assert not found["source/a.mkv"].problem
    (tmp_path / "source" / "out").mkdir()
    shutil.copy(clip, source / "out" / "back.mkv")
    for text in ("source", "source/**", "source/**/*.mkv", "source/*/*.mkv"):
        assert "out/back.mkv" not in find_units([text], source / "out").units, "the target is no source"
    assert "out/back.mkv" in find_units(["source"], source).units


def test_links_to_folders_are_not_followed(source: Path, tmp_path: Path) -> None:
    """One that leads up would have everything found many times."""
    before = find_units([str(source)], tmp_path).units
    (source / "door" / "up").symlink_to(source)
    (source / "door" / "self.mkv").symlink_to("self.mkv")
    (source / "c.mkv").symlink_to("a.mkv")
    for text in ("", "/**", "/*", "/**/*.[mM]*"):
        found = find_units([f"{source}{text}"], tmp_path).units
        assert set(found) == {*before, "c.mkv", "door/self.mkv"}, text
    assert set(find_units([f"{source}/door/up"], tmp_path).units) == {*before, "c.mkv", "door/self.mkv"}


def test_names_that_no_file_has(encode: Encoder, source: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a\0.mp4\n" + b"\xff" * 300 + b".mp4\n")
    long = source / f"{'b' * 250}.mkv"
    shutil.copy(source / "a.mkv", long)
    result = encode("--json", sources=(f"@{tmp_path / 'list'}", source))
    assert result.exit_code == 3, result.output
    assert [len(objects(result)[-1]["failures"]), objects(result)[-1]["done"]] == [3, 2]
    assert "File name too long" in result.stderr
    assert "empty name" in refused(encode(sources=("",)))
    assert "No such file" in refused(encode(sources=("@nowhere",)))


def test_two_sources_with_one_name_are_refused(encode: Encoder, source: Path, out: Path, clip: Path) -> None:
    other = source.with_name("other")
    other.mkdir()
    shutil.copy(clip, other / "a.mkv")
    assert "would both become a.mkv.vdf" in refused(encode(sources=(source, other)))
    assert not out.exists()
    shutil.copy(clip, source / "a.mp4")
    assert encode(sources=(source, source / "a.mkv")).exit_code == 0
    assert {"a.mkv.vdf", "a.mp4.vdf"} <= tree(out)


def test_sources_are_deleted_only_after_verification(
    encode: Encoder, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encode(sources=(source / "a.mkv",)).exit_code == 0
    result = encode("--delete-source", "--json")
    assert result.exit_code == 0
    first, second, _ = (unit for unit in objects(result) if "progress" not in unit)
    assert (first["deleted"], first["reason"]) == (False, "the source is kept: its file was not verified")
    assert second["deleted"]
    assert second["verified"]
    assert (source / "a.mkv").exists()
    assert not (source / "door/night/b.MKV").exists()

    def fail(*_: object) -> None:
        raise VerificationError("a frame differs")

    monkeypatch.setattr("viddiff.pipeline.encode_file.verify", fail)
    write(source / "a.mkv", moving_picture(32, 32, 4))
    before = (out / "a.mkv.vdf").read_bytes()
    result = encode("--delete-source")
    assert result.exit_code == 3
    assert (source / "a.mkv").exists()
    assert (out / "a.mkv.vdf").read_bytes() == before
    monkeypatch.undo()
    assert encode("--delete-source").exit_code == 0
    assert not (source / "a.mkv").exists()
    listed = encode("--delete-source", "--json", sources=(source / "a.mkv", source))
    assert listed.exit_code == 0, "a source that is named, done and deleted is no failure"


def test_a_source_is_kept_if_anything_is_doubtful(
    encode: Encoder, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = source / "a.mkv", source / "door/night/b.MKV"
    original = encode_file

    def noted(job: Any, observe: Any, announce: Callable[[CodedFile], None]) -> Any:
        notes = ("damaged frames were left out",) if job.source == a else ()
        return original(job, observe, lambda coded: announce(replace(coded, notes=notes)))

    monkeypatch.setattr(batch, "encode_file", noted)
    assert encode("--verify").exit_code == 0
    monkeypatch.undo()
    path = out / "door/night/b.MKV.vdf"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = encode("--delete-source")
    assert result.exit_code == 3
    assert "is damaged" in result.stderr
    assert "kept: damaged frames" in result.stderr
    assert a.exists()
    assert b.exists()
    path.write_bytes(data)
    assert encode("--delete-source").exit_code == 0
    assert a.exists()
    assert not b.exists()


def test_order_of_steps(encode: Encoder, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verified, flushed, recorded, named, and the source is deleted last."""
    steps, manifest = list[str](), out / "manifest.jsonl"
    finish, flush, unlink = PartFile.finish, flush_folder, Path.unlink

    def finished(self: PartFile) -> None:
        finish(self)
        steps.append(f"flushed, {len(lines(out))} lines")

    def flushed(folder: Path) -> None:
        flush(folder)
        named = (out / "a.mkv.vdf").exists()
        steps.append(f"folder, {len(lines(out))} lines, {'named' if named else 'no name'}")

    def removed(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".mkv":
            steps.append("deleted")
        unlink(self, missing_ok)

    monkeypatch.setattr(PartFile, "finish", finished)
    monkeypatch.setattr("viddiff.pipeline.batch.flushing.flush_folder", flushed)
    monkeypatch.setattr(Path, "unlink", removed)
    assert encode("--delete-source", sources=(source / "a.mkv",)).exit_code == 0
    assert manifest.exists()
    assert steps == ["flushed, 0 lines", *["folder, 1 lines, named"] * 2, "deleted"]


def test_weights_map(weights: Path, encode: Encoder, source: Path, out: Path, tmp_path: Path) -> None:
    cameras = tmp_path / "maps" / "cameras.toml"
    cameras.parent.mkdir()
    shutil.copy(weights, cameras.parent / "mine.safetensors")
    digits = stated_hash(released_weights("none"))[:12]
    cameras.write_text(f'"door/" = "mine.safetensors"\n"*.mp4" = "{digits}"\n')
    found = WeightsMap.read(cameras)
    assert found.weights_of("door/night/b.MKV") == str(cameras.parent / "mine.safetensors")
    assert found.weights_of("doors/b.mp4") == digits
    assert found.weights_of("doors/b.mkv") is None
    assert encode("--weights-map", cameras, "--weights", released_weights("av1")).exit_code == 0
    used = {line["output"]: line["weights"] for line in lines(out)}
    assert used["door/night/b.MKV.vdf"] == stated_hash(weights)
    assert used["a.mkv.vdf"] == stated_hash(released_weights("av1"))


@pytest.mark.parametrize(
    "text",
    [
        *("door = 3", "door = ", '[door]\nx = "y"', '"*" = "0123456789abcdef"'),
        *('door = "gone.safetensors"', 'door = "map.toml"'),
    ],
)
def test_wrong_weights_maps(encode: Encoder, out: Path, tmp_path: Path, text: str) -> None:
    """They are refused before anything is encoded, also those that serve some of the videos only."""
    (tmp_path / "map.toml").write_text(text)
    assert refused(encode("--weights-map", tmp_path / "map.toml", "--dry-run"))
    assert refused(encode("--weights-map", tmp_path / "map.toml"))
    assert not list(out.rglob("*.vdf"))


def test_a_line_that_was_cut_off_is_no_obstacle(encode: Encoder, source: Path, out: Path) -> None:
    assert encode(sources=(source / "a.mkv",)).exit_code == 0
    manifest = out / "manifest.jsonl"
    whole = manifest.read_bytes()
    with open(manifest, "ab") as file:
        file.write(whole[: len(whole) // 2])
    assert states(encode("--json")) == {"a.mkv.vdf": "skipped", "door/night/b.MKV.vdf": "done"}
    assert manifest.read_bytes().startswith(whole), "lines are only appended"
    assert set(states(encode("--json")).values()) == {"skipped"}


def test_two_batches_of_one_target(encode: Encoder, out: Path) -> None:
    out.mkdir()
    with Manifest(out, Shard()).opened():
        assert "being written by another process" in refused(encode())


def test_a_full_disk_ends_the_batch(encode: Encoder, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing partial is left under a final name, and the next run completes everything."""
    write_part, written = PartFile.write, list[int]()

    def full(self: PartFile, data: bytes) -> int:
        written.append(len(data))
        if len(written) > 5:
            raise OSError(28, "No space left on device")
        return write_part(self, data)

    monkeypatch.setattr(PartFile, "write", full)
    result = encode()
    monkeypatch.undo()
    assert "No space left on device" in refused(result)
    assert not list(out.rglob("[!.]*.vdf"))
    assert encode().exit_code == 0
    assert tree(out) == {"a.mkv.vdf", "door/night/b.MKV.vdf", "manifest.jsonl"}


def test_a_manifest_that_cannot_be_written(
    encode: Encoder, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file gets its name without a line."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("viddiff.pipeline.batch.manifest.os.fsync", full)
    result = encode("--delete-source")
    monkeypatch.undo()
    assert refused(result)
    assert not list(out.rglob("[!.]*.vdf"))
    assert (source / "a.mkv").exists()
    assert encode("--delete-source").exit_code == 0
    assert tree(out) == {"a.mkv.vdf", "door/night/b.MKV.vdf", "manifest.jsonl"}


def test_files_that_cannot_grow(base_weights: Path, source: Path, out: Path, encode: Encoder) -> None:
    """A limit of the system that one file hits. The weights are archived by an earlier run."""
    assert encode().exit_code == 0
    write(source / "big.mkv", moving_picture(160, 96, 12))
    shutil.copy(source / "a.mkv", source / "c.mkv")
    command = ["batch", source, out, "--min-age", "0s", *options_of(base_weights)]
    result = subprocess.run(
        [sys.executable, "-m", "viddiff", *map(str, command)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12000, 12000)),
    )
    assert result.returncode == 3, result.stderr
    assert "Traceback" not in result.stderr
    assert {"a.mkv.vdf", "c.mkv.vdf", "door/night/b.MKV.vdf"} <= tree(out)
    assert "big.mkv.vdf" not in tree(out)
    assert encode().exit_code == 0
    assert {"big.mkv.vdf", "c.mkv.vdf"} <= tree(out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_a_part_to_resume(
    encode: Encoder, out: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """No shorter file appears, and the next run continues."""
    emit, keys = Writer._emit, list[int]()

    def interrupted(self: Writer, kind: int, payload: bytes) -> None:
        emit(self, kind, payload)
        keys.append(kind)
        if keys.count(2) == 2:
            signal.raise_signal(number)

    monkeypatch.setattr(Writer, "_emit", interrupted)
    result = encode("--json")
    monkeypatch.undo()
    assert result.exit_code == 128 + number, result.output
    assert objects(result)[-1]["interrupted"]
    left = tree(out)
    assert {name.rpartition(".")[2] for name in left} == {"part", "jsonl"}, left
    assert lines(out) == []
    assert encode().exit_code == 0
    assert tree(out) == {"a.mkv.vdf", "door/night/b.MKV.vdf", "manifest.jsonl"}
    assert {line["frames"] for line in lines(out)} == {5}


def test_what_was_cut_off_is_resumed(encode: Encoder, source: Path, out: Path) -> None:
    """Also if the source or the options have changed meanwhile: then from the beginning."""
    assert encode().exit_code == 0
    whole = (out / "a.mkv.vdf").read_bytes()
    coded = list[int]()

    def count() -> int:
        before, original = len(coded), BaseGopEncoder.encode

        def counted(self: BaseGopEncoder, group: Any) -> Any:
            coded.extend(range(len(group.frames)))
            return original(self, group)

        BaseGopEncoder.encode = counted  # type: ignore[method-assign]
        try:
            result = encode(sources=(source / "a.mkv",))
        finally:
            BaseGopEncoder.encode = original  # type: ignore[method-assign]
        assert result.exit_code == 0, result.output
        return len(coded) - before

    (out / "a.mkv.vdf").unlink()
    part = parts_name(source / "a.mkv", out / "a.mkv.vdf", encode)
    part.write_bytes(whole[:-1])
    assert count() == 2, "the second of two GOPs, of three and two frames"
    (out / "a.mkv.vdf").unlink()
    part.write_bytes(whole[:-1])
    os.utime(source / "a.mkv", (1e9, 1e9))
    assert count() == 5
    assert (out / "a.mkv.vdf").read_bytes() == whole
    assert not list(out.glob(".*"))


def parts_name(source: Path, target: Path, encode: Encoder) -> Path:
    """The part file that a batch writes for a source."""
    names, finish = list[Path](), PartFile.finish

    def finished(self: PartFile) -> None:
        names.append(self.path)
        finish(self)

    PartFile.finish = finished  # type: ignore[method-assign]
    try:
        assert encode(sources=(source,)).exit_code == 0
    finally:
        PartFile.finish = finish  # type: ignore[method-assign]
    target.unlink()
    return names[0]


def test_killed_between_line_and_name(
    encode: Encoder, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source has changed, the new file is recorded, and the old one is still there."""
    assert encode().exit_code == 0
    old = (out / "a.mkv.vdf").read_bytes()
    write(source / "a.mkv", moving_picture(32, 32, 3))
    with monkeypatch.context() as patched:

        def killed(*_: object) -> None:
            raise SystemExit(1)

        patched.setattr("viddiff.pipeline.output_file.OutputFile.publish", killed)
        assert encode().exit_code == 1
    assert lines(out)[-1]["frames"] == 3
    assert (out / "a.mkv.vdf").read_bytes() == old
    assert states(encode("--json"))["a.mkv.vdf"] == "done"
    assert hashlib.sha256((out / "a.mkv.vdf").read_bytes()).hexdigest() == lines(out)[-1]["sha256"]


def test_what_a_kill_has_left_of_a_finished_unit_is_removed(encode: Encoder, out: Path) -> None:
    assert encode().exit_code == 0
    path = out / "a.mkv.vdf"
    hidden_beside(path, ".lock").touch()
    hidden_beside(path, f".{'0' * 16}.part").write_bytes(path.read_bytes())
    assert encode().exit_code == 0
    assert tree(out) == {"a.mkv.vdf", "door/night/b.MKV.vdf", "manifest.jsonl"}


@pytest.mark.parametrize("options", [[], ["--delete-source"]])
def test_killed_at_any_moment(clip: Path, base_weights: Path, tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "few" / "door").mkdir(parents=True)
    shutil.copy(clip, tmp_path / "few" / "door" / "a.mkv")
    shutil.copy(clip, tmp_path / "few" / "b.mkv")
    check = [sys.executable, str(ROOT / "scripts" / "check_batch.py"), str(tmp_path / "few")]
    done = subprocess.run(
        [*check, "--stride", "5", "--kills", "4", "--", *map(str, options_of(base_weights)), *options],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("fine") >= 4


@pytest.mark.parametrize("path", sorted((ROOT / "examples").iterdir()), ids=lambda path: path.name)
def test_examples_are_well_formed(path: Path) -> None:
    text = path.read_text()
    assert "viddiff batch" in text
    if path.suffix == ".yaml":
        assert all(document["kind"] for document in yaml.safe_load_all(text))
    elif path.suffix == ".toml":
        WeightsMap.read(path)
    elif path.suffix == ".service":
        unit = ConfigParser(interpolation=None)
        unit.read_string(text)
        words = shlex.split(unit["Service"]["ExecStart"])
        assert main.commands["batch"].make_context("batch", words[2:]).params["watch"]
    else:
        subprocess.run(["bash", "-n", str(path)], check=True)
