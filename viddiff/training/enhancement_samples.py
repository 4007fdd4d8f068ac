"""Samples of what AV1 leaves to enhance: tiles of decoded frames beside their originals, in shards on disk.

    scene -> SVT-AV1, random CRF -> dav1d -> tiles where the errors are -> shard (.npy) + figures (.npz)

A tile is drawn with a probability in proportion to its share of the scene's error, every plane measured
against its own mean over the scene. The mean over tiles of (error after) / (error before) is then what the
benchmark asks for: the gradient of the scene's 6:1:1 PSNR, at every quality alike.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH, widened
from viddiff.errors import ViddiffError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_headers import Coding, HeaderReader
from viddiff.media.av1_stream import Av1Decoder, Av1Encoder
from viddiff.networks.enhancement import condition_of
from viddiff.training.enhancement_scenes import STILL_SUFFIXES, SceneMix, scene
from viddiff.training.samples import SUFFIXES

TILE = 160
"""Side of a tile, luma samples."""
PLANE_WEIGHTS = (6 / 8, 1 / 8, 1 / 8)
"""Shares of Y, U and V in the 6:1:1 PSNR."""
PRESET = 4
CRFS = (16, 63)
"""Smallest and largest CRF."""
_ROUNDING_ERROR = 4.0**2 / 12
"""Mean squared error of rounding to 8 bits, which every shown frame has."""
_GRID = 16
_PER_SCENE = 32
_SHARD = 1024
_FAILURES = 20
"""Clips that may fail before the first one that can be read."""
_SAMPLES = TILE * TILE * 3 // 2


@dataclass(frozen=True)
class Base:
    """A scene coded by SVT-AV1."""

    frames: list[Frame]
    """As dav1d shows them, of BASE_BIT_DEPTH."""
    codings: list[Coding]
    sizes: list[int]
    """Bytes of each temporal unit."""


def code_base(frames: list[Frame], crf: int, preset: int = PRESET) -> Base:
    """Code frames of BASE_BIT_DEPTH as one closed GOP, random access. VideoError."""
    height, width = frames[0].y.shape
    info = VideoInfo(width, height, BASE_BIT_DEPTH)
    encoder = Av1Encoder(info, quantiser=4 * crf, preset=preset)
    units = [unit for frame in frames for unit in encoder.send(frame)] + encoder.finish()
    decoder, headers = Av1Decoder(width, height, BASE_BIT_DEPTH), HeaderReader()
    decoded = [decoder.decode(unit) for unit in units]
    return Base(decoded, [headers.shown(unit) for unit in units], [len(unit) for unit in units])


Tiles = NDArray[np.uint16]
"""(N, 2, SAMPLES): the decoded tile and the original, each Y, U and V one after the other, 10 bits."""


def tiles_of(
    frames: list[Frame], base: Base, crf: int, rng: random.Random
) -> tuple[Tiles, dict[str, NDArray[np.generic]]]:
    """Tiles of a scene of BASE_BIT_DEPTH, and figures of each.

    `quantiser`, `intra`, `gop_quantiser`; `norm` (3,): mean squared errors of the scene by plane, as shown;
    `weight`: the error of the tile in units of that of the scene.
    """
    maps = [_error_maps(a, b) for a, b in zip(frames, base.frames, strict=True)]
    means = np.mean([[m.mean() for m in planes] for planes in maps], axis=0) + _ROUNDING_ERROR
    weights = np.stack([_tile_errors(planes, means) for planes in maps])  # (T, rows, columns)
    chances = weights.ravel() / weights.sum()
    source = np.random.default_rng(rng.getrandbits(32))
    count = min(_PER_SCENE, int((chances > 0).sum()))
    drawn = source.choice(chances.size, count, replace=False, p=chances)
    tiles = np.empty((count, 2, _SAMPLES), np.uint16)
    for tile, index in zip(tiles, drawn, strict=True):
        t, row, column = np.unravel_index(index, weights.shape)
        for half, frame in zip(tile, (base.frames[t], frames[t]), strict=True):
            half[:] = _cut(frame, int(row) * _GRID, int(column) * _GRID)
    of = [base.codings[int(index) // weights[0].size] for index in drawn]
    figures: dict[str, NDArray[np.generic]] = {
        "quantiser": np.array([coding.quantiser for coding in of], np.uint8),
        "intra": np.array([coding.intra for coding in of]),
        "gop_quantiser": np.full(count, min(4 * crf, 255), np.uint8),
        "norm": np.tile(means.astype(np.float32), (count, 1)),
        "weight": weights.ravel()[drawn].astype(np.float32),
    }
    return tiles, figures


def _error_maps(a: Frame, b: Frame) -> list[NDArray[np.float32]]:
    """Mean squared errors of the cells of the grid, for each plane (rows, columns)."""
    maps = []
    for x, y, cell in zip(a.planes, b.planes, (_GRID, _GRID // 2, _GRID // 2), strict=True):
        squares = np.square(x.astype(np.float32) - y)
        rows, columns = (side // cell for side in squares.shape)
        cells = squares[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell)
        maps.append(cells.mean((1, 3)))
    return maps


def _tile_errors(maps: list[NDArray[np.float32]], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The tile's error at each place of the grid."""
    total = sum(w * m / mean for w, m, mean in zip(PLANE_WEIGHTS, maps, means, strict=True))
    side = TILE // _GRID
    windows = np.lib.stride_tricks.sliding_window_view(total, (side, side))
    errors: NDArray[np.float64] = windows.mean((2, 3)).astype(np.float64)
    return errors


