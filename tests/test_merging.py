"""Merging blocks: numbered candidates, coded alike by encoder and decoder, safe for any number."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from viddiff.encoder.field_search import FieldSearch, Partner, SearchReference
from viddiff.encoder.presets import PRESETS
from viddiff.networks.motion_prior import (
    LEVEL_FACTORS,
    MERGE_COUNT,
    MERGE_TABLES,
    VECTOR_MAX,
    MergeCandidates,
    MotionPrior,
    coarse,
    double,
    field_of,
)

ROWS, COLS = 7, 11


class _Writer:
    """Codes given levels and keeps the symbols."""

    def __init__(self, levels: list[Tensor]) -> None:
        self.levels, self.symbols, self.tables = levels, list[Tensor](), list[Tensor]()

    def flags(self, level: int, index: Tensor, mask: Tensor, parent: Tensor) -> Tensor:
        self.symbols.append((self.levels[level] != parent).any(1, keepdim=True).to(index.dtype))
        return self.symbols[-1]

    def merges(self, level: int, index: Tensor, candidates: MergeCandidates) -> Tensor:
        self.symbols.append(torch.where(index < 0, 0, candidates.number_of(self.levels[level])))
        self.tables.append(index)
        return self.symbols[-1]

    def changes(self, level: int, index: Tensor, mask: Tensor, expected: Tensor) -> Tensor:
        self.symbols.append((self.levels[level] - expected) * mask)
        return self.symbols[-1]


class _Reader:
    """Returns the kept symbols."""

    def __init__(self, symbols: Iterator[Tensor]) -> None:
        self.symbols = symbols

    def flags(self, level: int, index: Tensor, mask: Tensor, parent: Tensor) -> Tensor:
        return next(self.symbols)

    def merges(self, level: int, index: Tensor, candidates: MergeCandidates) -> Tensor:
        return next(self.symbols)

    def changes(self, level: int, index: Tensor, mask: Tensor, expected: Tensor) -> Tensor:
        return next(self.symbols)


def _levels() -> list[Tensor]:
    """A quadtree with few different vectors, so that blocks often equal their neighbours."""
    torch.manual_seed(3)
    levels: list[Tensor] = []
    for factor in LEVEL_FACTORS:
        shape = (-(-ROWS // factor), -(-COLS // factor))
        parent = double(levels[-1], *shape) if levels else torch.zeros(1, 2, *shape)
        fresh = torch.randint(-2, 3, (1, 2, *shape)).float() * 5
        levels.append(torch.where(torch.rand(1, 1, *shape) < 0.4, fresh, parent))
    return levels


def _others(count: int) -> Tensor:
    return torch.randint(-2, 3, (count, 2, ROWS, COLS)) * 5


def test_candidates_that_repeat_others_or_the_parent_have_no_number() -> None:
    parent = torch.zeros(1, 2, 3, 3)
    field = parent.clone()
    field[0, :, 1, 0] = torch.tensor([4.0, 0.0])  # left of the middle
    field[0, :, 0, 1] = torch.tensor([4.0, 0.0])  # above: the same
    field[0, :, 2, 1] = torch.tensor([0.0, 8.0])  # below
    others = torch.tensor([4.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    candidates = MergeCandidates.of(parent, field, others)
    assert candidates.numbers[:, 0, 1, 1].tolist() == [1, 0, 0, 2, 0]
    assert int(candidates.count[0, 0, 1, 1]) == 2
    wanted = torch.zeros(1, 2, 3, 3)
    wanted[0, :, 1, 1] = torch.tensor([0.0, 8.0])
    assert int(candidates.number_of(wanted)[0, 0, 1, 1]) == 2


@pytest.mark.parametrize("count", [0, 1, 2])
def test_decoder_finds_the_field_of_the_encoder(count: int) -> None:
    prior, levels, others = MotionPrior().eval(), _levels(), _others(count)
    condition = torch.zeros(1, 6)
    with torch.inference_mode():
        writer = _Writer(levels)
        written = prior.code_field(others, None, condition, writer)
        read = prior.code_field(others, None, condition, _Reader(iter(writer.symbols)))
    assert torch.equal(field_of(written), levels[-1])
    assert all(torch.equal(a, b) for a, b in zip(written, read, strict=True))
    tables = torch.cat([table.flatten() for table in writer.tables])
    assert int(tables.max()) < MERGE_TABLES
    assert int((tables >= 0).sum()) > 0
    merged = torch.cat([number.flatten() for number in writer.symbols[1::3]])
    assert int(merged.max()) > 1


@pytest.mark.parametrize("number", [-MERGE_COUNT, 0, MERGE_COUNT, 2**31 - 1])
def test_any_number_gives_a_field_in_range(number: int) -> None:
    prior, writer = MotionPrior().eval(), _Writer(_levels())
    with torch.inference_mode():
        prior.code_field(_others(2), None, torch.zeros(1, 6), writer)
        symbols = [
            torch.full_like(s, number) if place % 3 == 1 else s for place, s in enumerate(writer.symbols)
        ]
        changes = prior.code_field(_others(2), None, torch.zeros(1, 6), _Reader(iter(symbols)))
    assert int(field_of(changes).abs().max()) <= VECTOR_MAX


def test_coarse_fields_take_the_middle_of_their_blocks() -> None:
    field = torch.arange(ROWS * COLS).view(1, 1, ROWS, COLS).repeat(1, 2, 1, 1)
    assert coarse(field, 1) is field
    assert coarse(field, 4)[0, 0].tolist() == [[24, 28, 32], [68, 72, 76]]


def test_search_finds_motion_and_what_it_is_to_go_with() -> None:
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, (24, 24)).astype(np.uint8)
    picture = np.kron(noise, np.ones((4, 4), np.uint8))  # 96 x 96
    target = np.roll(picture, (-3, 5), (0, 1))  # every sample comes from 3 rows below, 5 columns to the left
    reference, none = SearchReference.of(picture), torch.zeros(0, 2, 12, 12, dtype=torch.int64)
    seek = FieldSearch(target, reference, PRESETS["default"].search)
    zero = np.zeros((2, 12, 12), np.int64)
    levels = seek(zero, 20.0, None, none, None)
    inner = levels[-1][:, 2:-2, 2:-2]
    assert (inner == np.array([-20, 12])[:, None, None]).mean() > 0.9
    # Where the partner predicts all there is, moving pays for nothing.
    exact = Partner(reference, np.broadcast_to(np.array([-20, 12])[:, None, None], zero.shape).copy())
    gradient = SearchReference.of(np.full_like(picture, 128))
    beside = FieldSearch(target, gradient, PRESETS["default"].search)
    assert not beside(zero, 20.0, exact, none, None)[-1][:, 2:-2, 2:-2].any()
