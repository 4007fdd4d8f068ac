"""Compute results side by side in threads, and give them in order."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def side_by_side(jobs: Iterator[Callable[[], Result]], threads: int) -> Iterator[Result]:
    """The results of `jobs` in order. Up to `threads` are computed while the next job is taken.

    With one thread, each is computed when it is asked for. An error of `jobs` is raised after the results of
    the jobs before it, as without threads.
    """
    if threads > 1:
        yield from _ahead(jobs, threads)
        return
    for job in jobs:
        yield job()


def one_ahead(jobs: Iterator[Callable[[], Result]]) -> Iterator[Result]:
    """The results of `jobs` in order. A thread computes the next one while one is used."""
    return _ahead(jobs, 1)


def _ahead(jobs: Iterator[Callable[[], Result]], threads: int) -> Iterator[Result]:
    failure: Exception | None = None
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque[Future[Result]]()
        while True:
            try:
                following = next(jobs, None)
            except Exception as error:
                failure = error
                break
            if following is None:
                break
            waiting.append(pool.submit(following))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    if failure is not None:
        raise failure
