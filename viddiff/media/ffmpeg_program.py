"""The ffmpeg program, for what libav in PyAV does not have."""

import functools
import shutil
import subprocess
from contextlib import suppress


@functools.cache
def find_ffmpeg(filter_name: str | None = None) -> str | None:
    """Path of an ffmpeg with this filter: that of the package imageio-ffmpeg, or the one on PATH."""
    for path in _programs():
        if filter_name is None or f" {filter_name} " in _answer(path, "-filters"):
            return path
    return None


@functools.cache
def ffmpeg_version(path: str) -> str:
    """Version of an ffmpeg."""
    words = _answer(path, "-version").split()
    return words[2] if len(words) > 2 else "unknown"


def _programs() -> list[str]:
    found = []
    with suppress(ImportError, RuntimeError, OSError):
        import imageio_ffmpeg

        found.append(str(imageio_ffmpeg.get_ffmpeg_exe()))
    if (path := shutil.which("ffmpeg")) is not None:
        found.append(path)
    return list(dict.fromkeys(found))


def _answer(path: str, question: str) -> str:
    """What an ffmpeg says of itself; nothing if it does not run."""
    with suppress(OSError, subprocess.SubprocessError):
        command = [path, "-hide_banner", question]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        ).stdout
    return ""
