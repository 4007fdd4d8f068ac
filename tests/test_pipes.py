"""Pipes, growing files and live sources give the same files, as early as possible."""

import http.server
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import pytest
from click.testing import CliRunner, Result
from conftest import coded, moving_picture, same
from test_tracks import Sound, Source, contents

from viddiff.cli import files, main
from viddiff.codec.weights import Codec
from viddiff.container.format import KeyChunk, Writer
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.track_file import TrackFile
from viddiff.encoder.coded_group import CodedGroup
from viddiff.encoder.gop_encoder import GopEncoder
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import BitstreamError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.demuxer import Demuxer
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.output import Output
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.serial import encode
from viddiff.pipeline.streaming import decode_stream

FRAMES = 12
PICTURE = 48 * 48 * 3 // 2
"""Bytes of a frame of clip.y4m. libav probes the first 2048 bytes."""
PATIENCE = 120
"""Seconds after which a hanging test fails."""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.ts, clip.mkv (with a font) and clip.y4m."""
    folder = tmp_path_factory.mktemp("clips")
    for suffix in (".ts", ".mkv"):
        Source([Sound()], frames=FRAMES, tags={"title": "A"}).write(folder / f"clip{suffix}")
    with VideoWriter(folder / "clip.y4m", VideoInfo(48, 48)) as writer:
        for number, frame in enumerate(moving_picture(48, 48, FRAMES)):
            writer.write(Frame(frame.y, frame.u, frame.v, number))
    return folder


@pytest.fixture(scope="module")
def of_file(clips: Path, base_weights: Path) -> Callable[[str], bytes]:
    """Result of `encode` for one of the clips as a file."""

    def encoded(name: str) -> bytes:
        out = clips / f"{name}.vdf"
        if not out.exists():
            assert (
                run("encode", clips / name, out, "--weights", base_weights, "--workers", 1, "-q").exit_code
                == 0
            )
        return out.read_bytes()

    return encoded


@contextmanager
def fed(path: Path, pieces: Iterable[bytes]) -> Iterator[None]:
    """A named pipe that another thread writes to."""
    os.mkfifo(path)

    def feed() -> None:
        with suppress(BrokenPipeError), open(path, "wb", buffering=0) as pipe:
            for piece in pieces:
                pipe.write(piece)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    yield
    thread.join(PATIENCE)


class Pipe(io.RawIOBase):
    """Bytes that can be read only once. Counts them."""

    def __init__(self, data: bytes) -> None:
        self._data, self.read_bytes = io.BytesIO(data), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        size = self._data.readinto(memoryview(buffer)[:100])
        self.read_bytes += size
        return size


# --- between processes ---------------------------------------------------------------------------------


def test_from_pipe_to_pipe(clips: Path, base_weights: Path, of_file: Any, tmp_path: Path) -> None:
    """.ts to .vdf to .mkv, in two processes that are connected only by pipes."""
    viddiff = [sys.executable, "-m", "viddiff"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    back = tmp_path / "back.mkv"
    with (clips / "clip.ts").open("rb") as source, back.open("wb") as out:
        coder = subprocess.Popen(
            [*viddiff, "encode", "-", "-", "--weights", str(base_weights)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        threading.Thread(target=lambda: (coder.stdin.write(source.read()), coder.stdin.close())).start()  # type: ignore[union-attr]
        decoder = subprocess.run(
            [*viddiff, "decode", "-", "-", "--weights", str(base_weights)],
            stdin=coder.stdout,
            stdout=out,
            stderr=subprocess.PIPE,
            env=environment,
        )
        said = coder.stderr.read().decode()  # type: ignore[union-attr]
        assert (coder.wait(), decoder.returncode) == (0, 0), said + decoder.stderr.decode()
    assert "Latency: 127 frames" in said, "a GOP less one"
    there, again = contents(clips / "clip.ts"), contents(back)
    assert len(again.hashes[0]) == len(there.hashes[0]) > 10, "the sound is there"
    assert all(abs(a - b) < 0.0011 for a, b in zip(again.times[0], there.times[0], strict=True))
    with VideoReader(back) as reader:
        assert len(list(reader)) == FRAMES


@pytest.mark.parametrize(
    "command", [["encode", "clip.mkv", "-"], ["decode", "v", "-"], ["decode", "v", "-", "--format", "y4m"]]
)
def test_a_reader_who_has_had_enough(
    clips: Path, base_weights: Path, of_file: Any, tmp_path: Path, command: list[str]
) -> None:
    """As with `head`: no message, and no traceback."""
    of_file("clip.mkv")
    command = ["clip.mkv.vdf" if word == "v" else word for word in command]
    process = subprocess.Popen(
        [sys.executable, "-m", "viddiff", *command, "--weights", str(base_weights), "--workers", "1", "-q"],
        cwd=clips,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


# --- encode --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv", "clip.y4m"])
def test_a_pipe_gives_what_a_file_gives(
    clips: Path, base_weights: Path, of_file: Any, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out.vdf"
    with fed(tmp_path / "pipe", [(clips / name).read_bytes()]):
        result = run("encode", tmp_path / "pipe", out, "--weights", base_weights, "-q", "--verify")
    assert result.exit_code == 0, result.output
    assert parts_of(out.read_bytes()) == parts_of(of_file(name))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.vdf", "pipe"]


def parts_of(vdf: bytes) -> tuple[Any, ...]:
    """Content of a file. Sound from a pipe may come a chunk later."""
    reader, others = Reader(io.BytesIO(vdf)), TrackFile(io.BytesIO(vdf))
    return reader.header, list(reader), others.extras, list(others.packets())


def test_to_stdout(clips: Path, base_weights: Path, of_file: Any) -> None:
    """Only data goes to stdout. JSON goes to stderr."""
    arguments = ("encode", clips / "clip.mkv", "-", "--weights", base_weights, "--workers", 1, "--json", "-q")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == of_file("clip.mkv")
    values = json.loads(result.stderr.splitlines()[-1])
    assert (values["output"], values["bytes"]) == ("-", len(result.stdout_bytes))


def test_low_delay_waits_for_no_frame(
    clips: Path, base_weights: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Each frame enters the pipe after the chunk of the frame before has left."""
    data = (clips / "clip.y4m").read_bytes()
    start, size = data.index(b"\n") + 1, 6 + PICTURE
    turn, frames = threading.Semaphore(1), list[int]()

    def pieces() -> Iterator[bytes]:
        yield data[:start]
        for number in range(FRAMES):
            assert turn.acquire(timeout=PATIENCE), "the frame before does not come out"
            frames.append(number)
            yield data[start + size * number : start + size * (number + 1)]

    write = files.Stdout.write

    def written(self: files.Stdout, chunk: Any) -> int:
        if chunk[0] in (2, 3):  # KEY, PREDICTED
            turn.release()
        return write(self, chunk)

    monkeypatch.setattr(files.Stdout, "write", written)
    with fed(tmp_path / "pipe", pieces()):
        result = run("encode", tmp_path / "pipe", "-", "--low-delay", "--weights", base_weights)
    assert result.exit_code == 0, result.output
    assert "Latency: 0 frames" in result.stderr
    assert len(frames) == FRAMES
    assert sum(1 for _ in Reader(io.BytesIO(result.stdout_bytes))) == FRAMES


