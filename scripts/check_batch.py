"""Kill batches at every step and at random moments: nothing may be missing, partial or lost, ever.

    python scripts/check_batch.py FOLDER [--stride 1] [--kills 20] [--seed 0] [-- OPTIONS OF BATCH]

FOLDER holds short videos. A batch of a copy of it is killed (SIGKILL) before each of its steps in the file
system, or before every STRIDE-th, and then at random moments. After each kill, every source or its whole file
must be there, and the same command must complete everything: the same files as without a kill, and nothing
else. The exit code is 1 if that fails. Needs fork.

With --watch, half of the videos come while the batch runs, and SIGTERM ends it when all is done. With
--concat, every video must be in one joined file, as the manifest says. With both, what is joined depends on
when videos come, so that files are compared with the manifest only.
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
from collections import Counter
from pathlib import Path
from typing import Any

from viddiff.cli import main
from viddiff.pipeline.batch.watching import Watching

EVENTS = ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.truncate")
"""Steps in the file system that Python reports."""
MODULES = ("viddiff.pipeline.batch.run", "viddiff.codec.checkpoint", "viddiff.encoder.gop_encoder")
"""Modules that are loaded once, before all batches."""
BRINGER = "bringer"
"""Name of the thread that brings videos. It is no part of the batch."""
PATIENCE = 120.0
"""Seconds after which a batch that watches is ended, whether all is done or not."""


class Case:
    """A copy of the sources, and a batch of it."""

    def __init__(self, folder: Path, work: Path, options: list[str]) -> None:
        self.original, self.work = folder, work
        self.source, self.out, self.later = work / "source", work / "out", work / "later"
        self.command = ["batch", str(self.source), str(self.out), "--min-age", "0s", "--workers", "1", "-q"]
        self.command += options
        self.deletes, self.watches = "--delete-source" in options, "--watch" in options
        self.joins = "--concat" in options
        self.videos = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        self._watching = threading.Event()
        self.whole: dict[str, bytes] = {}
        """The files of an uninterrupted batch, unless they depend on when videos come."""

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
        count, manifest = Counter[str](), self.out / "manifest.jsonl"
        lines = manifest.read_bytes().splitlines(keepends=True) if manifest.exists() else []
        records = {r["output"]: r for r in (json.loads(line) for line in lines if line.endswith(b"\n"))}
        for name, data in found.items():
            record = records.get(name)
            if record is None or record["sha256"] != hashlib.sha256(data).hexdigest():
                continue
            recordings = [recording["name"] for recording in record["recordings"]]
            count.update(recordings if self.joins else [name.removesuffix(".vdf")])
        return count

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
            there = (self.source / name).exists() or (self.later / name).exists()
            if not held[name] and (ended or not there):
                faults.append(f"{name} is {'missing' if there else 'lost'}")
            if held[name] > 1:
                faults.append(f"{name} is in {held[name]} files")
            if ended and there == self.deletes:
                faults.append(f"{name} was {'kept' if self.deletes else 'deleted'}")
        if len(found) != len(self.whole) and ended and self.whole:
            faults.append(f"{len(found)} files in place of {len(self.whole)}")
        if ended:
            faults += [f"{p} was left" for p in self.work.rglob(".*")]
        return faults


def wait(process: int) -> bool:
    """Wait for a batch. True if it was killed; it must not fail in another way."""
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"batch failed with code {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status)


def checked(case: Case, what: str) -> int:
    """Check what a kill has left, complete the batch, and check again. Returns the number of faults."""
    faults = case.faults(ended=False)
    wait(case.start())
    faults += case.faults(ended=True)
    print(f"{what}: {'; '.join(faults) or 'fine'}", flush=True)
    return len(faults)


def run(case: Case, given: argparse.Namespace) -> int:
    """Kill and complete. Returns the number of faults."""
    case.reset()
    wait(case.start())
    if not (case.joins and case.watches):
        case.whole = case.outputs()
    case.reset()
    began = time.monotonic()
    wait(case.start())
    seconds, wrong, step = time.monotonic() - began, len(case.faults(ended=True)), 1
    print(f"uninterrupted: {len(case.outputs())} files in {seconds:.1f} s", flush=True)
    while True:
        case.reset()
        if not wait(case.start(kill_at=step)):
            break
        wrong += checked(case, f"killed before step {step}")
        step += given.stride
    rng = random.Random(given.seed)
    case.reset()
    for number in range(given.kills):
        process = case.start()
        time.sleep(rng.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
        wait(process)
        if rng.random() < 0.5:  # or else the next one is killed on top of this one
            wrong += checked(case, f"kill {number + 1}")
            case.reset()
    wrong += checked(case, f"{given.kills} kills")
    return wrong


def main_check() -> None:
    """Kill batches, and check what becomes of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
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
        sys.exit(run(Case(given.folder.resolve(), Path(folder) / "work", options), given) > 0)


if __name__ == "__main__":
    main_check()
