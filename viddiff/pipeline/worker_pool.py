"""Processes that work side by side and return their results in order.

Job 0 goes to process 0, job 1 to process 1, and so on in turn. A job is a GOP or a mini-GOP.
"""

import itertools
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from multiprocessing import forkserver
from types import ModuleType
from typing import Any, Self

from viddiff.errors import ViddiffError
from viddiff.garbage_collection import collect_rarely


class Mark(Enum):
    """What a process sends besides results."""

    END_OF_JOB = 0
    END_OF_GOP = 1
    """The end of a GOP, if mini-GOPs are the jobs."""
    FAULT = 2
    """The current GOP cannot be continued."""
    END = 3


_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
Give = Callable[[Any], None]
"""Sends something to the parent. Waits while too much is waiting there."""


class WorkerPool:
    """Processes that each run `work(give, number)`. They end when the block is left."""

    def __init__(
        self, work: Callable[[Give, int], None], workers: int, waiting: int, modules: Iterable[str] = ()
    ) -> None:
        """work: must be picklable. waiting: number of results that may wait for each process.

        modules: that the work will load.
        """
        prepare(work.__module__, *modules)
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
        """Results in order: job 0 of process 0, job 1 of process 1, and so on in turn."""
        for number in itertools.cycle(range(len(self._queues))):
            while (thing := self.take(number)) is not Mark.END_OF_JOB:
                if thing is Mark.END:
                    return
                yield thing

    def take(self, number: int) -> Any:
        """The next result of process `number`. Raises what the process raised."""
        while True:
            alive = self._processes[number].is_alive()
            try:
                thing = self._queues[number].get(timeout=0.5)
            except queue.Empty:
                if not alive:
                    raise ViddiffError(
                        "a worker process was killed, perhaps because memory ran out"
                    ) from None
                continue
            if isinstance(thing, BaseException):
                raise thing
            return thing


def prepare_processes(workers: int | None) -> None:
    """Start loading what processes that encode without a base will need, before this process loads it."""
    if workers != 1 and (os.cpu_count() or 1) > 1:
        prepare(
            "viddiff.pipeline.parallel_encode",
            "viddiff.pipeline.parallel_decode",
            "viddiff.encoder.gop_encoder",
        )


def prepare(*modules: str) -> None:
    """Start loading `modules` for later processes, while this process goes on."""
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
    """Hide the program's main module from new processes.

    They do not need it. Importing it would run it again if it is a script without a guard.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _run(results: "multiprocessing.Queue[Any]", work: Callable[[Give, int], None], number: int) -> None:
    """Life of a process."""
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
