"""Kill encodes at random moments and truncate what they left: --resume must always give the same file.

    python scripts/check_resume.py CLIP [--kills 20] [--cuts 50] [--seed 0] [-- OPTIONS OF ENCODE]

An encode is killed (SIGKILL) and resumed until it has ended, and then the next one starts, until there were
enough kills. After that, the part file of an encode is truncated at random bytes and resumed. Every result is
compared with that of an uninterrupted encode. The exit code is 1 if one differs. Needs fork.
"""

import argparse
import io
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from viddiff.cli import main
from viddiff.container.part_file import whole_gops


def start(arguments: list[str]) -> int:
    """Run a command in its own process, and return the process id."""
    process = os.fork()
    if process:
        return process
    try:
        main(arguments)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    finally:
        os._exit(1)


def finish(process: int) -> None:
    """Wait for a command that must succeed."""
    _, status = os.waitpid(process, 0)
    if status:
        sys.exit(f"encode failed with status {status}")


def kill(process: int, seconds: float) -> bool:
    """Kill a command after that time. False if it had ended before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            if status:
                sys.exit(f"encode failed with status {status}")
            return False
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def part_of(folder: Path) -> Path | None:
    """The unfinished file in a folder."""
    return next(folder.glob(".*.part"), None)


def main_check() -> None:
    """Kill and cut encodes, and compare what --resume makes of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    own, options = sys.argv[1:], list[str]()
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    sys.exit(run(given, options) > 0)


def run(given: argparse.Namespace, options: list[str]) -> int:
    """Kill and cut as often as asked for. Returns the number of wrong files."""
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.vdf"
        command = ["encode", str(given.clip), str(out), "-q", "--workers", "1", *options]
        began = time.monotonic()
        finish(start(command))
        seconds = time.monotonic() - began
        whole = out.read_bytes()
        print(f"uninterrupted: {len(whole)} bytes in {seconds:.1f} s", flush=True)
        out.unlink()
        kills = files = wrong = 0

        def compare() -> None:
            nonlocal files, wrong
            files += 1
            wrong += out.read_bytes() != whole
            out.unlink()

        while kills < given.kills:
            process = start([*command, "--resume"])
            if not kill(process, rng.uniform(0, 1.1) * seconds):
                compare()
                continue
            kills += 1
            part = part_of(Path(folder))
            left = part.read_bytes() if part else b""
            gops = whole_gops(io.BytesIO(left))[1]
            print(f"kill {kills}: {len(left)} bytes were there, {gops} whole GOPs", flush=True)
        finish(start([*command, "--resume"]))
        compare()
        print(f"{kills} kills: {files} files, {wrong} of them wrong", flush=True)

        process, part = start(command), None  # for the name that its part file has
        while part is None:
            part = part_of(Path(folder))
        kill(process, 0)
        out.unlink(missing_ok=True)
        for number in range(given.cuts):
            size = rng.randrange(len(whole) + 1)
            part.write_bytes(whole[:size])
            finish(start([*command, "--resume"]))
            compare()
            print(f"cut {number + 1}, at byte {size}: {wrong} wrong so far", flush=True)
        print(f"{kills} kills and {given.cuts} cuts: {files} files, {wrong} of them wrong")
    return wrong


if __name__ == "__main__":
    main_check()
