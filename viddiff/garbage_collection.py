"""Less of Python's search for cycles of garbage, in processes that are viddiff's own.

PyTorch brings a million objects. To look through them again and again while they are loaded, and once more
when the process ends, takes a third of the time in which a short clip is decoded.
"""

import atexit
import gc


def collect_rarely() -> None:
    """Search seldom from now on, and never through what is there when the process ends."""
    gc.set_threshold(100_000, 20, 50)
    atexit.register(gc.freeze)
