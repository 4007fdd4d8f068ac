"""Which weights serve which units: a TOML file that maps folders and globs to weights.

"door" = "door.safetensors"              # everything below this folder
"garage/*-night.mp4" = "1f3a9c0b77d2"    # a glob; the first digits of a hash
"""

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

from viddiff.errors import CheckpointError


@dataclass(frozen=True)
class WeightsMap:
    """Folders and globs, and their weights. The first that fits a unit's name counts."""

    rows: tuple[tuple[str, str], ...] = ()
    """Folder or glob, and a file of weights or the first digits of a hash."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a map. Files are relative to its folder. Raises CheckpointError, OSError."""
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} is not TOML: {error}") from error
        rows = []
        for pattern, weights in table.items():
            if not isinstance(weights, str):
                raise CheckpointError(f'{path}: write "{pattern}" = "FILE", with quotes')
            file = path.parent / weights
            rows.append((pattern.strip("/"), str(file) if file.exists() else weights))
        return cls(tuple(rows))

    def weights_of(self, name: str) -> str | None:
        """The weights for a unit's name; None if no row fits."""
        for pattern, weights in self.rows:
            if name.startswith(f"{pattern}/") or fnmatchcase(name, pattern):
                return weights
        return None
