"""`viddiff batch --watch`, and weights beside the files that need them."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture
from test_cli import refused, write

from viddiff.cli import main
from viddiff.codec.tensor_file import stated_hash
from viddiff.pipeline.batch import watching
from viddiff.pipeline.batch.units import Shard
from viddiff.pipeline.batch.watching import Watching
from viddiff.serving.movie import Movie, PlayOptions


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write(path, moving_picture(32, 32, 3))
    return path


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Make SIGINT work, and keep the handlers of signals as they are."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("options", [[], ["--poll", "0.2s"], ["--poll", "0.2s", "--delete-source"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_new_files_are_taken_up(
    clip: Path, base_weights: Path, tmp_path: Path, options: list[str], number: signal.Signals
) -> None:
    """In a new folder, renamed into place, and a failure is reported once and tried again when it changes."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    shutil.copy(clip, source / "a.mkv")

    def until(there: Callable[[], bool]) -> None:
        for _ in range(1200):
            if there():
                return
            time.sleep(0.1)

    def bring() -> None:
        try:
            until((out / "a.mkv.vdf").exists)
            (source / "new" / "night").mkdir(parents=True)
            shutil.copy(clip, source / "new" / "night" / ".b.part")
            (source / "bad.mkv").write_bytes(b"no video")
            os.rename(source / "new" / "night" / ".b.part", source / "new" / "night" / "b.mkv")
            until((out / "new" / "night" / "b.mkv.vdf").exists)
            until(lambda: any(line["error"] for line in records(out)))
            shutil.copy(clip, source / ".good.part")
            os.replace(source / ".good.part", source / "bad.mkv")
            until((out / "bad.mkv.vdf").exists)
            until(lambda: "--delete-source" not in options or not (source / "bad.mkv").exists())
        finally:
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=bring)
    thread.start()
    common = ["--gop", 3, "--weights", base_weights, "--workers", 1, "--min-age", "0s", "--json", "-q"]
    result = run("batch", source, out, "--watch", *common, *options)
    thread.join()
    assert result.exit_code == 0, result.output
    done = [line["output"] for line in records(out) if line["error"] is None]
    assert sorted(done) == ["a.mkv.vdf", "bad.mkv.vdf", "new/night/b.mkv.vdf"], result.output
    assert sum(line["error"] is not None for line in records(out)) <= 2
    assert not list(out.rglob(".*"))
    totals = json.loads(result.stdout.splitlines()[-1])
    assert totals["done"] >= 2, "the signal may come before the last one is reported"
    if "--delete-source" in options:
        assert not list(source.rglob("*.mkv"))


def test_a_shard_watches_its_own(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    """What comes for the other shard is left to it, and it knows what the first one has done."""
    source, out, first = tmp_path / "source", tmp_path / "out", Shard(0, 2)
    source.mkdir()
    mine, others = ([f"{n}.mkv" for n in range(20) if first.holds(f"{n}.mkv") == own][:2] for own in (1, 0))
    shutil.copy(clip, source / mine[0])

    def bring() -> None:
        try:
            for name in (others[0], mine[1]):
                shutil.copy(clip, source / ".part")
                os.replace(source / ".part", source / name)
            end = time.monotonic() + 120
            while not all((out / f"{name}.vdf").exists() for name in mine) and time.monotonic() < end:
                time.sleep(0.1)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    common = ["--gop", 3, "--weights", base_weights, "--workers", 1, "--min-age", "0s", "-q"]
    thread = threading.Thread(target=bring)
    thread.start()
    watched = run("batch", source, out, "--shard", "0/2", "--watch", "--poll", "0.2s", *common)
    thread.join()
    assert watched.exit_code == 0, watched.output
    assert sorted(path.name for path in out.glob("*.vdf")) == sorted(f"{name}.vdf" for name in mine)
    assert run("batch", source, out, "--shard", "1/2", *common).exit_code == 0
    totals = json.loads(run("batch", source, out, *common, "--json").stdout.splitlines()[-1])
    assert (totals["skipped"], totals["done"]) == (3, 0)


def test_wrong_use_of_watch(tmp_path: Path) -> None:
    refused(run("batch", tmp_path, tmp_path / "out", "--poll", "3s"), 2)
    refused(run("batch", tmp_path, tmp_path / "out", "--watch", "--poll", "0s"), 2)
    refused(run("batch", tmp_path, tmp_path / "out", "--watch", "--dry-run"), 2)


def test_a_change_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reported by the system: the look that comes without a change is put off for ever."""
    monkeypatch.setattr(watching, "LOOK_AT_LEAST", 1e6)
    looks = Watching([str(tmp_path)], None)
    (tmp_path / "a.mkv").touch()
    looks.wait(None)


def test_weights_are_archived(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    """`decode` and `play` find them from a folder below. A batch that is done makes sure of them again."""
    mine, out = tmp_path / "mine.safetensors", tmp_path / "out"
    shutil.copy(base_weights, mine)
    (tmp_path / "source" / "door").mkdir(parents=True)
    shutil.copy(clip, tmp_path / "source" / "door" / "a.mkv")
    command = ["batch", tmp_path / "source", out, "--gop", 3, "--workers", 1, "--min-age", "0s"]
    result = run(*command, "--weights", mine)
    assert result.exit_code == 0, result.output
    kept = out / "weights" / f"{stated_hash(base_weights)}.safetensors"
    assert kept.read_bytes() == base_weights.read_bytes()
    mine.unlink()
    assert run("decode", out / "door" / "a.mkv.vdf", tmp_path / "a.mkv").exit_code == 0
    Movie(out / "door" / "a.mkv.vdf", PlayOptions(), pytest.fail).prepare()
    assert run(*command).exit_code == 0
    kept.unlink()
    message = refused(run(*command, "--delete-source"))
    assert "not archived" in message
    assert (tmp_path / "source" / "door" / "a.mkv").exists()
