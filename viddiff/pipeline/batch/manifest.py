"""The manifest of a batch: one line of JSON for each unit that was finished or has failed.

Lines are only appended, and each is on the disk before the next step. The line of a finished unit is written
when its file is complete and verified, just before the file gets its name. So every file that a batch has
written is known, and a line whose file is missing only means that the unit is done again.

Shards write manifests of their own, and read those of all.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from viddiff.errors import ViddiffError
from viddiff.pipeline.batch.units import Shard
from viddiff.pipeline.interruption import uninterrupted
from viddiff.pipeline.output_file import OutputFile

_NAME = re.compile(r"manifest(\.\d+-of-\d+)?\.jsonl")


class ManifestError(ViddiffError):
    """A manifest cannot be written. Without it nothing must be done."""


@dataclass(frozen=True)
class Recording:
    """A recording in a file that was joined."""

    name: str
    """Of its unit."""
    source: str
    """Absolute path."""
    size: int
    """In bytes."""
    mtime_ns: int
    begins: str
    """When the recording began, see `recording_times`: ISO 8601 without a zone."""
    start: float
    """Where it begins in the file, in seconds."""
    frames: int
    notes: tuple[str, ...] = ()
    """What the file does not hold of it, and so on."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Recording":
        """From JSON. Raises TypeError."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        return cls(**known | {"notes": tuple(known.get("notes", ()))})


@dataclass(frozen=True)
class Record:
    """A line of a manifest. What is unknown about a unit that has no file is None."""

    time: str
    """When it was written: UTC, ISO 8601."""
    source: str
    """Absolute path, or address."""
    size: int | None
    """Of the source, in bytes."""
    mtime_ns: int | None
    """When the source was changed last, in nanoseconds since 1970."""
    output: str
    """Path of the file, below the folder of the manifest."""
    bytes: int | None = None
    """Size of the file."""
    sha256: str | None = None
    """Of the file."""
    weights: str | None = None
    """Hash of the weights that the file needs."""
    frames: int | None = None
    seconds: float = 0.0
    """How long it took."""
    verified: bool = False
    notes: tuple[str, ...] = ()
    """What the file does not hold of its source, and so on."""
    target: dict[str, Any] | None = None
    """What decided the quality or limited the size, by option. None: a quality alone."""
    too_large: str | None = None
    """Why there is no file: it would be larger than `max_encoded_percent` allows."""
    options: str | None = None
    """With `too_large`: hash of the options and weights for which that is so."""
    error: str | None = None
    """Why it failed. None: it is finished, or too large."""
    begins: str | None = None
    """Of a recording that will be joined: when it began, see `recording_times`."""
    duration: float | None = None
    """How long it is, in seconds."""
    pictures: str | None = None
    """Of such a recording: `video_digest` of what its file decodes to, if it is known."""
    recordings: tuple[Recording, ...] = ()
    """What was joined, in order. Empty for all other files."""


class Manifest:
    """The manifests below a target: all of them are read, one is written."""

    def __init__(self, target: Path, shard: Shard) -> None:
        name = "manifest.jsonl" if shard.count == 1 else f"manifest.{shard.number}-of-{shard.count}.jsonl"
        self.path = target / name
        self._finished: dict[str, list[Record]] = defaultdict(list)
        self._joined: dict[str, list[Record]] = defaultdict(list)
        """Files that were joined, by the names of the units in them."""
        self._file: BinaryIO | None = None

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Read what there is. Nothing can be appended."""
        self._read()
        yield

    def _read(self) -> None:
        self._finished.clear()
        self._joined.clear()
        for path in sorted(self.path.parent.glob("manifest*.jsonl")):
            if not _NAME.fullmatch(path.name):
                continue
            with open(path, "rb") as file:
                for line in file:
                    record = record_on(line)
                    if record is not None:
                        self._take(record)

    def _take(self, record: Record) -> None:
        if record.error is not None:
            return
        self._finished[record.output].append(record)
        for recording in record.recordings:
            self._joined[recording.name].append(record)

    def finished(self, output: str) -> list[Record]:
        """Records under the name of a file, of all encodes that have not failed."""
        return self._finished.get(output, [])

    def joined(self, name: str) -> list[Record]:
        """Records of all joined files that hold a unit."""
        return self._joined.get(name, [])

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Read what there is, and let this process append. Raises OutputError if another one does."""
        with OutputFile(self.path, False, lambda _: True, "").claim(), self.appending():
            yield

    @contextmanager
    def appending(self) -> Iterator[None]:
        """The same for a process that appends on behalf of one that has opened it, and waits meanwhile."""
        self._read()
        with open(self.path, "a+b", buffering=0) as file:
            self._file = file
            _end_last_line(file)
            try:
                yield
            finally:
                self._file = None

    def learn(self, record: Record) -> None:
        """Take over a record that another machine has written. Raises ManifestError."""
        if self._file is None:
            self._take(record)
        else:
            self.append(record)

    def append(self, record: Record) -> None:
        """Write a line to the disk. Raises ManifestError; the line is not there then."""
        line = line_of(record)
        assert self._file is not None, "it is open"
        try:
            with uninterrupted():
                _append(self._file, line)
        except OSError as error:
            raise ManifestError(f"{self.path} cannot be written: {error.strerror}") from error
        self._take(record)


def line_of(record: Record) -> bytes:
    """A record as a line of a manifest."""
    return json.dumps(asdict(record)).encode() + b"\n"


def record_on(line: bytes) -> Record | None:
    """The record on a line. None if it was cut off, or if it is not one of ours."""
    try:
        values: dict[str, Any] = json.loads(line)
        known = {name: values[name] for name in Record.__dataclass_fields__ if name in values}
        recordings = tuple(Recording.of(recording) for recording in known.get("recordings", ()))
        return Record(**known | {"notes": tuple(known.get("notes", ())), "recordings": recordings})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _end_last_line(file: BinaryIO) -> None:
    """End the last line, which a crash may have cut off."""
    if size := file.seek(0, os.SEEK_END):
        file.seek(size - 1)
        if file.read(1) != b"\n":
            _append(file, b"\n")


def _append(file: BinaryIO, line: bytes) -> None:
    """Append to a file, all or nothing, and flush it to the disk."""
    before = file.seek(0, os.SEEK_END)
    try:
        rest = memoryview(line)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(before)
        raise
