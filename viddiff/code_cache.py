"""Where the code that numba compiles is kept on disk: the first folder that can be written.

That is the one in NUMBA_CACHE_DIR, the one beside the source, the user's own, or one among temporary files.
Without any, each process compiles again.
"""

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)


class _UserFolder(UserWideCacheLocator):
    """The user's cache folder; none without a home directory, for which numba would make a folder named ~."""

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> Self | None:
        locator: Any = super()
        if not os.path.isabs(cls(function, file)._cache_path):
            return None
        return cast(Self | None, locator.from_function(function, file))


class _TemporaryFolder(UserWideCacheLocator):
    """Where compiled code is kept for a user without a home directory, as services have none."""

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> Self | None:
        try:
            folder = _private_folder()
            locator: Any = cls(function, file)
            locator._cache_path = str(folder / locator.get_suitable_cache_subpath(file))
            locator.ensure_cache_path()
        except OSError:
            return None
        return cast(Self, locator)


def _private_folder() -> Path:
    """A folder in the system's one for temporary files. OSError unless it is this user's alone."""
    if not hasattr(os, "geteuid"):
        raise NotADirectoryError("no user is known")
    user = os.geteuid()
    folder = Path(tempfile.gettempdir(), f"viddiff-{user}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not this user's alone")
    return folder


class _Places(CompileResultCacheImpl):
    """Where compiled code may be kept: the first of these that can be written."""

    _locator_classes: ClassVar[Any] = [  # type: ignore[misc]
        UserProvidedCacheLocator,
        InTreeCacheLocator,
        _UserFolder,
        _TemporaryFolder,
    ]


class CodeCache(FunctionCache):
    """Compiled code on disk, for the next process; one that cannot read or write it compiles again."""

    _impl_class = _Places

    def load_overload(self, *arguments: Any) -> Any:
        """What numba has kept for a signature; None if there is nothing, or nothing that can be read."""
        with suppress(OSError):
            return super().load_overload(*arguments)  # type: ignore[no-untyped-call]
        return None

    def save_overload(self, *arguments: Any) -> None:
        """Keep what numba has compiled, if possible."""
        with suppress(OSError):
            super().save_overload(*arguments)  # type: ignore[no-untyped-call]
