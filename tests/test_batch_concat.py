"""`viddiff batch --concat`: recordings of a camera become one file for each period, and nothing is lost."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture
from test_batch import ENVIRONMENT, ROOT, interruptible, lines, objects, states, tree
from test_cli import refused, write
from test_tracks import FPS, Sound, Source

import viddiff
from viddiff.cli import main
from viddiff.errors import VerificationError
from viddiff.frame import Frame
from viddiff.media.recording import stated_recording
from viddiff.pipeline.batch import concat
from viddiff.pipeline.batch.job import BatchJob, Outcome
from viddiff.pipeline.batch.manifest import Manifest
from viddiff.pipeline.batch.recording_times import beginning, stamp_of
from viddiff.pipeline.batch.run import attempt_unit, run_batch
from viddiff.pipeline.batch.seen import Seen
from viddiff.pipeline.batch.units import Shard, Unit
from viddiff.pipeline.encode_job import EncodeJob
from viddiff.pipeline.join_files import Row
from viddiff.pipeline.output_file import OutputFile

__all__ = ["interruptible"]
Encoder = Callable[..., Result]
NOON = datetime(2025, 6, 1, 12)
LENGTH = 0.2
"""Seconds of a recording: five frames of 25 a second."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    return record(path, 0)


def record(path: Path, seed: int, size: int = 32) -> Path:
    """A recording of five frames. The seed tells recordings apart."""
    frames = moving_picture(size, 32, 5, seed=seed)
    write(path, [Frame(f.y, f.u, f.v, 2 * number) for number, f in enumerate(frames)])
    return path


