"""GOPs that threads encode side by side come out in order, and no thread is left, whatever ends them."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest
from conftest import moving_picture

from viddiff.container.format import PredictedChunk
from viddiff.encoder.coded_group import CodedGroup, GroupEncoder
from viddiff.encoder.grouping import Group
from viddiff.errors import VideoError
from viddiff.pipeline.gops_side_by_side import coded_side_by_side

(FRAME,) = moving_picture(16, 16, 1)
PATIENCE = 60
GROUPS = 3
"""In a GOP."""


@dataclass
class Watched:
    """Encodes nothing, and tells a function of each group before: numbers of the GOP and of the group."""

    watch: Callable[[int, int], None]
    opened: list[int] = field(default_factory=list)
    """A number for each GOP that was begun."""
    number: int = -1
    groups: int = 0

    def another(self) -> "Watched":
        self.opened.append(len(self.opened))
        return Watched(self.watch, self.opened, self.opened[-1])

    def encode(self, group: Group) -> Iterator[CodedGroup]:
        self.watch(self.number, self.groups)
        yield CodedGroup(PredictedChunk((GROUPS * self.number + self.groups,), b"", 0), group.frames)
        self.groups += 1

    def flush(self) -> Iterator[CodedGroup]:
        self.watch(self.number, GROUPS)
        return iter(())


def groups(gops: int) -> Iterator[Group]:
    for _ in range(gops):
        yield from (Group(n == 0, [FRAME]) for n in range(GROUPS))


def coded(watch: Callable[[int, int], None], source: Iterator[Group], most: int) -> Iterator[int]:
    """Numbers of the groups that come out."""
    encoder = cast(GroupEncoder, Watched(watch))
    for group in coded_side_by_side(encoder, source, most):
        assert isinstance(group.chunk, PredictedChunk)
        yield group.chunk.pts[0]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize("most", [2, 3, 8])
def test_results_come_in_order(most: int) -> None:
    """The first GOP ends only after the second has begun."""
    second = threading.Event()

    def watch(gop: int, group: int) -> None:
        if gop == 1:
            second.set()
        if (gop, group) == (0, GROUPS):
            assert second.wait(PATIENCE)

    assert list(coded(watch, groups(5), most)) == list(range(5 * GROUPS))
    assert second.is_set()


def test_no_more_than_asked_for() -> None:
    lock, running, seen = threading.Lock(), set[int](), list[int]()

    def watch(gop: int, group: int) -> None:
        with lock:
            running.add(gop)
            seen.append(len(running))
            if group == GROUPS:
                running.remove(gop)

    assert len(list(coded(watch, groups(9), 2))) == 9 * GROUPS
    assert max(seen) <= 2


def test_an_error_comes_after_the_gops_before_it() -> None:
    def watch(gop: int, group: int) -> None:
        if (gop, group) == (2, 1):
            raise VideoError("it fails")

    results = coded(watch, groups(9), 3)
    assert [next(results) for _ in range(2 * GROUPS + 1)] == list(range(2 * GROUPS + 1))
    with pytest.raises(VideoError, match="it fails"):
        next(results)


def test_an_error_of_the_source_is_raised() -> None:
    def source() -> Iterator[Group]:
        yield from groups(2)
        raise VideoError("it breaks off")

    with pytest.raises(VideoError, match="it breaks off"):
        list(coded(lambda _gop, _group: None, source(), 3))


def test_threads_end_when_nobody_takes_more() -> None:
    """A thread waits for a group then, and another is at work."""
    left = threading.Event()

    def watch(gop: int, group: int) -> None:
        if (gop, group) == (1, 1):
            assert left.wait(PATIENCE)

    results = coded_side_by_side(cast(GroupEncoder, Watched(watch)), groups(4), 3)
    next(results)
    left.set()
    results.close()
