"""`viddiff batch` from and to an SFTP server."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture, restless
from test_batch import ENVIRONMENT, ROOT, interruptible, lines, states, tree  # noqa: F401 (a fixture)
from test_cli import refused, write

from viddiff.cli import main
from viddiff.codec import enhancement_weights
from viddiff.pipeline.batch.servers import connections
from viddiff.pipeline.batch.servers.place import Place
from viddiff.pipeline.batch.units import find_units

pytest.importorskip("paramiko", reason="viddiff[remote] is not installed")
pytest.importorskip("fsspec", reason="viddiff[remote] is not installed")
from sftp_server import SftpServer

Batch = Callable[..., Result]
FILES = {"a.mkv.vdf", "door/b.mkv.vdf"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SftpServer]:
    """A server with two videos, which a user with a new home directory knows."""
    served, home = tmp_path / "served", tmp_path / "home" / ".ssh"
    (served / "cameras" / "door").mkdir(parents=True)
    write(served / "cameras" / "a.mkv", moving_picture(32, 32, 5))
    shutil.copy(served / "cameras" / "a.mkv", served / "cameras" / "door" / "b.mkv")
    (served / "cameras" / "link.mkv").symlink_to(served / "cameras" / "door")
    server = SftpServer(served)
    home.mkdir(parents=True)
    server.key.write_private_key_file(str(home / "id_ecdsa"))
    (home / "known_hosts").write_text(server.known_host)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr("viddiff.pipeline.batch.servers.retrying.WAITS", (0.0, 0.0, 0.0))
    yield server
    connections._opened.cache_clear()
    server.stop()


@pytest.fixture
def batch(server: SftpServer, tmp_path: Path) -> Batch:
    """Run a batch, by default of the server's cameras to its archive."""
    weights = tmp_path / "narrow.safetensors"
    enhancement_weights.save(weights, restless())

    def run(*options: object, out: str = "archive", user: str = "me") -> Result:
        places = [f"sftp://{user}@{server.address}/{name}" for name in ("cameras", out)]
        arguments = ["batch", *places, "--weights", weights, "--preset", "fastest", "--min-age", "0s"]
        arguments += ["--workers", 1, "--scratch", tmp_path / "work", *options]
        return CliRunner().invoke(main, [str(a) for a in arguments])

    return run


def archived(server: SftpServer) -> set[str]:
    """Everything in the archive but records and weights."""
    return {name for name in tree(server.folder / "archive") if not name.startswith("manifest/")}


def test_from_server_to_server(batch: Batch, server: SftpServer, tmp_path: Path) -> None:
    result = batch("--delete-source")
    assert result.exit_code == 0, result.output
    assert archived(server) == FILES
    assert tree(server.folder / "cameras") == set()
    assert tree(tmp_path / "work") == {"manifest.jsonl"}
    for line in lines(tmp_path / "work"):
        assert line["bytes"] == (server.folder / "archive" / line["output"]).stat().st_size


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.mkv", {"a.mkv", "gone.mkv"}),
        ("*/*.mkv", {"door/b.mkv", "locked"}),
        ("**/*.mkv", {"a.mkv", "door/b.mkv", "gone.mkv", "locked"}),
        ("**", {"a.mkv", "door/b.mkv", "gone.mkv", "locked"}),
        ("[dl]*", {"door/b.mkv", "locked"}),
        ("**/door/**/?.*", {"door/b.mkv", "locked"}),
    ],
)
def test_globs(server: SftpServer, tmp_path: Path, pattern: str, names: set[str]) -> None:
    """They find what they find on this machine, folders and links that cannot be read, too."""
    cameras = server.folder / "cameras"
    (cameras / "locked").mkdir()
    (cameras / "gone.mkv").symlink_to("nowhere.mkv")
    (cameras / "gone.txt").symlink_to("nowhere.txt")
    failures = [errno.EIO]

    def hook(path: str) -> None:
        if path.endswith("locked"):
            raise PermissionError(errno.EACCES, "")
        if path.endswith("door") and failures:
            raise OSError(failures.pop(), "an error that passes")

    server.hook = hook
    address = f"sftp://me@{server.address}/cameras/{pattern}"
    found = find_units([address], Place.parse(f"sftp://me@{server.address}/archive")).units
    assert set(found) == names
    assert {name for name, unit in found.items() if unit.problem} == names & {"gone.mkv", "locked"}
    here = find_units([str(cameras / pattern)], tmp_path / "archive").units
    assert set(here) == names - {"locked"}


def test_lost_connections(batch: Batch, server: SftpServer) -> None:
    server.lose_every = 15
    result = batch()
    assert result.exit_code == 0, result.output
    assert server.lost >= 3
    assert archived(server) == FILES, "and no part of an upload"
    assert set(states(batch("--json")).values()) == {"skipped"}


def test_killed_at_any_moment(server: SftpServer, tmp_path: Path) -> None:
    script, few = ROOT / "scripts" / "check_batch.py", tmp_path / "few"
    few.mkdir()
    shutil.copy(server.folder / "cameras" / "a.mkv", few)
    check = [sys.executable, str(script), str(few), "--server", "sftp"]
    options = ["--stride", "999", "--kills", "1", "--", "--preset", "fastest", "--delete-source"]
    done = subprocess.run([*check, *options], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("fine") >= 2


def test_nothing_is_replaced(batch: Batch, server: SftpServer) -> None:
    path = server.folder / "archive" / "a.mkv.vdf"
    path.parent.mkdir()
    path.write_bytes(b"somebody's")
    result = batch()
    assert result.exit_code == 3
    assert "exists, of another state of the source or unknown" in result.stderr
    assert path.read_bytes() == b"somebody's"
    assert archived(server) == FILES


def test_what_was_cut_off_long_ago_is_removed(batch: Batch, server: SftpServer) -> None:
    old, young = (server.folder / "archive" / f".a.mkv.vdf.{n}0000000.upload" for n in (1, 2))
    old.parent.mkdir()
    for path in (old, young):
        path.write_bytes(b"part")
    os.utime(old, (1e9, 1e9))
    assert batch().exit_code == 0
    assert archived(server) == {*FILES, young.name}


def test_a_server_that_replaces_files_is_refused(batch: Batch, server: SftpServer) -> None:
    server.replaces = True
    assert "this server replaces files" in refused(batch())


def test_who_may_not_enter(batch: Batch, server: SftpServer, tmp_path: Path) -> None:
    assert "accepts no SSH key" in refused(batch(user="somebody"))
    connections._opened.cache_clear()
    (tmp_path / "home" / ".ssh" / "known_hosts").write_text("")
    assert "the server's key is not known" in refused(batch())