@pytest.mark.parametrize("low_delay", [True, False])
def test_latency_is_as_stated(codec: Codec, low_delay: bool) -> None:
    """Number of frames that are read before the chunk of an earlier one is written."""
    options, taken, late = EncodeOptions(low_delay=low_delay, gop=16), list[int](), list[int]()

    def frames() -> Iterator[Frame]:
        for number, frame in enumerate(moving_picture(32, 32, 10)):
            taken.append(number)
            yield frame

    def watch(group: CodedGroup) -> None:
        late.extend(len(taken) - 1 - n for n in range(len(late), len(late) + len(group.frames)))

    encoder = GopEncoder(codec, VideoInfo(32, 32), options)
    encode(frames(), encoder, Output(Writer(io.BytesIO(), encoder.header)), watch=watch)
    assert max(late) == options.latency(base=False)


def interrupt_once(begun: threading.Event) -> None:
    """Ctrl-C from another thread, after `begun` is set."""

    def send() -> None:
        assert begun.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=send, daemon=True).start()


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("target", ["-", "out.vdf"])
def test_ctrl_c_while_nothing_comes(
    clips: Path, base_weights: Path, tmp_path: Path, monkeypatch: Any, target: str
) -> None:
    """The source stalls, as cameras do. The frames coded so far become a complete file."""
    data = (clips / "clip.y4m").read_bytes()
    stalled, done = threading.Event(), threading.Event()
    interrupt_once(stalled)

    def pieces() -> Iterator[bytes]:
        yield data[: data.index(b"\n") + 1 + 9 * (6 + PICTURE)]
        done.wait(PATIENCE)

    take, seen = Demuxer._next, list[int]()

    def counted(self: Demuxer) -> Any:
        seen.append(0)
        if len(seen) == 10:
            stalled.set()  # nine frames have been read, and no tenth one comes
        return take(self)

    monkeypatch.setattr(Demuxer, "_next", counted)
    out = target if target == "-" else tmp_path / target
    with fed(tmp_path / "pipe", pieces()):
        result = run("encode", tmp_path / "pipe", out, "--weights", base_weights)
        done.set()
    assert result.exit_code == 130, result.output
    vdf = result.stdout_bytes if target == "-" else (tmp_path / target).read_bytes()
    reader = Reader(io.BytesIO(vdf))
    assert reader.stored_index()
    assert reader.frame_count == 9


