"""A live recording is kept whatever ends it, as a complete file that says why it ended."""

import errno
import io
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import moving_picture
from test_pipes import fed
from test_tracks import Sound, Source

from viddiff.cli import main
from viddiff.container.format import Chunk, Header, KeyChunk, PredictedChunk, Writer
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.frame import Frame, VideoInfo
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.output_file import OutputFile, is_vdf, recording_file

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SIZE = 48
FRAME = 6 + SIZE * SIZE * 3 // 2
"""Bytes of a frame of clip.y4m."""
PATIENCE = 300
"""Seconds after which a test that hangs fails."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Sixty frames as raw video, which can come frame by frame."""
    path = tmp_path_factory.mktemp("clip") / "clip.y4m"
    with VideoWriter(path, VideoInfo(SIZE, SIZE)) as writer:
        for number, frame in enumerate(moving_picture(SIZE, SIZE, 60)):
            writer.write(Frame(frame.y, frame.u, frame.v, number))
    return path.read_bytes()


def frames_of(path: Path) -> int:
    """How many frames a file without a fault holds."""
    with ReadOptions(strict=True).open(path) as file:
        reader = Reader(file)
        assert reader.stored_index()
        chunks = list(reader)
        count = sum(1 if isinstance(chunk, KeyChunk) else len(chunk.pts) for chunk in chunks)
        assert reader.frame_count == count
        return count


