"""Tune Python's garbage collector in processes that belong to viddiff.

PyTorch creates a million objects. Searching them for cycles again and again takes a third of the time that a
short clip needs to decode.
"""

import atexit
import gc


def collect_rarely() -> None:
    """Search rarely from now on, and not at all when the process ends."""
    gc.set_threshold(100_000, 20, 50)
    atexit.register(gc.freeze)
