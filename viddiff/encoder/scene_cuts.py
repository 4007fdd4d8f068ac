"""Scene cuts: frames that have too little in common with the frame before for prediction."""

import numpy as np
from numpy.typing import NDArray

from viddiff.frame import Frame


def thumbnail(frame: Frame) -> NDArray[np.float32]:
    """Luma at 1/8 of the size, in 8-bit values."""
    import cv2  # takes time to load, and with an AV1 base nobody looks for cuts

    size = (max(frame.y.shape[1] // 8, 2), max(frame.y.shape[0] // 8, 2))
    small = cv2.resize(frame.y, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(small / (4 if frame.y.dtype == np.uint16 else 1), np.float32)


def is_cut(before: NDArray[np.float32], after: NDArray[np.float32]) -> bool:
    """True if two thumbnails have too little in common for prediction."""
    difference = float(np.abs(before - after).mean())
    spread = float(np.abs(after - after.mean()).mean())
    return difference > 12 and difference > 0.8 * spread
