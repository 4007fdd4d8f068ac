"""Training samples: frames as the codec itself meets them.

A sample is a target frame, the two motion-compensated hypotheses from references that the codec coded, the
step and the level, and the quadtrees of motion. Samples come from the encoder, which runs over the training
clips with the newest weights, so references have the codec's own errors. Untrained networks are a DCT codec,
which is enough to begin with. Samples are stored on disk in a ring: while training goes on, a collector
replaces the oldest ones.
"""

import itertools
import math
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from viddiff.codec import checkpoint
from viddiff.codec.weights import Codec
from viddiff.config import STEP_COUNT, qp_of_step
from viddiff.encoder.frame_encoder import FrameSample
from viddiff.encoder.gop_encoder import GopEncoder
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import ViddiffError, VideoError
from viddiff.media.extensions import EXTENSIONS
from viddiff.media.video_reader import VideoReader
from viddiff.networks.planes import pack, unpack
from viddiff.training.background import training_was_killed

SUFFIXES = frozenset(EXTENSIONS)
CLIP_FRAMES = 9
"""Frames of one visit to a clip: a keyframe and one mini-GOP."""
LOW_DELAY_SHARE = 0.2
_STEP_JITTER = 3
_CANDIDATES = 3
"""Number of crops from which one is drawn."""


@dataclass(frozen=True)
class Batch:
    """Crops of one step. Pictures: (B, 6, S/2, S/2), integers 0..1023 in float32. step, level: (B,) int64."""

    x: Tensor
    first: Tensor
    second: Tensor
    step: Tensor
    level: Tensor
    weight: Tensor
    """(B,): weight of a crop. Crops that cost many bits are drawn more often and weigh less."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device, with pictures in channels-last format."""
        x, first, second = (
            t.to(device, memory_format=torch.channels_last) for t in (self.x, self.first, self.second)
        )
        return Batch(x, first, second, self.step.to(device), self.level.to(device), self.weight.to(device))


@dataclass(frozen=True)
class MotionSample:
    """Motion of one frame: levels of D for both fields, each (1, 2, R, C), and conditions (1, K)."""

    levels: tuple[list[Tensor], list[Tensor]]
    others: tuple[Tensor, Tensor]
    """Differences of the other templates from the chosen one, (A, 2, R, C)."""
    conditions: tuple[Tensor, Tensor]


def find_videos(folder: Path) -> list[Path]:
    """All videos below `folder`, sorted. Raises VideoError if there are none."""
    videos = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not videos:
        raise VideoError(f"{folder} holds no videos ({', '.join(sorted(SUFFIXES))})")
    return videos


class SampleRing:
    """Up to `capacity` samples in a folder. Writers replace the oldest; readers see only whole files."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder, self.capacity = folder, capacity
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        return sorted(p.stem for p in self.folder.glob("*.npz"))

    def add(self, sample: FrameSample) -> None:
        """Store a sample. It replaces the oldest one if the ring is full."""
        names = self._names()
        for name in names[: max(len(names) - self.capacity + 1, 0)]:
            (self.folder / f"{name}.npz").unlink(missing_ok=True)
            (self.folder / f"{name}.npy").unlink(missing_ok=True)
        name = f"{int(names[-1]) + 1 if names else 0:09d}"
        pictures = torch.cat((sample.x, sample.first, sample.second)).cpu().numpy().astype(np.uint16)
        np.save(self.folder / f"{name}.npy", pictures)
        trees = {
            f"level{w}{i}": level.astype(np.int16) for w in (0, 1) for i, level in enumerate(sample.levels[w])
        }
        trees |= {f"others{w}": sample.others[w].astype(np.int16) for w in (0, 1)}
        conditions = torch.cat(sample.conditions).cpu().numpy().astype(np.int16)
        with open(self.folder / f"{name}.part", "wb") as file:
            np.savez(file, about=np.array([sample.step, sample.level]), conditions=conditions, **trees)  # type: ignore[arg-type]
        os.replace(self.folder / f"{name}.part", self.folder / f"{name}.npz")

    def batches(self, size: int, crop: int, rng: random.Random) -> Iterator[Batch]:
        """Endless random crops. The folder is listed again from time to time."""
        names: list[str] = []
        for count in itertools.count():
            if count % 50 == 0:
                names = self._names()
            crops = [c for c in (self._choose(names, crop, rng) for _ in range(size)) if c is not None]
            if not crops:
                names = self._names()
                continue
            pictures = torch.stack([_flipped(c.pictures, rng) for c in crops])
            steps, levels = torch.tensor([c.step for c in crops]), torch.tensor([c.level for c in crops])
            weights = torch.tensor([c.weight for c in crops])
            yield Batch(pictures[:, 0], pictures[:, 1], pictures[:, 2], steps, levels, weights)

    def _choose(self, names: list[str], crop: int, rng: random.Random) -> "_Crop | None":
        """One of a few random crops, preferably an expensive one, because most crops have almost no residual.

        Weights compensate for that (importance sampling).
        """
        crops = [self._crop(rng.choice(names), crop, rng) for _ in range(_CANDIDATES)]
        found = [c for c in crops if c is not None]
        if not found:
            return None
        shares = [_expected_cost(c) for c in found]
        (index,) = rng.choices(range(len(found)), shares)
        return replace(found[index], weight=sum(shares) / len(found) / shares[index])

    def _crop(self, name: str, crop: int, rng: random.Random) -> "_Crop | None":
        """One crop of `crop` x `crop` luma samples, aligned to the transform's blocks.

        None if the sample was just replaced.
        """
        try:
            pictures = np.load(self.folder / f"{name}.npy", mmap_mode="r")
            with np.load(self.folder / f"{name}.npz") as data:
                step, level = (int(v) for v in data["about"])
        except (OSError, ValueError):
            return None
        side = crop // 2
        rows, cols = pictures.shape[2:]
        if rows < side or cols < side:
            return None
        top, left = rng.randrange(0, rows - side + 1, 4), rng.randrange(0, cols - side + 1, 4)
        patch = pictures[:, :, top : top + side, left : left + side]
        step = min(max(step + rng.randint(-_STEP_JITTER, _STEP_JITTER), 0), STEP_COUNT - 1)
        return _Crop(torch.from_numpy(patch.astype(np.float32)), step, level)

    def motion(self, rng: random.Random) -> MotionSample | None:
        """Motion of one random sample. None if it was just replaced."""
        try:
            with np.load(self.folder / f"{rng.choice(self._names())}.npz") as data:
                trees = [
                    [torch.from_numpy(data[f"level{w}{i}"].astype(np.float32))[None] for i in range(4)]
                    for w in (0, 1)
                ]
                others = [torch.from_numpy(data[f"others{w}"].astype(np.float32)) for w in (0, 1)]
                conditions = torch.from_numpy(data["conditions"].astype(np.float32))
        except (OSError, ValueError):
            return None
        return MotionSample((trees[0], trees[1]), (others[0], others[1]), (conditions[:1], conditions[1:]))


@dataclass(frozen=True)
class _Crop:
    pictures: Tensor
    """(3, 6, S/2, S/2): target and hypotheses."""
    step: int
    level: int
    weight: float = 1.0


def _expected_cost(crop: _Crop) -> float:
    """Approximate bits per sample of the error of the hypotheses' mean."""
    x, first, second = crop.pictures[:, 0]
    error = float(((x - (first + second) / 2) ** 2).mean()) / 16
    return 0.03 + math.log2(1 + error / 2 ** ((qp_of_step(crop.step) - 4) / 3))


