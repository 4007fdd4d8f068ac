"""Find sources on servers: in folders, by name, and by globs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from viddiff.errors import ViddiffError
from viddiff.pipeline.batch.globs import Glob, fixed_part, has_wildcards, spells_extension
from viddiff.pipeline.batch.remote_file import RemoteFile
from viddiff.pipeline.batch.servers.connections import store_of
from viddiff.pipeline.batch.servers.place import Place
from viddiff.pipeline.batch.servers.store import Entry, Store


@dataclass(frozen=True)
class RemoteFind:
    """A file that was found."""

    name: str
    """Path below what was named."""
    source: RemoteFile
    named: bool
    """Whether the file itself was named, or its extension: then it is taken, whatever it is."""
    problem: str = ""


def find_remote(text: str, out: Place | None) -> tuple[str, list[RemoteFind]]:
    """What an address or a glob of addresses names, and the folder in which it was looked for.

    out: a folder that is not searched. Raises ViddiffError if it is no address, OSError if the server cannot
    be asked.
    """
    try:
        place = Place.parse(text)
    except ValueError as error:
        raise ViddiffError(str(error)) from error
    store = store_of(place)
    try:
        entry = store.look(place)
    except FileNotFoundError as error:
        if has_wildcards(place.key):
            top = replace(place, key=fixed_part(place.key, "/"))
            return _address(top), list(_globbed(store, place, top, out))
        problem = _problem(store, place, text, error)
        if not problem:
            return _address(place), []
        return _address(place.parent), [
            RemoteFind(place.name or str(place), RemoteFile(place), True, problem)
        ]
    if entry.is_folder:
        return _address(place), list(_inside(store, place, place, out))
    return _address(place.parent), [RemoteFind(place.name, RemoteFile(place, entry), True)]


def _problem(store: Store, place: Place, text: str, error: FileNotFoundError) -> str:
    """Why nothing is there. Empty for a folder of S3 without files: S3 does not know that it was there."""
    is_folder = text.endswith("/") or not os.path.splitext(place.name)[1]
    if place.scheme == "s3" and is_folder:
        try:
            store.files_below(place)
        except FileNotFoundError as missing:
            return str(missing.strerror)
        return ""
    return str(error.strerror)


def _globbed(store: Store, pattern: Place, top: Place, out: Place | None) -> Iterator[RemoteFind]:
    glob, spelt = Glob(pattern.below(top) or ""), spells_extension(pattern.key)
    for entry in store.files_below(top, lambda folder: glob.looks_into(folder.below(top) or "")):
        name = entry.place.below(top) or ""
        if glob.finds(name) or entry.is_folder:
            yield from _found(entry, top, out, named=spelt)
        elif glob.finds_above(name):
            yield from _found(entry, top, out, named=False)


def _inside(store: Store, folder: Place, top: Place, out: Place | None) -> Iterator[RemoteFind]:
    for entry in store.files_below(folder):
        yield from _found(entry, top, out, named=False)


def _found(entry: Entry, top: Place, out: Place | None, named: bool) -> Iterator[RemoteFind]:
    """An entry as a find, unless it is hidden or in `out`."""
    name = entry.place.below(top) or entry.place.name
    parts = name.split("/")
    if out is not None and entry.place.below(out) is not None:
        return
    if entry.problem:
        yield RemoteFind(name, RemoteFile(entry.place), named or entry.is_folder, entry.problem)
    elif "\0" in name or {"", ".", ".."} & set(parts):
        yield RemoteFind(name, RemoteFile(entry.place, entry), named, "no file here can have this name")
    elif not any(part.startswith(".") for part in parts):
        yield RemoteFind(name, RemoteFile(entry.place, entry), named)


def _address(folder: Place) -> str:
    """A folder as a path, for names that keep the whole of it."""
    return f"{folder.server}/{folder.key}"
