"""A target on a server: its files, the records of them, and the weights that they need.

    file complete on this machine -> its record created -> the file created -> size compared -> removed here

Everything on the server is created and never replaced: whoever comes second finds what is there, compares it,
and takes the record that fits. Records are lines of a manifest, each in a file of its own, because a server
cannot append. They are written before their files. So every file that a batch has made is known to all
machines, and a record whose file is missing means nothing.
"""

import posixpath
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from viddiff.codec.tensor_file import stated_hash
from viddiff.errors import CheckpointError, OutputError
from viddiff.pipeline.batch.manifest import Manifest, Record, line_of, record_on
from viddiff.pipeline.batch.remote_file import remove_with_folders
from viddiff.pipeline.batch.servers.connections import store_of
from viddiff.pipeline.batch.servers.place import Place
from viddiff.pipeline.batch.servers.store import Entry
from viddiff.pipeline.batch.target_files import occupied, sha256_of
from viddiff.pipeline.batch.weights_archive import WeightsArchive
from viddiff.pipeline.weights_search import archived_weights

Result = TypeVar("Result")
RECORDS = "manifest"
"""Folder below the target. It has a folder for each file, with records by the first digits of its hash."""
_PROBE = f"{RECORDS}/created-only"
"""A file by which it is seen that the server does not replace files."""
_DIGITS = 16
_LONGEST = 1 << 20
"""Most bytes of a record."""


