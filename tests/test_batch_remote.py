"""`viddiff batch` from and to servers: nothing is replaced, lost or partial, whatever the network does."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture, restless
from test_batch import ENVIRONMENT, interruptible, lines, objects, states, tree  # noqa: F401 (a fixture)
from test_cli import refused, write

from viddiff.cli import main
from viddiff.codec import enhancement_weights
from viddiff.codec.tensor_file import stated_hash
from viddiff.pipeline.batch import run as batch_run
from viddiff.pipeline.batch.manifest import line_of, record_on
from viddiff.pipeline.batch.servers import connections, s3_store
from viddiff.pipeline.batch.servers.place import Place
from viddiff.pipeline.batch.units import find_units

s3fs = pytest.importorskip("s3fs", reason="viddiff[remote] is not installed")
pytest.importorskip("moto.server", reason="moto, a server for tests, is not installed")
from s3_server import BUCKET, S3Server  # noqa: E402

SOURCE, OUT = f"s3://{BUCKET}/cameras", f"s3://{BUCKET}/archive"
CHOICES = ("--preset", "fastest", "--workers", "1")
Batch = Callable[..., Result]


@pytest.fixture(scope="module")
def running() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def server(running: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A server with an empty bucket. Nothing of this user's own settings counts, and nobody waits long."""
    running.reset()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in running.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    monkeypatch.setattr("viddiff.pipeline.batch.servers.retrying.WAITS", (0.0, 0.0))
    return running


@pytest.fixture
def new_connection(server: S3Server) -> Iterator[None]:
    """A connection of this test alone. The others share one, because it takes long to open."""

    def forget() -> None:
        connections._opened.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()

    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write(path, moving_picture(32, 32, 5))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "narrow.safetensors"
    enhancement_weights.save(path, restless())
    return path


@pytest.fixture
def cameras(server: S3Server, clip: Path) -> S3Server:
    """A server with two videos, and what is no video."""
    for name in ("a.mkv", "door/night/b.MKV", "door/.hidden.mkv", ".old/c.mkv"):
        server.put(f"cameras/{name}", clip.read_bytes())
    server.put("cameras/door/photo.jpg", b"no video")
    return server


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def batch(weights: Path, work: Path) -> Batch:
    """Run a batch, by default of the cameras to the archive."""

    def run(*options: object, places: tuple[object, ...] = (SOURCE, OUT), scratch: bool = True) -> Result:
        arguments = ["batch", *places, *CHOICES, "--weights", weights, "--min-age", "0s"]
        arguments += ["--scratch", work] if scratch else []
        return CliRunner().invoke(main, [str(a) for a in [*arguments, *options]])

    return run


