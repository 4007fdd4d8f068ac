"""Compile inner loops that neither torch nor numpy has."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compile `function` with numba at its first call, for use in other compiled functions.

    The machine code is cached on disk.
    """
    return cast(_Function, numba.njit(cache=True, nogil=True)(function))


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
