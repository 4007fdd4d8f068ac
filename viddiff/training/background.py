"""Collectors of samples: processes beside the training, with less right to the processor than it has."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from typing import Any

import cv2
import torch

_NICENESS = 5
"""On one core, training has three times the time of a collector."""


@contextmanager
def background(work: Callable[..., None], *arguments: Any) -> Iterator[SpawnProcess]:
    """Run `work` in another process, until the block is left."""
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(work, *arguments), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.terminate()
        process.join()


def training_was_killed() -> bool:
    """Whether nobody needs samples from this process any more."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _run(work: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the training, and that ends this process
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.nice(_NICENESS)
    work(*arguments)
