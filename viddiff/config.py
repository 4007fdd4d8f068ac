"""Sizes, limits and presets, each stated once."""

from dataclasses import dataclass

MIN_SIDE = 16
"""Smallest width or height, in luma samples."""
MAX_WIDTH = 4096
MAX_HEIGHT = 2304
MAX_GOP = 1024
"""Most frames from one keyframe to the next."""
QUALITIES = 64
"""`--quality` runs from 0 (smallest file) to QUALITIES - 1 (best picture)."""
