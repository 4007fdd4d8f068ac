"""Scenes for the enhancement network: parts of clips, moving stills and screens, with noise.

Real footage has sensor noise and grain, independent in each frame, and detail as sharp as its sampling
allows. Clips that were reduced in size and coded before have lost both. So many scenes of the released
weights' mix are reduced once more, and get noise of several strengths and spectra, before they are coded.
"""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from viddiff.codec.base_bit_depth import rounded, widened
from viddiff.errors import ViddiffError, VideoError
from viddiff.frame import Frame, Plane
from viddiff.media.picture_planes import picture_from_planes, planes_from_picture, planes_from_rgb
from viddiff.media.video_reader import VideoReader

SCENE_FRAMES = 24
"""Largest number of frames of a scene."""
STILL_SUFFIXES = (".jpg", ".jpeg", ".png")
MIN_SIDE = 160
"""Smallest width and height of a scene, luma samples."""
_MAX_WIDTH, _MAX_HEIGHT = 640, 384
"""Scenes of larger clips are parts of their frames, so that all cost about the same."""
_ALIGNMENT = 64
"""Parts begin at multiples of it, so that they are divided into blocks as in the whole frame."""
_NOISE = (0.7, 6.0)
"""Standard deviation of luma noise, in 8-bit levels."""
_WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
)


@dataclass(frozen=True)
class SceneMix:
    """How scenes are made: shares of all scenes, 0 to 1."""

    stills: float = 0.2
    """Moving stills, if there are stills."""
    screens: float = 0.07
    """Text and boxes."""
    reduced: float = 0.6
    """Of the stretches of clips: reduced in size."""
    faded: float = 0.1
    noisy: float = 0.55


AS_THEY_ARE = SceneMix(stills=0, screens=0, reduced=0, faded=0, noisy=0)
"""For networks that will only see footage like the clips."""


@dataclass
class Footage:
    """Files that scenes are made of. Those that cannot be used are taken out."""

    videos: list[Path]
    stills: list[Path]

    def __bool__(self) -> bool:
        return bool(self.videos or self.stills)


def scene(footage: Footage, mix: SceneMix, rng: random.Random) -> list[Frame]:
    """A random scene of 10-bit frames of one size, at least MIN_SIDE in both directions.

    What is changed has 8 bits of detail. Raises VideoError if the file that was chosen cannot be used.
    """
    kind = rng.random()
    faded, noisy = rng.random() < mix.faded, rng.random() < mix.noisy
    bit_depth = 8
    if kind < mix.screens:
        frames = screen(rng)
    elif footage.stills and (kind < mix.screens + mix.stills or not footage.videos):
        with _taken_out_of(footage.stills, still := rng.choice(footage.stills)):
            frames = moving_still(still, rng)
    else:
        with _taken_out_of(footage.videos, video := rng.choice(footage.videos)):
            frames, bit_depth = stretch(video, mix.reduced, rng)
    if faded or noisy:
        frames = [rounded(widened(frame, bit_depth), 8) for frame in frames]
        bit_depth = 8
    if faded:
        frames = fade(frames, rng)
    if noisy:
        frames = with_noise(frames, rng)
    return [widened(frame, bit_depth) for frame in frames]


@contextmanager
def _taken_out_of(files: list[Path], file: Path) -> Iterator[None]:
    """Take the file out if it cannot be used. VideoError."""
    try:
        yield
    except (ViddiffError, OSError) as error:
        files.remove(file)
        raise VideoError(f"{file} cannot be used for training: {error}") from error


def stretch(video: Path, reduced: float, rng: random.Random) -> tuple[list[Frame], int]:
    """Consecutive frames from a random place of a clip, and their bit depth.

    With the probability `reduced` they are reduced in size, so that they are sharp again. Raises VideoError
    if the clip is too small.
    """
    with VideoReader(video) as reader:
        count, info = reader.info.frame_count or SCENE_FRAMES, reader.info
    width, height, bit_depth = info.width, info.height, info.bit_depth
    if min(width, height) < MIN_SIDE:
        raise VideoError(f"it has {width}x{height} samples, fewer than {MIN_SIDE}x{MIN_SIDE}")
    largest = min(height, width) / MIN_SIDE
    factor = rng.uniform(1, min(2.0, largest)) if largest > 1 and rng.random() < reduced else 1.0
    size = (width, height) if factor == 1 else (even(width / factor), even(height / factor))
    method = rng.choice(("AREA", "BICUBIC", "LANCZOS"))
    left, top = (_place(*sides, rng) for sides in zip(size, (_MAX_WIDTH, _MAX_HEIGHT), strict=True))
    start, frames = rng.randint(0, max(count - SCENE_FRAMES, 0)), []
    with VideoReader(video, start=start, frames=SCENE_FRAMES) as reader:
        for frame in reader:
            if size != (width, height):
                frame = _resized(rounded(widened(frame, bit_depth), 8), size, method)
            frames.append(_part(frame, left, top))
    if not frames:
        raise VideoError("it has fewer frames than it says")
    return frames, bit_depth if size == (width, height) else 8


