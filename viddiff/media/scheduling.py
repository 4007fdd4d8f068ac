"""What SVT-AV1 does to the scheduling of threads, undone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_THREADS = Path("/proc/self/task")
"""A folder for each thread of this process, where the system has it."""


@contextmanager
def kept_scheduling() -> Iterator[None]:
    """Open an encoder of SVT-AV1 in here.

    Where it may (as root), SVT-AV1 makes the opening thread real-time, for good, and all its own threads with
    it, and then nothing else runs on their cores. In the end the calling thread has its scheduling back,
    and those that were started have the same.
    """
    os.environ.setdefault("SVT_LOG", "0")  # SVT-AV1 writes to stderr by itself: fatal errors only
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    before = _threads()
    try:
        yield
    finally:
        for thread in {0} | _threads() - before:  # 0 is the calling one
            with suppress(ProcessLookupError):
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, parameters)


def _threads() -> set[int]:
    return {int(thread.name) for thread in _THREADS.iterdir()} if _THREADS.is_dir() else set()
