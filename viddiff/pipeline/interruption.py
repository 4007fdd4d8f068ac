"""Delay signals that end a program, while something must not be left half done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, the end of a service or machine, the end of a terminal."""
Handler = Callable[[int, Any], Any] | int


class DeferredSignals:
    """Lets these signals wait for the end of the block. They do then what they do outside of it.

    Only the main thread gets signals; in others this does nothing. Several may come within a moment: whether
    they wait is a single value, which the first one that passes changes before it does anything.
    """

    def __init__(self) -> None:
        self._before: dict[int, Handler] = {}
        self._waiting: list[int] = []
        self._passing = self._left = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            try:
                for number in SIGNALS:
                    handler = signal.getsignal(number)
                    if handler is not None and handler != signal.SIG_IGN:  # None: of another language
                        self._before[number] = handler
                        signal.signal(number, self._take)
            except BaseException:  # a signal came before it could be made to wait
                self._restore()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        self._send()

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let signals, also those that wait, do what they do outside, up to the first that raises."""
        try:
            self._passing = True
            while self._waiting:
                self._take(self._waiting.pop(0), None)
            yield
        finally:
            self._passing = False

    def forget(self) -> None:
        """Nothing is left to do for signals that wait."""
        self._waiting.clear()

    def _take(self, number: int, frame: FrameType | None) -> None:
        passing = self._passing
        if not self._left and not passing:
            self._waiting.append(number)
            return
        self._passing = False
        handler = self._before[number]
        if callable(handler):
            handler(number, frame)
        else:
            signal.signal(number, handler)
            signal.raise_signal(number)
        self._passing = passing  # not if the handler raised

    def _restore(self) -> None:
        self._left = True  # signals that come before all handlers are back pass
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _send(self) -> None:
        while self._waiting:
            signal.raise_signal(self._waiting.pop(0))


def uninterrupted() -> DeferredSignals:
    """A block that is not interrupted."""
    return DeferredSignals()
