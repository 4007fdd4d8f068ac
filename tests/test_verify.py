"""`encode --verify`: a file gets its name only if it decodes to the encoder's reconstruction."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import coded, moving_picture
from test_cli import refused, write
from test_tracks import Sound, Source

from viddiff.cli import main
from viddiff.codec.weights import Codec
from viddiff.container.format import Chunk, KeyChunk, Writer
from viddiff.container.part_file import PartFile
from viddiff.container.sealing import SealedWriter
from viddiff.digest import GopDigest, frame_digest
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import VerificationError, ViddiffError
from viddiff.frame import Frame
from viddiff.pipeline import output as pipeline
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.summary import EncodeSummary
from viddiff.pipeline.verify import verify

FRAMES = 7


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three GOPs of at most three frames, at uneven times."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write(path, moving_picture(48, 34, FRAMES))
    return path


@pytest.fixture(scope="module")
def plain(clip: Path, base_weights: Path) -> bytes:
    """Result of an encode without --verify."""
    path = clip.with_name("plain.vdf")
    result = run("encode", clip, path, "--gop", 3, "--weights", base_weights, "--json")
    assert json.loads(result.stdout.splitlines()[-1])["verified"] is False
    return path.read_bytes()


def folder_of(path: Path) -> list[str]:
    return [p.name for p in path.iterdir()]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sound_file_passes(
    clip: Path, plain: bytes, base_weights: Path, tmp_path: Path, workers: int
) -> None:
    out = tmp_path / "out.vdf"
    options = ("--gop", 3, "--weights", base_weights, "--workers", workers, "--json")
    result = run("encode", clip, out, "--verify", *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["verified"] is True
    assert out.read_bytes() == plain
    assert folder_of(tmp_path) == ["out.vdf"]


def test_processes_without_a_base(clip: Path, weights: Path, tmp_path: Path) -> None:
    options = ("--gop", 3, "--weights", weights, "--workers", 2)
    result = run("encode", clip, tmp_path / "out.vdf", "--verify", *options)
    assert result.exit_code == 0, result.output
    assert result.stderr.endswith(", verified\n")


def test_with_sound_and_a_line_for_people(base_weights: Path, tmp_path: Path) -> None:
    source = Source([Sound()], frames=6).write(tmp_path / "clip.mkv")
    result = run("encode", source, tmp_path / "a.vdf", "--gop", 4, "--verify", "--weights", base_weights)
    assert result.exit_code == 0, result.output
    assert result.stderr.endswith(", verified\n")


def test_encrypted(clip: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, words = tmp_path / "key", tmp_path / "words"
    key.write_bytes(bytes(range(32)))
    words.write_text("correct horse\n")
    options = ("--gop", 3, "--verify", "--weights", base_weights, "--workers")
    for number, secret in enumerate((("--key-file", key), ("--encrypt", "--passphrase-file", words))):
        out = tmp_path / f"{number}.vdf"
        result = run("encode", clip, out, *options, number + 1, *secret)
        assert result.exit_code == 0, result.output
        assert run("info", out, *secret[-2:]).exit_code == 0
    seal = SealedWriter._seal

    def tampered(self: SealedWriter, last: bool) -> None:
        seal(self, last)
        if last:
            self._file.seek(-40, 1)  # into the last record: eight other bytes than random ones
            self._file.write(b"tampered")

    monkeypatch.setattr(SealedWriter, "_seal", tampered)
    bad = tmp_path / "bad.vdf"
    message = refused(run("encode", clip, bad, *options, 1, "--key-file", key))
    assert "does not decode" in message
    assert sorted(folder_of(tmp_path)) == ["0.vdf", "1.vdf", "key", "words"]


@pytest.mark.parametrize(("at", "workers"), [(40, 1), (-30, 2), (0.1, 1), (0.5, 1), (0.5, 2), (0.9, 1)])
def test_changed_bytes(
    clip: Path,
    plain: bytes,
    base_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: float,
    workers: int,
) -> None:
    """Bytes change on their way to the disk: in the header, in INDEX and between."""
    position = int(at * len(plain)) if isinstance(at, float) else at % len(plain)
    write_part, written = PartFile.write, [0]

    def tampered(self: PartFile, data: bytes) -> int:
        changed, here = bytearray(data), position - written[0]
        if 0 <= here < len(data):
            changed[here] ^= 1
        written[0] += len(data)
        return write_part(self, bytes(changed))

    monkeypatch.setattr(PartFile, "write", tampered)
    out = tmp_path / "out.vdf"
    result = run("encode", clip, out, "--gop", 3, "--verify", "--weights", base_weights, "--workers", workers)
    assert "does not decode" in refused(result)
    assert "--resume" not in result.stderr
    assert folder_of(tmp_path) == [], "not even to be resumed"


@pytest.mark.parametrize("what", ["picture", "time"])
def test_what_no_checksum_notices(
    clip: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A valid keyframe, but not the one that was coded."""
    write_chunk, met = Writer.write, list[KeyChunk]()

    def mixed_up(self: Writer, chunk: Chunk) -> None:
        assert isinstance(chunk, KeyChunk)
        met.append(chunk)
        if len(met) == 3:
            picture = replace(chunk, payload=met[0].payload)
            chunk = picture if what == "picture" else replace(chunk, pts=chunk.pts + 1)
        write_chunk(self, chunk)

    monkeypatch.setattr(Writer, "write", mixed_up)
    out = tmp_path / "out.vdf"
    options = ("--gop", 1, "--weights", base_weights, "--workers", 1)
    message = refused(run("encode", clip, out, "--verify", *options))
    assert message == "Error: frames 2 to 2 do not decode to the encoder's reconstruction"
    assert folder_of(tmp_path) == []


