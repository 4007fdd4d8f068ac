"""Kill batches at every step and at random moments: nothing may be missing, partial or lost, ever.

    python scripts/check_batch.py FOLDER [--server s3] [--stride 1] [--kills 20] [--seed 0] [-- OPTIONS]

OPTIONS are those of the batch.

FOLDER holds short videos. A batch of a copy of it is killed (SIGKILL) before each of its steps in the file
system, or before every STRIDE-th, and then at random moments. After each kill, every source or its whole file
must be there, and the same command must complete everything: the same files as without a kill, and nothing
else. The exit code is 1 if that fails. Needs fork.

With --watch, half of the videos come while the batch runs, and SIGTERM ends it when all is done. With
--concat, every video must be in one joined file, as the manifest says. With both, what is joined depends on
when videos come, so that files are compared with the manifest only.

With --server s3 or sftp, SRC and OUT are on a server in this process. S3 (moto) fails one request in ten:
with errors, lost answers, and answers that are cut off. SFTP (paramiko) loses connections. One video grows
until the batch begins that must complete everything, and others can never be read. Nothing may be left of
uploads that were cut off.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from abc import abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any

from viddiff.cli import main
from viddiff.cli.batch import SOME_FAILED
from viddiff.pipeline.batch.watching import Watching

EVENTS = ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.truncate")
"""Steps in the file system that Python reports."""
MODULES = ("viddiff.pipeline.batch.run", "viddiff.codec.checkpoint", "viddiff.encoder.gop_encoder")
"""Modules that are loaded once, before all batches."""
GROWS = "grows.mkv"
"""A video that grows, on servers."""
FAULTS, LOSE_EVERY = 0.1, 40
"""Share of the requests that fail on S3, and steps on SFTP after which a connection is lost."""
PART = 512
"""Bytes of a part of a file on S3, so that small files are uploaded in parts."""
BRINGER = "bringer"
"""Name of the thread that brings videos. It is no part of the batch."""
PATIENCE = 120.0
"""Seconds after which a batch that watches is ended, whether all is done or not."""


class Case:
    """A copy of the sources, and a batch of it."""

    codes: tuple[int, ...] = (0,)
    """Exit codes of a batch that ends by itself."""

    def __init__(self, folder: Path, work: Path, options: list[str]) -> None:
        self.original, self.work = folder, work
        self.source, self.out, self.later = work / "source", work / "out", work / "later"
        self.command = ["batch", *self.places(), "--min-age", "0s", "--workers", "1", "-q", *options]
        self.deletes, self.watches = "--delete-source" in options, "--watch" in options
        self.joins = "--concat" in options
        self.videos = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        self._watching = threading.Event()
        self.whole: dict[str, bytes] = {}
        """The files of an uninterrupted batch, unless they depend on when videos come."""

    def places(self) -> list[str]:
        """SRC and OUT."""
        return [str(self.source), str(self.out)]

    def settle(self) -> None:
        """Before the batch that must complete everything."""

    def reset(self) -> None:
        """Begin again."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.original, self.source)
        self.later.mkdir()
        for name in self.videos[1::2] if self.watches else []:
            (self.later / name).parent.mkdir(parents=True, exist_ok=True)
            (self.source / name).rename(self.later / name)

    def start(self, kill_at: int = 0) -> int:
        """Start a batch that kills itself before step `kill_at`, from 1. Returns the process id."""
        process = os.fork()
        if process:
            return process
        if kill_at:
            self._kill_before(kill_at)
        if self.watches:
            self._tell_when_it_watches()
            threading.Thread(target=self._bring, name=BRINGER, daemon=True).start()
        try:
            main(self.command)
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 1)
        finally:
            os._exit(1)

    def _bring(self) -> None:
        """Bring the videos that come later, one after the other, and end the batch when all is done."""
        for name in self.videos:
            if (self.later / name).exists():
                time.sleep(0.1)
                os.replace(self.later / name, self.source / name)
        until = time.monotonic() + PATIENCE
        while self.unfinished() and time.monotonic() < until:
            time.sleep(0.05)
        self._watching.wait(PATIENCE)  # a signal before that ends any command with a code of its own
        os.kill(os.getpid(), signal.SIGTERM)

    def _tell_when_it_watches(self) -> None:
        wait = Watching.wait

        def told(watching: Watching, seconds: float | None) -> None:
            self._watching.set()
            wait(watching, seconds)

        Watching.wait = told  # type: ignore[method-assign, assignment]

    def _kill_before(self, step: int) -> None:
        steps = 0

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            mine = threading.current_thread().name != BRINGER
            if mine and event in EVENTS and str(arguments[0]).startswith(str(self.work)):
                steps += 1
                if steps == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)

    def outputs(self) -> dict[str, bytes]:
        """All files under their final names."""
        paths = list[Path]()
        for folder, folders, files in os.walk(self.out):
            folders[:] = [name for name in folders if not name.startswith(".")]
            paths += [Path(folder, name) for name in files if name.endswith(".vdf") and name[0] != "."]
        return {p.relative_to(self.out).as_posix(): p.read_bytes() for p in paths}

    def held(self, found: dict[str, bytes]) -> Counter[str]:
        """How many of these files hold each video, by the manifest. Files that it does not know hold none."""
        count = Counter[str]()
        complete = (json.loads(line) for line in self.lines() if line.endswith(b"\n"))
        records = {(record["output"], record["sha256"]): record for record in complete}
        for name, data in found.items():
            record = records.get((name, hashlib.sha256(data).hexdigest()))
            if record is None:
                continue
            recordings = [recording["name"] for recording in record["recordings"]]
            count.update(recordings if self.joins else [name.removesuffix(".vdf")])
        return count

    def lines(self) -> list[bytes]:
        """Lines of the manifest."""
        manifest = self.out / "manifest.jsonl"
        return manifest.read_bytes().splitlines(keepends=True) if manifest.exists() else []

    def there(self, name: str) -> bool:
        """Whether a source is there."""
        return (self.source / name).exists() or (self.later / name).exists()

    def left(self) -> list[str]:
        """What a batch that has run to its end should not leave."""
        return [str(path) for path in self.work.rglob(".*")]

    def unfinished(self) -> list[str]:
        """What a batch has still to do."""
        held = self.held(self.outputs())
        left = [f"{name} is missing" for name in self.videos if not held[name]]
        left += [f"{p} was kept" for p in self.source.rglob("*") if p.is_file() and self.deletes]
        return left + [f"{p} was left" for p in self.out.glob(".recordings")]

    def faults(self, ended: bool) -> list[str]:
        """What is wrong. ended: the batch has run to its end."""
        found = self.outputs()
        held = self.held(found)
        faults = [
            f"{name} is partial" for name in found if self.whole and found[name] != self.whole.get(name)
        ]
        for name in self.videos:
            there = self.there(name)
            if not held[name] and (ended or not there):
                faults.append(f"{name} is {'missing' if there else 'lost'}")
            if held[name] > 1:
                faults.append(f"{name} is in {held[name]} files")
            if ended and there == self.deletes:
                faults.append(f"{name} was {'kept' if self.deletes else 'deleted'}")
        if len(found) != len(self.whole) and ended and self.whole:
            faults.append(f"{len(found)} files in place of {len(self.whole)}")
        if ended:
            faults += [f"{name} was left" for name in self.left()]
        return faults


