"""Encode one predicted frame with given motion: analysis and rate-distortion optimised quantisation.

All decisions are here. Everything that decoding depends on comes from `codec.frame_decoder`, so the
reconstruction is the decoder's.
"""

from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viddiff.codec.coding_order import FramePlan
from viddiff.codec.entropy import SymbolEncoder, Tables
from viddiff.codec.frame_decoder import HEADER_WIDTHS, MODES_FOLLOW, finish, predict, table_indexes
from viddiff.codec.motion_templates import motion_condition
from viddiff.codec.reference import Reference
from viddiff.codec.weights import Codec, TableSet
from viddiff.config import CHROMA_WEIGHT, lmbda_of_step
from viddiff.encoder.frame_stats import FrameStats
from viddiff.encoder.mode_choice import choose_modes
from viddiff.encoder.motion_search import FoundField
from viddiff.encoder.presets import Effort
from viddiff.networks.hyperprior import HYPER_MAX, HYPER_TRADE, SYMBOL_MAX, TABLE_COUNT, table_class
from viddiff.networks.model import Prediction
from viddiff.networks.modes import code_modes
from viddiff.networks.motion_prior import MergeCandidates
from viddiff.networks.planes import Planes, pack, unpack
from viddiff.networks.residual import STEP_UNIT, SYMBOL_UNIT


@dataclass(frozen=True)
class CodedSymbols:
    """Symbols of one kind (a field of `TableSet`) with their table indexes.

    One-dimensional, without symbols of index -1.
    """

    kind: str
    symbols: NDArray[np.int64]
    indexes: NDArray[np.int64]


@dataclass(frozen=True)
class FrameSample:
    """What training needs of an encoded frame."""

    x: Tensor
    first: Tensor
    second: Tensor
    """Packed target and hypotheses, each (1, 6, H/2, W/2)."""
    step: int
    level: int
    levels: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]
    """Differences from the template on every level of the quadtree, for both fields."""
    others: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Differences of the other templates from the chosen one, (A, 2, H/8, W/8), for both fields."""
    conditions: tuple[Tensor, Tensor]
    """Conditions (1, CONDITIONS) of the motion prior, for both fields."""
    symbols: list[CodedSymbols]
    """All entropy-coded symbols."""


@dataclass(frozen=True)
class FrameTarget:
    """A frame to predict, with its references."""

    plan: FramePlan
    references: tuple[Reference, Reference]
    planes: Planes
    """Content of the frame."""
    step: int
    """Index of the quantisation step."""
    bit_depth: int


@dataclass(frozen=True)
class CodedFrame:
    """Result for one frame."""

    reference: Reference
    """The decoder's reconstruction, bit for bit."""
    stats: FrameStats
    sample: FrameSample | None
    """What training needs, if it was asked for."""


class _Ledger:
    """Puts symbols into the stream and sums their bits. Also collects the symbols if `coded` is a list."""

    def __init__(self, stream: SymbolEncoder, tables: TableSet, coded: list[CodedSymbols] | None) -> None:
        self.stream, self.tables, self.coded = stream, tables, coded
        self.bits = {field.name: 0.0 for field in fields_of(TableSet)}

    def put(self, kind: str, symbols: NDArray[Any], indexes: NDArray[Any]) -> None:
        tables: Tables = getattr(self.tables, kind)
        chosen = indexes >= 0
        symbols, indexes = symbols[chosen], indexes[chosen]
        self.stream.put(symbols, indexes, tables)
        self.bits[kind] += tables.total_bits(symbols, indexes)
        if self.coded is not None:
            self.coded.append(CodedSymbols(kind, symbols.astype(np.int64), indexes.astype(np.int64)))


class _MotionEncoder:
    """Puts the motion symbols of a searched quadtree into the stream."""

    def __init__(self, stream: _Ledger, levels: list[Tensor]) -> None:
        self.stream, self.levels = stream, levels

    def _put(self, kind: str, values: Tensor, index: Tensor, mask: Tensor) -> None:
        chosen = mask.cpu().numpy() > 0
        indexes = np.where(chosen, index.to(torch.int64).cpu().numpy(), -1)
        self.stream.put(kind, np.where(chosen, values.to(torch.int64).cpu().numpy(), 0), indexes)

    def flags(self, level: int, index: Tensor, mask: Tensor, parent: Tensor) -> Tensor:
        flags = (self.levels[level] != parent).any(1, keepdim=True).to(index.dtype)
        self._put("flags", flags, index, mask)
        return flags

    def merges(self, level: int, index: Tensor, candidates: MergeCandidates) -> Tensor:
        numbers = torch.where(index < 0, 0, candidates.number_of(self.levels[level]))
        self.stream.put("merges", numbers.cpu().numpy(), index.cpu().numpy())
        return numbers

    def changes(self, level: int, index: Tensor, mask: Tensor, expected: Tensor) -> Tensor:
        values = self.levels[level] - expected
        self._put("changes", values, index, mask)
        return values