def test_another_reconstruction(
    clip: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sample of the encoder's last frame differs from the decoded one."""
    seen = list[Frame]()

    def other(frame: Frame) -> bytes:
        seen.append(frame)
        if len(seen) == FRAMES:
            luma = frame.y.copy()
            luma[-1, -1] ^= 1
            frame = replace(frame, y=luma)
        return frame_digest(frame)

    monkeypatch.setattr(pipeline, "frame_digest", other)
    out = tmp_path / "out.vdf"
    options = ("--gop", 3, "--weights", base_weights, "--workers", 1)
    message = refused(run("encode", clip, out, "--verify", *options))
    assert message == "Error: frames 6 to 6 do not decode to the encoder's reconstruction"
    assert folder_of(tmp_path) == []
    seen.clear()
    assert run("encode", clip, out, *options).exit_code == 0, "nobody looked"


def test_an_end_from_outside_is_no_verdict(
    clip: Path, plain: bytes, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coded GOPs can be resumed by an encode without --verify."""
    import viddiff.pipeline.verify as module

    def ended(*_: object, **__: object) -> None:
        raise ViddiffError("a working process was ended from outside")

    monkeypatch.setattr(module, "decode_video", ended)
    out = tmp_path / "out.vdf"
    options = ("--gop", 3, "--weights", base_weights)
    result = run("encode", clip, out, "--verify", *options)
    assert "ended from outside" in refused(result)
    assert "--resume, not --verify, continues it" in result.stderr
    assert run("encode", clip, out, "--resume", *options).exit_code == 0
    assert out.read_bytes() == plain


def test_not_with_resume(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    result = run("encode", clip, tmp_path / "out.vdf", "--verify", "--resume", "--weights", base_weights)
    assert result.exit_code == 2
    assert "--resume" in result.stderr
    assert folder_of(tmp_path) == []


def test_help() -> None:
    text = " ".join(run("encode", "--help").stdout.split())
    assert "--verify Decode the new file" in text
    assert "Not with --resume" in text


# --- without the commands ----------------------------------------------------------------------------


@pytest.fixture
def sound(codec: Codec, weights: Path, tmp_path: Path) -> tuple[Path, EncodeSummary, Resources]:
    """A valid 10-bit file of two GOPs, with its summary and resources."""
    data, _, summary = coded(codec, moving_picture(48, 32, 7, 10), 10, EncodeOptions(gop=5))
    path = tmp_path / "a.vdf"
    path.write_bytes(data)
    return path, summary, Resources(weights, workers=1)


def test_one_digest_a_gop(sound: tuple[Path, EncodeSummary, Resources]) -> None:
    path, summary, machine = sound
    assert [gop.frames for gop in summary.gops] == [5, 2]
    counts: list[int] = []
    verify(path, summary.gops, machine, None, counts.append)
    assert counts == list(range(1, 8))


@pytest.mark.parametrize(
    "change",
    [
        lambda gops: gops[:1],
        lambda gops: gops[::-1],
        lambda gops: [*gops, GopDigest(1, bytes(32))],
        lambda gops: [GopDigest(5, gops[0].chain), GopDigest(2, gops[0].chain)],
        lambda gops: [],
    ],
)
def test_other_digests(
    sound: tuple[Path, EncodeSummary, Resources], change: Callable[[list[GopDigest]], list[GopDigest]]
) -> None:
    path, summary, machine = sound
    with pytest.raises(VerificationError):
        verify(path, change(summary.gops), machine, None, lambda _: None)


def test_what_a_digest_tells_apart() -> None:
    frame, other = moving_picture(48, 32, 2)
    wide = replace(frame, y=frame.y.astype(np.uint16))
    frames = [frame, other, wide, replace(frame, pts=7), replace(frame, u=frame.v, v=frame.u)]
    assert len({frame_digest(each) for each in frames}) == len(frames)
    big = replace(wide, y=wide.y.astype(">u2"))
    assert frame_digest(big) == frame_digest(wide), "on a machine of the other byte order"
    one, two = GopDigest(), GopDigest()
    for a, b in ((frame, other), (other, frame)):
        one.add(frame_digest(a))
        two.add(frame_digest(b))
    assert one != two
