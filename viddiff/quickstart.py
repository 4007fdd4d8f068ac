"""Tune Python's garbage collector. Processes that belong to viddiff import this module first.

PyTorch creates a million objects. Searching them for cycles again and again takes a fifth of the time that a
short clip needs to decode.
"""

import atexit
import gc

gc.set_threshold(100_000, 20, 50)
atexit.register(gc.freeze)