@pytest.fixture
def door(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "door"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def bring(folder: Path, clip: Path, *minutes: float, before: str = "", age: float = 1e6) -> list[Path]:
    """Recordings that begin so many minutes after noon, changed `age` seconds ago."""
    found = []
    for minute in minutes:
        begins = NOON + timedelta(minutes=minute)
        path = folder / f"{before}{begins:%Y%m%d_%H%M%S}.mkv"
        shutil.copy(clip, path)
        os.utime(path, (time.time() - age,) * 2)
        found.append(path)
    return found


@pytest.fixture
def encode(door: Path, out: Path) -> Encoder:
    """Run a batch of the folder above `door` to `out`."""

    def run(*options: object, age: str = "0s", period: str = "1h") -> Result:
        arguments = ["batch", door.parent, out, "--gop", 3, "--preset", "fastest", "--workers", 1]
        arguments += ["--concat", period, "--min-age", age, "--json", "-q", *options]
        return CliRunner().invoke(main, [str(a) for a in arguments])

    return run


def joined(result: Result) -> dict[str, list[str]]:
    """Names of what was joined, by output."""
    found = [unit for unit in objects(result) if unit.get("state") == "joined"]
    return {unit["output"]: [Path(source).name for source in unit["recordings"]] for unit in found}


def pictures(path: Path) -> list[Frame]:
    with viddiff.open(path) as video:
        return list(video)


def test_a_file_for_each_camera_and_hour(encode: Encoder, door: Path, out: Path) -> None:
    """Frames are those of the recordings, end to end; gaps and other sizes begin new files."""
    starts = [-0.01, 0, 0.005, 1, 1.004]  # minutes: the first one in the hour before, a gap, another size
    for number, minute in enumerate(starts):
        begins = NOON + timedelta(minutes=minute)
        path = record(door / f"{begins:%Y%m%d_%H%M%S}_{number}.mkv", number, 48 if number == 4 else 32)
        os.utime(path, (1e9, 1e9))
    shutil.copy2(next(door.iterdir()), door.parent / "no time.mkv")
    result = encode("--verify")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in door.iterdir())
    assert joined(result) == {
        "door/2025-06-01_11-59-59.vdf": names[:1],
        "door/2025-06-01_12-00-00.vdf": names[1:3],
        "door/2025-06-01_12-01-00.vdf": names[3:4],
        "door/2025-06-01_12-01-00_2.vdf": names[4:],
        "2001-09-09_01-46-39.vdf": ["no time.mkv"],
    }
    assert tree(out) == {*joined(result), "manifest.jsonl"}
    (fits,) = (unit for unit in objects(result) if unit.get("reason"))
    assert "does not fit and begins a new file: its size is 48x32, not 32x32" in fits["reason"]
    path = out / "door/2025-06-01_12-00-00.vdf"
    (line,) = (line for line in lines(out) if line["output"] == "door/2025-06-01_12-00-00.vdf")
    assert line["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (line["frames"], line["verified"], line["duration"]) == (10, True, 2 * LENGTH)
    assert [(s["begins"], s["start"]) for s in line["recordings"]] == [
        ("2025-06-01T12:00:00", 0),
        ("2025-06-01T12:00:00", LENGTH),
    ]
    found = pictures(path)
    assert [frame.pts - found[0].pts for frame in found] == list(range(0, 400, 40))
    for number, name in enumerate(names[1:3]):
        single = out / "single.vdf"
        common = ["--gop", 3, "--preset", "fastest", "--workers", 1, "--force"]
        assert (
            CliRunner().invoke(main, [str(a) for a in ("encode", door / name, single, *common)]).exit_code
            == 0
        )
        alone = pictures(single)
        for mine, its in zip(found[5 * number : 5 * number + 5], alone, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(mine.planes, its.planes, strict=True))
    again = encode("--verify")
    assert set(states(again).values()) == {"skipped"}
    assert objects(again)[-1]["skipped"] == 6


def test_sound_goes_on(encode: Encoder, door: Path, out: Path) -> None:
    for second in range(2):
        path = door / f"2025-06-01 12-00-0{second}.mkv"
        Source([Sound()]).write(path)
        os.utime(path, (1e9, 1e9))
    assert encode().exit_code == 0
    described = CliRunner().invoke(main, ["info", str(out / "door/2025-06-01_12-00-00.vdf"), "--json"])
    values = json.loads(described.stdout)
    assert (values["frames"], [s["kind"] for s in values["streams"]]) == (2 * FPS, ["audio"])


@pytest.mark.parametrize(
    ("path", "time", "before"),
    [
        ("door/2025-06-01_13-00-09.mp4", "13:00:09", ""),
        ("door/cam1-20250601130009.mkv", "13:00:09", "cam1-"),
        ("door/Front.20250601_130009123.mp4", "13:00:09", "Front."),
        ("door/2025_0601_130009_F.MP4", "13:00:09", ""),
        ("door/2025-06-01T13:00:09+0200.ts", "13:00:09", ""),
        ("door/RecM02_20250601_130009_130500_6D28C08.mp4", "13:00:09", "RecM02_"),
        ("20250601/130009.mp4", "13:00:09", ""),
        ("2025-06-01/001/13.00.09-13.05.00.dav", None, ""),
        ("2025-06-01_13-00-09/cam.mp4", None, ""),
        ("door/20251301_130009.mp4", None, ""),
        ("door/cam-0001.mp4", None, ""),
        ("door/ch01_00000000001000000.mp4", None, ""),
        ("old/2024-01-01_00-00-00_copy/2025-06-01_13-00-09.mp4", "13:00:09", ""),
    ],
)
def test_times_in_names(path: str, time: str | None, before: str) -> None:
    stamp = stamp_of(Path("/footage") / path)
    if time is None:
        assert stamp is None
    else:
        assert stamp is not None
        assert (stamp.time.isoformat(), stamp.before) == (f"2025-06-01T{time}", before)


def test_times_that_files_state(tmp_path: Path) -> None:
    """The creation time counts unless the camera has no clock, then the last change less the length."""
    path, changed = tmp_path / "a.mp4", 1_700_000_000
    Source(tags={"creation_time": "2025-06-01T13:00:09+02:00"}).write(path)
    assert beginning(path, changed * 10**9) == datetime(2025, 6, 1, 11, 0, 9)
    Source(tags={"creation_time": "1904-01-01T00:00:00Z"}).write(path)
    assert stated_recording(path) == (None, 1)
    assert beginning(path, changed * 10**9) == datetime(2023, 11, 14, 22, 13, 19)
    assert beginning(path, changed * 10**9, 10) == datetime(2023, 11, 14, 22, 13, 10)
    path.write_bytes(b"not complete")
    assert beginning(path, changed * 10**9) is None


def test_a_period_is_joined_when_it_is_closed(encode: Encoder, door: Path, clip: Path, out: Path) -> None:
    """By a recording of the next one, whatever its state, or when it is over."""
    today = datetime.now().replace(microsecond=0, second=0)
    now = [door / f"{today + timedelta(minutes=5 * m):%Y%m%d_%H%M%S}.mkv" for m in range(-2, 1)]
    for path, age in zip(now, (600, 300, 0), strict=True):
        shutil.copy(clip, path)
        os.utime(path, (time.time() - age,) * 2)
    first = encode(age="60s", period="100d")
    assert states(first)[f".recordings/door/{now[2].name}.vdf"] == "waiting"
    assert joined(first) == {}
    assert objects(first)[-1]["unjoined"] == 2
    assert tree(out) == {"manifest.jsonl", *(f".recordings/door/{path.name}.vdf" for path in now[:2])}
    later = door / f"{today + timedelta(days=101):%Y%m%d_%H%M%S}.mkv"
    shutil.copy(clip, later)
    assert joined(encode(age="60s", period="100d")) == {}, "one of the period is still written"
    os.utime(now[2], (time.time() - 100,) * 2)
    result = encode(age="60s", period="100d")
    assert [names for names in joined(result).values()] == [[path.name] for path in now]
    assert objects(result)[-1]["waiting"] == 1
    assert not (out / ".recordings").exists()


def test_a_period_is_over(encode: Encoder, door: Path, clip: Path, out: Path) -> None:
    """Half a day after its name says so, or when what is left of it has passed since the last change."""
    bring(door, clip, 0, age=100)
    result = encode(age="60s")
    assert joined(result) == {"door/2025-06-01_12-00-00.vdf": ["20250601_120000.mkv"]}
    ahead = datetime.now() + timedelta(days=2)
    path = door / f"{ahead:%Y%m%d}_235900.mkv"
    shutil.copy(clip, path)
    os.utime(path, (time.time() - 100,) * 2)
    assert joined(encode(age="60s")) == {}, "60 s of the hour are left, and 60 s more"
    os.utime(path, (time.time() - 125,) * 2)
    assert list(joined(encode(age="60s")).values()) == [[path.name]]


def test_cameras_are_told_apart(encode: Encoder, door: Path, clip: Path, out: Path) -> None:
    """By their folder, and by what stands in front of the time. All of a folder go to one shard."""
    bring(door, clip, 0, before="a-")
    bring(door, clip, 0, before="b-")
    for name in ("garage", "gate", "yard"):
        (door.parent / name).mkdir()
        bring(door.parent / name, clip, 0)
    done = [joined(encode("--shard", f"{n}/2")) for n in range(2)]
    assert all(done)
    assert done[0] | done[1] == {
        "door/a-2025-06-01_12-00-00.vdf": ["a-20250601_120000.mkv"],
        "door/b-2025-06-01_12-00-00.vdf": ["b-20250601_120000.mkv"],
        **{f"{name}/2025-06-01_12-00-00.vdf": ["20250601_120000.mkv"] for name in ("garage", "gate", "yard")},
    }
    assert set(states(encode()).values()) == {"skipped"}


def test_sources_are_deleted_after_the_joined_file_is_verified(
    encode: Encoder, door: Path, clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = bring(door, clip, 0, 0.05)

    def fail(*_: object) -> None:
        raise VerificationError("a frame differs")

    with monkeypatch.context() as patched:
        patched.setattr(concat, "verify_joined", fail)
        result = encode("--delete-source")
    assert result.exit_code == 3
    assert all(source.exists() for source in sources)
    assert tree(out) == {"manifest.jsonl"}, "what was not verified is encoded again"
    removed = list[str]()
    unlink = Path.unlink

    def watched(self: Path, missing_ok: bool = False) -> None:
        if self in sources:
            assert (out / "door/2025-06-01_12-00-00.vdf").exists()
            assert lines(out)[-1]["verified"]
            removed.append(self.name)
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    result = encode("--delete-source")
    assert result.exit_code == 0, result.output
    assert len(removed) == 2
    assert objects(result)[-2]["deleted"]
    assert tree(out) == {"manifest.jsonl", "door/2025-06-01_12-00-00.vdf"}


def test_a_joined_file_decodes_to_what_was_coded(
    encode: Encoder, door: Path, clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verification notices another picture: here the file of another recording under the same name."""
    bring(door, clip, 0)
    record(door / "20250601_120003.mkv", 7)
    row_of = Row.of

    def exchanged(sources: Iterable[Any]) -> Any:
        first, _ = sources
        return row_of([first, first])

    with monkeypatch.context() as patched:
        patched.setattr("viddiff.pipeline.join_files.Row.of", exchanged)
        result = encode("--verify")
    assert result.exit_code == 3
    assert "does not decode to the encoder's reconstruction" in result.stdout
    assert tree(out) == {"manifest.jsonl"}
    assert encode("--verify").exit_code == 0


def test_unverified_files_keep_their_sources(encode: Encoder, door: Path, clip: Path, out: Path) -> None:
    (source,) = bring(door, clip, 0)
    assert encode().exit_code == 0
    result = encode("--delete-source")
    assert objects(result)[0]["reason"] == "the source is kept: its file was not verified"
    assert source.exists()


def test_killed_before_sources_are_deleted(encode: Encoder, door: Path, clip: Path, out: Path) -> None:
    """The next run deletes them if the joined file is as recorded."""
    sources = bring(door, clip, 0, 0.05)
    assert encode("--verify").exit_code == 0
    path = out / "door/2025-06-01_12-00-00.vdf"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    result = encode("--delete-source")
    assert result.exit_code == 3
    assert result.stdout.count("is damaged") >= 2
    assert all(source.exists() for source in sources)
    path.write_bytes(whole)
    assert encode("--delete-source").exit_code == 0
    assert not any(source.exists() for source in sources)
    assert set(states(encode("--delete-source")).values()) == set()


def test_what_was_recorded_before_it_had_a_name_is_joined_again(
    encode: Encoder, door: Path, clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(door, clip, 0, 0.05)
    publish = OutputFile.publish

    def killed(self: OutputFile, temporary: Path) -> None:
        if temporary.name == ".joined.part":
            raise SystemExit(1)
        publish(self, temporary)

    with monkeypatch.context() as patched:
        patched.setattr(OutputFile, "publish", killed)
        assert encode().exit_code == 1
    assert lines(out)[-1]["recordings"]
    assert joined(encode()) == {
        "door/2025-06-01_12-00-00.vdf": ["20250601_120000.mkv", "20250601_120003.mkv"]
    }
    assert tree(out) == {"manifest.jsonl", "door/2025-06-01_12-00-00.vdf"}


def test_recordings_that_vanish_or_change_lose_nothing(
    encode: Encoder, door: Path, clip: Path, out: Path
) -> None:
    """A recorder deletes the oldest ones, or takes their names for new ones."""
    first, second = bring(door, clip, 0, 0.05, age=100)
    assert joined(encode("--older-than", "50s", age="60s", period="100000d")) == {}
    first.unlink()
    result = encode()
    assert joined(result) == {"door/2025-06-01_12-00-00.vdf": [first.name, second.name]}
    before = (out / "door/2025-06-01_12-00-00.vdf").read_bytes()
    record(first, 3)
    assert joined(encode()) == {"door/2025-06-01_12-00-00_2.vdf": [first.name]}
    assert (out / "door/2025-06-01_12-00-00.vdf").read_bytes() == before
    assert set(states(encode()).values()) == {"skipped"}


def test_a_damaged_file_in_the_working_folder_is_made_again(
    encode: Encoder, door: Path, clip: Path, out: Path
) -> None:
    bring(door, clip, 0, 0.05, age=100)
    assert encode(age="60s", period="100000d").exit_code == 0
    path = out / ".recordings/door/20250601_120003.mkv.vdf"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    result = encode()
    assert result.exit_code == 3
    assert not (out / "door").exists() or not list((out / "door").glob("*_3*"))
    result = encode()
    assert result.exit_code == 0
    assert sorted(name for names in joined(result).values() for name in names)


def test_a_full_disk_ends_the_batch(
    encode: Encoder, door: Path, clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(door, clip, 0, 0.05)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("viddiff.pipeline.join_files.Row.write", full)
        result = encode()
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert not [name for name in tree(out) if not name.startswith(".recordings") and name != "manifest.jsonl"]
    assert len(joined(encode())) == 1


def test_one_bad_recording_does_not_stop_the_others(
    encode: Encoder, door: Path, clip: Path, out: Path
) -> None:
    bring(door, clip, 0, 0.05)
    (door / "20250601_120001.mkv").write_bytes(b"power cut")
    result = encode()
    assert result.exit_code == 3
    assert len(joined(result)) == 1
    assert objects(result)[-1]["failed"] == 1


def test_with_and_without_joining(encode: Encoder, door: Path, clip: Path, out: Path) -> None:
    """What was done in one way is not done in the other."""
    bring(door, clip, 0)
    plain = ["batch", door.parent, out, "--preset", "fastest", "--min-age", "0s", "--json", "-q"]
    assert CliRunner().invoke(main, [str(a) for a in plain]).exit_code == 0
    bring(door, clip, 1)
    result = encode()
    assert sorted(states(result).values()) == ["done", "joined", "skipped"]
    again = CliRunner().invoke(main, [str(a) for a in plain])
    assert set(states(again).values()) == {"skipped"}


@pytest.mark.parametrize("period", ["0s", "1", "hour"])
def test_wrong_periods(encode: Encoder, period: str) -> None:
    refused(encode(period=period), 2)


def test_manifests_of_joined_files_are_read_back(encode: Encoder, door: Path, clip: Path, out: Path) -> None:
    bring(door, clip, 0, 0.05)
    assert encode().exit_code == 0
    manifest = Manifest(out, Shard())
    with manifest.loaded():
        (record,) = manifest.joined("door/20250601_120000.mkv")
        assert record == manifest.finished("door/2025-06-01_12-00-00.vdf")[0]
        assert [recording.frames for recording in record.recordings] == [5, 5]


@pytest.mark.parametrize("options", [[], ["--watch", "--poll", "0.1s"]])
def test_killed_at_any_moment(clip: Path, tmp_path: Path, options: list[str]) -> None:
    few = tmp_path / "few"
    (few / "door").mkdir(parents=True)
    bring(few / "door", clip, 0, 0.05, 60)
    check = [
        sys.executable,
        str(ROOT / "scripts" / "check_batch.py"),
        str(few),
        "--stride",
        "23",
        "--kills",
        "2",
    ]
    common = ["--gop", "3", "--preset", "fastest", "--concat", "1h", "--delete-source"]
    done = subprocess.run([*check, "--", *common, *options], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("fine") >= 3


def test_a_period_is_joined_while_it_is_watched(encode: Encoder, door: Path, clip: Path, out: Path) -> None:
    """As soon as a recording of the next one has come, and not before."""
    today = datetime.now().replace(microsecond=0)
    first, later = (door / f"{today + timedelta(days=d):%Y%m%d_%H%M%S}.mkv" for d in (0, 101))
    shutil.copy(clip, first)
    early = list[bool]()

    def until(there: Callable[[], bool]) -> None:
        for _ in range(600):
            if there():
                return
            time.sleep(0.1)

    def come() -> None:
        try:
            until((out / f".recordings/door/{first.name}.vdf").exists)
            time.sleep(0.5)
            early.append((out / "door").exists())
            shutil.copy(clip, door / ".part")
            os.rename(door / ".part", later)
            until((out / f"door/{today:%Y-%m-%d_%H-%M-%S}.vdf").exists)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=come)
    thread.start()
    result = encode("--watch", "--poll", "0.2s", period="100d")
    thread.join()
    assert result.exit_code == 0, result.output
    assert early == [False]
    assert {name for name in tree(out) if name.startswith("door")} == {f"door/{today:%Y-%m-%d_%H-%M-%S}.vdf"}


def test_recordings_that_are_encoded_elsewhere_are_joined_here(door: Path, clip: Path, out: Path) -> None:
    """As with a cluster: others write to the manifest meanwhile, and what they wrote is joined at the end."""
    bring(door, clip, 0, 0.05)

    def elsewhere(job: BatchJob, _: Manifest, to_do: list[tuple[Unit, Seen]]) -> Iterator[Outcome]:
        for unit, seen in reversed(to_do):
            manifest = Manifest(job.target, job.shard)
            with manifest.appending():
                yield attempt_unit(job, manifest, unit, seen)

    encode = EncodeJob(source="", target=out, gop=3, preset="fastest", workers=1, verify=True)
    job = BatchJob(
        sources=[str(door.parent)], target=out, encode=encode, min_age=0, concat=3600, delete_source=True
    )
    outcomes = list[Outcome]()
    run_batch(job, outcomes.append, execute=elsewhere)
    assert [outcome.state for outcome in outcomes] == ["done", "done", "joined"]
    assert outcomes[2].deleted
    assert tree(out) == {"manifest.jsonl", "door/2025-06-01_12-00-00.vdf"}
