"""Samples of what AV1 leaves to enhance: tiles of decoded frames beside their originals, in shards on disk.

    scene -> SVT-AV1, random CRF -> dav1d -> tiles where the errors are -> shard (.npy) + figures (.npz)

A tile is drawn with a probability in proportion to its share of the scene's error, every plane measured
against its own mean over the scene. The mean over tiles of (error after) / (error before) is then what the
benchmark asks for: the gradient of the scene's 6:1:1 PSNR, at every quality alike.
"""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH
from viddiff.codec.base_frames import BaseFrame
from viddiff.codec.base_gop_decoder import BaseStream
from viddiff.errors import ViddiffError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_stream import Av1Decoder, Av1Encoder, asked_index
from viddiff.networks.enhancement import condition_of
from viddiff.networks.enhancement_config import HYPOTHESES
from viddiff.training.background import training_was_killed
from viddiff.training.enhancement_scenes import STILL_SUFFIXES, Footage, SceneMix, scene
from viddiff.training.ranks import ALONE, Ranks
from viddiff.training.samples import SUFFIXES, find_videos

TILE = 160
"""Side of a tile, luma samples."""
PLANE_WEIGHTS = (6 / 8, 1 / 8, 1 / 8)
"""Shares of Y, U and V in the 6:1:1 PSNR."""
PRESETS = (3, 4, 6)
"""SVT-AV1's presets."""
CRFS = (16, 63)
"""Smallest and largest CRF."""
_ROUNDING_ERROR = 4.0**2 / 12
"""Mean squared error of rounding to 8 bits, which every shown frame has."""
_GRID = 16
_PER_SCENE = 32
_SHARD = 128
_EMPTY_SCENES = 20
"""Scenes without errors, such as black ones, before footage counts as useless."""
_SAMPLES = TILE * TILE * 3 // 2


@dataclass(frozen=True)
class Base:
    """A scene coded by SVT-AV1."""

    shown: list[BaseFrame]
    sizes: list[int]
    """Bytes of each temporal unit."""


def code_base(frames: list[Frame], quantiser: int, preset: int = PRESETS[0], low_delay: bool = False) -> Base:
    """Code frames of BASE_BIT_DEPTH as one closed GOP. quantiser: four times the CRF. VideoError."""
    height, width = frames[0].y.shape
    info = VideoInfo(width, height, BASE_BIT_DEPTH)
    encoder = Av1Encoder(info, quantiser=quantiser, preset=preset, low_delay=low_delay)
    units = [*(unit for frame in frames for unit in encoder.send(frame)), *encoder.finish()]
    stream = BaseStream(Av1Decoder(width, height, BASE_BIT_DEPTH), asked_index(quantiser))
    return Base(list(stream.shown(units)), [len(unit) for unit in units])


Tiles = NDArray[np.uint16]
"""(N, 2 + HYPOTHESES, SAMPLES): the decoded tile, the original, and what better neighbours show there or 0.

Each is Y, U and V one after the other, 10 bits.
"""
TilesWithFigures = tuple[Tiles, dict[str, NDArray[np.generic]]]
"""Tiles, and figures of each."""


