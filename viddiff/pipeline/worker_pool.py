"""Processes that work side by side and give their results back in order.

Job 0 goes to process 0, job 1 to process 1 and so on, round and round; a job here is a GOP or a mini-GOP.
"""

import itertools
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from multiprocessing import forkserver
from types import ModuleType
from typing import Any, Self

from viddiff.errors import ViddiffError
from viddiff.garbage_collection import collect_rarely


class Mark(Enum):
    """What a process gives besides results."""

    END_OF_JOB = 0
    END_OF_GOP = 1
    """Where mini-GOPs are the jobs."""
    FAULT = 2
    """The GOP under way cannot be gone on with."""
    END = 3


_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
Give = Callable[[Any], None]
"""Hands something over to the parent; waits while too much is waiting there."""


class WorkerPool:
    """Processes that each run `work(give, number)`; ends them when the block is left."""

    def __init__(self, work: Callable[[Give, int], None], workers: int, waiting: int) -> None:
        """work: can be pickled; waiting: things that may lie ready from each process."""
        prepare(work.__module__)
        context = multiprocessing.get_context(_METHOD)
        self._queues = [context.Queue(waiting) for _ in range(workers)]
        self._processes = [
            context.Process(  # type: ignore[attr-defined]
                target=_run, args=(q, work, number), daemon=True
            )
            for number, q in enumerate(self._queues)
        ]

    def __enter__(self) -> Self:
        # Ctrl-C is ignored by the processes from their very beginning: we end them.
        with _ctrl_c_ignored(), _main_module_hidden():
            for process in self._processes:
                process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def in_order(self) -> Iterator[Any]:
        """What the processes gave: job 0 of process 0, job 1 of process 1 and so on, round and round."""
        for number in itertools.cycle(range(len(self._queues))):
            while (thing := self.take(number)) is not Mark.END_OF_JOB:
                if thing is Mark.END:
                    return
                yield thing

    def take(self, number: int) -> Any:
        """The next thing that process `number` gives. Raises what it raised."""
        while True:
            alive = self._processes[number].is_alive()
            try:
                thing = self._queues[number].get(timeout=0.5)
            except queue.Empty:
                if not alive:
                    raise ViddiffError(
                        "a working process was ended from outside, perhaps for want of memory"
                    ) from None
                continue
            if isinstance(thing, BaseException):
                raise thing
            return thing


def prepare_processes(workers: int | None) -> None:
    """Begin to load what other processes will need for an encode or decode, before this one loads it."""
    if workers != 1 and (os.cpu_count() or 1) > 1:
        prepare("viddiff.pipeline.parallel_encode", "viddiff.pipeline.parallel_decode")


def prepare(*modules: str) -> None:
    """Begin to load `modules`, which do the work, for processes to come, while this one goes on."""
    if _METHOD == "forkserver":
        multiprocessing.set_forkserver_preload(list(modules))
        with _ctrl_c_ignored():  # by its processes, too
            forkserver.ensure_running()


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Let processes begin without the program's main module. They need nothing of it, and to import it once
    more would run it once more, where it is a script without a guard.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _run(results: "multiprocessing.Queue[Any]", work: Callable[[Give, int], None], number: int) -> None:
    """The whole life of a process."""
    collect_rarely()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where that is not inherited
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        work(results.put, number)
        results.put(Mark.END)
    except Exception as error:
        results.put(error)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
