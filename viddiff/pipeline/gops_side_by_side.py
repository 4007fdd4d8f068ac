"""Encode GOPs of a video side by side, each in a thread of this process.

Where a GOP begins and where it ends, SVT-AV1 has too little to do for all cores. So the next GOP begins
before that. Results come in order, and do not depend on the number of threads.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress

from viddiff.encoder.coded_group import CodedGroup, GroupEncoder
from viddiff.encoder.grouping import Group
from viddiff.pipeline.division import Unit
from viddiff.pipeline.jobs import coded_job, jobs

_WAITING = 2
"""Groups that may wait for each thread."""
_PATIENCE_S = 5.0
"""How long threads that have to end are waited for: SVT-AV1 may hold them for some frames more."""


def coded_side_by_side(
    encoder: GroupEncoder, groups: Iterable[Group], most: int
) -> Generator[CodedGroup, None, None]:
    """Code groups, up to `most` GOPs at a time. Close it, so that no thread is left.

    An error of a GOP is raised after the results of the GOPs before it.
    """
    running = deque[_Gop]()
    try:
        for _, job in jobs(groups, Unit.GOP):
            yield from _results(running, most - 1)
            gop = _Gop(encoder.another())
            running.append(gop)
            for group in job:
                gop.give(group)
                yield from _results(running, most)
            gop.give(None)
        yield from _results(running, 0)
    finally:
        for gop in running:
            gop.leave()
        deadline = time.monotonic() + _PATIENCE_S
        for gop in running:
            gop.join(max(deadline - time.monotonic(), 0))


def _results(running: "deque[_Gop]", most: int) -> Iterator[CodedGroup]:
    """What is ready, in order, and as much more as needed until at most this many GOPs are left."""
    while running:
        yield from running[0].results(wait=len(running) > most)
        if not running[0].ended:
            return
        running.popleft()


class _Gop:
    """A GOP in its thread."""

    def __init__(self, encoder: GroupEncoder) -> None:
        self.ended = False
        """Whether all results were taken."""
        self._encoder, self._left = encoder, False
        self._groups: queue.Queue[Group | None] = queue.Queue(_WAITING)
        self._coded: queue.SimpleQueue[CodedGroup | Exception | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def give(self, group: Group | None) -> None:
        """Give the thread the next group, or None after the last. Waits while too many wait there."""
        self._groups.put(group)

    def results(self, wait: bool) -> Iterator[CodedGroup]:
        """Results that are ready; all of them if told to wait. Raises what the encoder raised."""
        while not self.ended and (wait or not self._coded.empty()):
            found = self._coded.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                self.ended = True
            else:
                yield found

    def leave(self) -> None:
        """Tell the thread to end soon."""
        self._left = True
        with suppress(queue.Full):  # it does not wait for a group then
            self._groups.put_nowait(None)

    def join(self, most_s: float) -> None:
        """Wait until the thread has ended, or so many seconds. It ends with the process at the latest."""
        self._thread.join(most_s)

    def _run(self) -> None:
        groups = self._given()
        try:
            for coded in coded_job(self._encoder, groups):
                self._coded.put(coded)
                if self._left:
                    return
        except Exception as error:
            self._coded.put(error)
            for _ in groups:  # nobody may wait for space
                pass
        self._coded.put(None)

    def _given(self) -> Iterator[Group]:
        while (group := self._groups.get()) is not None and not self._left:
            yield group
