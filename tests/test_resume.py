"""An encode that was cut off anywhere resumes, and gives the same file as without the interruption."""

import io
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture
from test_cli import write
from test_tracks import Sound, Source

from viddiff.cli import main
from viddiff.container.format import Chunk, KeyChunk, Writer
from viddiff.container.part_file import PartFile, whole_gops
from viddiff.container.reader import Reader
from viddiff.encoder.base_gop_encoder import BaseGopEncoder
from viddiff.encoder.coded_group import CodedGroup
from viddiff.encoder.grouping import Group
from viddiff.errors import OutputError
from viddiff.pipeline.output_file import OutputFile, is_vdf

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def parts(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames with sound, chapters and a tag."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    return Source([Sound()], frames=12, tags={"title": "A"}, chapters=[(0, 400, "one")]).write(path)


@pytest.fixture(scope="module")
def whole(clip: Path, base_weights: Path) -> bytes:
    """Result of an uninterrupted encode."""
    out = clip.with_name("whole.vdf")
    assert run("encode", clip, out, "--gop", 3, "--weights", base_weights, "-q").exit_code == 0
    return out.read_bytes()


def killed(command: list[str], folder: Path, size: int) -> Path:
    """Run viddiff in `folder`, and kill it when its part file has `size` bytes. Returns the part file."""
    process = subprocess.Popen([sys.executable, "-m", "viddiff", *command], env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while not any(part.stat().st_size >= size for part in parts(folder)):
        assert process.poll() is None, "it ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    (part,) = parts(folder)
    return part


@pytest.fixture(scope="module")
def part_name(clip: Path, base_weights: Path, whole: bytes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of the part file of such an encode to out.vdf, from a killed one."""
    folder = tmp_path_factory.mktemp("killed")
    out = folder / "out.vdf"
    command = ["encode", str(clip), str(out), "--gop", "3", "--weights", str(base_weights), "--workers", "1"]
    part = killed(command, folder, len(whole) // 3)
    assert whole.startswith(part.read_bytes())
    name = part.name
    assert run(*command, "--resume", "-q").exit_code == 0
    assert out.read_bytes() == whole
    assert [p.name for p in folder.iterdir()] == ["out.vdf"]
    return name


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.3, 0.5, 0.62, 0.75, 0.9, 0.999, 1])
def test_cut_off_anywhere(
    clip: Path, base_weights: Path, whole: bytes, part_name: str, tmp_path: Path, share: float
) -> None:
    out = tmp_path / "out.vdf"
    (tmp_path / part_name).write_bytes(whole[: int(share * len(whole))])
    workers = ["--workers", 2] if share == 0.5 else ["--workers", 1]
    result = run("encode", clip, out, "--gop", 3, "--weights", base_weights, "--resume", "-q", *workers)
    assert result.exit_code == 0, result.output
    assert out.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["out.vdf"]


def test_what_is_done_is_not_done_again(
    clip: Path,
    base_weights: Path,
    whole: bytes,
    part_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coded: list[Group] = []
    encode = BaseGopEncoder.encode

    def counted(self: BaseGopEncoder, group: Group) -> Iterator[CodedGroup]:
        coded.append(group)
        return encode(self, group)

    monkeypatch.setattr(BaseGopEncoder, "encode", counted)
    (tmp_path / part_name).write_bytes(whole[:-1])
    arguments = ("encode", clip, tmp_path / "out.vdf", "--gop", 3, "--weights", base_weights, "--workers", 1)
    assert run(*arguments, "--resume").exit_code == 0
    assert sum(len(group.frames) for group in coded) == 3, "only the last of four GOPs"
    coded.clear()
    (tmp_path / part_name).write_bytes(whole[:-1])
    assert run(*arguments, "--force").exit_code == 0
    assert sum(len(group.frames) for group in coded) == 12, "not unless it is asked for"
    assert (tmp_path / "out.vdf").read_bytes() == whole


def test_every_byte(small_file: bytes, tmp_path: Path) -> None:
    """A file without sound, written again chunk by chunk."""
    reader = Reader(io.BytesIO(small_file))
    chunks = list(reader)
    for size in range(len(small_file) + 1):
        part = PartFile(tmp_path / "out.vdf", {}, resume=False)
        part.write(small_file[:size])
        part._file.close()
        again = PartFile(tmp_path / "out.vdf", {}, resume=True)
        done: list[Chunk] = list(again.done())
        assert done == chunks[: len(done)]
        assert len(done) == len(chunks) or isinstance(chunks[len(done)], KeyChunk), "whole GOPs"
        writer = Writer(again, reader.header)  # type: ignore[arg-type]
        for chunk in chunks:
            writer.write(chunk)
        writer.finish()
        again.finish()
        again.path.rename(tmp_path / "out.vdf")
        assert (tmp_path / "out.vdf").read_bytes() == small_file


def test_other_jobs_are_refused(
    clip: Path, base_weights: Path, whole: bytes, part_name: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.vdf"
    part = tmp_path / part_name
    part.write_bytes(whole[: len(whole) // 2])
    for other in (
        ["--quality", 33],
        ["--gop", 4],
        ["--audio", "none"],
        ["--frames", 11],
        ["--input-option", "probesize=1000000"],
    ):
        result = run("encode", clip, out, "--gop", 3, *other, "--weights", base_weights, "--resume")
        assert result.exit_code == 1
        assert "other options" in result.stderr
    assert part.read_bytes() == whole[: len(whole) // 2], "still there"
    assert run("encode", clip, out, "--gop", 3, "--quality", 33, "--weights", base_weights).exit_code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["out.vdf"], "complete: the other one is of no use now"
    key = tmp_path / "key"
    key.write_bytes(bytes(32))
    result = run("encode", clip, out, "--force", "--resume", "--key-file", key)
    assert result.exit_code == 2
    assert "encrypted" in result.stderr


def test_other_weights_are_refused(clip: Path, whole: bytes, part_name: str, tmp_path: Path) -> None:
    (tmp_path / part_name).write_bytes(whole[:-100])
    result = run("encode", clip, tmp_path / "out.vdf", "--gop", 3, "--resume")
    assert result.exit_code == 1
    assert "differs" in result.stderr
    assert len(parts(tmp_path)) == 1


def test_one_process_at_a_time(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "out.vdf", True, is_vdf, "a .vdf file")
    with output.claim(), pytest.raises(OutputError, match="another process"), output.claim():
        pass
    with output.claim():
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_full_disk(clip: Path, base_weights: Path, whole: bytes, tmp_path: Path, workers: str) -> None:
    out = tmp_path / "out.vdf"
    command = [
        "encode",
        str(clip),
        str(out),
        "--gop",
        "3",
        "--weights",
        str(base_weights),
        "--workers",
        workers,
    ]
    size = 2 * len(whole) // 3
    result = subprocess.run(
        [sys.executable, "-m", "viddiff", *command],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    assert result.returncode == 1
    assert "--resume" in result.stderr
    assert "Traceback" not in result.stderr
    assert [p.stat().st_size for p in tmp_path.iterdir()] == [size]
    assert run(*command, "--resume").exit_code == 0
    assert out.read_bytes() == whole


def test_terminated(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    """SIGTERM of a machine that shuts down: the coded GOPs wait for --resume."""
    source, out = tmp_path / "long.mkv", tmp_path / "out.vdf"
    write(source, moving_picture(160, 96, 40))
    command = [
        "encode",
        str(source),
        str(out),
        "--gop",
        "4",
        "--weights",
        str(base_weights),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "viddiff", *command], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not any(whole_gops(io.BytesIO(p.read_bytes()))[1] for p in parts(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "--resume" in errors
    assert run(*command, "--resume").exit_code == 0
    again = tmp_path / "again.vdf"
    assert run("encode", source, again, "--gop", 4, "--weights", base_weights).exit_code == 0
    assert out.read_bytes() == again.read_bytes()
