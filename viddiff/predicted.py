"""Coding of one predicted frame, encoder and decoder side by side.

    fields --motion prior--> vectors --warp--> hypotheses --model--> prediction --latents--> reconstruction

A frame's symbols in the mini-GOP's stream, in order: step (7 bits), template of either field (2 bits each), whether z is all
zero (1 bit); the changes of the first and of the second field; z; the two steps of y. Both directions run `_motion`,
`VideoModel.code_latents` and `VideoModel.reconstruct`; they differ in where symbols come from.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viddiff import search
from viddiff.checkpoint import Codec, TableSet
from viddiff.config import CHROMA_WEIGHT, STEP_COUNT, lmbda_of_step
from viddiff.entropy import SymbolDecoder, SymbolEncoder, Tables
from viddiff.errors import BitstreamError
from viddiff.gop import FramePlan
from viddiff.models.hyperprior import HYPER_MAX, SYMBOL_MAX
from viddiff.models.layers import UNIT
from viddiff.models.model import Prediction
from viddiff.models.motion_prior import VECTOR_MAX, field_of
from viddiff.models.planes import Planes, pack, unpack
from viddiff.models.residual import STEP_UNIT, SYMBOL_UNIT
from viddiff.models.warp import BLOCK, warp

TEMPLATE_ZERO, TEMPLATE_TEMPORAL, TEMPLATE_MIRRORED = range(3)
_TEMPLATES = {0: (TEMPLATE_ZERO, TEMPLATE_TEMPORAL), 1: (TEMPLATE_ZERO, TEMPLATE_TEMPORAL, TEMPLATE_MIRRORED)}
_HEADER_WIDTHS = np.array([7, 2, 2, 1])


@dataclass(frozen=True)
class Reference:
    """A decoded frame: all the state there is."""

    time: int
    planes: Planes
    motion: tuple[tuple[int, Tensor], ...] = ()
    """For a predicted frame: (time of the reference, vectors (1, 2, H/8, W/8) int64) of both fields."""


@dataclass(frozen=True)
class FrameStats:
    """What one predicted frame cost."""

    time: int
    level: int
    step: int
    bits_motion: float
    bits_z: float
    bits_y: float
    prediction_mse: float
    """Mean squared error of the prediction, 8-bit luma."""
    mse: float
    """The same of the reconstruction."""
    bits_still: float = 0.0
    """Bits of the still that stands for the frame, where one does; all other bits are zero then."""

    @property
    def bits(self) -> float:
        """All bits of the frame."""
        return self.bits_motion + self.bits_z + self.bits_y + self.bits_still

    def as_still(self, size_bytes: int, mse: float) -> "FrameStats":
        """The same frame coded as a still."""
        return FrameStats(
            self.time, self.level, self.step, 0.0, 0.0, 0.0, self.prediction_mse, mse, 8.0 * size_bytes
        )


@dataclass(frozen=True)
class CodedSymbols:
    """Symbols of one kind (a field of `TableSet`) and their table indexes, one-dimensional; none of index -1."""

    kind: str
    symbols: NDArray[np.int64]
    indexes: NDArray[np.int64]


@dataclass(frozen=True)
class FrameSample:
    """What training needs of an encoded frame."""

    x: Tensor
    first: Tensor
    second: Tensor
    """Packed target and hypotheses (1, 6, H/2, W/2)."""
    step: int
    level: int
    levels: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]
    """Differences from the template on every level of either field's quadtree."""
    conditions: tuple[Tensor, Tensor]
    """Conditions (1, CONDITIONS) of the motion prior for either field."""
    symbols: list[CodedSymbols]
    """All that was entropy coded."""


def scale_vectors(vectors: Tensor, numerator: int, denominator: int) -> Tensor:
    """vectors * numerator / denominator, rounded half up, in integers."""
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    return torch.div(vectors * (2 * numerator) + denominator, 2 * denominator, rounding_mode="floor")


def temporal_template(plan: FramePlan, first: Reference, second: Reference, which: int) -> Tensor | None:
    """Vectors that go on as the references moved: one points to the other, or else the nearest moved from its own.

    Returns (1, 2, H/8, W/8) int64, or None where neither reference moved (keyframes).
    """
    target = (first, second)[which].time
    moves = [(r.time, t, v) for r in (second, first) for t, v in r.motion]
    moves.sort(
        key=lambda move: {move[0], move[1]} != {first.time, second.time}
    )  # stable: keeps the order otherwise
    for origin, end, vectors in moves:
        if end != origin:
            return scale_vectors(vectors, target - plan.time, end - origin).clamp(-VECTOR_MAX, VECTOR_MAX)
    return None


