"""Compile inner loops that neither torch nor numpy has."""

import functools
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import numba
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)

_Function = TypeVar("_Function", bound=Callable[..., Any])


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


class _Cache(FunctionCache):
    """Compiled code on disk, for the next process; one that cannot read or write it compiles again."""

    _impl_class = _Places

    def load_overload(self, *arguments: Any) -> Any:
        with suppress(OSError):
            return super().load_overload(*arguments)  # type: ignore[no-untyped-call]
        return None

    def save_overload(self, *arguments: Any) -> None:
        with suppress(OSError):
            super().save_overload(*arguments)  # type: ignore[no-untyped-call]


def kernel(function: _Function) -> _Function:
    """`function`, compiled by numba at its first call, for other compiled ones to call.

    Its code is kept on disk if there is a folder for it: where NUMBA_CACHE_DIR says, beside the source, in
    the user's cache folder or among temporary files.
    """
    dispatcher: Any = numba.njit(nogil=True)(function)
    with suppress(RuntimeError, OSError):  # no such folder can be written
        dispatcher._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return cast(_Function, dispatcher)


def compiled(function: _Function) -> _Function:
    """Compile `function` like `kernel`, for calls from Python."""
    dispatcher = kernel(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return dispatcher(*arguments)
        except SystemError as error:
            raise _interruption(error) from error

    return cast(_Function, call)


def _interruption(error: SystemError) -> BaseException:
    """The exception of a signal handler that numba wrapped in a SystemError, or `error` itself."""
    cause: BaseException | None = error
    while isinstance(cause, SystemError):
        cause = cause.__cause__ or cause.__context__
    return cause if isinstance(cause, SystemExit | KeyboardInterrupt) else error
