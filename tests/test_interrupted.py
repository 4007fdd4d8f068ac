"""Ctrl-C and SIGTERM during an encode: a complete file or none, and no traceback."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture
from test_cli import write
from test_tracks import Sound, Source

from viddiff.cli import main
from viddiff.container.format import KeyChunk, Writer
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.pipeline.output import CodedChunk
from viddiff.pipeline.worker_pool import WorkerPool


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    return Source([Sound()], frames=25, rate=25).write(path)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Make SIGINT work: background jobs of a shell ignore it, and tests in them, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def frames_of(path: Path) -> int:
    """Number of frames of a file without faults."""
    with ReadOptions(strict=True).open(path) as file:
        reader = Reader(file)
        assert reader.stored_index()
        assert reader.frame_count
        return reader.frame_count


def test_ctrl_c_completes_the_file(
    clip: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes while the second keyframe is written. That frame is still complete and verified."""
    out, back = tmp_path / "out.vdf", tmp_path / "back.mkv"
    emit, keys = Writer._emit, list[int]()

    def interrupted(self: Writer, kind: int, payload: bytes) -> None:
        if kind == 2:
            keys.append(len(keys))
            if len(keys) == 2:
                signal.raise_signal(signal.SIGINT)
        emit(self, kind, payload)

    monkeypatch.setattr(Writer, "_emit", interrupted)
    options = ("--gop", 5, "--weights", base_weights, "--workers", 1)
    result = run("encode", clip, out, "--verify", *options)
    monkeypatch.undo()
    assert result.exit_code == 130, result.output
    assert result.stderr.endswith("out.vdf is complete, with the first 6 frames\n")
    assert frames_of(out) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["out.vdf"]
    result = run("decode", out, back, "--strict", "--weights", base_weights)
    assert result.exit_code == 0, result.output
    with av.open(str(back)) as played:
        times: dict[str, list[Any]] = {"video": [], "audio": []}
        for packet in played.demux():
            if packet.size and packet.pts is not None:
                times[packet.stream.type].append(packet.pts * packet.time_base)
    assert len(times["video"]) == 6
    assert float(max(times["audio"])) == pytest.approx(6 / 25, abs=0.05), "the sound ends with the video"


def test_ctrl_c_with_several_processes(
    clip: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.vdf"
    in_order = WorkerPool.in_order

    def interrupted(self: WorkerPool) -> Iterator[CodedChunk | list[str]]:
        keys = 0
        for piece in in_order(self):
            keys += isinstance(piece, CodedChunk) and isinstance(piece.chunk, KeyChunk)
            if keys == 2:
                signal.raise_signal(signal.SIGINT)
            yield piece

    monkeypatch.setattr(WorkerPool, "in_order", interrupted)
    options = ("--gop", 5, "--frames", 10, "--weights", base_weights, "--workers", 2)
    result = run("encode", clip, out, "--verify", *options)
    assert result.exit_code == 130, result.output
    assert frames_of(out) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["out.vdf"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_too_early_for_a_file(
    clip: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    from viddiff.encoder.base_gop_encoder import BaseGopEncoder

    monkeypatch.setattr(BaseGopEncoder, "encode", lambda self, group: signal.raise_signal(number))
    before = signal.getsignal(signal.SIGTERM)
    try:
        result = run("encode", clip, tmp_path / "out.vdf", "--weights", base_weights, "--workers", 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.exit_code == 128 + number, result.output
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_in_a_terminal(weights: Path, tmp_path: Path) -> None:
    """A real terminal sends the signal to all processes."""
    source, out = tmp_path / "long.mkv", tmp_path / "out.vdf"
    write(source, moving_picture(160, 96, 40))
    command = ["encode", str(source), str(out), "--gop", "4", "--weights", str(weights), "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "viddiff", *command],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not any(part.stat().st_size > 2000 for part in tmp_path.glob(".*.part")):
        assert process.poll() is None, "it ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert 0 < frames_of(out) < 40
