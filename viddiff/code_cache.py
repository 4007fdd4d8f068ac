"""Where the code that numba compiles is kept on disk: the first folder that can be written.

That is the one in NUMBA_CACHE_DIR, the one beside the source, the user's own, or one among temporary files.
Without any, each process compiles again.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Self, cast

from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)

from viddiff.native_code import private_folder


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
            folder = private_folder()
            locator: Any = cls(function, file)
            locator._cache_path = str(folder / locator.get_suitable_cache_subpath(file))
            locator.ensure_cache_path()
        except OSError:
            return None
        return cast(Self, locator)


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
