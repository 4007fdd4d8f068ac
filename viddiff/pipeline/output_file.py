"""Output files: whether they may be written, by whom, and when they get their names.

An existing file is replaced only on request, and only if viddiff writes such files: others may be somebody's
only copy. A file that appears during the work is not replaced.
"""

import errno
import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from viddiff.container.format import MAGIC
from viddiff.errors import OutputError, VerificationError
from viddiff.file_names import hidden_beside
from viddiff.pipeline.interruption import uninterrupted

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

try:
    import fcntl
except ImportError:  # Windows refuses to rename or remove a file that is open, which has to do there
    fcntl = None  # type: ignore[assignment]

Check = Callable[[Path], None]
"""Checks a complete file that has no name yet. VerificationError keeps it from getting one."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES)
"""Errors of file systems that have no hard links."""
_DIGITS, _PART = 8, ".part"
"""Of the names of temporary files."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of file systems that cannot lock files."""


@dataclass(frozen=True)
class OutputFile:
    """A file to write, and what may be replaced for it."""

    path: Path
    """Path without links, see `where`."""
    force: bool
    """The user allows replacing a file of the same kind."""
    replaceable: Callable[[Path], bool]
    """Whether an existing file is of the kind that is written here."""
    kind: str
    """Name of the kind, after "it is not": "a .vdf file"."""

    def check(self, *sources: Path) -> None:
        """Raises OutputError if writing would lose a file or fail later. sources: the input files."""
        path = self.path
        if not path.exists():
            if not path.parent.is_dir():
                raise OutputError(f"the folder {path.parent} does not exist")
            return
        for source in sources:
            if source.exists() and path.samefile(source):
                raise OutputError(f"{source} cannot be its own output")
        if path.is_dir():
            raise OutputError(f"{path} is a folder")
        if not path.is_file():
            raise OutputError(f"{path} is not a regular file")
        self._check_replaceable()
        if not self.force:
            raise OutputError(f"{path} exists; --force overwrites it")

    def _check_replaceable(self) -> None:
        if not self.replaceable(self.path):
            raise OutputError(
                f"{self.path} exists, and it is not {self.kind}: remove it or choose another name"
            )

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Lock the name during the block. Raises OutputError if another process has locked it."""
        path = hidden_beside(self.path, ".lock")
        try:
            lock = _lock(path)
        except BlockingIOError as error:
            raise OutputError(f"{self.path} is being written by another process") from error
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}") from error
        with lock:
            try:
                yield
            finally:
                with suppress(OSError):
                    path.unlink()

    def publish(self, temporary: Path) -> None:
        """Give a complete file its name.

        Raises OutputError if another file has appeared there. The new one stays where it is.
        """
        try:
            if self.force:
                if self.path.exists():
                    self._check_replaceable()
                os.replace(temporary, self.path)
            else:
                _rename_to_new(temporary, self.path)
        except (OutputError, FileExistsError) as error:
            raise OutputError(
                f"{self.path} has appeared meanwhile; what is coded is in {temporary}"
            ) from error

    def temporary(self) -> Path:
        """A new name beside the file."""
        return hidden_beside(self.path, f".{secrets.token_hex(_DIGITS // 2)}{_PART}")

    def temporaries(self) -> list[Path]:
        """Files with such a name, and with such a name beside one of them."""
        example = hidden_beside(self.path, f".{'0' * _DIGITS}{_PART}").name
        once = escape(example.removesuffix(f"{'0' * _DIGITS}{_PART}")) + f"{'[0-9a-f]' * _DIGITS}{_PART}"
        twice = f".{once}.{'[0-9a-f]' * _DIGITS}{_PART}"
        return [*self.path.parent.glob(once), *self.path.parent.glob(twice)]


def vdf_output(path: Path, force: bool) -> OutputFile:
    """A `.vdf` to write. force: it may replace another one."""
    return OutputFile(where(path), force, is_vdf, "a .vdf file")


def is_vdf(path: Path) -> bool:
    """True for a `.vdf`, encrypted or not, and for an empty file."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read(len(MAGIC)) in (b"", MAGIC)
    return False


def where(path: Path) -> Path:
    """The file to write for `path`: a link's target."""
    leads_to_file = path.is_symlink() and (path.is_file() or not path.exists())
    return Path(os.path.realpath(path)) if leads_to_file else path


@contextmanager
def complete_file(output: OutputFile, check: Check) -> Iterator[BinaryIO]:
    """A file that appears under its name only if neither the block nor `check` raises."""
    temporary = output.temporary()
    try:
        with open(temporary, "xb") as file:
            yield file
        check(temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    output.publish(temporary)


@contextmanager
def recording_file(output: OutputFile, check: Check, worth_keeping: Callable[[], bool]) -> Iterator[BinaryIO]:
    """A file that appears under its name however the block ends, if it is worth keeping.

    A file that fails `check` keeps its temporary name, because it cannot be recorded again. The file is not
    buffered, so that a failed write leaves nothing that fails again later.
    """
    temporary = output.temporary()
    verified = True
    try:
        with open(temporary, "x+b", buffering=0) as raw:
            yield cast(BinaryIO, _WholeWrites(raw))
        check(temporary)
    except VerificationError as error:
        verified = False
        raise VerificationError(f"{error}; the recording is in {temporary}") from error
    except BaseException as error:
        if worth_keeping():
            error.add_note(f"what was recorded is in {output.path}")
        raise
    finally:
        with uninterrupted():
            if not worth_keeping():
                temporary.unlink(missing_ok=True)
            elif verified:
                output.publish(temporary)


class _WholeWrites(io.RawIOBase):
    """An unbuffered file that writes everything or raises OSError."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        with memoryview(data) as whole, whole.cast("B") as view:
            at = 0
            while at < len(view):
                at += self._raw.write(view[at:]) or 0
        return at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._raw.seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        return self._raw.truncate(size)


def _lock(path: Path) -> BinaryIO:
    """Create and lock `path` until it is closed. Raises BlockingIOError if it is locked already."""
    while True:
        file = open(path, "ab")  # noqa: SIM115
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass  # who held it has just removed it
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return file
            file.close()
            raise
        file.close()


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Give a file its name. Raises FileExistsError if there is a file with this name."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(target) from error
        temporary.rename(target)
        return
    temporary.unlink()