def test_what_cannot_be(clips: Path, tmp_path: Path) -> None:
    """Wrong use is reported before anything is read."""
    clip, out = clips / "clip.mkv", tmp_path / "out.vdf"
    for arguments in (
        ("encode", "-"),
        ("encode", "-", out, "--resume"),
        ("encode", clip, "-", "--resume"),
        ("encode", clip, "-", "--verify"),
        ("encode", clip, out, "--input-option", "odd"),
        ("decode", "-"),
        ("decode", "-", out, "--follow"),
    ):
        assert run(*arguments).exit_code == 2, arguments
    assert list(tmp_path.iterdir()) == []


def test_an_mp4_with_its_index_at_the_end(tmp_path: Path, base_weights: Path) -> None:
    source = Source([Sound("pcm_s16le")], frames=40).write(tmp_path / "a.mov")
    with fed(tmp_path / "pipe", [source.read_bytes()]):
        result = run("encode", tmp_path / "pipe", tmp_path / "out.vdf", "--weights", base_weights)
    assert result.exit_code == 1
    assert "needs its index in front" in result.stderr
    assert not (tmp_path / "out.vdf").exists()


# --- live ----------------------------------------------------------------------------------------------


def test_a_file_over_http(clips: Path, base_weights: Path, of_file: Any, tmp_path: Path) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(clips)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/clip.ts"
        result = run("encode", address, tmp_path / "out.vdf", "--weights", base_weights)
    finally:
        server.shutdown()
    assert result.exit_code == 0, result.output
    assert sum(1 if isinstance(c, KeyChunk) else len(c.pts) for c in vdf_of(tmp_path)) == FRAMES


def test_a_broadcast_over_tcp(clips: Path, base_weights: Path, tmp_path: Path) -> None:
    """A stream with sound, sent over TCP, cut after five frames."""
    server = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall((clips / "clip.ts").read_bytes())

    threading.Thread(target=send, daemon=True).start()
    address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    result = run(
        *("encode", address, tmp_path / "out.vdf", "--low-delay", "--frames", 5, "--weights", base_weights)
    )
    server.close()
    assert result.exit_code == 0, result.output
    assert len(vdf_of(tmp_path)) == 5
    with open(tmp_path / "out.vdf", "rb") as file:
        kinds: list[int] = []
        list(Reader(file, others=lambda kind, _: kinds.append(kind)))
        assert 0x82 in kinds, "there is sound"


