"""What PyAV raises when a file or its content is to blame."""

import av

FAILURES = (av.FFmpegError, OSError, ValueError, RuntimeError, NotImplementedError)