def _cut(frame: Frame, top: int, left: int) -> NDArray[np.uint16]:
    half = TILE // 2
    parts = [frame.y[top : top + TILE, left : left + TILE]]
    parts += [p[top // 2 : top // 2 + half, left // 2 : left // 2 + half] for p in (frame.u, frame.v)]
    return np.concatenate([part.ravel() for part in parts])


def collect(data: Path, folder: Path, shards: int, mix: SceneMix, seed: int) -> Iterator[int]:
    """Fill `folder` up to so many shards of tiles from videos and stills; yields their number after each.

    Equal arguments give equal shards. Raises VideoError if `data` holds nothing that can be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(p for p in data.rglob("*") if p.is_file())
    stills = [p for p in files if p.suffix.lower() in STILL_SUFFIXES]
    videos = [p for p in files if p.suffix.lower() in SUFFIXES]
    if not videos and not stills:
        raise VideoError(f"{data} holds neither videos nor stills")
    for number in range(shards):
        path = folder / f"tiles-{number:04}.npy"
        if not path.exists():
            _write_shard(path, videos, stills, mix, random.Random(f"{seed} {number}"))
        yield number + 1


def _write_shard(
    path: Path, videos: list[Path], stills: list[Path], mix: SceneMix, rng: random.Random
) -> None:
    parts: list[tuple[Tiles, dict[str, NDArray[np.generic]]]] = []
    failures = 0
    while sum(len(tiles) for tiles, _ in parts) < _SHARD:
        try:
            frames = [widened(frame, 8) for frame in scene(videos, stills, mix, rng)]
            crf = rng.randint(*CRFS)
            parts.append(tiles_of(frames, code_base(frames, crf), crf, rng))
        except VideoError:
            failures += 1
            if failures > _FAILURES + len(parts):
                raise
    figures = {name: np.concatenate([f[name] for _, f in parts])[:_SHARD] for name in parts[0][1]}
    np.savez(path.with_suffix(".npz"), **figures)  # type: ignore[arg-type]
    temporary = path.with_suffix(".part.npy")
    np.save(temporary, np.concatenate([tiles for tiles, _ in parts])[:_SHARD])
    temporary.replace(path)


@dataclass(frozen=True)
class TileBatch:
    """Tiles as the network sees them."""

    decoded: Tensor
    """(B, 6, TILE/2, TILE/2), 10-bit samples."""
    original: Tensor
    condition: Tensor
    """(B, CONDITIONS)."""
    share: Tensor
    """(B, 6): what a squared error in a plane counts for: a tile's error is 1 before enhancement."""
    gop_quantiser: Tensor
    """(B,)."""

    def to(self, device: str) -> Self:
        """The same on another device."""
        return type(self)(*(getattr(self, f.name).to(device) for f in fields(self)))

    def ranges(self) -> Iterator[tuple[str, Tensor]]:
        """Which tiles (B,) belong to all, and to each quarter of the range of GOP quantisers."""
        yield "all", torch.ones_like(self.gop_quantiser, dtype=torch.bool)
        for start in range(0, 256, 64):
            yield f"q{start:03}", self.gop_quantiser // 64 == start // 64


class TileShards:
    """The tiles of a folder's shards, those that come later too."""

    def __init__(self, folder: Path) -> None:
        """ViddiffError if there are none."""
        self._folder = folder
        self._shards: list[tuple[Tiles, dict[str, NDArray[np.generic]]]] = []
        self.look()
        if not self._shards:
            raise ViddiffError(f"{folder} has no shards of tiles")

    def __len__(self) -> int:
        return sum(len(tiles) for tiles, _ in self._shards)

    def look(self) -> None:
        """Take in shards that have been written since."""
        for path in sorted(self._folder.glob("tiles-*[0-9].npy"))[len(self._shards) :]:
            with np.load(path.with_suffix(".npz")) as figures:
                self._shards.append((np.load(path, mmap_mode="r"), dict(figures)))

    def batch(self, count: int, rng: random.Random) -> TileBatch:
        """Random tiles, each turned and mirrored at random."""
        chosen = []
        for _ in range(count):
            tiles, figures = rng.choice(self._shards)
            index = rng.randrange(len(tiles))
            turn = rng.randrange(4), rng.random() < 0.5
            chosen.append(
                ([_packed(half, *turn) for half in tiles[index]], {n: f[index] for n, f in figures.items()})
            )
        return _batch_of(chosen)

    def batches(self, count: int, most: int) -> Iterator[TileBatch]:
        """At most `most` tiles, spread evenly over all, as they are."""
        step = -(-len(self) // most)
        chosen = [
            ([_packed(half, 0, False) for half in tiles[i]], {n: f[i] for n, f in figures.items()})
            for tiles, figures in self._shards
            for i in range(0, len(tiles), step)
        ]
        for start in range(0, len(chosen), count):
            yield _batch_of(chosen[start : start + count])


def _packed(tile: NDArray[np.uint16], quarters: int, mirrored: bool) -> Tensor:
    """Six planes (6, TILE/2, TILE/2), turned by quarters of a circle and mirrored."""
    half, luma = TILE // 2, TILE * TILE
    shapes = ((0, TILE), (luma, half), (luma + half * half, half))
    planes = []
    for start, side in shapes:
        plane = np.rot90(tile[start : start + side * side].reshape(side, side), quarters)
        turned = plane[:, ::-1] if mirrored else plane
        planes.append(torch.from_numpy(turned.astype(np.float32)))
    y, u, v = planes
    return torch.cat((functional.pixel_unshuffle(y[None], 2), u[None], v[None]))


def _batch_of(chosen: list[tuple[list[Tensor], dict[str, Any]]]) -> TileBatch:
    decoded, original = (torch.stack([pair[i] for pair, _ in chosen]) for i in range(2))
    figures = {name: torch.tensor(np.stack([f[name] for _, f in chosen])) for name in chosen[0][1]}
    numbers = (figures[name].int() for name in ("quantiser", "gop_quantiser", "intra"))
    by_plane = torch.tensor([PLANE_WEIGHTS[0] / 4] * 4 + list(PLANE_WEIGHTS[1:]))
    norm = figures["norm"][:, [0, 0, 0, 0, 1, 2]] * figures["weight"][:, None]
    form = torch.channels_last
    return TileBatch(
        decoded.contiguous(memory_format=form),
        original.contiguous(memory_format=form),
        condition_of(*numbers),
        by_plane / norm,
        figures["gop_quantiser"].int(),
    )
