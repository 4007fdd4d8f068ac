"""Units of a batch: which files are encoded, and what they are called below the target.

A unit's name is the path of its source below the folder or glob that was named, and its file is that name
with `.vdf` behind it: `door/a.mp4` becomes `door/a.mp4.vdf`. So `a.mp4` and `a.mkv` do not collide, and a
name does not depend on what else is in the folder.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from viddiff.errors import ViddiffError
from viddiff.media.extensions import is_video
from viddiff.pipeline.batch.globs import Expansion, fixed_part, has_wildcards, spells_extension
from viddiff.pipeline.batch.remote_file import Source
from viddiff.pipeline.batch.remote_search import find_remote
from viddiff.pipeline.batch.servers.place import Place, is_remote

WORKING = ".recordings"
"""Folder below the target, of the files of recordings that are to be joined."""
LIST = "@"
"""Before the name of a file that lists sources."""


@dataclass(frozen=True)
class Unit:
    """A file to encode."""

    name: str
    """Path below the target, with slashes, without `.vdf`. It stays the same from run to run."""
    source: Source
    """Absolute path, or a file on a server."""
    problem: str = ""
    """Why it cannot be encoded, if that is known already."""
    place: str = ""
    """Folder of its file below the target, with a slash behind it."""

    @property
    def output(self) -> str:
        """Path of its file below the target."""
        return f"{self.place}{self.name}.vdf"

    @property
    def path(self) -> Path:
        """Its source, which is on this machine."""
        assert isinstance(self.source, Path)
        return self.source

    @property
    def folder(self) -> str:
        """Folder in its name. Empty at the top."""
        return os.path.dirname(self.name)


@dataclass(frozen=True)
class Shard:
    """A part of all units, for one of several machines. Every name belongs to exactly one shard."""

    number: int = 0
    """0 to `count` - 1."""
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise ValueError(
                f"shard {self.number}/{self.count}: use 0/{self.count} to {self.count - 1}/{self.count}"
            )

    def holds(self, name: str) -> bool:
        """Whether the unit or folder of this name belongs here: by a hash, so that all machines agree."""
        digest = hashlib.sha256(os.fsencode(name)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number


@dataclass
class Found:
    """What sources hold."""

    units: dict[str, Unit] = field(default_factory=dict)
    """By name."""
    ignored: set[str] = field(default_factory=set)
    """Paths of files that were left out because of their extension."""

    @property
    def ignored_by_extension(self) -> Counter[str]:
        """How many files were left out, by extension."""
        return Counter(sorted(os.path.splitext(path)[1].lower() for path in self.ignored))

    def add(self, unit: Unit) -> None:
        """Add a unit. Raises ViddiffError if another source has the same name."""
        other = self.units.setdefault(unit.name, unit)
        if other.source != unit.source:
            raise ViddiffError(
                f"{other.source} and {unit.source} would both become {unit.output}: "
                "name a folder that holds both"
            )


def find_units(sources: Iterable[str], target: Path | Place) -> Found:
    """All units of folders, files, globs and `@` lists, in the order of their names.

    What cannot be read becomes a unit with a problem. Raises ViddiffError if two units would write the same
    file, OSError if a list cannot be read or a server cannot be asked.
    """
    search = _Search(target)
    for source in sources:
        if source.startswith(LIST):
            for line in _lines(Path(source.removeprefix(LIST))):
                search.add(line, listed=True)
        else:
            search.add(source, listed=False)
    found = search.found
    return Found({name: found.units[name] for name in sorted(found.units)}, found.ignored)


def _lines(path: Path) -> Iterator[str]:
    """Sources in a list: one a line, without blank lines and comments."""
    for line in path.read_bytes().splitlines():
        text = os.fsdecode(line.strip())
        if text and not text.startswith("#"):
            yield text


class _Search:
    """Collects units."""

    def __init__(self, target: Path | Place) -> None:
        self.found = Found()
        self._out = target if isinstance(target, Place) else None
        self._target = os.path.realpath(target) if isinstance(target, Path) else None

    def add(self, text: str, listed: bool) -> None:
        """Add what `text` names. In a list, names keep the whole path, so that they are told apart."""
        if not text:
            raise ViddiffError("an empty name is no source")
        if is_remote(text):
            self._add_remote(text, listed)
        elif os.path.isdir(text):
            self._walk(text, _Names(text, _below(text) if listed else ""))
        elif os.path.lexists(text) or not has_wildcards(text):
            folder = os.path.dirname(text)
            problem = "" if os.path.lexists(text) else "it does not exist"
            self._take(text, _Names(folder, _below(folder) if listed else ""), problem)
        else:
            self._expand(text, listed)

    def _add_remote(self, text: str, listed: bool) -> None:
        folder, finds = find_remote(text, self._out)
        for find in finds:
            name = f"{_below(folder)}/{find.name}" if listed else find.name
            if find.named or is_video(name):
                self.found.add(Unit(name, find.source, find.problem))
            else:
                self.found.ignored.add(str(find.source))

    def _expand(self, pattern: str, listed: bool) -> None:
        """Add what a glob finds, by extension unless the pattern spells it out."""
        fixed = fixed_part(pattern)
        names = _Names(fixed, _below(fixed) if listed else "")
        spelt = spells_extension(pattern)
        for path in Expansion(self._enters, self._unreadable(names)).paths(pattern):
            if os.path.isdir(path):
                self._walk(path, names)
            elif spelt:
                self._take(path, names)
            else:
                self._take_video(path, names)

    def _walk(self, top: str, names: "_Names") -> None:
        """Add the videos in a folder and below, without hidden ones. Links to folders are not followed."""
        for folder, folders, files in os.walk(top, onerror=self._unreadable(names)):
            folders[:] = sorted(name for name in folders if self._enters(folder, name))
            for name in files:
                if not name.startswith("."):
                    self._take_video(os.path.join(folder, name), names)

    def _unreadable(self, names: "_Names") -> Callable[[OSError], None]:
        """What adds folders that cannot be read."""
        return lambda error: self._take(error.filename, names, error.strerror or "it cannot be read")

    def _enters(self, folder: str, name: str) -> bool:
        """Whether to look into a folder: not the target itself."""
        return not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) != self._target

    def _take_video(self, path: str, names: "_Names") -> None:
        if is_video(path):
            self._take(path, names)
        else:
            self.found.ignored.add(path)

    def _take(self, path: str, names: "_Names", problem: str = "") -> None:
        self.found.add(Unit(names.of(path), Path(os.path.abspath(path)), problem))


@dataclass(frozen=True)
class _Names:
    """Names of units that are found in one place."""

    base: str
    """What is cut off their paths."""
    prefix: str
    """What is put before the rest."""

    def of(self, path: str) -> str:
        """Name of the unit at a path."""
        rest = os.path.relpath(path, self.base or os.curdir)
        if rest == os.curdir:  # the place itself cannot be read
            rest = os.path.basename(os.path.abspath(path))
        return Path(self.prefix, rest).as_posix()


def _below(path: str) -> str:
    """A path as one below another folder: without root, and without steps up at its beginning."""
    parts = [part for part in os.path.normpath(path).split(os.sep) if part not in ("", os.curdir, os.pardir)]
    return os.path.join("", *parts)


def places_of(source: str) -> set[str]:
    """Folders in which a source may find new files: those that exist. Raises OSError of a list."""
    if source.startswith(LIST):
        path = Path(source.removeprefix(LIST))
        return {str(path.parent)}.union(*(_folder_of(line) for line in _lines(path)))
    return _folder_of(source)


def _folder_of(text: str) -> set[str]:
    if os.path.isdir(text):
        folder = text
    else:
        exact = os.path.lexists(text) or not has_wildcards(text)
        folder = (os.path.dirname(text) if exact else fixed_part(text)) or os.curdir
    return {folder} if os.path.isdir(folder) else set()
