"""When a recording began.

The first of these that is there:

1. date and time to the second in the path of the file, as in `door/2025-06-01_13-00-00.mp4`,
   `cam1-20250601130000.mkv` or `20250601/130000.ts`: network recorders name files so;
2. the creation time that the file states;
3. the time of its last change, less its length: recorders write a file to its end and leave it.

The first is in the recorder's local time, the others are UTC. They are only compared with times of the same
camera, so all of them have no zone.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from viddiff.errors import ViddiffError
from viddiff.media.recording import stated_recording

_STAMP = re.compile(
    r"(?<![0-9])(20[0-9]{2})[-_.]?([0-9]{2})[-_.]?([0-9]{2})[-_.T /]{0,3}"
    r"([0-9]{2})[-_.:h/]?([0-9]{2})[-_.:m]?([0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class Stamp:
    """Date and time in the path of a file."""

    time: datetime
    before: str
    """What stands before it in the name of the file."""


def stamp_of(path: Path) -> Stamp | None:
    """The last date and time in a path that reach into the name of the file."""
    text = path.as_posix()
    name = len(text) - len(path.name)
    for found in reversed(list(_STAMP.finditer(text))):
        if found.end() > name:
            with suppress(ValueError):
                year, month, day, hour, minute, second = map(int, found.groups())
                return Stamp(datetime(year, month, day, hour, minute, second), text[name : found.start()])
    return None


def beginning(path: Path, mtime_ns: int, seconds: float | None = None) -> datetime | None:
    """When a recording began. seconds: how long it is, if that is known.

    None if neither the name nor the file says it, as of a file that is still written.
    """
    stamp = stamp_of(path)
    if stamp is not None:
        return stamp.time
    with suppress(ViddiffError, OSError):
        created, stated = stated_recording(path)
        seconds = stated if seconds is None else seconds
        if created is not None:
            return created
    if seconds is None:
        return None
    with suppress(OverflowError):
        return _EPOCH + timedelta(seconds=mtime_ns / 1e9 - seconds)
    return None


def seconds_of(time: datetime) -> float:
    """Seconds from 1970 to a time without a zone, as if it were UTC."""
    return time.replace(tzinfo=UTC).timestamp()
