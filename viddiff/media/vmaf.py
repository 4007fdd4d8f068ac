"""VMAF by libvmaf in an ffmpeg program, which gets the frames through a pipe.

Z. Li, C. Bampis, J. Novak, A. Aaron, K. Swanson, A. Moorthy, J. De Cock, "VMAF: The journey continues",
Netflix Technology Blog, 2018. The model is vmaf_v0.6.1: 0 to 100, for a television at three times its height.
"""

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np

from viddiff.errors import VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.ffmpeg_program import ffmpeg_version, find_ffmpeg
from viddiff.media.picture_planes import PIXEL_FORMATS

MODEL = "vmaf_v0.6.1"
VMAF_SIDE = 32
"""Smallest width and height of a picture; libvmaf may crash on smaller ones."""
_ADVICE = "VMAF needs an ffmpeg with libvmaf: pip install 'viddiff[vmaf]', or install such an ffmpeg"


def has_vmaf() -> bool:
    """Whether there is an ffmpeg that can measure VMAF."""
    return find_ffmpeg("libvmaf") is not None


def vmaf_version() -> str:
    """What measures VMAF, for reports. Raises VideoError if nothing can."""
    return f"libvmaf in ffmpeg {ffmpeg_version(_program())}, model {MODEL}"


def _program() -> str:
    path = find_ffmpeg("libvmaf")
    if path is None:
        raise VideoError(_ADVICE)
    return path


class VmafMeter:
    """Measures the frames of one video while they come. Use it in a `with` statement."""

    def __init__(self, info: VideoInfo, threads: int | None = None) -> None:
        """For frames of this size and depth. threads: of libvmaf, by default one a core.

        Raises VideoError if there is no ffmpeg with libvmaf.
        """
        self._program, self._info, self._frames = _program(), info, 0
        self._threads = threads or os.cpu_count() or 1

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="viddiff-vmaf-")
        self._errors = open(Path(self._folder.name) / "errors", "w+b")
        # One pipe carries both videos: the original's frame, then the decoded one.
        graph = (
            r"[0:v]split[a][b];[a]select='not(mod(n\,2))',setpts=N[r];[b]select='mod(n\,2)',setpts=N[d];"
            f"[d][r]libvmaf=model=version={MODEL}:n_threads={self._threads}"
            ":log_fmt=json:log_path=scores.json"
        )
        info = self._info
        form = ("-f", "rawvideo", "-pix_fmt", PIXEL_FORMATS[info.bit_depth])
        size = ("-video_size", f"{info.width}x{info.height}", "-framerate", "25")
        command = [self._program, "-v", "error", "-nostdin", *form, *size, "-i", "pipe:0"]
        command += ["-lavfi", graph, "-f", "null", "-"]
        self._process = subprocess.Popen(
            command,
            cwd=self._folder.name,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C goes to this process alone, which ends the other
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(OSError):  # what it still holds cannot be written any more
            self._process.stdin.close()
        self._errors.close()
        self._folder.cleanup()

    def add(self, original: Frame, decoded: Frame) -> None:
        """Measure the next frame. Raises VideoError if ffmpeg has failed."""
        assert self._process.stdin is not None
        kind = np.uint8 if self._info.bit_depth == 8 else "<u2"
        try:
            for frame in (original, decoded):
                for plane in frame.planes:
                    self._process.stdin.write(np.ascontiguousarray(plane, kind).data)
        except BrokenPipeError as error:
            raise VideoError(f"ffmpeg could not measure VMAF: {self._reason()}") from error
        self._frames += 1

    def scores(self) -> list[float]:
        """VMAF of each frame, 0 to 100. No frame can follow. Raises VideoError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError as error:
            raise VideoError(f"ffmpeg could not measure VMAF: {self._reason()}") from error
        path = Path(self._folder.name) / "scores.json"
        if self._process.wait() or not path.exists():
            raise VideoError(f"ffmpeg could not measure VMAF: {self._reason()}")
        measured = json.loads(path.read_bytes())["frames"]
        if len(measured) != self._frames:
            raise VideoError(f"ffmpeg measured VMAF of {len(measured)} frames instead of {self._frames}")
        return [float(frame["metrics"]["vmaf"]) for frame in measured]

    def _reason(self) -> str:
        """The last line of what ffmpeg has said."""
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"exit code {self._process.returncode}"