def recording(
    out: Path | str, base_weights: Path, limit: int | None = None, handler: Any = signal.SIG_DFL
) -> subprocess.Popen[bytes]:
    """viddiff that records what comes through its stdin."""

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, handler)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = ["encode", "-", str(out), "--low-delay", "--gop", "8", "--weights", str(base_weights)]
    return subprocess.Popen(
        [sys.executable, "-m", "viddiff", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        preexec_fn=prepare,
        bufsize=0,
    )


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def largest(folder: Path) -> int:
    return max((path.stat().st_size for path in folder.iterdir()), default=0)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals(clip: bytes, base_weights: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """While a source stalls, as cameras do."""
    out = tmp_path / "out.vdf"
    process = recording(out, base_weights)
    assert process.stdin is not None
    process.stdin.write(clip[: clip.index(b"\n") + 1 + 20 * FRAME])
    process.stdin.flush()
    until(lambda: largest(tmp_path) > 3000)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    assert 0 < frames_of(out) <= 20
    assert f"out.vdf is complete, with the first {frames_of(out)} frames" in errors.decode()
    assert number.name in errors.decode() or number == signal.SIGINT
    assert [path.name for path in tmp_path.iterdir()] == ["out.vdf"]


def test_signals_at_any_moment(clip: bytes, base_weights: Path, tmp_path: Path) -> None:
    """Several, while frames are coded: a complete file, or none if no frame was coded yet."""
    kept = 0
    for number, delay in enumerate((0.5, 0, 0.1)):
        out = tmp_path / f"{number}.vdf"
        process = recording(out, base_weights)
        assert process.stdin is not None
        process.stdin.write(clip[: clip.index(b"\n") + 1 + 40 * FRAME])
        process.stdin.flush()
        if number:
            until(lambda: largest(tmp_path) > 500)
        time.sleep(delay)
        for end in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            process.send_signal(end)
        _, errors = process.communicate(timeout=PATIENCE)
        assert b"Traceback" not in errors
        assert process.returncode in (129, 143, -signal.SIGTERM, -signal.SIGHUP)
        if out.exists():
            kept += 1
            assert frames_of(out) > 0
            out.unlink()
        assert list(tmp_path.iterdir()) == [], "nothing else stays"
    assert kept >= 2


def test_ignored_signals_stay_ignored(clip: bytes, base_weights: Path, tmp_path: Path) -> None:
    """As nohup wants it."""
    out = tmp_path / "out.vdf"
    process = recording(out, base_weights, handler=signal.SIG_IGN)
    assert process.stdin is not None
    process.stdin.write(clip[: clip.index(b"\n") + 1 + 10 * FRAME])
    process.stdin.flush()
    until(lambda: largest(tmp_path) > 500)
    process.send_signal(signal.SIGHUP)
    process.stdin.write(clip[clip.index(b"\n") + 1 + 10 * FRAME :][: 2 * FRAME])
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert frames_of(out) == 12


def test_to_stdout(clip: bytes, base_weights: Path, tmp_path: Path) -> None:
    process = recording("-", base_weights)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(clip[: clip.index(b"\n") + 1 + 9 * FRAME])
    process.stdin.flush()
    begun = b""
    while len(begun) < 500:  # more than the headers, which come before the first frame
        begun += process.stdout.read(2000)
    process.send_signal(signal.SIGTERM)
    rest, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, errors
    (tmp_path / "out.vdf").write_bytes(begun + rest)
    assert frames_of(tmp_path / "out.vdf") > 0


@pytest.mark.parametrize("size", [4001, 9999])
def test_a_full_disk(clip: bytes, base_weights: Path, tmp_path: Path, size: int) -> None:
    out = tmp_path / "out.vdf"
    process = recording(out, base_weights, limit=size)
    _, errors = process.communicate(clip, timeout=PATIENCE)
    assert process.returncode == 1
    assert b"Error: File too large; " in errors
    assert 0 < frames_of(out) < 60
    assert size - 3000 < out.stat().st_size <= size
    assert [path.name for path in tmp_path.iterdir()] == ["out.vdf"]


def test_a_source_that_changes_size(base_weights: Path, tmp_path: Path) -> None:
    for name, side in (("1", 48), ("2", 64)):
        Source([Sound()], frames=12, size=(side, side)).write(tmp_path / f"{name}.ts")
    both = (tmp_path / "1.ts").read_bytes() + (tmp_path / "2.ts").read_bytes()
    folder = tmp_path / "out"
    folder.mkdir()
    with fed(tmp_path / "pipe", [both]):
        result = CliRunner().invoke(
            main, ["encode", str(tmp_path / "pipe"), str(folder / "o.vdf"), "--weights", str(base_weights)]
        )
    assert result.exit_code == 1, result.output
    assert "changes size from 48x48 to 64x64" in result.stderr
    assert "o.vdf is complete, with the first " in result.stderr
    assert 0 < frames_of(folder / "o.vdf") <= 12
    assert [path.name for path in folder.iterdir()] == ["o.vdf"]


# --- in parts --------------------------------------------------------------------------------------------


class Disk(io.BytesIO):
    """A file on a disk with room for so many bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: Any, /) -> int:
        fits = max(self.room - self.tell(), 0)
        super().write(bytes(data)[:fits])
        if fits < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)


def chunks() -> Iterator[Chunk]:
    for number in range(30):
        if number % 5:
            yield PredictedChunk((number,), bytes(20 + number))
        else:
            yield KeyChunk(number, bytes(60))


@pytest.mark.parametrize("header_time", [Fraction(1, 25)])
def test_a_disk_of_any_size(header_time: Fraction) -> None:
    """What is there once the disk is full is a whole file, of all frames but as many as INDEX needs room."""
    header = Header(VideoInfo(16, 16, time_base=header_time), bytes(32), "any", 5)
    whole = Disk(1 << 20)
    writer = Writer(whole, header)
    sizes = [writer.size_bytes]
    for chunk in chunks():
        writer.write(chunk)
        sizes.append(writer.size_bytes)
    for room in range(sizes[1], len(whole.getvalue()) + 200):
        disk, written = Disk(room), 0
        attempt: Writer | None = None
        try:
            attempt = Writer(disk, header)
            for chunk in chunks():
                attempt.write(chunk)
                written += 1
            attempt.finish()
        except OSError:
            assert attempt is not None
            if written < 3:
                continue  # too little for an index, or just enough
            attempt.finish_in_place()
        reader = Reader(io.BytesIO(disk.getvalue()))
        assert reader.stored_index()
        found = list(reader)
        assert found == list(chunks())[: len(found)]
        assert reader.frame_count == len(found) >= written - 3
        assert len(disk.getvalue()) <= room


def test_a_recording_stays_unless_it_is_not_worth_it(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "a.vdf", False, is_vdf, "a .vdf file")

    def record(worth: bool) -> None:
        with recording_file(output, lambda _: None, lambda: worth) as file:
            file.write(b"frames")
            raise KeyError

    for worth in (True, False):
        with pytest.raises(KeyError):
            record(worth)
        assert [path.name for path in tmp_path.iterdir()] == ["a.vdf"] * worth
        (tmp_path / "a.vdf").unlink(missing_ok=True)
