"""PyTorch's settings for training, whatever the program has set.

They hold inside a block. Afterwards, the program's own settings are restored.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from viddiff.codec.exactness import thread_settings


@contextmanager
def training_settings(seed: int, threads: int | None = None) -> Iterator[None]:
    """Train in this block, with random numbers of its own that follow from `seed`.

    threads: PyTorch's threads. None: as many as the program has set.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(range(torch.cuda.device_count())))
        stack.enter_context(thread_settings())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        if threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        stack.callback(torch.set_flush_denormal, _flushes_denormals())
        torch.set_flush_denormal(True)  # vanishing gradients would slow the processor down many times
        torch.manual_seed(seed)
        yield


def _flushes_denormals() -> bool:
    """Whether this thread takes numbers next to zero for zero. PyTorch does not tell."""
    return sys.float_info.min / 2 == 0
