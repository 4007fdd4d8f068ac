"""Motion templates: motion that costs no bits. Fields are coded as differences from a template.

A template is zero, or the motion of the references continued to the current frame, or, for the second field,
the first field mirrored. The stream names one for each field.
"""

import torch
from torch import Tensor

from viddiff.codec.coding_order import FramePlan
from viddiff.codec.reference import Reference
from viddiff.networks.bounds import UNIT
from viddiff.networks.motion_prior import VECTOR_MAX
from viddiff.networks.warp import BLOCK

ZERO, TEMPORAL, MIRRORED = range(3)
KINDS = ((ZERO, TEMPORAL), (ZERO, TEMPORAL, MIRRORED))
"""Kinds of templates for the first and the second field."""


def scale_vectors(vectors: Tensor, numerator: int, denominator: int) -> Tensor:
    """vectors * numerator / denominator in integers, rounded half up."""
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    return torch.div(vectors * (2 * numerator) + denominator, 2 * denominator, rounding_mode="floor")


def temporal_template(plan: FramePlan, first: Reference, second: Reference, which: int) -> Tensor | None:
    """Vectors that continue the references' motion: (1, 2, H/8, W/8) int64, or None.

    The motion is that from one reference to the other, or else that of the nearer reference from its own
    reference. None if neither moved (keyframes).
    """
    target = (first, second)[which].time
    moves = [(r.time, t, v) for r in (second, first) for t, v in r.motion]
    moves.sort(key=lambda move: {move[0], move[1]} != {first.time, second.time})  # otherwise keeps the order
    for origin, end, vectors in moves:
        if end != origin:
            return scale_vectors(vectors, target - plan.time, end - origin).clamp(-VECTOR_MAX, VECTOR_MAX)
    return None


def template(
    kind: int, plan: FramePlan, references: tuple[Reference, Reference], which: int, other: Tensor | None
) -> Tensor | None:
    """Vectors of a template, or None if this kind does not exist for this frame."""
    if kind == ZERO:
        y = references[0].planes[0]
        return torch.zeros(1, 2, y.shape[1] // BLOCK, y.shape[2] // BLOCK, dtype=torch.int64, device=y.device)
    if kind == TEMPORAL:
        return temporal_template(plan, *references, which)
    if kind == MIRRORED and which == 1 and other is not None:
        return scale_vectors(other, plan.second - plan.time, plan.first - plan.time).clamp(
            -VECTOR_MAX, VECTOR_MAX
        )
    return None


def other_templates(
    kind: int,
    base: Tensor,
    plan: FramePlan,
    references: tuple[Reference, Reference],
    which: int,
    other: Tensor | None,
) -> Tensor:
    """Differences of the other templates from `base`, which is of `kind`: (A, 2, H/8, W/8) int64."""
    found = (template(k, plan, references, which, other) for k in reversed(KINDS[which]) if k != kind)
    return torch.cat([base[:0], *(one - base for one in found if one is not None)])


def motion_condition(plan: FramePlan, step: int, which: int, kind: int, device: torch.device) -> Tensor:
    """Conditions (1, CONDITIONS) of the motion prior for one field."""
    distance = abs((plan.first, plan.second)[which] - plan.time)
    values = (
        (step - 46) * (UNIT // 16),
        (plan.level - 1) * UNIT,
        which * UNIT,
        min(distance.bit_length(), 8) * UNIT,
        (kind == TEMPORAL) * UNIT,
        (kind == MIRRORED) * UNIT,
    )
    return torch.tensor([values], dtype=torch.float32, device=device)
