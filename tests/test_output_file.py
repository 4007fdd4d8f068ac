"""Which files may be written: nobody's own file is lost, whatever its name, and two encodes do not race."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from conftest import moving_picture
from test_cli import refused, run, write

from viddiff.errors import OutputError
from viddiff.file_names import hidden_beside
from viddiff.media.authorship import written_by_viddiff
from viddiff.pipeline.output_file import OutputFile, complete_file, is_vdf

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write(path, moving_picture(32, 32, 3))
    return path


@pytest.fixture(scope="module")
def encoded(clip: Path, base_weights: Path) -> Path:
    path = clip.with_name("clip.vdf")
    assert run("encode", clip, path, "--weights", base_weights).exit_code == 0
    return path


def video(path: Path) -> Path:
    """A video that somebody else has made."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.vdf"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_another_video_is_never_replaced(
    clip: Path, encoded: Path, base_weights: Path, tmp_path: Path, name: str, force: list[str]
) -> None:
    """As OUT of `encode -f *.mp4`, and of a decode."""
    made = video(tmp_path / "made.mkv").rename(tmp_path / name)
    before = made.read_bytes()
    for command, source in (("encode", clip), ("decode", encoded)):
        message = refused(run(command, source, made, *force, "--weights", base_weights))
        assert "remove it or choose another name" in message
        assert "--force" not in message
    assert made.read_bytes() == before
    assert list(tmp_path.iterdir()) == [made]


def test_what_viddiff_writes_it_knows_again(encoded: Path, base_weights: Path, tmp_path: Path) -> None:
    for name, options in (("a.mp4", []), ("a.mkv", []), ("b.mkv", ["--lossless"]), ("a.y4m", [])):
        assert run("decode", encoded, tmp_path / name, *options, "--weights", base_weights).exit_code == 0
        assert written_by_viddiff(tmp_path / name)
    (tmp_path / "y").write_bytes(b"YUV4MPEG2 W32 H32 F25:1\nFRAME\n")
    (tmp_path / "t").write_text("text")
    (tmp_path / "e").touch()
    assert [written_by_viddiff(tmp_path / name) for name in "yte"] == [False, False, True]
    assert not written_by_viddiff(video(tmp_path / "other.mp4"))
    assert not written_by_viddiff(encoded)


def test_odd_targets(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/null"), Path("/dev/full")):
        assert "not a regular file" in refused(run("encode", clip, target, "-f", "--weights", base_weights))
    (tmp_path / "far").mkdir()
    for there in (False, True):
        link = tmp_path / f"link{there}"
        link.symlink_to(tmp_path / "far" / f"{there}.vdf")
        if there:
            (tmp_path / "far" / "True.vdf").touch()
        assert run("encode", clip, link, "-f", "--weights", base_weights).exit_code == 0
        assert link.is_symlink()
        assert is_vdf(tmp_path / "far" / f"{there}.vdf")


def fill(output: OutputFile, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Write a file, and let something happen at the same time."""
    with complete_file(output, lambda _: None) as file:
        file.write(b"frames")
        meanwhile()


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a.vdf"
    for force in (False, True):
        output = OutputFile(target, force, is_vdf, "a .vdf file")
        with pytest.raises(OutputError, match="has appeared meanwhile"):
            fill(output, lambda: target.write_bytes(b"precious"))
        assert target.read_bytes() == b"precious"
        (other,) = (path for path in tmp_path.iterdir() if path != target)
        assert other.read_bytes() == b"frames"
        other.unlink()
        target.unlink()


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on FAT."""

    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr("viddiff.pipeline.output_file.os.link", link)
    output = OutputFile(tmp_path / "a.vdf", False, is_vdf, "a .vdf file")
    fill(output)
    assert output.path.read_bytes() == b"frames"
    with pytest.raises(OutputError):
        fill(output)
    assert output.path.read_bytes() == b"frames"


def test_one_process_writes_a_file(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "a.vdf", False, is_vdf, "a .vdf file")
    code = f"""if True:
        from pathlib import Path
        from viddiff.pipeline.output_file import *
        with OutputFile(Path({str(output.path)!r}), False, is_vdf, "").claim():
            print("in")
    """
    other = [sys.executable, "-c", code]
    with output.claim():
        result = subprocess.run(other, env=ENVIRONMENT, capture_output=True, text=True)
        assert "a.vdf is being written by another process" in result.stderr
    assert subprocess.run(other, env=ENVIRONMENT, capture_output=True, text=True).stdout == "in\n"
    assert list(tmp_path.iterdir()) == []


def test_many_claims_at_a_time(tmp_path: Path) -> None:
    """Of those that overlap one succeeds, whoever removes the lock when."""
    output, inside, wins = OutputFile(tmp_path / "a.vdf", False, is_vdf, ""), list[int](), list[int]()

    def claim() -> None:
        for _ in range(200):
            try:
                with output.claim():
                    inside.append(1)
                    assert len(inside) == 1
                    wins.append(1)
                    inside.pop()
            except OutputError:
                pass

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) >= 200
    assert not inside
    assert list(tmp_path.iterdir()) == []


def test_two_encodes_of_other_sources(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.vdf"
    with OutputFile(out, False, is_vdf, "").claim():
        for options in ([], ["--resume"], ["--quality", 3]):
            message = refused(run("encode", clip, out, "--weights", base_weights, *options))
            assert message == f"Error: {out} is being written by another process"


@pytest.mark.parametrize("name", ["あ" * 80, "a" * 251, "é" * 125, "a", "ä" * 3 + "\udcff\udcfe" * 100])
def test_names_of_any_length(clip: Path, base_weights: Path, tmp_path: Path, name: str) -> None:
    """From any legal one, hidden names are made that are legal, too, and differ from each other's."""
    assert len(os.fsencode(hidden_beside(tmp_path / f"{name}.vdf", f".{'0' * 16}.part").name)) <= 255
    out, back = tmp_path / f"{name}.vdf", tmp_path / f"{name}.mp4"
    assert run("encode", clip, out, "--weights", base_weights, "-q").exit_code == 0
    assert run("decode", out, "--weights", base_weights, "-q").exit_code == 0
    assert sorted(tmp_path.iterdir()) == sorted([out, back])


def test_long_names_do_not_share_hidden_ones(tmp_path: Path) -> None:
    long = "a" * 250
    first, second = (hidden_beside(tmp_path / f"{long}{end}", ".x.part") for end in ("bvdf", "cvdf"))
    assert first != second
    assert all(len(path.name) == 255 for path in (first, second))


@pytest.mark.parametrize("name", [".", "..", "/", "", "./", "../.."])
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_names_that_are_none(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is not a file" in refused(run(command, name))
    assert run(command, name, "out.mp4").exit_code == 1


def test_odd_sources(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for source in (tmp_path / "socket", tmp_path, Path("/dev/null")):
            for command in ("encode", "decode"):
                assert "is not a file" in refused(run(command, source, tmp_path / "o.mp4"))
    assert "does not exist" in refused(run("encode", tmp_path / "\udcff\udcfe.mp4", tmp_path / "o.vdf"))