class RemoteCase(Case):
    """Both sides on a server, which has more videos than the folder: one that grows, and bad ones."""

    codes = (SOME_FAILED,)
    bad: tuple[str, ...] = ("bad.mkv",)
    """Sources that can never be encoded."""

    def __init__(self, folder: Path, work: Path, options: list[str]) -> None:
        self.scratch, self.growing, self.grown = work / "scratch", False, 0
        super().__init__(folder, work, [*options, "--scratch", str(self.scratch)])
        self.whole_video = (folder / self.videos[0]).read_bytes()
        self.videos.append(GROWS)

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Write a source."""

    def reset(self) -> None:
        """Begin again."""
        super().reset()
        self.put(GROWS, self.whole_video)
        for name in self.bad:
            self.put(name, b"no video")
        self.growing = True

    def settle(self) -> None:
        """End the growth of the video."""
        self.growing = False
        self.put(GROWS, self.whole_video)

    def asked(self, path: str) -> None:
        """Have the video grow whenever the batch asks about it."""
        if self.growing and path.endswith(f"source/{GROWS}"):
            self.grown += 1
            self.put(GROWS, self.whole_video + bytes(self.grown))

    def left(self) -> list[str]:
        """What a batch that has run to its end should not leave."""
        work = [path for path in self.scratch.rglob("*") if path.is_file() or path.name.startswith(".")]
        kept = {self.scratch / "manifest.jsonl", *self.scratch.glob("weights/*.safetensors")}
        return [str(path) for path in work if path not in kept]

    def faults(self, ended: bool) -> list[str]:
        """What is wrong. ended: the batch has run to its end."""
        lost = [f"{name} is lost" for name in self.bad if not self.there(name)]
        return super().faults(ended) + lost


class SftpCase(RemoteCase):
    """An SFTP server."""

    def __init__(self, folder: Path, work: Path, options: list[str]) -> None:
        from sftp_server import SftpServer

        self.server = SftpServer(work / "served")
        self.server.hook, self.server.lose_every = self.asked, LOSE_EVERY
        super().__init__(folder, work, options)
        self.source, self.out = work / "served" / "source", work / "served" / "out"
        home = work.with_name("home")
        (home / ".ssh").mkdir(parents=True)
        self.server.key.write_private_key_file(str(home / ".ssh" / "id_ecdsa"))
        (home / ".ssh" / "known_hosts").write_text(self.server.known_host)
        os.environ["HOME"] = str(home)
        os.environ.pop("SSH_AUTH_SOCK", None)

    def places(self) -> list[str]:
        """SRC and OUT."""
        return [f"sftp://me@{self.server.address}/{name}" for name in ("source", "out")]

    def put(self, name: str, data: bytes) -> None:
        """Write a source."""
        (self.source / name).write_bytes(data)

    def settle(self) -> None:
        """End the growth of the video."""
        super().settle()
        for path in self.out.rglob(".*.upload"):  # or else a batch takes them for those of others
            os.utime(path, (1e9, 1e9))

    def lines(self) -> list[bytes]:
        """Lines of the manifest."""
        return [path.read_bytes() for path in self.out.glob("manifest/**/*.json")]

    def left(self) -> list[str]:
        """What a batch that has run to its end should not leave."""
        return super().left() + [str(path) for path in self.out.rglob(".*")]


class S3Case(RemoteCase):
    """An S3 server, which knows uploads in parts and sources that may not be read."""

    bad = (*RemoteCase.bad, "locked.mkv")

    def __init__(self, folder: Path, work: Path, options: list[str]) -> None:
        from botocore.retries.standard import ExponentialBackoff
        from s3_server import S3Server

        self.server = S3Server()
        super().__init__(folder, work, options)
        os.environ.update(self.server.settings)
        s3_store = importlib.import_module("viddiff.pipeline.batch.servers.s3_store")
        models = importlib.import_module("moto.s3.models")
        vars(s3_store)["_BLOCK"] = vars(models)["S3_UPLOAD_PART_MIN_SIZE"] = PART
        ExponentialBackoff.delay_amount = lambda *_: 0.0

    def places(self) -> list[str]:
        """SRC and OUT."""
        return ["s3://bucket/source", "s3://bucket/out"]

    def reset(self) -> None:
        """Begin again."""
        self.server.reset()
        super().reset()
        for name in self.videos:
            self.put(name, (self.source / name).read_bytes() if name != GROWS else self.whole_video)
        self.server.hook = self.answer
        self.server.fail(FAULTS, self.grown)

    def answer(self, request: dict[str, Any]) -> bytes | None:
        """What the server says to a request in place of its answer."""
        self.asked(request["PATH_INFO"])
        locked = request["PATH_INFO"].endswith("/locked.mkv") and request["REQUEST_METHOD"] == "GET"
        return b"403 AccessDenied" if locked else None

    def put(self, name: str, data: bytes) -> None:
        """Write a source."""
        self.server.put(f"source/{name}", data)

    def there(self, name: str) -> bool:
        """Whether a source is there."""
        return f"source/{name}" in self.server.objects("source/")

    def outputs(self) -> dict[str, bytes]:
        """All files under their final names."""
        found = self.server.objects("out/").items()
        return {key.removeprefix("out/"): data for key, data in found if key.endswith(".vdf")}

    def lines(self) -> list[bytes]:
        """Lines of the manifest."""
        found = self.server.objects("out/manifest/").items()
        return [data for key, data in found if key.endswith(".json")]

    def left(self) -> list[str]:
        """What a batch that has run to its end should not leave."""
        return super().left() + [f"part of {key}" for key in self.server.uploads()]


CASES: dict[str | None, type[Case]] = {None: Case, "s3": S3Case, "sftp": SftpCase}


def wait(process: int, codes: tuple[int, ...]) -> bool:
    """Wait for a batch. True if it was killed; it must not end with other codes."""
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) not in codes:
        sys.exit(f"batch failed with code {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status)


def checked(case: Case, what: str) -> int:
    """Check what a kill has left, complete the batch, and check again. Returns the number of faults."""
    faults = case.faults(ended=False)
    case.settle()
    wait(case.start(), case.codes)
    faults += case.faults(ended=True)
    print(f"{what}: {'; '.join(faults) or 'fine'}", flush=True)
    return len(faults)


def run(case: Case, given: argparse.Namespace) -> int:
    """Kill and complete. Returns the number of faults."""
    case.reset()
    case.settle()
    wait(case.start(), case.codes)
    if not (case.joins and case.watches):
        case.whole = case.outputs()
    case.reset()
    case.settle()
    began = time.monotonic()
    wait(case.start(), case.codes)
    seconds, wrong, step = time.monotonic() - began, len(case.faults(ended=True)), 1
    print(f"uninterrupted: {len(case.outputs())} files in {seconds:.1f} s", flush=True)
    while True:
        case.reset()
        if not wait(case.start(kill_at=step), case.codes):
            break
        wrong += checked(case, f"killed before step {step}")
        step += given.stride
    rng = random.Random(given.seed)
    case.reset()
    for number in range(given.kills):
        process = case.start()
        time.sleep(rng.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
        wait(process, case.codes)
        if rng.random() < 0.5:  # or else the next one is killed on top of this one
            wrong += checked(case, f"kill {number + 1}")
            case.reset()
    wrong += checked(case, f"{given.kills} kills")
    return wrong


def main_check() -> None:
    """Kill batches, and check what becomes of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--server", choices=("s3", "sftp"))
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    own, options = sys.argv[1:], list[str]()
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    for module in MODULES:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        sys.path.append(str(Path(__file__).parent.parent / "tests"))
        sys.exit(run(CASES[given.server](given.folder.resolve(), Path(folder) / "work", options), given) > 0)


if __name__ == "__main__":
    main_check()
