"""Errors that PyAV raises for bad files and content."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import av

FAILURES = (
    av.FFmpegError,
    OSError,
    ValueError,
    RuntimeError,  # NotImplementedError, too
    ArithmeticError,  # OverflowError: a number that our format allows and libav's types do not hold
    LookupError,  # PyAV looks libav's numbers up in tables of its own
    AttributeError,  # PyAV's streams have no attributes of a codec where libav knows none
    TypeError,
)
NO_TIME = -(1 << 63)
"""The only time of our format that libav cannot hold: it means "no time"."""


_VAGUE = (errno.EIO, errno.EINVAL)
"""Codes that libav gives for want of a better one; what it logs says more."""


def reason_of(error: BaseException) -> str:
    """Why it failed, in libav's words where it has some."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if (log := getattr(error, "log", None)) and getattr(error, "errno", None) in _VAGUE:
        reason = f"{reason} ({log[2].strip()})"
    return reason


@contextmanager
def with_logs() -> Iterator[None]:
    """What libav logs within the block goes into the errors that PyAV raises, and nowhere else."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture():
            yield
    finally:
        av.logging.set_level(level)