def quantise(
    values: NDArray[np.float32],
    indexes: NDArray[np.int16],
    worth: NDArray[np.float32],
    lmbda: float,
    tables: Tables,
    largest: int,
) -> NDArray[np.int16]:
    """Rate-distortion optimised symbols: for each value, the best of its nearest two integers and zero.

    worth: squared error of a difference of one, same shape as `values`. lmbda: squared error per bit.
    largest: limit of the result.
    """
    nearest = np.rint(np.abs(values)).clip(0, largest).astype(np.int16)
    nearest[indexes < 0] = 0
    where = np.nonzero(nearest)
    wanted, value, table, scale = nearest[where], np.abs(values[where]), indexes[where], worth[where]
    options = np.stack((wanted, wanted - 1, np.zeros_like(wanted)))
    costs = [scale * (value - o) ** 2 + lmbda * tables.bits(o, table) for o in options]
    best = np.take_along_axis(options, np.argmin(costs, axis=0)[None], 0)[0]
    symbols: NDArray[np.int16] = np.zeros_like(nearest)
    symbols[where] = best * np.sign(values[where]).astype(np.int16)
    return symbols


@dataclass(frozen=True)
class _CodedLatents:
    """One way to code the latents of a frame."""

    z: tuple[NDArray[np.int16], NDArray[np.int16]] | None
    """Symbols and table indexes of z; None if all are zero."""
    y: list[tuple[NDArray[np.int16], NDArray[np.int16]]]
    """Symbols and table indexes of both steps, without those that are not coded."""
    y_hat: Tensor
    bits: float


