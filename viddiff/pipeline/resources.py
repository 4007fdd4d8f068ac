"""What to compute with: weights, device, processes."""

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import cv2
import torch

from viddiff.codec import checkpoint
from viddiff.codec.load_weights import load_weights
from viddiff.codec.open_decoder import Weights
from viddiff.pipeline.jobs import Division, Unit

_MOST_PER_GOP = 6
"""Processes that may share a GOP."""
_ANCHORS = 0.2
"""Share of the work that each of them has to do for itself."""
_WORTH_SHARING = 0.9


@dataclass(frozen=True)
class Resources:
    """What to compute with."""

    weights: Path | None = None
    """None: the released ones; to decode, those of the release that the file was made with."""
    device: str = "cpu"
    workers: int | None = None
    """Processes, at most; 1 means this process alone, None as many as pay."""

    def load(self) -> Weights:
        """Load the weights, for use in this process."""
        prepare_process()
        return load_weights(self.weights or released_weights(), self.device)

    @property
    def cores(self) -> int:
        """How many there are for this process, or that the user allows."""
        found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return found if self.workers is None else min(found, self.workers)

    def divide(self, work: "Work", may_share_gops: bool) -> Division:
        """How processes share out the work, one for each `work.least` luma samples as far as there are
        cores; may_share_gops: whether they may share each GOP if there are few.
        """
        if self.device != "cpu":
            return Division()  # a GPU is served by one process
        wanted = min(self.cores, work.pixels // work.least) if self.workers is None else self.workers
        wanted = max(wanted, 1)
        apart, together = max(min(work.gops, wanted), 1), min(wanted, _MOST_PER_GOP)
        rounds = -(-work.gops // apart) / work.gops
        if may_share_gops and _ANCHORS + (1 - _ANCHORS) / together < _WORTH_SHARING * rounds:
            return Division(together, Unit.MINI_GOP)
        return Division(apart)


@dataclass(frozen=True)
class Work:
    """How much there is to do."""

    gops: int
    """1 or more."""
    pixels: int
    """Luma samples of all frames."""
    least: int
    """Luma samples that keep a process busy for about as long as it takes to start."""


def prepare_process() -> None:
    """One thread each, and no reduced precision, whatever the environment asks for: it would not be exact."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.environ["ONEDNN_DEFAULT_FPMATH_MODE"] = os.environ["DNNL_DEFAULT_FPMATH_MODE"] = "STRICT"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def released_weights() -> Path:
    """Where the released weights are."""
    return Path(str(resources.files("viddiff.checkpoints").joinpath(checkpoint.DEFAULT)))


def released_for(model_hash: bytes) -> Path:
    """The released weights, of today or before, that have this hash; those of today if none do."""
    today = released_weights()
    for path in sorted(today.parent.glob("*.safetensors")):
        if checkpoint.stated_hash(path) == model_hash.hex():
            return path
    return today
