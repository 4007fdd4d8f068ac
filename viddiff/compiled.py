"""Compilation of inner loops that neither torch nor numpy has."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """`function`, compiled by numba at its first call; the machine code is kept on disk."""
    return cast(_Function, numba.njit(cache=True, nogil=True)(function))
