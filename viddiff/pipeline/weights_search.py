"""Find weights: the file that a user names, or the one with the hash that a `.vdf` names.

Searched in this order: the folder that the user names, the released weights, the file or folder in the
environment variable VIDDIFF_WEIGHTS, the user's own folder, where training leaves a copy, and the folder
`weights` beside the `.vdf` or above it, where a batch archives them.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from importlib import resources
from pathlib import Path

from viddiff.codec.enhancement_weights import FORMAT
from viddiff.codec.tensor_file import stated, stated_hash
from viddiff.errors import CheckpointError
from viddiff.file_names import hidden_beside

WeightsName = str | os.PathLike[str] | None
"""A file, a folder, a name of released weights, or the first digits of a hash."""
BASES = {"av1": "enhancement-small.safetensors", "none": "small.safetensors"}
"""What can carry the frames of a file, and the released weights for it. The first is the default."""
_VARIABLE = "VIDDIFF_WEIGHTS"
_HASH = re.compile(r"[0-9a-f]{8,64}")
_SHOWN = 16
"""Digits of a hash in messages."""


def released_weights(base: str) -> Path:
    """The released weights for files with this base, one of `BASES`."""
    return _released() / BASES[base]


def _released() -> Path:
    return Path(str(resources.files("viddiff.checkpoints")))


def released_with(digest: str) -> Path:
    """The released weights with this hash (hex). Raises CheckpointError if there are none."""
    for path in sorted(_released().glob("*.safetensors")):
        if stated_hash(path) == digest:
            return path
    raise CheckpointError(f"the weights {digest[:_SHOWN]} are not released")


def user_folder() -> Path | None:
    """The user's folder for weights, which may not exist. None if the user has no home directory."""
    data = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):  # the specification says to ignore it then
        data = os.path.expanduser(os.path.join("~", ".local", "share"))
    return Path(data, "viddiff", "weights") if os.path.isabs(data) else None


def weights_to_encode(named: WeightsName, base: str | None = None) -> Path:
    """The weights that the user names: a file, released weights, or at least eight digits of a hash.

    None: the file in VIDDIFF_WEIGHTS, otherwise the released weights for `base`, by default an AV1 base.
    Raises CheckpointError if there are none, or if they are for another base than `base`.
    """
    path = _named(named) or released_weights(base or next(iter(BASES)))
    if base is not None and stated_hash(path) and base_of(path) != base:
        raise CheckpointError(f"the weights {path} are for --base {base_of(path)}")
    return path


def base_of(weights: Path) -> str:
    """The base of files that are coded with these weights."""
    enhance = stated(weights, "format") == FORMAT
    return "av1" if enhance else "none"


def _named(named: WeightsName) -> Path | None:
    """The weights that the user or VIDDIFF_WEIGHTS names. None if neither does."""
    if named is None:
        variable = os.environ.get(_VARIABLE)
        return Path(variable) if variable and Path(variable).is_file() else None
    path = Path(named)
    released = _released() / f"{path}.safetensors"
    if not path.exists() and path.name == str(path) and released.is_file():
        return released
    if not path.exists() and _HASH.fullmatch(str(named)):
        return _of_hash(str(named), f"the weights {str(named)[:_SHOWN]}", None)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: name a file of weights")
    return path


def archived_weights(folder: Path, digest: str) -> Path:
    """Where weights with this hash (hex) are archived below a folder. They need not be there."""
    return folder / "weights" / f"{digest}.safetensors"


def weights_to_decode(model_hash: bytes, named: WeightsName, file: Path | None = None) -> Path:
    """The weights with this hash. `named`: a folder to search first, or a file or hash to use as it is.

    file: the `.vdf`, for weights that are archived with it. Raises CheckpointError, which says where it
    looked.
    """
    if named is not None and not Path(named).is_dir():
        return weights_to_encode(named)
    digest = model_hash.hex()
    try:
        return _of_hash(digest, f"the weights {digest[:_SHOWN]} of this file", named)
    except CheckpointError:
        for folder in file.absolute().parents if file is not None else ():
            path = archived_weights(folder, digest)
            if stated_hash(path) == digest:
                return path
        raise


def keep_copy(weights: Path, model_hash: bytes) -> Path | None:
    """Copy weights to the user's folder, so that `decode` finds them.

    Returns the copy, or None if that fails.
    """
    folder = user_folder()
    if folder is None:
        return None
    copy = folder / f"{weights.stem[:64]}-{model_hash.hex()[:8]}.safetensors"
    temporary = hidden_beside(copy, f".{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, temporary)
        os.replace(temporary, copy)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        return None
    return copy


def _of_hash(digits: str, what: str, folder: WeightsName) -> Path:
    """The first file whose hash begins with `digits`."""
    looked = []
    for place, label in _places(folder):
        looked.append(label)
        for path in sorted(place.glob("*.safetensors")) if place.is_dir() else [place]:
            if path.is_file() and stated_hash(path).startswith(digits):
                return path
    raise CheckpointError(
        f"{what} are not here: looked {' and '.join(looked)}; --weights names another file or folder"
    )


def _places(folder: WeightsName) -> Iterator[tuple[Path, str]]:
    """Places to search, with their names for messages."""
    if folder is not None:
        yield Path(folder), f"in {folder}"
    yield _released(), "among the released ones"
    if variable := os.environ.get(_VARIABLE):
        yield Path(variable), f"in {variable} ({_VARIABLE})"
    if (own := user_folder()) is not None:
        yield own, f"in {own}"
