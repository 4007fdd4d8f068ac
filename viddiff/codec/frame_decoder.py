"""Decode one predicted frame. The encoder uses the same functions.

    fields -motion prior-> vectors -compensation-> hypotheses -model-> prediction -latents-> reconstruction

Symbols of a frame in the mini-GOP's stream, in order:

    header           step (7 bits), template of each field (2 bits each; the first plus 2 if there are modes),
                     whether z is all zero (1 bit)
    first field      levels from coarse to fine; on each level two steps: flags, merges, changes
    second field     the same
    modes            three steps, if there are modes
    z
    y                two steps

The encoder (`encoder.frame_encoder`) runs the same `predict`, `VideoModel.code_latents` and `finish`. The two
differ only in where symbols come from.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viddiff.codec.coding_order import FramePlan
from viddiff.codec.entropy import SymbolDecoder, Tables
from viddiff.codec.motion_templates import motion_condition, other_templates, template
from viddiff.codec.reference import Reference
from viddiff.codec.weights import Codec
from viddiff.config import STEP_COUNT
from viddiff.errors import BitstreamError
from viddiff.networks.hyperprior import HYPER_MAX, SYMBOL_MAX, TABLE_COUNT, table_class
from viddiff.networks.model import Prediction
from viddiff.networks.modes import apply_modes, code_modes
from viddiff.networks.motion_prior import VECTOR_MAX, MergeCandidates, field_of
from viddiff.networks.planes import pack, unpack

MODES_FOLLOW = 2
"""Added to the first field's template if modes follow the motion."""
HEADER_WIDTHS = np.array([7, 2, 2, 1])
"""Bits of step, templates of both fields, and whether z is all zero."""


def predict(
    codec: Codec,
    plan: FramePlan,
    references: tuple[Reference, Reference],
    vectors: tuple[Tensor, Tensor],
    step: int,
    modes: Callable[[Tensor, Tensor], Tensor] | None,
) -> tuple[Prediction, Tensor, Tensor]:
    """Prediction and both packed hypotheses.

    modes: a function from hypotheses to modes (`networks.modes`). None: every block uses both hypotheses.
    """
    compensate = codec.model.compensation
    first, second = (pack(compensate(r.planes, v)) for r, v in zip(references, vectors, strict=True))
    if modes is not None:
        first, second = apply_modes(first, second, modes(first, second))
    device = first.device
    steps, levels = torch.tensor([step], device=device), torch.tensor([plan.level], device=device)
    return codec.model.predict(first, second, steps, levels), first, second


def finish(
    codec: Codec,
    plan: FramePlan,
    y_hat: Tensor,
    prediction: Prediction,
    vectors: tuple[Tensor, Tensor],
    bit_depth: int,
) -> Reference:
    """Reconstruction of a frame, as a reference for later frames."""
    planes = unpack(codec.model.reconstruct(y_hat, prediction), bit_depth)
    return Reference(plan.time, planes, ((plan.first, vectors[0]), (plan.second, vectors[1])))


def table_indexes(index: Tensor, mask: Tensor | None, first: int = 0) -> NDArray[np.int16]:
    """Table indexes for the entropy coder, counted from `first`.

    -1 (zero, not coded) for table 0 and outside the mask.
    """
    coded = index if mask is None else index * mask
    indexes: NDArray[np.int16] = coded.to(torch.int16).cpu().numpy()
    return np.where(indexes == 0, np.int16(-1), indexes + np.int16(first))


class _MotionDecoder:
    """Reads motion symbols from the stream."""

    def __init__(self, codec: Codec, stream: SymbolDecoder) -> None:
        self.tables, self.stream = codec.tables, stream

    def _get(self, index: Tensor, mask: Tensor, tables: Tables) -> Tensor:
        indexes = np.where(mask.cpu().numpy() > 0, index.to(torch.int64).cpu().numpy(), -1)
        values = self.stream.get(indexes, tables).clip(-2 * VECTOR_MAX, 2 * VECTOR_MAX)
        return torch.from_numpy(values.astype(np.float32)).to(index.device)

    def flags(self, level: int, index: Tensor, mask: Tensor, parent: Tensor) -> Tensor:
        return (self._get(index, mask, self.tables.flags) > 0).to(index.dtype)

    def merges(self, level: int, index: Tensor, candidates: MergeCandidates) -> Tensor:
        numbers = self.stream.get(index.cpu().numpy(), self.tables.merges).astype(np.int64)
        return torch.from_numpy(numbers).to(index.device)

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
    """Decode one predicted frame from the mini-GOP's stream. Raises BitstreamError if it is damaged."""
    device = references[0].planes[0].device
    step, *kinds, empty = stream.get_bits(HEADER_WIDTHS).tolist()
    moded, kinds[0] = divmod(kinds[0], MODES_FOLLOW)
    if step >= STEP_COUNT:
        raise BitstreamError(f"quantisation step {step} is beyond {STEP_COUNT - 1}")
    vectors: list[Tensor] = []
    changes: list[Tensor] | None = None
    for which, kind in enumerate(kinds):
        base = template(kind, plan, references, which, vectors[0] if vectors else None)
        if base is None:
            raise BitstreamError(f"motion template {kind} does not exist for the frame at {plan.time}")
        condition = motion_condition(plan, step, which, kind, device)
        coder = _MotionDecoder(codec, stream)
        others = other_templates(kind, base, plan, references, which, vectors[0] if vectors else None)
        changes = codec.motion.code_field(others, changes, condition, coder)
        vectors.append(field_of(changes).to(torch.int64) + base)
    both = (vectors[0], vectors[1])

    def read_modes(first: Tensor, second: Tensor) -> Tensor:
        def read_step(index: Tensor, mask: Tensor) -> Tensor:
            indexes = torch.where(mask, index, -1).cpu().numpy()
            return torch.from_numpy(stream.get(indexes, codec.tables.modes).clip(-1, 1)).to(device)

        return code_modes(first, second, plan.level, read_step)

    prediction, _, _ = predict(codec, plan, references, both, step, read_modes if moded else None)

    tables = TABLE_COUNT * table_class(plan.level, step)

    def read(mean: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        symbols = stream.get(table_indexes(index, mask, tables), codec.tables.y).clip(-SYMBOL_MAX, SYMBOL_MAX)
        return torch.from_numpy(symbols.astype(np.float32)).to(device)

    z_hat = _hyper_shape(codec, prediction)
    if not empty:
        z_index = codec.model.entropy_parameters.hyper_indexes(prediction.condition)[
            :, :, None, None
        ].expand_as(z_hat)
        symbols = stream.get(table_indexes(z_index, None), codec.tables.z).clip(-HYPER_MAX, HYPER_MAX)
        z_hat = torch.from_numpy(symbols.astype(np.float32)).to(device)
    y_hat = codec.model.code_latents(z_hat, prediction, read)
    return finish(codec, plan, y_hat, prediction, both, bit_depth)


def _hyper_shape(codec: Codec, prediction: Prediction) -> Tensor:
    _, _, height, width = prediction.samples.shape
    return torch.zeros(1, codec.model.config.hyper, height // 8, width // 8, device=prediction.samples.device)
