"""Globs: paths with wildcards.

On this machine they find what those of `glob` do, but no links to folders: a link to a folder above would let
`**` find everything again and again. And they tell which folders cannot be read.
"""

import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import dropwhile

_WILDCARDS = re.compile(r"[*?[]")


def has_wildcards(text: str) -> bool:
    """Whether a path is a glob."""
    return _WILDCARDS.search(text) is not None


def fixed_part(pattern: str) -> str:
    """The folder of a glob: its path up to the first part with a wildcard."""
    parts = pattern.split(os.sep)
    first = next(number for number, part in enumerate(parts) if has_wildcards(part))
    return os.sep.join(parts[:first]) or (os.sep if pattern.startswith(os.sep) else "")


def spells_extension(pattern: str) -> bool:
    """Whether a glob says which extension it finds."""
    extension = os.path.splitext(pattern)[1]
    return extension != "" and not has_wildcards(extension)


@dataclass(frozen=True)
class Expansion:
    """Finds what globs mean on this machine. What a wildcard finds is never hidden."""

    enters: Callable[[str, str], bool]
    """Whether to go into a folder, by the path of the one that holds it and its name."""
    unreadable: Callable[[OSError], None]
    """Gets the error of each folder that cannot be read."""

    def paths(self, pattern: str) -> Iterator[str]:
        """What a pattern finds. If it ends with `**`: folders, without what is in them."""
        fixed = fixed_part(pattern)
        return self._found(fixed, [part for part in pattern[len(fixed) :].split(os.sep) if part])

    def _found(self, path: str, parts: list[str]) -> Iterator[str]:
        """What the rest of a pattern finds from a path on."""
        if not parts:
            yield path
            return
        part, *rest = parts
        if part == "**":
            yield from self._found_below(path, list(dropwhile("**".__eq__, rest)))
        elif not has_wildcards(part):
            if os.path.lexists(child := os.path.join(path, part)):
                yield from self._found(child, rest)
        else:
            fits = re.compile(fnmatch.translate(part)).match
            for entry in self._entries(path):
                if fits(entry.name):
                    yield from self._found(os.path.join(path, entry.name), rest)

    def _found_below(self, path: str, rest: list[str]) -> Iterator[str]:
        """What the rest of a pattern finds from a folder on, and from all folders below it."""
        if not os.path.isdir(path or os.curdir):
            return
        yield from self._found(path, rest)
        if not rest:
            return
        for entry in self._entries(path):
            if entry.is_dir(follow_symlinks=False):
                yield from self._found_below(os.path.join(path, entry.name), rest)

    def _entries(self, path: str) -> list["os.DirEntry[str]"]:
        """What counts in a folder, by name."""
        try:
            with os.scandir(path or os.curdir) as entries:
                return sorted(filter(lambda entry: self._counts(path, entry), entries), key=lambda e: e.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.unreadable(error)
            return []

    def _counts(self, path: str, entry: "os.DirEntry[str]") -> bool:
        """Whether an entry is neither hidden, nor a link to a folder, nor a folder that is not gone into."""
        if entry.name.startswith("."):
            return False
        if entry.is_symlink():
            return not os.path.isdir(entry)
        return not entry.is_dir() or self.enters(path, entry.name)
