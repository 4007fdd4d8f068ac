"""Globs: paths with wildcards.

They find what those of `glob` do, but no links to folders: a link to a folder above would let `**` find
everything again and again. And they tell which folders cannot be read.
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


def fixed_part(pattern: str, separator: str = os.sep) -> str:
    """The folder of a glob: its path up to the first part with a wildcard."""
    parts = pattern.split(separator)
    first = next(number for number, part in enumerate(parts) if has_wildcards(part))
    return separator.join(parts[:first]) or (separator if pattern.startswith(separator) else "")


def spells_extension(pattern: str) -> bool:
    """Whether a glob says which extension it finds."""
    extension = os.path.splitext(pattern)[1]
    return extension != "" and not has_wildcards(extension)


class Glob:
    """What a glob finds on a server below its fixed part, by the paths of all files there."""

    def __init__(self, pattern: str) -> None:
        """pattern: the part of a glob below its fixed part, with slashes."""
        self._parts = [part for part in pattern.split("/") if part]

    def finds(self, path: str) -> bool:
        """Whether it finds a file, by its path below the fixed part."""
        return len(self._parts) in self._states(path)[-1]

    def finds_above(self, path: str) -> bool:
        """Whether it finds a folder in which something is, at whatever depth."""
        return any(len(self._parts) in states for states in self._states(path)[:-1])

    def looks_into(self, path: str) -> bool:
        """Whether it has to look into a folder."""
        return bool(self._states(path)[-1]) or self.finds_above(path)

    def _states(self, path: str) -> list[set[int]]:
        """How many parts of the glob the path down to each folder may be of, from the fixed part on."""
        states = [self._without_folders({0})]
        for name in path.split("/") if path else []:
            states.append(self._without_folders(set(self._after(states[-1], name))))
        return states

    def _after(self, states: set[int], name: str) -> Iterator[int]:
        for number in states - {len(self._parts)}:
            if self._parts[number] == "**":
                yield number
            elif fnmatch.fnmatchcase(name, self._parts[number]):
                yield number + 1

    def _without_folders(self, states: set[int]) -> set[int]:
        """The same, and what follows each `**`, which also stands for no folder."""
        for number, part in enumerate(self._parts):
            if number in states and part == "**":
                states.add(number + 1)
        return states


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
