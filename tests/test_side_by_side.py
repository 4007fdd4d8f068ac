"""Threads change neither results nor faults."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from viddiff.codec.side_by_side import one_ahead, side_by_side
from viddiff.errors import BitstreamError


def jobs(count: int, then: Exception | None = None) -> Iterator[Callable[[], int]]:
    def result(number: int) -> int:
        time.sleep(0.01 * (count - number))  # the last job is done first
        return number

    for number in range(count):
        yield partial(result, number)
    if then is not None:
        raise then


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    assert list(side_by_side(jobs(4), threads)) == [0, 1, 2, 3]
    assert list(side_by_side(jobs(0), threads)) == []


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_fault_comes_after_the_results_before_it(threads: int) -> None:
    found: list[int] = []
    with pytest.raises(BitstreamError, match="damaged"):
        found.extend(side_by_side(jobs(3, BitstreamError("damaged")), threads))
    assert found == [0, 1, 2]


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_not_wanted_is_not_asked_for(threads: int) -> None:
    taken = []

    def endless() -> Iterator[Callable[[], int]]:
        while True:
            taken.append(0)
            yield lambda: 1

    results = side_by_side(endless(), threads)
    assert next(results) == 1
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= threads + 1


def test_one_thread_works_ahead() -> None:
    """Jobs that depend on each other run in their order; a fault of one comes after the results before it."""
    done = list[int]()

    def result(number: int) -> int:
        time.sleep(0.01 * (4 - number))
        done.append(number)
        if number == 3:
            raise BitstreamError("damaged")
        return number

    found = list[int]()
    with pytest.raises(BitstreamError, match="damaged"):
        found.extend(one_ahead(partial(result, number) for number in range(5)))
    assert found == [0, 1, 2]
    assert done[:4] == [0, 1, 2, 3]