def _template(
    kind: int, plan: FramePlan, references: tuple[Reference, Reference], which: int, other: Tensor | None
) -> Tensor | None:
    """Vectors of a template, or None where that kind does not exist for this frame."""
    if kind == TEMPLATE_ZERO:
        y = references[0].planes[0]
        return torch.zeros(1, 2, y.shape[1] // BLOCK, y.shape[2] // BLOCK, dtype=torch.int64, device=y.device)
    if kind == TEMPLATE_TEMPORAL:
        return temporal_template(plan, *references, which)
    if kind == TEMPLATE_MIRRORED and which == 1 and other is not None:
        return scale_vectors(other, plan.second - plan.time, plan.first - plan.time).clamp(
            -VECTOR_MAX, VECTOR_MAX
        )
    return None


def _motion_condition(plan: FramePlan, step: int, which: int, kind: int, device: torch.device) -> Tensor:
    distance = abs((plan.first, plan.second)[which] - plan.time)
    values = (
        (step - 46) * (UNIT // 16),
        (plan.level - 1) * UNIT,
        which * UNIT,
        min(distance.bit_length(), 8) * UNIT,
        (kind == TEMPLATE_TEMPORAL) * UNIT,
        (kind == TEMPLATE_MIRRORED) * UNIT,
    )
    return torch.tensor([values], dtype=torch.float32, device=device)


def _predict(
    codec: Codec,
    plan: FramePlan,
    references: tuple[Reference, Reference],
    vectors: tuple[Tensor, Tensor],
    step: int,
) -> tuple[Prediction, Tensor, Tensor]:
    """Prediction and both packed hypotheses."""
    first, second = (pack(warp(r.planes, v)) for r, v in zip(references, vectors, strict=True))
    device = first.device
    steps, levels = torch.tensor([step], device=device), torch.tensor([plan.level], device=device)
    return codec.model.predict(first, second, steps, levels), first, second


def _finish(
    codec: Codec,
    plan: FramePlan,
    y_hat: Tensor,
    prediction: Prediction,
    vectors: tuple[Tensor, Tensor],
    bit_depth: int,
) -> Reference:
    planes = unpack(codec.model.reconstruct(y_hat, prediction), bit_depth)
    return Reference(plan.time, planes, ((plan.first, vectors[0]), (plan.second, vectors[1])))


def _table_indexes(index: Tensor, mask: Tensor | None) -> NDArray[np.int64]:
    """Table indexes for the entropy coder: -1 (certainly zero, not coded) for table 0 and outside the mask."""
    coded = index if mask is None else index * mask
    indexes = coded.to(torch.int64).cpu().numpy()
    return np.where(indexes == 0, -1, indexes)


# --- decoder ---------------------------------------------------------------------------------------------------------


class _MotionDecoder:
    """Motion symbols from the stream."""

    def __init__(self, codec: Codec, stream: SymbolDecoder) -> None:
        self.tables, self.stream = codec.tables, stream

    def _get(self, index: Tensor, mask: Tensor, tables: Tables) -> Tensor:
        indexes = np.where(mask.cpu().numpy() > 0, index.to(torch.int64).cpu().numpy(), -1)
        values = self.stream.get(indexes, tables).clip(-2 * VECTOR_MAX, 2 * VECTOR_MAX)
        return torch.from_numpy(values.astype(np.float32)).to(index.device)

    def flags(self, level: int, index: Tensor, mask: Tensor, parent: Tensor) -> Tensor:
        return (self._get(index, mask, self.tables.flags) > 0).to(index.dtype)

    def changes(self, level: int, index: Tensor, mask: Tensor, expected: Tensor) -> Tensor:
        return self._get(index, mask, self.tables.changes)


@torch.inference_mode()
def decode_frame(
    codec: Codec,
    plan: FramePlan,
    references: tuple[Reference, Reference],
    stream: SymbolDecoder,
    bit_depth: int,
) -> Reference:
    """Decode one predicted frame from the mini-GOP's stream. Raises BitstreamError on damage."""
    device = references[0].planes[0].device
    step, *kinds, empty = stream.get_bits(_HEADER_WIDTHS).tolist()
    if step >= STEP_COUNT:
        raise BitstreamError(f"quantisation step {step} is beyond {STEP_COUNT - 1}")
    vectors: list[Tensor] = []
    changes: list[Tensor] | None = None
    for which, kind in enumerate(kinds):
        template = _template(kind, plan, references, which, vectors[0] if vectors else None)
        if template is None:
            raise BitstreamError(f"motion template {kind} does not exist for the frame at {plan.time}")
        condition = _motion_condition(plan, step, which, kind, device)
        coder = _MotionDecoder(codec, stream)
        changes = codec.motion.code_field(*template.shape[2:], changes, condition, coder)
        vectors.append(field_of(changes).to(torch.int64) + template)
    both = (vectors[0], vectors[1])
    prediction, _, _ = _predict(codec, plan, references, both, step)

    def read(mean: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        symbols = stream.get(_table_indexes(index, mask), codec.tables.y).clip(-SYMBOL_MAX, SYMBOL_MAX)
        return torch.from_numpy(symbols.astype(np.float32)).to(device)

    z_hat = _hyper_shape(codec, prediction)
    if not empty:
        z_index = codec.model.entropy_parameters.hyper_indexes(prediction.condition)[
            :, :, None, None
        ].expand_as(z_hat)
        symbols = stream.get(_table_indexes(z_index, None), codec.tables.z).clip(-HYPER_MAX, HYPER_MAX)
        z_hat = torch.from_numpy(symbols.astype(np.float32)).to(device)
    y_hat = codec.model.code_latents(z_hat, prediction, read)
    return _finish(codec, plan, y_hat, prediction, both, bit_depth)


def _hyper_shape(codec: Codec, prediction: Prediction) -> Tensor:
    _, _, height, width = prediction.samples.shape
    return torch.zeros(1, codec.model.config.hyper, height // 8, width // 8, device=prediction.samples.device)


# --- encoder ---------------------------------------------------------------------------------------------------------


class _Ledger:
    """Puts symbols into the stream and keeps account of what they are and cost."""

    def __init__(self, stream: SymbolEncoder, tables: TableSet) -> None:
        self.stream, self.tables = stream, tables
        self.bits = {field.name: 0.0 for field in fields(TableSet)}
        self.coded: list[CodedSymbols] = []

    def put(self, kind: str, symbols: NDArray[np.int64], indexes: NDArray[np.int64]) -> None:
        tables: Tables = getattr(self.tables, kind)
        self.stream.put(symbols, indexes, tables)
        chosen = indexes >= 0
        coded = CodedSymbols(kind, symbols[chosen], indexes[chosen])
        self.bits[kind] += float(tables.bits(coded.symbols, coded.indexes).sum())
        self.coded.append(coded)


class _MotionEncoder:
    """Motion symbols of a searched quadtree, into the stream."""

    def __init__(self, stream: "_Ledger", levels: list[Tensor]) -> None:
        self.stream, self.levels = stream, levels

    def _put(self, kind: str, values: Tensor, index: Tensor, mask: Tensor) -> None:
        chosen = mask.cpu().numpy() > 0
        indexes = np.where(chosen, index.to(torch.int64).cpu().numpy(), -1)
        self.stream.put(kind, np.where(chosen, values.to(torch.int64).cpu().numpy(), 0), indexes)

    def flags(self, level: int, index: Tensor, mask: Tensor, parent: Tensor) -> Tensor:
        flags = (self.levels[level] != parent).any(1, keepdim=True).to(index.dtype)
        self._put("flags", flags, index, mask)
        return flags

    def changes(self, level: int, index: Tensor, mask: Tensor, expected: Tensor) -> Tensor:
        values = self.levels[level] - expected
        self._put("changes", values, index, mask)
        return values


def _search_field(
    plan: FramePlan,
    references: tuple[Reference, Reference],
    which: int,
    other: Tensor | None,
    target: NDArray[np.uint8],
    sought: search.SearchReference,
    step: int,
) -> tuple[int, Tensor, list[Tensor]]:
    """Best template, its vectors, and the differences from it on every level."""
    device = references[0].planes[0].device
    candidates = []
    for kind in _TEMPLATES[which]:
        template = _template(kind, plan, references, which, other)
        if template is not None:
            cost = search.template_cost(target, sought, template[0].cpu().numpy())
            candidates.append((cost, kind, template))
    _, kind, template = min(candidates, key=lambda c: (c[0], c[1]))
    levels = search.search(target, sought, template[0].cpu().numpy(), lmbda_of_step(step))
    tensors = [
        torch.from_numpy(level.clip(-VECTOR_MAX, VECTOR_MAX).astype(np.float32)).to(device)[None]
        for level in levels
    ]
    return kind, template, tensors


def quantise(
    y: Tensor, mean: Tensor, index: Tensor, mask: Tensor, steps: Tensor, lmbda: float, tables: Tables
) -> NDArray[np.int64]:
    """Rate-distortion optimised symbols of one step: for each latent the best of its nearest two integers and zero."""
    difference = ((y - mean / SYMBOL_UNIT) * mask).cpu().numpy()
    indexes = _table_indexes(index, mask)
    nearest = np.rint(np.abs(difference)).clip(0, SYMBOL_MAX).astype(np.int64)
    nearest[indexes < 0] = 0
    where = np.nonzero(nearest)
    wanted, value, table = nearest[where], np.abs(difference[where]), indexes[where]
    scale = (steps / STEP_UNIT).expand_as(y).cpu().numpy()[where] ** 2
    scale[where[1] >= 64] *= CHROMA_WEIGHT
    options = np.stack((wanted, wanted - 1, np.zeros_like(wanted)))
    costs = [scale * (value - o) ** 2 + lmbda * tables.bits(o, table) for o in options]
    best = np.take_along_axis(options, np.argmin(costs, axis=0)[None], 0)[0]
    symbols = np.zeros_like(nearest)
    symbols[where] = best * np.sign(difference[where]).astype(np.int64)
    return symbols


@torch.inference_mode()
def encode_frame(
    codec: Codec,
    plan: FramePlan,
    references: tuple[Reference, Reference],
    planes: Planes,
    step: int,
    searched: tuple[search.SearchReference, search.SearchReference],
    stream: SymbolEncoder,
    bit_depth: int,
    collect: Callable[[FrameSample], None] | None = None,
) -> tuple[Reference, FrameStats]:
    """Encode one frame into the mini-GOP's stream; the reference returned is the decoder's, bit for bit."""
    lmbda = lmbda_of_step(step)
    target = (planes[0][0] * 0.25).round().cpu().numpy().clip(0, 255).astype(np.uint8)
    device = planes[0].device
    kinds: list[int] = []
    vectors: list[Tensor] = []
    quadtrees: list[list[Tensor]] = []
    for which in (0, 1):
        other = vectors[0] if vectors else None
        kind, template, levels = _search_field(plan, references, which, other, target, searched[which], step)
        kinds.append(kind)
        vectors.append(levels[-1].to(torch.int64) + template)
        quadtrees.append(levels)
    both = (vectors[0], vectors[1])
    prediction, first, second = _predict(codec, plan, references, both, step)
    x = pack(planes)
    y, z_hat = codec.model.analyse(x, prediction)
    z_index = codec.model.entropy_parameters.hyper_indexes(prediction.condition)[:, :, None, None].expand_as(
        z_hat
    )
    z_indexes = _table_indexes(z_index, None)
    z_symbols = np.where(z_indexes < 0, 0, z_hat.cpu().numpy().astype(np.int64))
    empty = not z_symbols.any()

    stream.put_bits(np.array([step, *kinds, int(empty)]), _HEADER_WIDTHS)
    ledger = _Ledger(stream, codec.tables)
    changes: list[Tensor] | None = None
    conditions = tuple(_motion_condition(plan, step, w, kinds[w], device) for w in (0, 1))
    for which in (0, 1):
        coder = _MotionEncoder(ledger, quadtrees[which])
        changes = codec.motion.code_field(*both[which].shape[2:], changes, conditions[which], coder)
    if not empty:
        ledger.put("z", z_symbols, z_indexes)

    def write(mean: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is not None
        symbols = quantise(y, mean, index, mask, prediction.steps, lmbda, codec.tables.y)
        ledger.put("y", symbols, _table_indexes(index, mask))
        return torch.from_numpy(symbols.astype(np.float32)).to(device)

    z_used = torch.from_numpy(z_symbols.astype(np.float32)).to(device)
    y_hat = codec.model.code_latents(z_used, prediction, write)
    reference = _finish(codec, plan, y_hat, prediction, both, bit_depth)
    if collect is not None:
        trees = [[level[0].cpu().numpy().astype(np.int64) for level in levels] for levels in quadtrees]
        collect(
            FrameSample(
                x,
                first,
                second,
                step,
                plan.level,
                (trees[0], trees[1]),
                (conditions[0], conditions[1]),
                ledger.coded,
            )
        )
    predicted = unpack(prediction.samples, 10)[0]
    stats = FrameStats(
        plan.time,
        plan.level,
        step,
        ledger.bits["flags"] + ledger.bits["changes"],
        ledger.bits["z"],
        ledger.bits["y"],
        float(((predicted - planes[0]) ** 2).mean()) / 16,
        float(((reference.planes[0] - planes[0]) ** 2).mean()) / 16,
    )
    return reference, stats
