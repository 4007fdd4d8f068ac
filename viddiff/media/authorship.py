"""A mark in the videos that viddiff writes, by which it knows them again: such a file can be decoded anew."""

import os
from contextlib import suppress
from pathlib import Path

import av

from viddiff.media.libav_errors import FAILURES

ENCODER_TAG = {"encoder": "viddiff"}
"""Tag of the video stream of .mp4 and .mkv."""
Y4M_COMMENT = "XWRITER=viddiff"
"""A parameter in the first line of .y4m, whose readers pass over what begins with X."""
_Y4M_LINE = 4096


def written_by_viddiff(path: Path) -> bool:
    """Whether a file has the mark, or is empty."""
    with suppress(OSError):
        with open(path, "rb") as file:
            line = file.read(_Y4M_LINE).partition(b"\n")[0]
        if not line and not path.stat().st_size:
            return True
        if line.startswith(b"YUV4MPEG2 "):
            return Y4M_COMMENT.encode() in line.split(b" ")
    with suppress(*FAILURES), av.open(f"file:{os.fspath(path)}", "r", metadata_errors="replace") as container:
        tags = container.streams.video[0].metadata if container.streams.video else {}
        return ENCODER_TAG.items() <= {name.lower(): value for name, value in tags.items()}.items()
    return False
