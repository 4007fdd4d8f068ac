"""Delay signals that end a program, while something must not be left half done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, the end of a service or machine, the end of a terminal."""
Handler = Callable[[int, Any], Any] | int


class DeferredSignals:
    """Lets these signals wait for the end of the block. They do then what they do outside of it.

    Only the main thread gets signals; in others this does nothing.
    """

    def __init__(self) -> None:
        self._before: dict[int, Handler] = {}
        self._waiting: list[int] = []

    def __enter__(self) -> Self:
        self._defer()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        self._send()

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let signals, also those that wait, do what they do outside of the block."""
        try:
            self._restore()
            self._send()
            yield
        finally:
            self._defer()

    def forget(self) -> None:
        """Nothing is left to do for signals that wait."""
        self._waiting.clear()

    def _defer(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler is not None and handler != signal.SIG_IGN:  # None: of another language than Python
                self._before[number] = handler
                signal.signal(number, lambda number, _: self._waiting.append(number))

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def _send(self) -> None:
        while self._waiting:
            signal.raise_signal(self._waiting.pop(0))


def uninterrupted() -> DeferredSignals:
    """A block that is not interrupted."""
    return DeferredSignals()
