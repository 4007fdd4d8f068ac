"""The weights that the files of a batch need, kept beside them: `weights/HASH.safetensors` below the target.

Released weights are kept, too: a later release may lack them. `decode` finds them there.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from viddiff.codec.load_weights import load_weights
from viddiff.codec.tensor_file import stated_hash
from viddiff.errors import CheckpointError, OutputError
from viddiff.file_names import hidden_beside
from viddiff.pipeline.batch.flushing import flush_folder
from viddiff.pipeline.weights_search import archived_weights, weights_to_decode


class WeightsArchive:
    """Weights beside the files that need them."""

    def __init__(self, target: Path, writer: str, shown: object = None) -> None:
        """writer: tells this process from others that write there. shown: what users call the target."""
        self._target, self._tail, self._shown = target, f".{writer}.part", shown or target
        self._kept = set[str]()

    def keep(self, weights: Path) -> None:
        """Make sure that a weights file is in the archive. Raises CheckpointError, OutputError."""
        digest = stated_hash(weights)
        if digest in self._kept:
            return
        path = archived_weights(self._target, digest)
        if stated_hash(path) != digest:
            if load_weights(weights).hash.hex() != digest:
                raise CheckpointError(f"{weights} is damaged")
            _copy(weights, path, hidden_beside(path, self._tail))
        self._kept.add(digest)

    def keep_for(self, digest: str) -> None:
        """Make sure that the weights with a hash, which a file needs, are in the archive.

        Raises CheckpointError if they are not found, OutputError if they cannot be copied.
        """
        if digest in self._kept:
            return
        if stated_hash(archived_weights(self._target, digest)) == digest:
            self._kept.add(digest)
            return
        try:
            self.keep(weights_to_decode(bytes.fromhex(digest), None))
        except (CheckpointError, ValueError) as error:
            raise CheckpointError(
                f"files in {self._shown} need weights that are not archived beside them: {error}"
            ) from error


def _copy(weights: Path, path: Path, temporary: Path) -> None:
    """Copy weights to the disk. The copy appears when it is complete. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(weights, temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        flush_folder(path.parent)
        flush_folder(path.parent.parent)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
