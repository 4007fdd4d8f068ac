"""Weights in memory: networks, tables and library as integer tensors, and a codec made from them."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from viddiff.codec.entropy import Tables, discretised_tables
from viddiff.codec.exactness import exact_arithmetic
from viddiff.codec.library import Library
from viddiff.codec.tensor_file import Arrays, content_hash
from viddiff.config import ModelConfig
from viddiff.errors import CheckpointError
from viddiff.networks.hyperprior import TABLE_CLASSES, TABLE_COUNT, scale_of_index
from viddiff.networks.layers import IntConv2d
from viddiff.networks.model import VideoModel
from viddiff.networks.modes import MODE_TABLES, surrounding_of_table
from viddiff.networks.motion_prior import (
    FLAG_TABLES,
    MERGE_COUNT,
    MERGE_TABLES,
    MotionPrior,
    flag_probability,
)
from viddiff.networks.residual import STEP_MAX

_OVERLAP = "compensation.overlap"


_LIBRARY = ("library.sizes", "library.stills")


@dataclass(frozen=True)
class TableSet:
    """Tables of the entropy coder for each kind of symbol."""

    y: Tables
    """TABLE_COUNT tables for each class of frames."""
    z: Tables
    flags: Tables
    changes: Tables
    modes: Tables
    merges: Tables


@dataclass(frozen=True)
class Codec:
    """Everything that codes predicted frames: networks in evaluation mode, integer tables, library."""

    model: VideoModel
    motion: MotionPrior
    tables: TableSet
    library: Library
    hash: bytes
    """SHA-256 of everything that decoding depends on."""

    @property
    def name(self) -> str:
        """Name of the model's configuration."""
        return self.model.config.name

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return next(self.model.parameters()).device


def parametric_tables() -> TableSet:
    """Tables before any statistics: discretised Laplace distributions and Bernoulli flags."""
    scales = scale_of_index(torch.arange(TABLE_COUNT)).double().numpy()
    laplace = discretised_tables((scales * 2**0.5).tolist(), "laplace")  # standard deviations
    probabilities = flag_probability(torch.arange(FLAG_TABLES)).double().numpy()
    flags = Tables.from_probabilities([np.array([0.0, 1 - p, p, 0.0]) for p in probabilities])
    y = Tables(np.tile(laplace.packed, TABLE_CLASSES))
    return TableSet(y, laplace, flags, laplace, _parametric_modes(), _parametric_merges())


def _parametric_modes() -> Tables:
    """Tables for modes: usually both hypotheses, unless neighbours use one."""
    rows = []
    for index in range(MODE_TABLES):
        around = surrounding_of_table(index)
        first, second = (0.1 * 2.0 ** max(sign * around, 0) for sign in (-1, 1))
        rows.append(np.array([first, 0.8 / (1 + abs(around)), second, 0.0]))
    return Tables.from_probabilities([row / row.sum() for row in rows])


def _parametric_merges() -> Tables:
    """Tables for merges: no merge half of the time, otherwise any of the candidates."""
    rows = []
    for index in range(MERGE_TABLES):
        count = index // (MERGE_TABLES // MERGE_COUNT) + 1
        row = np.zeros(2 * MERGE_COUNT + 2)
        row[MERGE_COUNT : MERGE_COUNT + count + 1] = [0.5, *[0.5 / count] * count]
        rows.append(row)
    return Tables.from_probabilities(rows)


def decoder_layers(model: VideoModel, motion: MotionPrior) -> dict[str, IntConv2d]:
    """All layers that decoding runs, by name."""
    layers = model.decoder_layers()
    layers.update({f"motion.{n}": m for n, m in motion.named_modules() if isinstance(m, IntConv2d)})
    return layers


def encoder_parts(model: VideoModel) -> dict[str, nn.Module]:
    """Networks that only the encoder runs, by name."""
    return {"analysis_transform": model.analysis_transform, "hyper_analysis": model.hyper_analysis}


def decoder_tensors(
    model: VideoModel, motion: MotionPrior, tables: TableSet, library: Library
) -> dict[str, Tensor]:
    """All tensors that decoding depends on, by name, as stored."""
    tensors: dict[str, Tensor] = {}
    for name, layer in decoder_layers(model, motion).items():
        weight, bias, exponents = layer.integers()
        tensors[f"{name}.weight"] = weight.to("cpu", torch.int8)
        tensors[f"{name}.bias"] = bias.to("cpu", torch.int32)
        tensors[f"{name}.exponent"] = exponents.to("cpu", torch.int8)
    model.quantisation.refresh_()
    tensors["quantisation.table"] = model.quantisation.table.to("cpu", torch.int16)
    tensors[_OVERLAP] = model.compensation.overlap.cpu()
    for field in fields(tables):
        tensors[f"tables.{field.name}"] = torch.from_numpy(getattr(tables, field.name).packed.copy())
    tensors |= {f"library.{name}": tensor for name, tensor in library.tensors().items()}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def arrays_of(tensors: dict[str, Tensor]) -> Arrays:
    """The same numbers as arrays."""
    return {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}


