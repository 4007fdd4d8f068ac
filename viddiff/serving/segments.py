"""Segments that are made when they are wanted, one at a time, and the last ones that were made.

One thread makes all segments of a kind, so that several viewers cost no more memory than one. A segment can
be read while it is made. Nobody wants it any longer if all who read it have gone: then it is given up.
"""

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from viddiff.errors import ViddiffError

Key = tuple[int, int]
"""Number of the movie, number of the segment."""
Check = Callable[[], None]
"""Raises an exception if nobody waits for the result."""
_MOST_RUNS = 4
_POLL_SECONDS = 0.2


def go_on() -> None:
    """A check that waits for everything."""


class Run(Protocol):
    """Makes the segments of a movie in order, from one on."""

    def segment(self, check: Check) -> Iterator[bytes]:
        """The bytes of the next segment, as soon as some are complete."""
        ...

    def close(self) -> None:
        """Free what it holds. This is the last call."""
        ...


class SegmentError(ViddiffError):
    """A segment cannot be made."""


class _GivenUpError(Exception):
    """Nobody wants the segment any longer."""


class Segment:
    """A segment that is made, or being made."""

    def __init__(self) -> None:
        self.readers, self.complete, self.failure = 0, False, ""
        self._parts = list[bytes]()
        self._changed = threading.Condition()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return sum(map(len, self._parts))

    def add(self, part: bytes) -> None:
        """Add bytes that are complete."""
        with self._changed:
            self._parts.append(part)
            self._changed.notify_all()

    def end(self, failure: str = "") -> None:
        """There are no more bytes. failure: why not, if the segment is not complete."""
        with self._changed:
            self.complete, self.failure = True, failure
            self._changed.notify_all()

    def parts(self) -> Iterator[bytes]:
        """All bytes, as they come; nothing now and then while there are none. Raises SegmentError."""
        number = 0
        while True:
            with self._changed:
                if number == len(self._parts) and not self.complete:
                    self._changed.wait(_POLL_SECONDS)
                new, complete = self._parts[number:], self.complete
            number += len(new)
            if not complete or new:
                yield b"".join(new)
            elif self.failure:
                raise SegmentError(self.failure)
            else:
                return


class Segments:
    """Segments of one kind of all movies. Close it, or use it in a `with` statement."""

    def __init__(self, start: Callable[[int, int], Run], most_bytes: int) -> None:
        """start: makes segments of a movie from one on. most_bytes: that complete segments may take."""
        self._start, self._most_bytes = start, most_bytes
        self._kept = OrderedDict[Key, Segment]()
        self._lock = threading.Lock()
        self._closed = False
        self._wanted = queue.SimpleQueue[Key | None]()
        self._runs = OrderedDict[Key, Run]()  # by the segment that each makes next
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. What is being made is given up."""
        self._closed = True
        self._wanted.put(None)
        self._thread.join()

    @contextmanager
    def reading(self, movie: int, number: int) -> Iterator[Segment]:
        """A segment. It is made while it is read, if it is not kept."""
        key = movie, number
        with self._lock:
            segment = self._kept.get(key)
            if segment is None:
                segment = self._kept[key] = Segment()
                self._wanted.put(key)
            self._kept.move_to_end(key)
            segment.readers += 1
        try:
            yield segment
        finally:
            with self._lock:
                segment.readers -= 1

    def _work(self) -> None:
        while (key := self._wanted.get()) is not None and not self._closed:
            segment = self._kept[key]
            try:
                self._make(key, segment)
                segment.end()
            except _GivenUpError:
                segment.end("it is not wanted any longer")
            except Exception as error:  # the thread goes on, and the viewer is told
                with self._lock:
                    self._kept.pop(key, None)
                segment.end(str(error) or type(error).__name__)
            self._forget()
        for run in self._runs.values():
            run.close()

    def _make(self, key: Key, segment: Segment) -> None:
        def check() -> None:
            with self._lock:
                if self._closed or not segment.readers:
                    self._kept.pop(key, None)  # whoever wants it from now on gets another one
                    raise _GivenUpError

        check()
        run = self._runs.pop(key, None) or self._start(*key)
        try:
            for part in run.segment(check):
                segment.add(part)
                check()
        except BaseException:
            run.close()
            raise
        movie, number = key
        if (other := self._runs.pop((movie, number + 1), None)) is not None:
            other.close()
        self._runs[movie, number + 1] = run
        if len(self._runs) > _MOST_RUNS:
            self._runs.popitem(last=False)[1].close()

    def _forget(self) -> None:
        """Forget the segments that were read least recently, until few enough bytes are left."""
        with self._lock:
            size = sum(segment.size for segment in self._kept.values())
            for key, segment in list(self._kept.items()):
                if size <= self._most_bytes:
                    return
                if segment.complete and not segment.readers:
                    size -= segment.size
                    del self._kept[key]