def test_a_device(base_weights: Path, tmp_path: Path) -> None:
    """libav's virtual device."""
    result = run(
        *("encode", "testsrc=size=32x32:rate=10:duration=0.5", tmp_path / "out.vdf"),
        *("--input-format", "lavfi", "--input-option", "probesize=32", "--weights", base_weights),
    )
    assert result.exit_code == 0, result.output
    assert sum(1 if isinstance(c, KeyChunk) else len(c.pts) for c in vdf_of(tmp_path)) == 5


def test_an_address_where_nobody_is(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot be read"):
        Demuxer("tcp://127.0.0.1:1")


def vdf_of(folder: Path) -> list[Any]:
    with open(folder / "out.vdf", "rb") as file:
        return list(Reader(file))


# --- decode --------------------------------------------------------------------------------------------


def test_decode_out_of_a_pipe(clips: Path, base_weights: Path, of_file: Any, tmp_path: Path) -> None:
    """The same frames as from the file, as y4m and with sound; also parts."""
    vdf = of_file("clip.mkv")
    for options in ([], ["--start", 3, "--frames", 4]):
        again = ["--weights", base_weights, "--workers", 1, "-q", *options]
        direct = run("decode", clips / "clip.mkv.vdf", "-", "--format", "y4m", *again)
        with fed(tmp_path / f"pipe{len(options)}", [vdf]):
            piped = run("decode", tmp_path / f"pipe{len(options)}", "-", "--format", "y4m", *again)
        assert (direct.exit_code, piped.exit_code) == (0, 0), direct.output + piped.output
        assert piped.stdout_bytes == direct.stdout_bytes
    with fed(tmp_path / "pipe", [vdf]):
        result = run("decode", tmp_path / "pipe", tmp_path / "back.mkv", "--weights", base_weights)
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "back.mkv").hashes == contents(clips / "clip.mkv").hashes


@pytest.mark.parametrize("low_delay", [True, False])
def test_frames_leave_with_their_chunk(codec: Codec, weights: Path, low_delay: bool) -> None:
    """No byte after a frame's chunk is read before the frame is there."""
    data, shown, _ = coded(
        codec, moving_picture(32, 32, 12), options=EncodeOptions(gop=8, low_delay=low_delay)
    )
    ends, reader = list[int](), Reader(io.BytesIO(data))
    for chunk in reader:
        ends += [reader.offset] * (1 if isinstance(chunk, KeyChunk) else len(chunk.pts))
    pipe = Pipe(data)
    video, _ = decode_stream(pipe, Resources(weights))  # type: ignore[arg-type]
    frames = list[Frame]()
    for frame in video.frames:
        assert pipe.read_bytes == ends[len(frames)]
        frames.append(frame)
    assert same(frames, shown)
    assert not video.damage


