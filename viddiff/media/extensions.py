"""Which files are taken for videos by their names."""

import os

EXTENSIONS = (
    *(".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265"),
    *(".hevc", ".ivf", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"),
    *(".nut", ".obu", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
"""Extensions of files that are taken for videos, where nobody names the file itself."""


def is_video(path: str) -> bool:
    """Whether a file is taken for a video, by its extension."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS
