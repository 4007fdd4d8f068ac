"""What PyAV raises when a file or its content is to blame."""

import av

FAILURES = (av.FFmpegError, OSError, ValueError, RuntimeError, NotImplementedError, OverflowError)
"""OverflowError: a number that our format allows and libav's types do not hold."""
NO_TIME = -(1 << 63)
"""The one time of our format that libav does not hold: it means none there."""
