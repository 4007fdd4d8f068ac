"""SIGTERM and SIGHUP end a command by way of every `finally`, so that nothing partial stays."""

import signal
import sys
import threading
from typing import NoReturn

_asked: list[int] = []
"""Signals that have come. Libraries may swallow what a handler raises, while they are imported above all."""


def end_orderly() -> None:
    """Let the signals raise SystemExit, unless they are ignored, as nohup wants it."""
    _asked.clear()
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _leave)


def check() -> None:
    """Raise SystemExit once more if it was swallowed, before a job begins."""
    if _asked:
        sys.exit(128 + _asked[0])


def _leave(number: int, _: object) -> NoReturn:
    _asked.append(number)
    sys.exit(128 + number)
