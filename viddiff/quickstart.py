"""Imported first by processes that are viddiff's own: less of Python's search for cycles of garbage.

PyTorch brings a million objects. To look through them again and again while they are loaded, and once more
when the process ends, takes a fifth of the time in which a short clip is decoded.
"""

import atexit
import gc

gc.set_threshold(100_000, 20, 50)
atexit.register(gc.freeze)
