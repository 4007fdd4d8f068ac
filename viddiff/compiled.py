"""Compilation of inner loops that neither torch nor numpy has."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """`function`, compiled by numba at its first call, for other compiled ones to call; its code is kept
    on disk."""
    return cast(_Function, numba.njit(cache=True, nogil=True)(function))


def compiled(function: _Function) -> _Function:
    """The same, to be called from Python."""
    dispatcher = kernel(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return dispatcher(*arguments)
        except SystemError as error:
            raise _interruption(error) from error

    return cast(_Function, call)


def _interruption(error: SystemError) -> BaseException:
    """What a signal's handler raised while numba converted a result, where it is lost in a SystemError; or
    `error` itself."""
    cause: BaseException | None = error
    while isinstance(cause, SystemError):
        cause = cause.__cause__ or cause.__context__
    return cause if isinstance(cause, SystemExit | KeyboardInterrupt) else error
