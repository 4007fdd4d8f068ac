"""Why a unit has failed: in one sentence, and as a line of the manifest."""

import errno
from datetime import UTC, datetime

from viddiff.errors import ViddiffError
from viddiff.pipeline.batch.manifest import Record
from viddiff.pipeline.batch.seen import Seen
from viddiff.pipeline.batch.units import Unit

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors that every unit would meet: there is no room."""


def reason_of(error: Exception) -> str:
    """An error in one sentence."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    return text if isinstance(error, ViddiffError) and text else f"{type(error).__name__}: {text}"


def failure(unit: Unit, seen: Seen | None, reason: str, seconds: float) -> Record:
    """The line of a unit that has failed."""
    return Record(
        time=now(),
        source=str(unit.source),
        size=seen.size if seen is not None else None,
        mtime_ns=seen.mtime_ns if seen is not None else None,
        output=unit.output,
        seconds=round(seconds, 3),
        error=reason,
    )


def now() -> str:
    """The time of a line: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
