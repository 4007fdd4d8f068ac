"""Fuzz targets.

A target takes any bytes and ends in a result or a ViddiffError. `check` says in which one, and whether time
and memory were bounded. The tests run every input in tests/data/bad.
"""

import contextlib
import importlib
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from viddiff.errors import ViddiffError

SECONDS = 20.0
"""Processor time that no target may need for a small file."""
MEMORY_MIB = 512
"""Memory that no target may add to the process."""
Target = Callable[[bytes], None]


@dataclass(frozen=True)
class Kind:
    """Name of a target: a function of this name in `module`."""

    module: str
    max_bytes: int
    """Largest input. Small inputs are tried more often in the same time."""


KINDS = {
    "header": Kind("fuzz_bytes", 200),
    "container": Kind("fuzz_bytes", 2048),
    "index": Kind("fuzz_bytes", 2048),
    "info": Kind("fuzz_bytes", 2048),
    "parts": Kind("fuzz_bytes", 2048),
    "entropy": Kind("fuzz_bytes", 300),
    "sealed": Kind("fuzz_bytes", 20_000),
    "weights": Kind("fuzz_pictures", 1 << 19),
    "tracks": Kind("fuzz_pictures", 8000),
    "decode": Kind("fuzz_pictures", 6000),
    "stream": Kind("fuzz_pictures", 6000),
    "base": Kind("fuzz_pictures", 6000),
    "enhancement": Kind("fuzz_pictures", 1 << 16),
    "network": Kind("fuzz_pictures", 3000),
}


class Finding(Exception):
    """A target ended in something else. The message tells findings apart."""


def load(name: str) -> Target:
    """The target of this name. Those of `fuzz_bytes` do not load PyTorch."""
    target: Target = getattr(importlib.import_module(KINDS[name].module), name)
    return target


def seeds(name: str) -> list[bytes]:
    """Valid inputs to start fuzzing this target from."""
    found: list[bytes] = importlib.import_module(KINDS[name].module).seeds(name)
    return found


def check(target: Target, data: bytes) -> str:
    """How `target` ended: "result", or a ViddiffError's name and message.

    Raises Finding for anything else.
    """
    with contextlib.suppress(OSError):  # Linux: the peak begins anew, for earlier inputs may have raised it
        Path("/proc/self/clear_refs").write_text("5")
    began, size = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ending = "result"
    try:
        target(data)
    except ViddiffError as error:
        ending = f"{type(error).__name__} {error}"
        if len(str(error).splitlines()) != 1:
            raise Finding(f"{type(error).__name__} of more than one line") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        frames = [
            f
            for f in traceback.extract_tb(error.__traceback__)
            if "viddiff" in f.filename or "fuzz" in f.filename
        ]
        raise Finding(
            f"{type(error).__name__} in {Path(frames[-1].filename).stem}.{frames[-1].name}"
        ) from error
    if time.process_time() - began > SECONDS:
        raise Finding(f"over {SECONDS:.0f} seconds")
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size > MEMORY_MIB << 10:
        raise Finding(f"over {MEMORY_MIB} MiB")
    return ending