def tiles_of(
    frames: list[Frame], base: Base, quantiser: int, rng: random.Random, most: int = _PER_SCENE
) -> TilesWithFigures:
    """At most so many tiles of a scene of BASE_BIT_DEPTH, and figures of each.

    `quantiser`, `intra`, `gop_quantiser`; `between`: whether it has hypotheses; `norm` (3,): mean squared
    errors of the scene by plane, as shown;
    `weight`: the error of the tile in units of that of the scene.
    """
    maps = [_error_maps(a, b.frame) for a, b in zip(frames, base.shown, strict=True)]
    means = np.mean([[m.mean() for m in planes] for planes in maps], axis=0) + _ROUNDING_ERROR
    weights = np.stack([_tile_errors(planes, means) for planes in maps])  # (T, rows, columns)
    source = np.random.default_rng(rng.getrandbits(32))
    count = min(most, int(np.count_nonzero(weights)))
    chances = weights.ravel() / weights.sum() if count else None
    drawn = source.choice(weights.size, count, replace=False, p=chances)
    tiles = np.zeros((count, 2 + HYPOTHESES, _SAMPLES), np.uint16)
    hypotheses = dict[int, list[Frame]]()
    for tile, index in zip(tiles, drawn, strict=True):
        t, row, column = map(int, np.unravel_index(index, weights.shape))
        if t not in hypotheses:
            hypotheses[t] = base.shown[t].hypotheses()
        pictures = (base.shown[t].frame, frames[t], *hypotheses[t])
        for part, frame in zip(tile, pictures, strict=False):
            part[:] = _cut(frame, row * _GRID, column * _GRID)
    of = [base.shown[int(index) // weights[0].size] for index in drawn]
    figures: dict[str, NDArray[np.generic]] = {
        "quantiser": np.array([shown.coding.quantiser for shown in of], np.uint8),
        "intra": np.array([shown.coding.intra for shown in of]),
        "between": np.array([bool(shown.neighbours) for shown in of]),
        "gop_quantiser": np.full(count, asked_index(quantiser), np.uint8),
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


@dataclass(frozen=True)
class TileCollector:
    """Writes shards of tiles. Equal collectors write equal shards."""

    data: Path
    """Folder of videos, searched recursively; of stills, too, if the mix has stills."""
    folder: Path
    """Folder for shards. It holds shards of one collector only."""
    mix: SceneMix
    seed: int
    ranks: Ranks = ALONE
    """Those that may share the folder. Each writes shards of its own numbers."""

    def prepare(self) -> None:
        """Make the folder. Raises ViddiffError if it holds shards of other footage."""
        self.folder.mkdir(parents=True, exist_ok=True)
        origin, note = {"data": str(self.data.resolve())} | asdict(self.mix), self.folder / "origin.json"
        if not note.exists():
            temporary = note.with_suffix(f".{self.ranks.number}.part")
            temporary.write_text(json.dumps(origin), encoding="utf-8")
            temporary.replace(note)  # complete or not at all: other ranks may read it now
        elif note.read_text(encoding="utf-8") != json.dumps(origin):
            raise ViddiffError(
                f"{self.folder} has samples of other footage: name another --cache, or delete that folder"
            )

    def numbers(self) -> list[int]:
        """Numbers of the shards in the folder, in order."""
        return sorted(int(path.stem.removeprefix("tiles-")) for path in shard_paths(self.folder))

    def next_number(self) -> int:
        """Number of the next shard, which no other rank writes."""
        after = max(self.numbers(), default=-1) + 1
        return after + (self.ranks.number - after) % self.ranks.count

    def write(self, number: int, count: int = _SHARD, per_scene: int = _PER_SCENE) -> None:
        """Write a shard of `count` tiles. Raises VideoError if `data` holds nothing that can be used."""
        rng, footage = random.Random(f"{self.seed} {number}"), self._footage()
        parts: list[TilesWithFigures] = []
        while (found := sum(len(tiles) for tiles, _ in parts)) < count:
            if not found and len(parts) == _EMPTY_SCENES:
                raise VideoError(f"{self.data} shows nothing that AV1 would change")
            if training_was_killed():
                return
            try:
                frames = scene(footage, self.mix, rng)
            except VideoError:
                if not footage:
                    raise
                continue
            quantiser, preset = 4 * rng.randint(*CRFS), rng.choice(PRESETS)
            parts.append(tiles_of(frames, code_base(frames, quantiser, preset), quantiser, rng, per_scene))
        figures = {name: np.concatenate([f[name] for _, f in parts])[:count] for name in parts[0][1]}
        write_shard(self.folder, number, (np.concatenate([tiles for tiles, _ in parts])[:count], figures))

    def _footage(self) -> Footage:
        if not self.mix.stills:
            return Footage(find_videos(self.data), [])
        files = sorted(path for path in self.data.rglob("*") if path.is_file())
        videos, stills = (
            [path for path in files if path.suffix.lower() in suffixes]
            for suffixes in (SUFFIXES, STILL_SUFFIXES)
        )
        if not videos and not stills:
            raise VideoError(f"{self.data} holds neither videos nor stills")
        return Footage(videos, stills)


def write_shard(folder: Path, number: int, content: TilesWithFigures) -> None:
    """Write a shard, complete or not at all."""
    path, (tiles, figures) = folder / f"tiles-{number:06}.npy", content
    np.savez(path.with_suffix(".npz"), **figures)  # type: ignore[arg-type]
    temporary = path.with_suffix(".part.npy")
    np.save(temporary, tiles)
    temporary.replace(path)


def collect_forever(collector: TileCollector, capacity: int) -> None:
    """Work of a collector: write new shards, and remove the oldest beyond `capacity` bytes. One stays."""
    while not training_was_killed():
        collector.write(collector.next_number())
        sizes = dict[Path, int]()
        for path in shard_paths(collector.folder):
            with suppress(FileNotFoundError):  # another rank removed it just now
                sizes[path] = path.stat().st_size
        while len(sizes) > 1 and sum(sizes.values()) > capacity:
            oldest = next(iter(sizes))
            del sizes[oldest]
            oldest.unlink(missing_ok=True)
            oldest.with_suffix(".npz").unlink(missing_ok=True)


def shard_paths(folder: Path) -> list[Path]:
    """The complete shards of a folder, the oldest first."""
    return sorted(folder.glob("tiles-*[0-9].npy"))


@dataclass(frozen=True)
class TileBatch:
    """Tiles as the network sees them."""

    decoded: Tensor
    """(B, 6, TILE/2, TILE/2), 10-bit samples."""
    original: Tensor
    hypotheses: Tensor
    """(B, DIFFERENCES, TILE/2, TILE/2): what better neighbours show there. Zeros unless `between`."""
    between: Tensor
    """(B,), bool."""
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


@dataclass(frozen=True)
class _Shard:
    tiles: Tiles
    figures: dict[str, NDArray[np.generic]]

    @classmethod
    def of(cls, path: Path) -> Self:
        """A shard on disk, whose tiles are read when they are needed."""
        with np.load(path.with_suffix(".npz")) as figures:
            return cls(np.load(path, mmap_mode="r"), dict(figures))

    def __len__(self) -> int:
        return len(self.tiles)

    @cached_property
    def kinds(self) -> set[bool]:
        """What `between` says of its tiles."""
        return set(self.figures["between"].tolist())

    def between(self, index: int) -> bool:
        """Whether a tile is of a frame between better ones."""
        return bool(self.figures["between"][index])

    def tile(self, index: int, quarters: int, mirrored: bool) -> tuple[list[Tensor], dict[str, Any]]:
        """The decoded tile, the original and the hypotheses, turned and mirrored, and their figures."""
        parts = [_packed(part, quarters, mirrored) for part in self.tiles[index]]
        return parts, {name: values[index] for name, values in self.figures.items()}


class TileShards:
    """The tiles of a folder's shards. `look` follows what comes and goes."""

    def __init__(self, folder: Path) -> None:
        """ViddiffError if there are none."""
        self._folder = folder
        self._held: dict[Path, _Shard] = {}
        self.look()
        if not self._held:
            raise ViddiffError(f"{folder} has no shards of tiles")

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def look(self) -> None:
        """Take in shards that have been written since, and drop those that were removed."""
        held, self._held = self._held, {}
        for path in shard_paths(self._folder):
            with suppress(FileNotFoundError):  # it was removed just now
                self._held[path] = held[path] if path in held else _Shard.of(path)

    def batch(self, count: int, rng: random.Random, between: bool | None = None) -> TileBatch:
        """Random tiles, each turned and mirrored at random.

        between: only those of frames between better ones, or only others, as far as there are any. None: all.
        """
        drawn = self._drawn(rng)
        if any(between in shard.kinds for shard in self._held.values()):
            drawn = ((shard, index) for shard, index in drawn if shard.between(index) is between)
        chosen = islice(drawn, count)
        return _batch_of([shard.tile(index, rng.randrange(4), rng.random() < 0.5) for shard, index in chosen])

    def _drawn(self, rng: random.Random) -> Iterator[tuple[_Shard, int]]:
        shards = list(self._held.values())
        sizes = [len(shard) for shard in shards]
        while True:
            (shard,) = rng.choices(shards, sizes)
            yield shard, rng.randrange(len(shard))

    def batches(self, count: int, most: int) -> Iterator[TileBatch]:
        """At most `most` tiles, spread evenly over all, as they are."""
        step = -(-len(self) // most)
        places = [(shard, i) for shard in self._held.values() for i in range(0, len(shard), step)]
        for start in range(0, len(places), count):
            yield _batch_of([shard.tile(i, 0, False) for shard, i in places[start : start + count]])


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
    decoded, original = (torch.stack([parts[i] for parts, _ in chosen]) for i in range(2))
    hypotheses = torch.stack([torch.cat(parts[2:]) for parts, _ in chosen])
    figures = {name: torch.tensor(np.stack([f[name] for _, f in chosen])) for name in chosen[0][1]}
    numbers = (figures[name].int() for name in ("quantiser", "gop_quantiser", "intra"))
    by_plane = torch.tensor([PLANE_WEIGHTS[0] / 4] * 4 + list(PLANE_WEIGHTS[1:]))
    norm = figures["norm"][:, [0, 0, 0, 0, 1, 2]] * figures["weight"][:, None]
    form = torch.channels_last
    return TileBatch(
        decoded.contiguous(memory_format=form),
        original.contiguous(memory_format=form),
        hypotheses.contiguous(memory_format=form),
        figures["between"],
        condition_of(*numbers),
        by_plane / norm,
        figures["gop_quantiser"].int(),
    )
