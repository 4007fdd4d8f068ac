"""PyTorch settings for exact arithmetic, whatever the program has set.

They hold inside a block. Afterwards, the program's own settings are restored. The number of threads does not
change results. One thread is fastest, because processes share the GOPs.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
_FAST_MATH = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
"""Environment variables that let oneDNN round to bfloat16 or TF32. It reads them once, perhaps before us."""
_OPERATIONS = (("mkldnn", "conv"), ("mkldnn", "matmul"), ("cuda", "conv"), ("cuda", "matmul"))
"""Operations that may use reduced precision, by PyTorch's names."""


@contextmanager
def exact_arithmetic(threads: int = 1) -> Iterator[None]:
    """Compute exactly in this block. Blocks may be nested, and may run in several threads.

    threads: PyTorch's threads, if no other block is active.
    """
    with _PROCESS.held(threads), thread_settings(), torch.no_grad():
        yield


def exactly(items: Iterator[Item]) -> Iterator[Item]:
    """Make each item under exact arithmetic. Between items, the caller's settings hold."""
    end = object()
    while True:
        with exact_arithmetic():
            item = next(items, end)
        if item is end:
            return
        yield item  # type: ignore[misc]


@contextmanager
def thread_settings() -> Iterator[None]:
    """In this block, compute on the CPU unless told otherwise, without autocast."""
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


class _ProcessSettings:
    """Settings that PyTorch keeps for the process: the first block changes them, the last restores them."""

    def __init__(self) -> None:
        self._lock, self._blocks, self._restore = threading.Lock(), 0, list[Callable[[], None]]()

    @contextmanager
    def held(self, threads: int) -> Iterator[None]:
        with self._lock:
            if not self._blocks:
                self._change(threads)
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                while not self._blocks and self._restore:
                    self._restore.pop()()

    def _change(self, threads: int) -> None:
        self._set(torch.get_num_threads, torch.set_num_threads, threads)
        self._set(torch.get_default_dtype, torch.set_default_dtype, torch.float32)
        if torch.are_deterministic_algorithms_enabled():
            warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
            torch.use_deterministic_algorithms(False)
            self._restore.append(lambda: torch.use_deterministic_algorithms(True, warn_only=warn_only))
        if any(os.environ.get(name, "STRICT").upper() != "STRICT" for name in _FAST_MATH):
            self._set(torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled, False)
        if hasattr(torch._C, "_set_fp32_precision_setter"):
            for operation in _OPERATIONS:
                before = torch._C._get_fp32_precision_getter(*operation)
                torch._C._set_fp32_precision_setter(*operation, "ieee")
                self._restore.append(_later(torch._C._set_fp32_precision_setter, *operation, before))
        else:
            self._set(torch._C._get_cudnn_allow_tf32, torch._C._set_cudnn_allow_tf32, False)
        self._set(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")

    def _set(self, get: Callable[[], Any], put: Callable[[Any], None], value: Any) -> None:
        """Change a setting, unless it has that value already."""
        if (before := get()) != value:
            put(value)
            self._restore.append(_later(put, before))


def _later(function: Callable[..., Any], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


_PROCESS = _ProcessSettings()
