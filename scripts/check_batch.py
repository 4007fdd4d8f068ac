"""Kill batches at every step and at random moments: nothing may be missing, partial or lost, ever.

    python scripts/check_batch.py FOLDER [--stride 1] [--kills 20] [--seed 0] [-- OPTIONS OF BATCH]

FOLDER holds short videos. A batch of a copy of it is killed (SIGKILL) before each of its steps in the file
system, or before every STRIDE-th, and then at random moments. After each kill, every source or its whole file
must be there, and the same command must complete everything: the same files as without a kill, and nothing
else. The exit code is 1 if that fails. Needs fork.
"""

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from viddiff.cli import main

EVENTS = ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.truncate")
"""Steps in the file system that Python reports."""
MODULES = ("viddiff.pipeline.batch.run", "viddiff.codec.checkpoint", "viddiff.encoder.gop_encoder")
"""Modules that are loaded once, before all batches."""


class Case:
    """A copy of the sources, and a batch of it."""

    def __init__(self, folder: Path, work: Path, options: list[str]) -> None:
        self.original, self.work = folder, work
        self.source, self.out = work / "source", work / "out"
        self.command = ["batch", str(self.source), str(self.out), "--min-age", "0s", "--workers", "1", "-q"]
        self.command += options
        self.deletes = "--delete-source" in options
        self.whole: dict[str, bytes] = {}
        """The files of an uninterrupted batch."""

    def reset(self) -> None:
        """Begin again."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.original, self.source)

    def start(self, kill_at: int = 0) -> int:
        """Start a batch that kills itself before step `kill_at`, from 1. Returns the process id."""
        process = os.fork()
        if process:
            return process
        if kill_at:
            self._kill_before(kill_at)
        try:
            main(self.command)
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 1)
        finally:
            os._exit(1)

    def _kill_before(self, step: int) -> None:
        steps = 0

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            if event in EVENTS and str(arguments[0]).startswith(str(self.work)):
                steps += 1
                if steps == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)

    def outputs(self) -> dict[str, bytes]:
        """All files under their final names."""
        paths = [p for p in self.out.rglob("*.vdf") if not p.name.startswith(".")]
        return {p.relative_to(self.out).as_posix(): p.read_bytes() for p in paths}

    def faults(self, ended: bool) -> list[str]:
        """What is wrong. ended: the batch has run to its end."""
        found, faults = self.outputs(), []
        for name, data in self.whole.items():
            source = self.source / name.removesuffix(".vdf")
            if name in found and found[name] != data:
                faults.append(f"{name} is partial")
            if name not in found and (ended or not source.exists()):
                faults.append(f"{name} is lost" if not source.exists() else f"{name} is missing")
            if ended and source.exists() == self.deletes:
                faults.append(f"{source} was {'kept' if self.deletes else 'deleted'}")
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
    case.whole = case.outputs()
    case.reset()
    began = time.monotonic()
    wait(case.start())
    seconds, wrong, step = time.monotonic() - began, len(case.faults(ended=True)), 1
    print(f"uninterrupted: {len(case.whole)} files in {seconds:.1f} s", flush=True)
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
