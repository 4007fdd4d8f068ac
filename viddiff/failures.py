"""What PyAV raises when a file or its content is to blame."""

import av

FAILURES = (av.FFmpegError, OSError, ValueError, RuntimeError, NotImplementedError, OverflowError)
"""OverflowError: a number that our format allows and libav's types do not hold."""
