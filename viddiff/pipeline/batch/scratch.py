"""The folder on this machine of a batch whose target is on a server."""

import hashlib
import re
from pathlib import Path

from viddiff.errors import OutputError
from viddiff.native_code import user_folder
from viddiff.pipeline.batch.servers.place import Place

_READABLE, _DIGITS = 80, 8


def scratch_folder(out: Place) -> Path:
    """Where work and manifest are, if nobody says where: the same folder for the same target.

    Raises OutputError if this user has no home directory.
    """
    home = user_folder()
    if home is None:
        raise OutputError("there is no home directory for work and manifest: name a folder with --scratch")
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", str(out))[:_READABLE].strip("-.")
    return home / "batch" / f"{readable}-{hashlib.sha256(str(out).encode()).hexdigest()[:_DIGITS]}"
