"""Resources: weights, device, number of processes."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from viddiff.codec.enhancer import EngineName, Enhancer
from viddiff.codec.file_network import adapted
from viddiff.codec.load_weights import load_weights
from viddiff.codec.open_decoder import Weights
from viddiff.container.format import Header
from viddiff.pipeline.division import Division, Unit
from viddiff.pipeline.interruption import uninterrupted
from viddiff.pipeline.weights_search import WeightsName, weights_to_decode, weights_to_encode

_MOST_PER_GOP = 6
"""Largest number of processes that share a GOP."""
_ANCHORS = 0.2
"""Share of the work that each process must do for itself."""
_WORTH_SHARING = 0.9
_GOPS_OF_PROCESS = 4
"""Fewer GOPs for each process leave some of them idle at the end. Threads of one process do not wait so."""


@dataclass(frozen=True)
class Resources:
    """Weights, device and number of processes."""

    weights: WeightsName = None
    """For encoding: a file, or None for the released weights. For decoding: where to search first."""
    device: str = "cpu"
    workers: int | None = None
    """Largest number of processes. 1: this process alone. None: as many as pay off."""
    base_only: bool = False
    """Decode AV1 bases without networks."""
    engine: EngineName | None = None
    """What computes the networks that enhance an AV1 base. None: by the device, see `Enhancer`."""
    network: bytes = b""
    """For encoding with an AV1 base: the network of the file, see `codec.file_network`. Empty: none."""

    def load(self, threads: int = 1) -> Weights:
        """Load the weights for encoding, or those that `to_decode` has found. CheckpointError.

        threads: that enhance frames side by side in the compiled engine.
        """
        with uninterrupted():  # imports may swallow what the handler of a signal raises
            weights = load_weights(
                weights_to_encode(self.weights), self.device, self.engine, threads if self.compiled else 1
            )
            if not self.network:
                return weights
            assert isinstance(weights, Enhancer)
            return adapted(weights, self.network)

    def load_to_decode(self, threads: int = 1) -> Weights | None:
        """The same for decoding. None: no networks."""
        return None if self.base_only else self.load(threads)

    def to_decode(self, header: Header, file: Path | None = None) -> Self:
        """The same with the weights that a file names. Raises CheckpointError if they are not found.

        file: the path of the file, for weights that are archived with it.
        """
        if self.base_only:
            return self
        return replace(self, weights=weights_to_decode(header.model_hash, self.weights, file))

    def prepare(self, base: bool) -> None:
        """Compile, once, what processes would compile side by side. base: whether there is an AV1 base."""
        if base and not self.base_only and self.compiled:
            from viddiff.codec.engine.native_kernels import prepare

            prepare()

    @property
    def cores(self) -> int:
        """How many there are for this process, or that the user allows."""
        found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return found if self.workers is None else min(found, self.workers)

    @property
    def compiled(self) -> bool:
        """Whether the compiled engine enhances AV1 bases. Its threads can use all cores."""
        return self.device == "cpu" and self.engine != "torch"

    def divide(self, work: "Work", may_share_gops: bool) -> Division:
        """Divide work between processes: one for each `work.least` luma samples, up to the number of cores.

        may_share_gops: processes may share each GOP if there are few GOPs.
        """
        if self.device != "cpu":
            return Division()  # a GPU is served by one process
        wanted = min(self.cores, work.pixels // work.least) if self.workers is None else self.workers
        wanted = max(wanted, 1)
        if work.base and self.compiled and self.workers is None and work.gops < _GOPS_OF_PROCESS * wanted:
            return Division()
        apart, together = max(min(work.gops, wanted), 1), min(wanted, _MOST_PER_GOP)
        rounds = -(-work.gops // apart) / work.gops
        if may_share_gops and _ANCHORS + (1 - _ANCHORS) / together < _WORTH_SHARING * rounds:
            return Division(together, Unit.MINI_GOP)
        return Division(apart)


@dataclass(frozen=True)
class Work:
    """Amount of work."""

    base: bool
    """There is an AV1 base, so that threads can enhance frames side by side."""
    gops: int
    """Number of GOPs, at least 1."""
    pixels: int
    """Luma samples of all frames."""
    least: int
    """Luma samples that keep a process busy for about the time of its start."""