class RemoteFiles:
    """Files below a folder on a server."""

    def __init__(self, folder: Place, local: Path, copies: Path) -> None:
        """local: folder of the manifest, and of files that are made and not delivered.

        copies: folder of files that are read back.
        """
        self._folder, self._local, self._copies = folder, local, copies
        self._store = store_of(folder)
        self._listed: dict[str, Entry] | None = None
        """What is there, by path, if all was listed. It is kept up to date with what is asked."""
        self._listed_records: dict[Place, list[Entry]] = defaultdict(list)
        """What was there then, by folder."""

    def begin(self, dry_run: bool) -> None:
        """List what is there, and check that the server does not replace files."""
        entries = self._store.files_below(self._folder)
        below = ((entry.place.below(self._folder), entry) for entry in entries if not entry.is_folder)
        self._listed = {path: entry for path, entry in below if path is not None}
        for path, entry in self._listed.items():
            if path.startswith(f"{RECORDS}/"):
                self._listed_records[entry.place.parent].append(entry)
        if not dry_run:
            text = "Files here are created and never replaced.\n"
            if not self._with_text(text, lambda path: self._store.creates_only(path, self._folder / _PROBE)):
                raise OutputError(
                    f"{self._folder}: this server replaces files that must only be created; "
                    "choose another OUT and copy the files"
                )

    def at(self, output: str) -> Place:
        """Its address."""
        return self._folder / output

    def size(self, output: str) -> int | None:
        """As it was when all was listed, or now."""
        if self._listed is not None:
            entry = self._listed.get(output)
            return None if entry is None else entry.size
        return self._size_now(output)

    def sha256(self, output: str) -> str:
        """Read it back, and hash it."""
        size = self._store.look(self.at(output)).size
        copy = self._copies / output
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._store.fetch(self.at(output), copy, size)
            return sha256_of(copy)
        finally:
            remove_with_folders(copy, self._copies)

    def learn(self, output: str, manifest: Manifest) -> None:
        """Read the records of a file that the manifest does not know."""
        if self.size(output) is None:
            return
        known = {str(record.sha256)[:_DIGITS] for record in manifest.finished(output)}
        for entry in self._records(output):
            if entry.place.name.removesuffix(".json") not in known and entry.size <= _LONGEST:
                record = record_on(self._store.read(entry.place))
                if record is not None and record.output == output:
                    manifest.learn(record)

    def is_taken(self, output: str) -> bool:
        """Whether there is a file now."""
        if self._size_now(output) is None:
            return False
        if self._listed is not None:
            self._listed_records[self._folder_of_records(output)] = self._records_now(output)
        return True

    def deliver(self, record: Record) -> tuple[Record, str]:
        """Upload a file, and remove it here."""
        path, place = self._local / record.output, self.at(record.output)
        self._record(record)
        remark = ""
        try:
            self._store.create(path, place)
        except FileExistsError:
            record, remark = self._found(record)
        if self._size_now(record.output) != record.bytes:
            raise OutputError(f"{place} does not have the {record.bytes} bytes that were uploaded")
        self.clear(record.output)
        return record, remark

    def clear(self, output: str) -> None:
        """Remove the file here."""
        remove_with_folders(self._local / output, self._local)

    def flush(self, output: str) -> None:
        """The server's matter."""

    def keep_weights(self, weights: Path, output: str) -> None:
        """Have weights on the server. Raises CheckpointError if others are there."""
        if self.size(output) is None:
            with suppress(FileExistsError):
                self._store.create(weights, self.at(output))
        if self._size_now(output) != weights.stat().st_size:
            raise CheckpointError(f"{self.at(output)} is damaged: remove it")

    def _found(self, record: Record) -> tuple[Record, str]:
        """The record of a file that is there already, in place of one that is the same or as good."""
        digest = self.sha256(record.output)
        if digest == record.sha256:
            return record, "the same file was there already"
        for entry in self._records_now(record.output):
            other = record_on(self._store.read(entry.place)) if entry.size <= _LONGEST else None
            if other is not None and _fits(other, record, digest):
                return other, "another batch has uploaded its file meanwhile, which is as its record says"
        raise occupied(self.at(record.output))

    def _size_now(self, output: str) -> int | None:
        try:
            entry = self._store.look(self.at(output))
        except FileNotFoundError:
            entry = None
        if self._listed is not None:
            self._listed.pop(output, None)
            if entry is not None:
                self._listed[output] = entry
        return None if entry is None else entry.size

    def _record(self, record: Record) -> None:
        """Write a record, unless it is there."""
        place = self._folder_of_records(record.output) / f"{str(record.sha256)[:_DIGITS]}.json"
        with suppress(FileExistsError):
            self._with_text(line_of(record).decode(), lambda path: self._store.create(path, place))

    def _records(self, output: str) -> list[Entry]:
        """Records of a file, by the list if there is one."""
        if self._listed is None:
            return self._records_now(output)
        return self._listed_records.get(self._folder_of_records(output), [])

    def _records_now(self, output: str) -> list[Entry]:
        return [e for e in self._store.files_below(self._folder_of_records(output)) if not e.is_folder]

    def _folder_of_records(self, output: str) -> Place:
        return self._folder / posixpath.join(RECORDS, output.removesuffix(".vdf"))

    def _with_text(self, text: str, use: Callable[[Path], Result]) -> Result:
        """What `use` makes of a small file with a text."""
        with TemporaryDirectory() as folder:
            path = Path(folder, "text")
            path.write_text(text, encoding="utf-8")
            return use(path)


class RemoteWeightsArchive(WeightsArchive):
    """Weights beside the files of a server. Copies of them are in the folder of the manifest."""

    def __init__(self, local: Path, writer: str, files: RemoteFiles, shown: Place) -> None:
        super().__init__(local, writer, shown)
        self._local, self._files = local, files
        self._sent = set[str]()

    def keep(self, weights: Path) -> None:
        """Make sure that a weights file is on the server. Raises CheckpointError, OutputError, OSError."""
        super().keep(weights)
        self._send(stated_hash(weights))

    def keep_for(self, digest: str) -> None:
        """Make sure that the weights with a hash are on the server. Raises the same."""
        if digest not in self._sent and self._files.size(_output(digest)) is None:
            super().keep_for(digest)
            self._send(digest)

    def _send(self, digest: str) -> None:
        if digest not in self._sent:
            self._files.keep_weights(archived_weights(self._local, digest), _output(digest))
            self._sent.add(digest)


def _output(digest: str) -> str:
    """Path of weights below the target."""
    return archived_weights(Path(), digest).as_posix()


def _fits(other: Record, mine: Record, digest: str) -> bool:
    """Whether the record of another batch is as good as mine for a file with this hash."""

    def about(record: Record) -> tuple[object, ...]:
        return record.output, record.size, record.mtime_ns, record.target

    return other.sha256 == digest and about(other) == about(mine)