def _code_latents(
    codec: Codec,
    y: Tensor,
    z: tuple[NDArray[np.int16], NDArray[np.int16]],
    prediction: Prediction,
    first: int,
    lmbda: float,
) -> _CodedLatents:
    """Choose symbols for `y`, given symbols and table indexes of z. The frame's tables begin at `first`."""
    z_symbols, z_indexes = z
    used = bool(z_symbols.any())
    bits = codec.tables.z.total_bits(z_symbols, z_indexes) if used else 0.0
    steps: list[tuple[NDArray[np.int16], NDArray[np.int16]]] = []
    channel_worth = (prediction.steps / STEP_UNIT).cpu().numpy() ** 2
    channel_worth[:, 64:] *= CHROMA_WEIGHT
    worth = np.broadcast_to(channel_worth, y.shape)

    def write(mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        nonlocal bits
        indexes = table_indexes(index, mask, first)
        values = ((y - mean / SYMBOL_UNIT) * mask).cpu().numpy()
        symbols = quantise(values, indexes, worth, lmbda, codec.tables.y, SYMBOL_MAX)
        coded = indexes >= 0
        steps.append((symbols[coded], indexes[coded]))
        bits += codec.tables.y.total_bits(*steps[-1])
        return torch.from_numpy(symbols.astype(np.float32)).to(y.device)

    y_hat = codec.model.code_latents(
        torch.from_numpy(z_symbols.astype(np.float32)).to(y.device), prediction, write
    )
    return _CodedLatents(z if used else None, steps, y_hat, bits)


def _choose_z(codec: Codec, z: Tensor, prediction: Prediction) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Symbols of z and their table indexes."""
    index = codec.model.entropy_parameters.hyper_indexes(prediction.condition)[:, :, None, None]
    indexes = table_indexes(index.expand_as(z), None)
    values = z.cpu().numpy()
    return quantise(values, indexes, np.ones_like(values), HYPER_TRADE, codec.tables.z, HYPER_MAX), indexes


@dataclass(frozen=True)
class _Attempt:
    """One way to code a frame."""

    stream: SymbolEncoder
    coded: CodedFrame
    cost: float
    """Bits, plus squared error in units of bits."""


@torch.inference_mode()
def encode_frame(
    codec: Codec,
    target: FrameTarget,
    motion: list[tuple[FoundField, FoundField]],
    stream: SymbolEncoder,
    effort: Effort,
    sampled: bool = False,
) -> CodedFrame:
    """Encode one frame into the mini-GOP's stream with the best of `motion`.

    sampled: keep what training needs.
    """
    attempts = (
        _attempt(codec, target, fields, stream.another(), effort.try_hyper, sampled) for fields in motion
    )
    best = min(attempts, key=lambda attempt: attempt.cost)
    stream.append(best.stream)
    return best.coded


def _attempt(
    codec: Codec,
    target: FrameTarget,
    fields: tuple[FoundField, FoundField],
    stream: SymbolEncoder,
    try_hyper: bool,
    sampled: bool,
) -> _Attempt:
    """Encode one frame with given motion."""
    plan, references, planes, step = target.plan, target.references, target.planes, target.step
    lmbda, device = lmbda_of_step(step), planes[0].device
    both = (fields[0].vectors, fields[1].vectors)
    coded_modes: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def decide_modes(first: Tensor, second: Tensor) -> Tensor:
        modes = choose_modes(pack(planes), first, second, lmbda)

        def keep(index: Tensor, mask: Tensor) -> Tensor:
            chosen = torch.where(mask, modes, 0)
            coded_modes.append((chosen.cpu().numpy(), torch.where(mask, index, -1).cpu().numpy()))
            return chosen

        return code_modes(first, second, plan.level, keep)

    prediction, first, second = predict(codec, plan, references, both, step, decide_modes)
    pictures = (pack(planes), first, second) if sampled else None
    del first, second  # of large pictures all this is large
    y, z = codec.model.analyse(pack(planes), prediction)
    z_symbols, z_indexes = _choose_z(codec, z, prediction)
    trials = [np.zeros_like(z_symbols)]
    if try_hyper and plan.level == 0 and z_symbols.any():
        trials.append(z_symbols)
    tables = TABLE_COUNT * table_class(plan.level, step)
    coded = min(
        (_code_latents(codec, y, (symbols, z_indexes), prediction, tables, lmbda) for symbols in trials),
        key=lambda latents: latents.bits,
    )
    del y

    symbols = None if pictures is None else list[CodedSymbols]()
    ledger = _Ledger(stream, codec.tables, symbols)
    moded = any(modes.any() for modes, _ in coded_modes)
    templates = [fields[0].kind + MODES_FOLLOW * moded, fields[1].kind]
    stream.put_bits(np.array([step, *templates, int(coded.z is None)]), HEADER_WIDTHS)
    changes: list[Tensor] | None = None
    conditions = tuple(motion_condition(plan, step, w, fields[w].kind, device) for w in (0, 1))
    for which in (0, 1):
        coder = _MotionEncoder(ledger, fields[which].levels)
        changes = codec.motion.code_field(fields[which].others, changes, conditions[which], coder)
    if moded:
        for modes, indexes in coded_modes:
            ledger.put("modes", modes, indexes)
    if coded.z is not None:
        ledger.put("z", *coded.z)
    for step_symbols in coded.y:
        ledger.put("y", *step_symbols)
    reference = finish(codec, plan, coded.y_hat, prediction, both, target.bit_depth)
    sample = None
    if symbols is not None and pictures is not None:
        trees = [[level[0].cpu().numpy().astype(np.int64) for level in field.levels] for field in fields]
        sample = FrameSample(
            *pictures,
            step,
            plan.level,
            (trees[0], trees[1]),
            (fields[0].others.cpu().numpy(), fields[1].others.cpu().numpy()),
            (conditions[0], conditions[1]),
            symbols,
        )
    predicted = unpack(prediction.samples, 10)[0]
    stats = FrameStats(
        plan.time,
        plan.level,
        step,
        sum(ledger.bits[kind] for kind in ("flags", "merges", "changes", "modes")),
        ledger.bits["z"],
        ledger.bits["y"],
        float(((predicted - planes[0]) ** 2).mean()) / 16,
        float(((reference.planes[0] - planes[0]) ** 2).mean()) / 16,
    )
    cost = stats.bits + squared_error(reference.planes, planes) / lmbda
    return _Attempt(stream, CodedFrame(reference, stats, sample), cost)


def squared_error(a: Planes, b: Planes) -> float:
    """Sum of squared errors in 8-bit units, with chroma weighted."""

    def plane(x: Tensor, y: Tensor) -> float:
        return float(((x - y) ** 2).sum()) / 16

    return plane(a[0], b[0]) + CHROMA_WEIGHT * (plane(a[1], b[1]) + plane(a[2], b[2]))