def assemble(config: ModelConfig, tensors: dict[str, Tensor], stated: str, device: torch.device) -> Codec:
    """A codec from stored tensors. Raises CheckpointError if anything is wrong with them."""
    model, motion = VideoModel(config), MotionPrior()
    encoder = {n.removeprefix("encoder."): tensors.pop(n) for n in list(tensors) if n.startswith("encoder.")}
    try:
        tables = TableSet(**{f.name: Tables(tensors[f"tables.{f.name}"].numpy()) for f in fields(TableSet)})
        _set_decoder(model, motion, tensors)
        _set_encoder(model, encoder)
    except KeyError as error:
        raise CheckpointError(f"the weights lack {error}") from error
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"the weights do not fit the model: {error}") from error
    _check_tables(tables)
    parts = [tensors[name] for name in _LIBRARY if name in tensors]
    if len(parts) == 1:
        raise CheckpointError("the weights' library holds no pictures")
    library = Library.of_tensors(*parts) if parts else Library()
    if unknown := tensors.keys() - _decoder_names(model, motion):
        raise CheckpointError(f"the weights hold {min(unknown)!r}, which this version does not know")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # its 11 bits are too few for coefficients of 12
    digest = content_hash(config, arrays_of(tensors))
    if digest.hex() != stated:
        raise CheckpointError(
            f"the weights' content has hash {digest.hex()[:16]} but they claim {stated[:16]}"
        )
    model.to(device=device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
    motion.to(device).eval().requires_grad_(False)
    return Codec(model, motion, tables, library, digest)


def _set_decoder(model: VideoModel, motion: MotionPrior, tensors: dict[str, Tensor]) -> None:
    """Set the integers that decoding depends on."""
    for name, layer in decoder_layers(model, motion).items():
        parts = [tensors[f"{name}.{part}"] for part in ("weight", "bias", "exponent")]
        if [p.dtype for p in parts] != [torch.int8, torch.int32, torch.int8]:
            raise CheckpointError(f"layer {name} does not hold integers")
        layer.set_integers(*parts)
    steps, table = tensors["quantisation.table"], model.quantisation.table
    if steps.shape != table.shape or steps.dtype != torch.int16:
        raise CheckpointError("the quantisation table has the wrong shape")
    if steps.min() < 1 or steps.max() > STEP_MAX:
        raise CheckpointError("the quantisation table holds steps out of range")
    table.copy_(steps)
    model.compensation.set_overlap(tensors[_OVERLAP])


def _set_encoder(model: VideoModel, tensors: dict[str, Tensor]) -> None:
    """Set the floating-point weights that only the encoder uses."""
    for part, module in encoder_parts(model).items():
        names = module.state_dict()
        module.load_state_dict({n: _finite(tensors, f"{part}.{n}") for n in names})
    factors = _finite(tensors, "quantisation.factors")
    if factors.shape != model.quantisation.factors.shape:
        raise CheckpointError("the quantisation factors have the wrong shape")
    with torch.no_grad():
        model.quantisation.factors.copy_(factors)


def _finite(encoder: dict[str, Tensor], name: str) -> Tensor:
    """A float32 tensor of the encoder. Raises CheckpointError unless all its numbers are finite."""
    tensor = encoder[name]
    if tensor.dtype not in (torch.float16, torch.float32) or not tensor.isfinite().all():
        raise CheckpointError(f"the encoder's {name} does not hold finite numbers")
    return tensor.float()


def _decoder_names(model: VideoModel, motion: MotionPrior) -> set[str]:
    """Possible names of the tensors that decoding depends on."""
    parts = {
        f"{name}.{part}" for name in decoder_layers(model, motion) for part in ("weight", "bias", "exponent")
    }
    tables = {f"tables.{field.name}" for field in fields(TableSet)}
    return parts | tables | {"quantisation.table", _OVERLAP, *_LIBRARY}


def _check_tables(tables: TableSet) -> None:
    for name, count in (
        ("y", TABLE_COUNT * TABLE_CLASSES),
        ("z", TABLE_COUNT),
        ("flags", FLAG_TABLES),
        ("changes", TABLE_COUNT),
        ("modes", MODE_TABLES),
        ("merges", MERGE_TABLES),
    ):
        if len(getattr(tables, name).radius) != count:
            raise CheckpointError(
                f"the weights hold {len(getattr(tables, name).radius)} tables for {name}, expected {count}"
            )


def fresh(config: ModelConfig, seed: int = 0) -> tuple[VideoModel, MotionPrior]:
    """Networks before any training: a working DCT codec."""
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model, motion = VideoModel(config), MotionPrior()
    torch.random.set_rng_state(generator_state)
    return model, motion


@exact_arithmetic()
def codec_of(
    model: VideoModel, motion: MotionPrior, tables: TableSet, library: Library | None = None
) -> Codec:
    """A codec with the weights as they would be saved. The given networks are not changed."""
    decoder = decoder_tensors(model, motion, tables, library or Library())
    encoder = {
        f"encoder.{p}.{n}": t.detach().cpu()
        for p, m in encoder_parts(model).items()
        for n, t in m.state_dict().items()
    }
    encoder["encoder.quantisation.factors"] = model.quantisation.factors.detach().cpu()
    digest = content_hash(model.config, arrays_of(decoder))
    return assemble(model.config, {**decoder, **encoder}, digest.hex(), next(model.parameters()).device)


def untrained(config: ModelConfig | None = None) -> Codec:
    """The untrained codec, which is a DCT codec."""
    model, motion = fresh(config or ModelConfig())
    return codec_of(model, motion, parametric_tables())
