"""Settings under which an encoder gives the same file anywhere, and leaves room for other processes."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from viddiff.codec.exactness import exact_arithmetic


@contextmanager
def reproducible() -> Iterator[None]:
    """Compute exactly in this block, with one thread of OpenCV; the program's settings are back after it."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with exact_arithmetic():
            yield
    finally:
        cv2.setNumThreads(threads)
