"""Globs: paths with wildcards."""

import os
import re

_WILDCARDS = re.compile(r"[*?[]")


def has_wildcards(text: str) -> bool:
    """Whether a path is a glob."""
    return _WILDCARDS.search(text) is not None


def fixed_part(pattern: str) -> str:
    """The folder of a glob: its path up to the first part with a wildcard."""
    parts = pattern.split(os.sep)
    first = next(number for number, part in enumerate(parts) if has_wildcards(part))
    return os.sep.join(parts[:first]) or (os.sep if pattern.startswith(os.sep) else "")


def spells_extension(pattern: str) -> bool:
    """Whether a glob says which extension it finds."""
    extension = os.path.splitext(pattern)[1]
    return extension != "" and not has_wildcards(extension)
