"""Ranks: the processes that train one network together, on several GPUs or machines.

torchrun starts them, and starts all of them again when one was killed. Every rank draws its own samples;
their gradients are averaged, so that N ranks with batches of B do what one does with batches of N * B. Only
the first rank writes, reports, validates and looks at the clock. The others do what it decides.
"""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from viddiff.codec.tensor_file import stated
from viddiff.errors import ViddiffError

_PATIENCE = timedelta(minutes=30)
"""Longest wait for other ranks, such as that for a validation by the first one."""

_ATTEMPT = 10
"""Seconds of an attempt to reach the first rank where it is said to be."""
_PORT = "viddiff.port"


@dataclass(frozen=True)
class Ranks:
    """One of these processes, as it sees all of them."""

    number: int = 0
    """Which rank this process is, 0 to count - 1."""
    count: int = 1
    local: int = 0
    """Which of this machine's ranks it is. It uses the GPU of this number."""
    run: str = ""
    """torchrun's name of this run. It stays when the ranks are started again. Empty without torchrun."""

    @classmethod
    def of_environment(cls) -> Self:
        """What torchrun says about this process, if it started it."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        number, count, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(number, count, local, os.environ["TORCHELASTIC_RUN_ID"])

    @property
    def first(self) -> bool:
        """Whether this rank is the one that writes and decides."""
        return self.number == 0

    def own(self, state: Path) -> bool:
        """Whether a state on disk is that of this run, which was started again and has not ended yet."""
        return self.run != "" and stated(state, "run") == self.run

    @contextmanager
    def together(self, device: str) -> Iterator[None]:
        """Be connected with the other ranks, on "cpu" or "cuda". All leave the block at the same time.

        Raises ViddiffError if they cannot be reached, or if there is no GPU for this rank.
        """
        if self.count == 1:
            yield
            return
        if device == "cuda":
            if self.local >= torch.cuda.device_count():
                raise ViddiffError(
                    f"this machine has {torch.cuda.device_count()} GPUs: start one process for each, with "
                    "torchrun's --nproc-per-node"
                )
            torch.cuda.set_device(self.local)
        with _others():
            backends = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            distributed.init_process_group(
                backends, store=self._store(), rank=self.number, world_size=self.count, timeout=_PATIENCE
            )
        try:
            yield
            with _others():
                distributed.all_reduce(torch.zeros(1))
        finally:
            distributed.destroy_process_group()

    def _store(self) -> TCPStore:
        """A store where these ranks meet, held by the first one.

        torchrun's store outlives ranks that were killed, with their addresses. So it only says where the
        first one is, and what it says is tried until it is true.
        """
        host, deadline = os.environ["MASTER_ADDR"], time.monotonic() + _PATIENCE.total_seconds()
        known, *_ = next(rendezvous("env://", timeout=_PATIENCE))
        if self.first:
            store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_PATIENCE)
            known.set(_PORT, str(store.port))
            return store
        while True:
            try:
                port = int(known.get(_PORT))
                with socket.create_connection((host, port), _ATTEMPT):
                    pass  # somebody listens; without this, TCPStore would try and log for long
                return TCPStore(host, port, timeout=_PATIENCE)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def average_(self, loss: Tensor, parameters: Collection[torch.nn.Parameter]) -> None:
        """Replace the loss and the gradients by their means over all ranks.

        Where this rank has no gradient and others have one, it counts as zeros. Where none has one, there is
        none.
        """
        if self.count == 1:
            return
        there = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
        tensors = [loss, there.to(loss.device)]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            tensors.append(parameter.grad)
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _others():
            distributed.all_reduce(flat)
        means = torch.split(flat / self.count, [tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))
        for parameter, share in zip(parameters, tensors[1].tolist(), strict=True):
            if not share:
                parameter.grad = None

    def decided(self, value: float) -> float:
        """The value that the first rank gives."""
        if self.count == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64)
        with _others():
            distributed.broadcast(held, 0)
        return float(held)

    def share(self, path: Path, take: Callable[[Path], None]) -> None:
        """Let the other ranks take in a file that the first one has, maybe on another machine."""
        if self.count == 1:
            return
        held = [path.read_bytes() if self.first else b""]
        with _others():
            distributed.broadcast_object_list(held, 0)
        if not self.first:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / path.name
                copy.write_bytes(held[0])
                take(copy)


ALONE = Ranks()
"""A process that trains alone."""


@contextmanager
def _others() -> Iterator[None]:
    """What fails in here fails because of the other ranks."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ViddiffError("another process of this training has ended, or cannot be reached") from error