@pytest.fixture(scope="module")
def coded(clip: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What `encode` makes of the clip."""
    path = tmp_path_factory.mktemp("coded") / "clip.vdf"
    arguments = ["encode", clip, path, *CHOICES, "--weights", weights]
    assert CliRunner().invoke(main, [str(a) for a in arguments]).exit_code == 0
    return path.read_bytes()


def archived(server: S3Server) -> dict[str, bytes]:
    """Encoded files in the archive."""
    found = server.objects("archive/").items()
    return {key.removeprefix("archive/"): data for key, data in found if key.endswith(".vdf")}


def records(server: S3Server) -> list[dict[str, Any]]:
    found = server.objects("archive/manifest/").items()
    return [json.loads(data) for key, data in found if key.endswith(".json")]


def is_upload(environ: dict[str, Any], name: str = ".vdf") -> bool:
    return environ["REQUEST_METHOD"] == "PUT" and str(environ["PATH_INFO"]).endswith(name)


BOTH = {"a.mkv.vdf", "door/night/b.MKV.vdf"}


def test_from_server_to_server(
    batch: Batch, cameras: S3Server, work: Path, weights: Path, coded: bytes
) -> None:
    result = batch("--verify")
    assert result.exit_code == 0, result.output
    assert "2 done" in result.stderr
    assert "1 .jpg" in result.stderr
    assert str(work) in result.stderr, "where the manifest is"
    assert archived(cameras) == dict.fromkeys(BOTH, coded)
    digest = stated_hash(weights)
    assert cameras.objects("archive/weights/") == {
        f"archive/weights/{digest}.safetensors": weights.read_bytes()
    }
    assert tree(work) == {"manifest.jsonl"}, "nothing else is left"
    assert not (work / ".sources").exists()
    assert records(cameras) == sorted(lines(work), key=lambda line: str(line["output"]))
    for line in lines(work):
        assert line["source"] == f"{SOURCE}/{line['output'].removesuffix('.vdf')}"
        assert (line["bytes"], line["sha256"]) == (len(coded), hashlib.sha256(coded).hexdigest())
        assert line["verified"]
    asked = len(cameras.requests)
    again = batch("--json")
    assert set(states(again).values()) == {"skipped"}
    assert len(cameras.requests) - asked < 10, "one list tells it all"
    shutil.rmtree(work)
    asked = len(cameras.requests)
    assert set(states(batch("--json")).values()) == {"skipped"}, "the records are on the server, too"
    assert not [path for method, path in cameras.requests[asked:] if path.endswith((".mkv", ".MKV"))]
    assert {line["output"] for line in lines(work)} == BOTH


def test_one_side_is_here(
    batch: Batch, cameras: S3Server, work: Path, clip: Path, coded: bytes, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    result = batch(places=(f"{SOURCE}/*/night", SOURCE + "/a.mkv", here), scratch=False)
    assert result.exit_code == 0, result.output
    assert tree(here) == {*BOTH, "manifest.jsonl"}
    assert (here / "a.mkv.vdf").read_bytes() == coded
    (tmp_path / "footage").mkdir()
    shutil.copy(clip, tmp_path / "footage" / "c.mkv")
    result = batch("--delete-source", places=(tmp_path / "footage", OUT))
    assert result.exit_code == 0, result.output
    assert archived(cameras) == {"c.mkv.vdf": coded}
    assert tree(tmp_path / "footage") == set()


def test_dry_run_writes_nothing(batch: Batch, cameras: S3Server, work: Path) -> None:
    result = batch("--dry-run", "--json")
    assert set(states(result).values()) == {"planned"}, result.output
    assert cameras.objects("archive") == {}
    assert not work.exists()


def test_one_request_in_ten_fails(batch: Batch, cameras: S3Server, clip: Path, coded: bytes) -> None:
    """Half of the failures come after the request was done, so that its answer is lost."""
    names = [f"door/{number}.mkv" for number in range(6)]
    for name in names:
        cameras.put(f"cameras/{name}", clip.read_bytes())
    cameras.fail(0.1, seed=1)
    result = batch("--delete-source", "--json")
    assert result.exit_code == 0, result.output
    assert set(states(result).values()) == {"done"}
    assert cameras.faults >= 10, f"{cameras.faults} of {len(cameras.requests)}"
    assert archived(cameras) == dict.fromkeys([*BOTH, *(f"{name}.vdf" for name in names)], coded)
    left = set(cameras.objects("cameras/"))
    assert left == {f"cameras/{name}" for name in ("door/photo.jpg", "door/.hidden.mkv", ".old/c.mkv")}
    assert len(records(cameras)) == 8


def test_what_keeps_failing_stops_nothing_else(batch: Batch, cameras: S3Server, work: Path) -> None:
    cameras.hook = lambda request: b"503 SlowDown" if request["PATH_INFO"].endswith("/a.mkv") else None
    result = batch()
    assert result.exit_code == 3, result.output
    assert "Traceback" not in result.output
    assert f"Failed: {SOURCE}/a.mkv: the server fails" in result.stderr.splitlines()[-1]
    assert set(archived(cameras)) == {"door/night/b.MKV.vdf"}
    cameras.hook = lambda _: None
    assert batch().exit_code == 0
    assert set(archived(cameras)) == BOTH
    assert tree(work) == {"manifest.jsonl"}


def test_what_could_not_be_uploaded_waits(
    batch: Batch, cameras: S3Server, work: Path, coded: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run uploads it, and encodes nothing."""
    cameras.hook = lambda request: b"500 InternalError" if is_upload(request) else None
    result = batch()
    assert result.exit_code == 3, result.output
    assert archived(cameras) == {}
    assert tree(work) == {*BOTH, "manifest.jsonl"}
    cameras.hook = lambda _: None
    monkeypatch.setattr(batch_run, "encode_file", lambda *_: pytest.fail("it is encoded already"))
    assert batch("--delete-source").exit_code == 0
    assert archived(cameras) == dict.fromkeys(BOTH, coded)
    assert tree(work) == {"manifest.jsonl"}


def test_a_lost_answer_is_no_second_file(batch: Batch, cameras: S3Server, coded: bytes) -> None:
    """The upload is repeated, finds the file, compares it and says so."""
    lost = list[str]()

    def lose(request: dict[str, Any]) -> bytes | None:
        if is_upload(request, "a.mkv.vdf") and not lost:
            lost.append(request["PATH_INFO"])
            cameras.put("archive/a.mkv.vdf", request["wsgi.input"].getvalue())
            return b"500 InternalError"
        return None

    cameras.hook = lose
    result = batch()
    assert result.exit_code == 0, result.output
    assert lost
    assert "the same file was there already" in result.stderr
    assert archived(cameras) == dict.fromkeys(BOTH, coded)


@pytest.mark.parametrize("with_record", [True, False])
def test_another_batch_was_quicker(
    batch: Batch, cameras: S3Server, work: Path, weights: Path, with_record: bool
) -> None:
    """Its file differs. It is taken if there is a record of it, and kept in any case."""
    other = b"another file, as a different processor might make it"

    def overtake(request: dict[str, Any]) -> bytes | None:
        if is_upload(request, "a.mkv.vdf"):
            cameras.hook = lambda _: None
            cameras.put("archive/a.mkv.vdf", other)
            (mine,) = (record_on(line_of(r)) for r in map(as_record, records(cameras)) if "a.mkv" in r.output)
            assert mine is not None
            digest = hashlib.sha256(other).hexdigest()
            record = replace(mine, bytes=len(other), sha256=digest)
            if with_record:
                cameras.put(f"archive/manifest/a.mkv/{digest[:16]}.json", line_of(record))
        return None

    cameras.hook = overtake
    result = batch("--delete-source", "--json")
    assert archived(cameras)["a.mkv.vdf"] == other
    found = states(result)
    assert found["door/night/b.MKV.vdf"] == "done"
    if with_record:
        assert result.exit_code == 0, result.output
        assert found["a.mkv.vdf"] == "skipped"
        (outcome,) = (o for o in objects(result) if o.get("output") == "a.mkv.vdf")
        assert outcome["sha256"] == hashlib.sha256(other).hexdigest()
        assert outcome["deleted"]
        assert tree(work) == {"manifest.jsonl"}
        assert set(states(batch("--json")).values()) <= {"skipped"}
    else:
        assert result.exit_code == 3, result.output
        assert "exists, of another state of the source or unknown" in result.stderr
        assert "cameras/a.mkv" in cameras.objects("cameras/")


def as_record(values: dict[str, Any]) -> Any:
    return record_on(json.dumps(values).encode())


def test_another_batch_has_done_it_meanwhile(
    batch: Batch, cameras: S3Server, tmp_path: Path, coded: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for before a video is encoded, not only in the list that was made at the beginning."""
    assert batch("--verify", "--scratch", tmp_path / "other", scratch=False).exit_code == 0
    later = {key: data for key, data in cameras.objects("archive/").items() if "a.mkv" in key}
    for key in later:
        cameras.delete(key)

    def bring(request: dict[str, Any]) -> None:
        if (request["REQUEST_METHOD"], request["PATH_INFO"]) == ("HEAD", f"/{BUCKET}/archive/a.mkv.vdf"):
            for key, data in later.items():
                cameras.put(key, data)

    cameras.hook = bring
    monkeypatch.setattr(batch_run, "encode_file", lambda *_: pytest.fail("it is encoded already"))
    result = batch("--delete-source")
    assert result.exit_code == 0, result.output
    assert "a.mkv: source deleted" in result.stderr
    assert archived(cameras) == dict.fromkeys(BOTH, coded)


def test_a_signal_ends_an_upload(batch: Batch, cameras: S3Server, work: Path, coded: bytes) -> None:
    def end(request: dict[str, Any]) -> bytes | None:
        if is_upload(request):
            os.kill(os.getpid(), signal.SIGTERM)
            return b"403 AccessDenied"
        return None

    cameras.hook = end
    assert batch().exit_code == 128 + signal.SIGTERM
    assert archived(cameras) == {}
    cameras.hook = lambda _: None
    assert batch().exit_code == 0
    assert archived(cameras) == dict.fromkeys(BOTH, coded)
    assert tree(work) == {"manifest.jsonl"}


def test_two_batches_race(
    batch: Batch, cameras: S3Server, weights: Path, tmp_path: Path, coded: bytes
) -> None:
    """Both have encoded a video before either may upload it."""
    cameras.delete("cameras/door/night/b.MKV")
    both = threading.Barrier(2, timeout=50)

    def hold(request: dict[str, Any]) -> None:
        if is_upload(request, "a.mkv.vdf"):
            both.wait()

    cameras.hook = hold
    command = ["batch", SOURCE, OUT, *CHOICES, "--weights", str(weights), "--min-age", "0s", "--json"]
    other = subprocess.Popen(
        [sys.executable, "-m", "viddiff", *command, "--scratch", str(tmp_path / "other")],
        env={**ENVIRONMENT, **cameras.settings},
        stdout=subprocess.PIPE,
        text=True,
    )
    mine = batch("--json")
    said, _ = other.communicate()
    assert (mine.exit_code, other.returncode) == (0, 0), mine.output + said
    reasons = [json.loads(text.splitlines()[0])["reason"] for text in (mine.stdout, said)]
    assert sorted(map(str, reasons)) == ["None", "the same file was there already"]
    assert archived(cameras) == {"a.mkv.vdf": coded}
    assert len(records(cameras)) == 1


def test_a_killed_upload_leaves_nothing_that_looks_complete(
    batch: Batch, cameras: S3Server, weights: Path, work: Path, tmp_path: Path, coded: bytes
) -> None:
    command = ["batch", SOURCE, OUT, *CHOICES, "--weights", str(weights), "--min-age", "0s"]
    started = list[subprocess.Popen[bytes]]()

    def kill(request: dict[str, Any]) -> bytes | None:
        if is_upload(request):
            started[0].kill()
            return b"500 InternalError"
        return None

    cameras.hook = kill
    arguments = [*command, "--scratch", str(work), "-q"]
    environment = {**ENVIRONMENT, **cameras.settings}
    started.append(subprocess.Popen([sys.executable, "-m", "viddiff", *arguments], env=environment))
    assert started[0].wait() == -signal.SIGKILL
    assert archived(cameras) == {}
    (work / ".sources" / "manifest" / "gone.mkv").write_bytes(b"of a kill while it was fetched")
    cameras.hook = lambda _: None
    assert batch("--delete-source").exit_code == 0
    assert archived(cameras) == dict.fromkeys(BOTH, coded)
    assert tree(work) == {"manifest.jsonl"}


def test_parts_of_a_large_file_are_no_file(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 5 << 17
    monkeypatch.setattr(s3_store, "_BLOCK", size // 2 - 1)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 256)
    large, place = tmp_path / "large", Place.parse(f"{OUT}/large")
    large.write_bytes(os.urandom(size))
    store = connections.store_of(place)
    parts = list[str]()

    def after_one(request: dict[str, Any]) -> bytes | None:
        if "partNumber" in request["QUERY_STRING"]:
            parts.append(request["QUERY_STRING"])
            assert server.objects("archive/") == {}
        return b"403 AccessDenied" if len(parts) > 1 else None

    server.hook = after_one
    with pytest.raises(PermissionError):
        store.create(large, place)
    assert server.objects("archive/") == {}
    server.hook = lambda _: None
    server.fail(0.1, seed=3)
    store.create(large, place)
    assert server.objects("archive/") == {"archive/large": large.read_bytes()}
    other = tmp_path / "other"
    other.write_bytes(bytes(size))
    with pytest.raises(FileExistsError):
        store._create(other, place)
    assert server.objects("archive/") == {"archive/large": large.read_bytes()}
    store.fetch(place, tmp_path / "back", size)
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    with pytest.raises(OSError, match="in place of 7"):
        store.fetch(place, tmp_path / "back", 7)


def test_answers_that_are_cut_off_do_not_cost_the_whole_file(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "_BLOCK", 1000)
    data, place = os.urandom(99_500), Place.parse(f"{OUT}/large")
    server.put("archive/large", data)
    server.fail(0.2)
    connections.store_of(place).fetch(place, tmp_path / "back", len(data))
    assert (tmp_path / "back").read_bytes() == data
    assert server.faults >= 10
    assert len(server.requests) < 250, "and none is fetched again and again"


@pytest.mark.parametrize("old", [True, False])
def test_parts_that_a_kill_has_left_are_removed(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    """Those of a young upload may be those of another machine."""
    size, large, place = 5 << 17, tmp_path / "large", Place.parse(f"{OUT}/door/large")
    monkeypatch.setattr(s3_store, "_BLOCK", size // 2 - 1)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 256)
    if not old:
        monkeypatch.setattr(s3_store, "_ABANDONED", 1e12)
    large.write_bytes(os.urandom(size))
    server.begin_upload("archive/door/large")
    server.begin_upload("somebody's")
    s3_store.S3Store(place.server).create(large, place)
    assert server.uploads() == ({"somebody's"} if old else {"somebody's", "archive/door/large"})
    assert server.objects("archive/") == {"archive/door/large": large.read_bytes()}


def test_nothing_on_a_server_is_replaced(
    batch: Batch, cameras: S3Server, clip: Path, coded: bytes, tmp_path: Path
) -> None:
    """Neither an unknown file, nor the file of an older state of the source."""
    cameras.put("archive/door/night/b.MKV.vdf", b"somebody's")
    result = batch("--delete-source")
    assert result.exit_code == 3
    assert "exists, of another state of the source or unknown" in result.stderr.splitlines()[-1]
    assert archived(cameras) == {"a.mkv.vdf": coded, "door/night/b.MKV.vdf": b"somebody's"}
    write(tmp_path / "new.mkv", moving_picture(32, 32, 3))
    cameras.put("cameras/a.mkv", (tmp_path / "new.mkv").read_bytes())
    result = batch("--delete-source")
    assert result.exit_code == 3
    assert archived(cameras)["a.mkv.vdf"] == coded
    assert {"cameras/a.mkv", "cameras/door/night/b.MKV"} <= set(cameras.objects("cameras/"))


def test_a_server_that_replaces_files_is_refused(batch: Batch, cameras: S3Server) -> None:
    def ignore_condition(request: dict[str, Any]) -> None:
        request.pop("HTTP_IF_NONE_MATCH", None)

    cameras.hook = ignore_condition
    assert "this server replaces files" in refused(batch())
    assert archived(cameras) == {}


def test_a_source_is_deleted_only_if_the_upload_is_as_it_should_be(
    batch: Batch, cameras: S3Server, coded: bytes
) -> None:
    damaged = coded[:-1] + bytes([coded[-1] ^ 1])

    def damage(request: dict[str, Any]) -> None:
        if request["REQUEST_METHOD"] == "GET" and request["PATH_INFO"].endswith("a.mkv.vdf"):
            cameras.put("archive/a.mkv.vdf", damaged)

    cameras.hook = damage
    result = batch("--delete-source")
    assert result.exit_code == 3, result.output
    assert f"{OUT}/a.mkv.vdf is damaged" in result.stderr
    left = cameras.objects("cameras/")
    assert "cameras/a.mkv" in left
    assert "cameras/door/night/b.MKV" not in left
    cameras.hook = lambda _: None
    assert batch("--delete-source").exit_code == 3, "also later"
    cameras.put("archive/a.mkv.vdf", coded)
    assert batch("--delete-source").exit_code == 0
    assert "cameras/a.mkv" not in cameras.objects("cameras/")


def test_a_source_that_changes_meanwhile(batch: Batch, cameras: S3Server, clip: Path, tmp_path: Path) -> None:
    write(tmp_path / "new.mkv", moving_picture(32, 32, 3))
    new = (tmp_path / "new.mkv").read_bytes()

    def change(request: dict[str, Any]) -> None:
        if request["REQUEST_METHOD"] == "GET" and request["PATH_INFO"].endswith("/a.mkv"):
            cameras.put("cameras/a.mkv", new)

    cameras.hook = change
    result = batch("--delete-source", "--json")
    assert result.exit_code == 0, result.output
    assert states(result) == {"a.mkv.vdf": "waiting", "door/night/b.MKV.vdf": "done"}
    assert cameras.objects("cameras/")["cameras/a.mkv"] == new


def test_names_that_only_servers_have(batch: Batch, server: S3Server, clip: Path, tmp_path: Path) -> None:
    for name in ("../up.mkv", "a//b.mkv", "x/../../y.mkv", "good.mkv"):
        server.put(f"cameras/{name}", clip.read_bytes())
    server.put("cameras/folder/", b"")
    result = batch("--json")
    assert result.exit_code == 3, result.output
    failed = {failure["source"]: failure["reason"] for failure in objects(result)[-1]["failures"]}
    assert set(failed) == {f"{SOURCE}/{name}" for name in ("../up.mkv", "a//b.mkv", "x/../../y.mkv")}
    assert set(failed.values()) == {"no file here can have this name"}
    assert set(archived(server)) == {"good.mkv.vdf"}
    assert not list(tmp_path.rglob("*up.mkv*"))


def test_sources_of_all_kinds(cameras: S3Server, tmp_path: Path) -> None:
    cameras.put("cameras/door/c.dav", b"")
    cameras.put("cameras/archive/d.mkv", b"")
    (tmp_path / "list.txt").write_text(f"{SOURCE}/door\n{tmp_path}/e.mkv\n")

    def names(*sources: str, out: str = OUT) -> set[str]:
        return set(find_units(sources, Place.parse(out)).units)

    everything = {"a.mkv", "door/night/b.MKV", "archive/d.mkv"}
    assert names(SOURCE) == names(f"{SOURCE}/") == everything
    assert names(SOURCE, out=f"{SOURCE}/archive") == {"a.mkv", "door/night/b.MKV"}
    assert names(f"{SOURCE}/**") == everything
    assert names(f"{SOURCE}/*/night") == {"door/night/b.MKV"}
    assert names(f"{SOURCE}/door/*.dav") == {"c.dav"}
    assert names(f"{SOURCE}/door/c.dav") == {"c.dav"}
    assert names(f"@{tmp_path}/list.txt") == {
        f"{BUCKET}/cameras/door/night/b.MKV",
        f"{tmp_path}/e.mkv".lstrip("/"),
    }
    assert names(f"s3://{BUCKET}") == {f"cameras/{name}" for name in everything}
    (unit,) = find_units([f"{SOURCE}/nothing.mkv"], tmp_path).units.values()
    assert unit.problem == "it does not exist"


def test_shards(batch: Batch, cameras: S3Server, clip: Path, tmp_path: Path) -> None:
    """Each has a scratch folder of its own, as on machines of their own."""
    for number in range(4):
        cameras.put(f"cameras/{number}.mkv", clip.read_bytes())
    done = [
        states(batch("--shard", f"{n}/2", "--json", "--scratch", tmp_path / f"work{n}", scratch=False))
        for n in range(2)
    ]
    assert sum(map(len, done)) == 6
    assert set().union(*done) == set(archived(cameras))
    assert set(states(batch("--json")).values()) == {"skipped"}


def test_a_source_that_is_named_and_was_deleted(batch: Batch, cameras: S3Server, work: Path) -> None:
    for _ in range(2):  # with and without what this machine remembers
        result = batch("--delete-source", "--json", places=(f"{SOURCE}/a.mkv", OUT))
        assert result.exit_code == 0, result.output
        assert "cameras/a.mkv" not in cameras.objects("cameras/")
        shutil.rmtree(work)
    assert states(result) == {"a.mkv.vdf": "skipped"}


def test_a_folder_that_has_become_empty(batch: Batch, server: S3Server) -> None:
    """S3 does not know it any more."""
    for source in (SOURCE, f"{SOURCE}/2025.06/"):
        result = batch("--delete-source", places=(source, OUT))
        assert result.exit_code == 0, result.output
        assert "nothing to do" in result.stderr
    result = batch(places=(f"{SOURCE}/a.mkv", OUT))
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == f"Failed: {SOURCE}/a.mkv: it does not exist"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--watch"], "--watch needs SRC and OUT on this machine"),
        (["--concat", "1h"], "--concat needs SRC and OUT on this machine"),
    ],
)
def test_what_servers_cannot_do(
    batch: Batch, cameras: S3Server, tmp_path: Path, options: list[str], why: str
) -> None:
    assert why in refused(batch(*options), 2)
    assert why in refused(batch(*options, places=(SOURCE, tmp_path / "out"), scratch=False), 2)
    (tmp_path / "list").write_text(SOURCE)
    listed = batch(*options, places=(f"@{tmp_path / 'list'}", tmp_path / "out"), scratch=False)
    assert why in refused(listed)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://host/x", "only s3:// and sftp:// are supported"),
        ("s3:///x", "write s3://BUCKET/FOLDER"),
        ("sftp://me:secret@host/x", "give no password"),
        ("sftp://host:port/x", "write sftp://USER@HOST:PORT/FOLDER"),
    ],
)
def test_wrong_addresses(batch: Batch, tmp_path: Path, address: str, why: str) -> None:
    for places in ((address, tmp_path / "out"), (tmp_path, address)):
        said = refused(batch(places=places, scratch=False), 2)
        assert why in said
        assert "secret" not in said
    (tmp_path / "list").write_text(address)
    assert why in refused(batch(places=(f"@{tmp_path / 'list'}", tmp_path / "out"), scratch=False))


def test_scratch_is_for_servers(batch: Batch, tmp_path: Path, server: S3Server) -> None:
    assert "--scratch is for" in refused(batch(places=(tmp_path, tmp_path / "out")), 2)


def test_scratch_has_a_place_of_its_own(
    batch: Batch, cameras: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert batch(scratch=False).exit_code == 0
    (folder,) = (tmp_path / "cache" / "viddiff" / "batch").iterdir()
    assert folder.name.startswith("s3-bucket-archive-")
    assert {line["output"] for line in lines(folder)} == BOTH


def test_buckets_that_are_not_there(batch: Batch, cameras: S3Server, tmp_path: Path) -> None:
    assert "s3://nobody/x: there is no such bucket" in refused(batch(places=(SOURCE, "s3://nobody/x")))
    result = batch(places=("s3://nobody/x", OUT))
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == "Failed: s3://nobody/x: there is no such bucket"


def test_no_permission(batch: Batch, cameras: S3Server) -> None:
    cameras.hook = lambda request: b"403 AccessDenied" if request["REQUEST_METHOD"] == "PUT" else None
    assert "access is denied" in refused(batch())
    cameras.hook = lambda _: b"403 AccessDenied"
    assert f"{SOURCE}: access is denied" in refused(batch())


def test_no_credentials(batch: Batch, new_connection: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "there are no credentials" in refused(batch())


def test_no_server(batch: Batch, new_connection: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "Could not connect" in refused(batch())


@pytest.mark.parametrize("place", ["s3://bucket/x", "sftp://host/x"])
def test_the_extra_is_missing(
    batch: Batch, new_connection: None, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    for name in ("s3fs", "fsspec", "paramiko"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("s3_store", "sftp_store"):
        monkeypatch.delitem(sys.modules, f"viddiff.pipeline.batch.servers.{name}", raising=False)
    assert "pip install 'viddiff[remote]'" in refused(batch(places=(place, OUT)))


def test_local_places_load_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from viddiff.pipeline.batch.units import *; find_units(sys.argv[1:], Path('out')); "
        "print({'fsspec', 's3fs', 'paramiko'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()", done.stderr
