"""Names of temporary files: hidden, beside their target, and never too long."""

import hashlib
import os
from pathlib import Path

_USUAL_LIMIT = 255
"""Bytes of a file name on almost all file systems."""
_MARK = 16
"""Hexadecimal digits that replace a name that does not fit."""


def hidden_beside(target: Path, tail: str) -> Path:
    """`.NAME` and `tail` in the folder of `target`, where NAME is the target's name.

    If that is too long, NAME is cut and gets a hash, so that no two targets share a temporary file.
    """
    name, most = target.name, _longest_name(target.parent)
    if len(os.fsencode(f".{name}{tail}")) > most:
        mark = hashlib.sha256(os.fsencode(name)).hexdigest()[:_MARK]
        room = most - len(os.fsencode(f".~{mark}{tail}"))
        name = f"{_cut(name, room)}~{mark}"
    return target.with_name(f".{name}{tail}")


def _cut(name: str, size: int) -> str:
    """The start of a name: whole characters in at most `size` bytes."""
    kept = 0
    for count, character in enumerate(name):
        kept += len(os.fsencode(character))
        if kept > size:
            return name[:count]
    return name


def _longest_name(folder: Path) -> int:
    """Largest number of bytes of a name in `folder`."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        return _USUAL_LIMIT
