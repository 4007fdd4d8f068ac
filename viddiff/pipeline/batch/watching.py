"""Wait for new files.

A change is only a reason to look at all sources again. So it does not matter if one is missed, or reported
twice: a look comes at the latest after `LOOK_AT_LEAST` seconds.
"""

import os
import time
from collections.abc import Iterable, Iterator

from viddiff.errors import ViddiffError
from viddiff.pipeline.batch.units import places_of

LOOK_AT_LEAST = 300.0
"""Most seconds between two looks."""
_WRITTEN = (".vdf", ".jsonl")
_STEP_MS, _DEBOUNCE_MS = 500, 10_000
"""Changes are collected until there is none for a step, or for so long: some files change all the time."""


class Watching:
    """Watches the folders of sources."""

    def __init__(self, sources: Iterable[str], poll: float | None) -> None:
        """poll: seconds between two looks, see `BatchJob`.

        Raises ViddiffError if the operating system cannot report changes, OSError if a list of sources cannot
        be read.
        """
        self._poll = poll
        self._changes: Iterator[object] | None = None
        folders = sorted({folder for source in sources for folder in places_of(source)})
        if poll is None and folders:
            self._changes = self._reported(folders)

    def wait(self, seconds: float | None) -> None:
        """Wait for a change, for `seconds` if something is due then, or until the next look.

        Signals raise what their handlers raise.
        """
        seconds = LOOK_AT_LEAST if seconds is None else min(seconds, LOOK_AT_LEAST)
        if self._changes is None:
            time.sleep(seconds if self._poll is None else self._poll)
            return
        until = time.monotonic() + seconds
        try:
            while not next(self._changes) and time.monotonic() < until:
                pass
        except OSError as error:
            raise ViddiffError(_no_reports(error)) from error

    def _reported(self, folders: list[str]) -> Iterator[object]:
        """Sets of changes, empty ones too, from now on."""
        try:
            from watchfiles import watch
        except ImportError as error:
            raise ViddiffError(
                "--watch needs watchfiles: pip install 'viddiff[watch]', or give --poll"
            ) from error
        changes = watch(
            *folders,
            watch_filter=lambda _, path: _matters(path),
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            rust_timeout=_STEP_MS,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        try:
            next(changes)  # which begins to watch
        except OSError as error:
            raise ViddiffError(_no_reports(error)) from error
        return changes


def _matters(path: str) -> bool:
    """Whether a change may be one of a source, and not what a batch writes."""
    return not os.path.basename(path).startswith(".") and not path.endswith(_WRITTEN)


def _no_reports(error: OSError) -> str:
    return f"changes of files cannot be watched here: {error.strerror or error}; --poll looks for them"