def test_a_file_that_grows(codec: Codec, weights: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Each chunk is written after the frames of the chunk before were decoded."""
    data, _, _ = coded(codec, moving_picture(32, 32, 9), options=EncodeOptions(gop=4))
    reader, offsets = Reader(io.BytesIO(data)), list[int]()
    for _ in reader:
        offsets.append(reader.offset)
    path, out = tmp_path / "a.vdf", tmp_path / "a.y4m"
    path.write_bytes(data[: offsets[0]])
    write = VideoWriter.write

    def written(self: VideoWriter, frame: Frame) -> None:
        write(self, frame)
        if len(offsets) > 1:
            with open(path, "ab") as file:
                file.write(data[offsets[0] : offsets[1]])
            del offsets[0]
        elif offsets:
            with open(path, "ab") as file:
                file.write(data[offsets.pop() :])

    monkeypatch.setattr(VideoWriter, "write", written)
    result = run("decode", path, out, "--follow", "--weights", weights)
    assert result.exit_code == 0, result.output
    monkeypatch.undo()
    with VideoReader(out) as video:
        assert len(list(video)) == 9


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_following(codec: Codec, weights: Path, tmp_path: Path, monkeypatch: Any) -> None:
    data, _, _ = coded(codec, moving_picture(32, 32, 5), options=EncodeOptions(gop=2))
    path, out, stalled = tmp_path / "a.vdf", tmp_path / "a.mkv", threading.Event()
    path.write_bytes(data[:-40])  # its END never comes

    def sleep(_: float) -> None:
        if not stalled.wait(0.01):
            stalled.set()

    monkeypatch.setattr("viddiff.pipeline.streaming.time.sleep", sleep)
    interrupt_once(stalled)
    result = run("decode", path, out, "--follow", "--weights", weights)
    assert result.exit_code == 130, result.output
    assert "is complete" in result.stderr
    with av.open(str(out)) as back:
        assert sum(1 for packet in back.demux() if packet.size) >= 4


def damages(data: bytes) -> dict[str, bytes]:
    """Damage of `four_gops`."""
    reader = Reader(io.BytesIO(data))
    starts = [start for start, _ in reader.scan(None)] + [len(data) - 14]
    flipped = {}
    for name, chunk in (("a keyframe", 4), ("the first keyframe", 0), ("predicted", 3), ("the last", 7)):
        at = (starts[chunk] + starts[chunk + 1]) // 2
        flipped[name] = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
    return flipped | {
        "nothing": data,
        "cut off": data[: starts[5] + 9],
        "the end": data[: starts[7]],
        "gone": data[: starts[3]] + data[starts[4] :],
    }


@pytest.fixture(scope="module")
def four_gops(codec: Codec) -> bytes:
    """Four GOPs of three frames, two chunks each."""
    frames = [replace(frame, pts=number) for number, frame in enumerate(moving_picture(32, 32, 12))]
    return coded(codec, frames, options=EncodeOptions(gop=3))[0]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *(("nothing", slice(12)), ("a keyframe", slice(12)), ("predicted", slice(12))),
        *(("cut off", slice(7)), ("the end", slice(10))),
        *(("the first keyframe", slice(12)), ("the last", slice(10)), ("gone", slice(12))),
    ],
)
def test_damage_costs_what_it_costs_a_file(four_gops: bytes, weights: Path, name: str, shown: slice) -> None:
    """The same damage, except what only the index shows."""
    damaged = damages(four_gops)[name]
    machine, strict = Resources(weights, workers=1), ReadOptions(strict=True)
    direct = decode_video(io.BytesIO(damaged), Path("x"), machine)
    expected = list(direct.frames)
    video, _ = decode_stream(Pipe(damaged), machine)  # type: ignore[arg-type]
    found = list(video.frames)
    assert bool(video.damage) == bool(direct.damage) == (name != "nothing")
    assert same(found, expected[shown])
    if shown == slice(12):
        assert video.damage.lost == direct.damage.lost
    if name != "nothing":
        with pytest.raises(BitstreamError):
            list(decode_stream(Pipe(damaged), machine, options=strict)[0].frames)  # type: ignore[arg-type]


def test_a_pipe_without_a_frame(base_weights: Path, tmp_path: Path, small_file: bytes) -> None:
    for number, data in enumerate((b"", b"junk" * 9, small_file[:150])):
        with fed(tmp_path / f"{number}", [data]):
            result = run("decode", tmp_path / f"{number}", tmp_path / "out.mkv", "--weights", base_weights)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
    assert not (tmp_path / "out.mkv").exists()


def test_encrypted_through_pipes(clips: Path, base_weights: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    options = ("--weights", base_weights, "--key-file", key, "-q")
    sealed = run("encode", clips / "clip.y4m", "-", "--workers", 1, "--frames", 3, *options)
    assert sealed.exit_code == 0, sealed.output
    with fed(tmp_path / "pipe", [sealed.stdout_bytes]):
        result = run("decode", tmp_path / "pipe", "-", "--format", "y4m", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes.count(b"FRAME\n") == 3
    with fed(tmp_path / "again", [sealed.stdout_bytes]):
        result = run("decode", tmp_path / "again", "-", "--weights", base_weights)
    assert result.exit_code == 1
    assert "needs its key" in result.stderr