def _place(side: int, most: int, rng: random.Random) -> int:
    """Where a part of at most `most` samples begins."""
    return _ALIGNMENT * rng.randint(0, max(side - most, 0) // _ALIGNMENT)


def _part(frame: Frame, left: int, top: int) -> Frame:
    y = _window(frame.y, left, top, _MAX_WIDTH, _MAX_HEIGHT)
    u, v = (_window(p, left // 2, top // 2, _MAX_WIDTH // 2, _MAX_HEIGHT // 2) for p in (frame.u, frame.v))
    return Frame(y, u, v, frame.pts)


def _window(plane: Plane, left: int, top: int, width: int, height: int) -> Plane:
    window: Plane = plane[top : top + height, left : left + width].copy()
    return window


def even(side: float) -> int:
    """The even number of samples next to `side`, at least the size of a tile."""
    return max(2 * round(side / 2), MIN_SIDE)


def _resized(frame: Frame, size: tuple[int, int], method: str) -> Frame:
    picture = picture_from_planes(frame.planes, 8).reformat(*size, interpolation=method)
    y, u, v = planes_from_picture(picture, 8, *size)
    return Frame(y, u, v, frame.pts)


def moving_still(path: Path, rng: random.Random) -> list[Frame]:
    """A still, seen by a camera that pans, turns, zooms and shakes."""
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    height = even(rng.uniform(MIN_SIDE, max(MIN_SIDE, side / 1.5)))
    width = even(height * rng.uniform(1.0, 1.7))
    factor = max(1.0, min(image.size[0] / width, image.size[1] / height) / rng.uniform(1.15, 1.6))
    shape = (even(image.size[0] / factor), even(image.size[1] / factor))
    samples = planes_from_rgb(np.asarray(image.convert("RGB")), *shape)
    planes = [torch.from_numpy(p).float()[None, None] for p in samples]
    angle, turn = rng.uniform(-0.1, 0.1), rng.gauss(0, 0.002)
    zoom, growth = rng.uniform(0.85, 1.0), rng.gauss(1, 0.004)
    speed = 2.0 ** rng.uniform(-4, 3)
    heading = rng.uniform(0, 2 * math.pi)
    at = [rng.uniform(-1, 1) * max(0, (s - n) / 2) for s, n in zip(shape, (width, height), strict=True)]
    shake = rng.choice((0.0, 0.3, 1.0))
    frames = []
    for pts in range(SCENE_FRAMES):
        centre = [(c + rng.gauss(0, shake)) for c in at]
        views = [_view(p, shape, (width, height), centre, angle, zoom) for p in planes]
        y, u, v = map(_bytes, views)
        frames.append(Frame(y, u, v, pts))
        at = [at[0] + speed * math.cos(heading), at[1] + speed * math.sin(heading)]
        angle, zoom = angle + turn, zoom * growth
    return frames


def _view(
    plane: Tensor,
    shape: tuple[int, int],
    size: tuple[int, int],
    centre: list[float],
    angle: float,
    zoom: float,
) -> Tensor:
    """`size` luma samples of a plane (1, 1, h, w) of a picture of `shape`, rotated by `angle` radians."""
    divisor = round(shape[0] / plane.shape[3])
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    x_share, y_share = size[0] / shape[0], size[1] / shape[1]
    theta = torch.tensor(
        [
            [cos * x_share, -sin * size[1] / shape[0], 2 * centre[0] / shape[0]],
            [sin * size[0] / shape[1], cos * y_share, 2 * centre[1] / shape[1]],
        ]
    )
    grid = functional.affine_grid(
        theta[None], [1, 1, size[1] // divisor, size[0] // divisor], align_corners=False
    )
    return functional.grid_sample(plane, grid, "bicubic", "reflection", align_corners=False)[0, 0]


def _bytes(plane: Tensor) -> NDArray[np.uint8]:
    return plane.round().clamp(0, 255).to(torch.uint8).numpy()


def screen(rng: random.Random) -> list[Frame]:
    """Text and boxes on a page that rests or scrolls, under a moving pointer."""
    width, height = even(rng.uniform(256, 448)), even(rng.uniform(176, 288))
    page = Image.new("RGB", (width, 3 * height), _colour(rng))
    draw = ImageDraw.Draw(page)
    for _ in range(rng.randrange(12)):
        left, top = rng.randrange(width), rng.randrange(3 * height)
        box = (left, top, left + rng.randrange(10, 200), top + rng.randrange(8, 120))
        draw.rectangle(box, _colour(rng), _colour(rng))
    ink, top = _colour(rng), 4
    font = ImageFont.load_default(rng.randrange(9, 26))
    while top < 3 * height:
        text = " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(2, 14)))
        draw.text((rng.randrange(2, 40), top), text, ink, font)
        top += rng.randrange(12, 40)
    scroll = rng.choice((0, 0, 1, 2, 5, 12))
    step = (rng.gauss(0, 4), rng.gauss(0, 4))
    frames = []
    for pts in range(SCENE_FRAMES):
        view = page.crop((0, pts * scroll, width, pts * scroll + height))
        at = (width / 2 + pts * step[0], height / 2 + pts * step[1])
        ImageDraw.Draw(view).polygon((at, (at[0] + 8, at[1] + 9), (at[0], at[1] + 12)), "white", "black")
        y, u, v = planes_from_rgb(np.asarray(view.convert("RGB")), width, height)
        frames.append(Frame(y, u, v, pts))
    return frames


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def fade(frames: list[Frame], rng: random.Random) -> list[Frame]:
    """Darken frames by a constant, or by a fade to or from black."""
    first, last = (rng.uniform(0.15, 1.0) for _ in range(2))
    if rng.random() < 0.4:
        last = first
    gains = np.linspace(first, last, len(frames))
    result = []
    for frame, gain in zip(frames, gains, strict=True):
        y, u, v = (
            np.round(base + (plane - float(base)) * gain).clip(0, 255).astype(np.uint8)
            for plane, base in zip(frame.planes, (16, 128, 128), strict=True)
        )
        result.append(Frame(y, u, v, frame.pts))
    return result


def with_noise(
    frames: list[Frame], rng: random.Random, strengths: tuple[float, float] = _NOISE
) -> list[Frame]:
    """Sensor noise or grain: one strength and spectrum for the scene, other values in each frame.

    strengths: range of the standard deviation of luma's noise, 8-bit levels.
    """
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    sigma = math.exp(rng.uniform(*map(math.log, strengths)))
    chroma = sigma * rng.uniform(0.2, 0.8)
    blurs = rng.choice((0.0, 0.0, 0.45, 0.8)), rng.choice((0.0, 0.5, 0.8))
    shape = rng.choice(("even", "shot", "film"))
    result = []
    for frame in frames:
        y = torch.from_numpy(frame.y.astype(np.float32))
        gain = {"even": torch.ones_like(y), "shot": ((y + 16) / 144).sqrt(), "film": 1.3 - y / 256}[shape]
        noisy = [y + sigma * gain * _noise(y.shape, blurs[0], generator)]
        for plane in (frame.u, frame.v):
            samples = torch.from_numpy(plane.astype(np.float32))
            noisy.append(samples + chroma * _noise(samples.shape, blurs[1], generator))
        y_noisy, u_noisy, v_noisy = map(_bytes, noisy)
        result.append(Frame(y_noisy, u_noisy, v_noisy, frame.pts))
    return result


def _noise(shape: torch.Size, blur: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of variance 1, blurred by a Gaussian with this standard deviation in samples."""
    if not blur:
        return torch.randn(shape, generator=generator)
    taps = torch.exp(-0.5 * (torch.arange(-2, 3) / blur) ** 2)
    taps /= taps.square().sum().sqrt()
    white = torch.randn(1, 1, shape[0] + 4, shape[1] + 4, generator=generator)
    return functional.conv2d(functional.conv2d(white, taps.view(1, 1, 5, 1)), taps.view(1, 1, 1, 5))[0, 0]