_FLIP = v2.Compose([v2.RandomHorizontalFlip(0.5), v2.RandomVerticalFlip(0.5)])


def _flipped(patch: Tensor, rng: random.Random) -> Tensor:
    """Flip target and hypotheses (3, 6, h, w) together, as pictures, not as phases."""
    torch.manual_seed(rng.getrandbits(32))  # torchvision draws from torch's generator
    planes = [tv_tensors.Video(plane[:, None]) for plane in unpack(patch, 10)]
    y, u, v = (torch.as_tensor(plane)[:, 0] for plane in _FLIP(*planes))
    return pack((y, u, v))


def collect(
    video: Path, codec: Codec, rng: random.Random, keep: Callable[[FrameSample], None], crop: int
) -> None:
    """Encode a part of `video` with random options, and pass every predicted frame to `keep`.

    Raises ViddiffError if the video cannot be read, has only one frame, or if no crops of this side fit into
    its frames.
    """
    with VideoReader(video) as reader:
        if min(reader.info.width, reader.info.height) < crop:
            raise VideoError(f"{video} has frames of less than {crop}x{crop}")
        available = max((reader.info.frame_count or CLIP_FRAMES) - CLIP_FRAMES, 0)
    stride = rng.choice((1, 1, 1, 2)) if available >= CLIP_FRAMES else 1
    with VideoReader(video, start=rng.randint(0, max(available - CLIP_FRAMES * (stride - 1), 0))) as reader:
        frames = list(itertools.islice(reader, CLIP_FRAMES * stride))[::stride]
        options = EncodeOptions(
            quality=rng.randint(10, 56), gop=CLIP_FRAMES, low_delay=rng.random() < LOW_DELAY_SHARE
        )
        encoder = GopEncoder(codec, reader.info, options, sampled=True)
        if len(frames) < 2:
            raise VideoError(f"{video} has no frame that follows another")
        for group in encoder.groups(frames):
            for coded in encoder.encode(group):
                for sample in coded.samples:
                    keep(sample)


class Footage:
    """Videos to collect samples from, without those that turn out to be of no use."""

    def __init__(self, folder: Path, crop: int) -> None:
        """crop: frames with a smaller side are of no use. Raises VideoError if there are no videos."""
        self._folder, self._crop = folder, crop
        self._videos = find_videos(folder)

    def collect(self, codec: Codec, rng: random.Random, keep: Callable[[FrameSample], None]) -> None:
        """Collect from a random video (see `collect`). Raises VideoError if none is left."""
        while self._videos:
            video = rng.choice(self._videos)
            try:
                collect(video, codec, rng, keep, self._crop)
            except ViddiffError:
                self._videos.remove(video)  # what cannot be read teaches nothing
            else:
                return
        raise no_samples(self._folder, self._crop)


def no_samples(folder: Path, crop: int) -> VideoError:
    """Why training cannot go on: no video can be used."""
    return VideoError(
        f"no samples could be collected from {folder}: no video there can be read and has two frames or more "
        f"of {crop}x{crop} or more"
    )


def collect_forever(folder: Path, cache: Path, capacity: int, weights: Path, seed: int, crop: int) -> None:
    """Work of a collector: visit random clips with the newest `weights`, forever.

    It ends if no clip can be used.
    """
    ring, rng = SampleRing(cache, capacity), random.Random(seed)
    videos, some = find_videos(folder), True
    while some:
        some = False
        rng.shuffle(videos)
        for video in videos:
            if training_was_killed():
                return
            with suppress(ViddiffError):  # a clip that cannot be read teaches nothing
                collect(video, checkpoint.load(weights), rng, ring.add, crop)
                some = True
