"""Compile inner loops that neither torch nor numpy has."""

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """`function`, compiled by numba at its first call, for other compiled ones to call.

    Its code is kept on disk if there is a folder for it (see `code_cache`).
    """
    import numba

    from viddiff.code_cache import CodeCache

    dispatcher: Any = numba.njit(nogil=True)(function)
    with suppress(RuntimeError, OSError):  # no such folder can be written
        dispatcher._cache = CodeCache(function)  # type: ignore[no-untyped-call]
    return cast(_Function, dispatcher)


def compiled(function: _Function) -> _Function:
    """Compile `function` like `kernel`, for calls from Python. numba is loaded by the first call."""
    dispatcher: Any = None

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal dispatcher
        if dispatcher is None:
            dispatcher = kernel(function)
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
