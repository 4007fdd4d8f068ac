"""What a media file says about when it was recorded."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import av

from viddiff.media.demuxer import Demuxer

_FIRST_YEAR = 2000
"""Cameras without a clock state earlier ones."""


def stated_recording(path: Path) -> tuple[datetime | None, float | None]:
    """When a file was recorded, in UTC but without a zone, and how long it is in seconds.

    None for what it does not state. Raises VideoError.
    """
    with Demuxer(path) as demuxer:
        text, duration = demuxer.container.metadata.get("creation_time", ""), demuxer.container.duration
    return _time(text), None if duration is None else duration / av.time_base


def _time(text: str) -> datetime | None:
    with suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(text)
        if time.year >= _FIRST_YEAR:
            return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    return None
