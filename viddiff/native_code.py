"""Machine code of functions that numba has compiled, kept on disk, so that later processes need no numba.

To load numba and to prepare it takes half a second; to load kept code takes some milliseconds. A function
takes pointers and integers only (`Signature`), raises nothing and allocates nothing.

A kept file begins with the SHA-256 of the rest: the names of its functions as JSON on one line, then their
code, an object file. Its name says for which processor, which versions and which source it was made.
"""

import ctypes
import hashlib
import json
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from viddiff.version import __version__

Signature = Sequence[str]
"""Arguments: a number by numba's name of its type ("int64"), or a pointer to such numbers ("uint16*")."""
Functions = Mapping[str, tuple[Callable[..., None], Signature]]
"""Functions by name, and what they take."""
OPTIONS: dict[str, Any] = {"_nrt": False, "error_model": "numpy"}
"""For numba: no memory is managed, and nothing is raised."""
_DIGEST = hashlib.sha256().digest_size
_FROM_LIBC = {"memset", "memcpy", "memmove"}


@dataclass(frozen=True, eq=False)
class Native:
    """A function by numba's convention: it returns a status, and takes places for a result and an error."""

    function: Callable[..., int]
    """Runs without Python's lock."""
    engine: Any
    """llvmlite's owner of the code."""

    def __call__(self, *arguments: int) -> None:
        """Call it with addresses and integers."""
        places = (ctypes.c_void_p * 2)()
        first, second = ctypes.addressof(places), ctypes.addressof(places) + ctypes.sizeof(ctypes.c_void_p)
        if self.function(first, second, *arguments):
            raise RuntimeError("compiled code has failed")


@cache
def processor_features() -> frozenset[str]:
    """What numba compiles for, in LLVM's names."""
    generic = os.environ.get("NUMBA_CPU_NAME", "").lower() == "generic"
    chosen = os.environ.get("NUMBA_CPU_FEATURES", "" if generic else None)
    features = llvm.get_host_cpu_features().flatten() if chosen is None else chosen
    return frozenset(name[1:] for name in features.split(",") if name.startswith("+"))


def kept_name(name: str, sources: Sequence[Path]) -> str:
    """Name of the file with the functions that these source files define, for this processor."""
    digest = hashlib.sha256()
    settings = [os.environ.get(each, "") for each in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_OPT")]
    processor = [llvm.get_process_triple(), llvm.get_host_cpu_name(), *sorted(processor_features())]
    digest.update(json.dumps([name, settings, processor, __version__]).encode())
    for source in (*_versions(), *sources):
        digest.update(source.read_bytes())
    return f"{name}-{digest.hexdigest()[:24]}.native"


def _versions() -> list[Path]:
    """Files that differ with the versions of numba and llvmlite, without loading numba."""
    specs = [find_spec(each) for each in ("numba", "llvmlite")]
    files = [Path(spec.origin).with_name("_version.py") for spec in specs if spec and spec.origin]
    return [file for file in files if file.exists()]


def load(file_name: str) -> dict[str, Native] | None:
    """The functions in a kept file by name. None if there is no such file, or no sound one."""
    for folder in _folders():
        with suppress(OSError, ValueError):
            content = (folder / file_name).read_bytes()
            if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
                continue
            return _linked(content[_DIGEST:])
    return None


def is_kept(file_name: str) -> bool:
    """Whether there is such a file, sound or not."""
    return any((folder / file_name).exists() for folder in _folders())


def build(
    functions: Mapping[str, tuple[Callable[..., None], Signature]], file_name: str
) -> dict[str, Native]:
    """Compile functions, and keep them if there is a folder for them. It is logged before it begins."""
    logging.getLogger(__name__).info("compiling code for this processor; later runs start faster")
    content = _compiled(functions)
    for folder in _folders():
        with suppress(OSError):
            _write(folder / file_name, hashlib.sha256(content).digest() + content)
            break
    return _linked(content)


def _compiled(functions: Functions) -> bytes:
    import numba

    compiler: Any = numba
    types = compiler.types

    def kind(name: str) -> Any:
        return types.CPointer(getattr(types, name[:-1])) if name.endswith("*") else getattr(types, name)

    whole, names = None, {}
    for name, (function, signature) in functions.items():
        arguments = tuple(map(kind, signature))
        dispatcher = compiler.njit(**OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
        dispatcher.compile(types.void(*arguments))
        (result,) = dispatcher.overloads.values()
        names[name] = result.fndesc.llvm_func_name, len(arguments)
        module = llvm.parse_bitcode(result.library._final_module.as_bitcode())
        if whole is None:
            whole, machine = module, result.library.codegen._tm
        else:
            whole.link_in(module)
    if whole is None:
        raise ValueError("there is no function to compile")
    foreign = {f.name for f in whole.functions if f.is_declaration and not f.name.startswith("llvm.")}
    if foreign - _FROM_LIBC:
        raise ValueError(f"compiled functions need {sorted(foreign - _FROM_LIBC)}, so they cannot be kept")
    return json.dumps(names).encode() + b"\n" + bytes(machine.emit_object(whole))


def _linked(content: bytes) -> dict[str, Native]:
    line, _, code = content.partition(b"\n")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    names = json.loads(line).items()
    return {name: _native(engine, symbol, count) for name, (symbol, count) in names}


def _native(engine: Any, symbol: str, arguments: int) -> Native:
    address = engine.get_function_address(symbol)
    if not address:
        raise ValueError("a function is missing")
    form = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * arguments)
    return Native(form(address), engine)


# --- folders -----------------------------------------------------------------------------------------------


def _folders() -> Iterator[Path]:
    """Where code may be kept, the first choice first. None of them need exist, or be writable."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen)
    yield Path(__file__).parent / "__pycache__"
    if (own := user_folder()) is not None:
        yield own
    with suppress(OSError):
        yield private_folder()


def user_folder() -> Path | None:
    """The user's folder for what can be made again. None without a home directory."""
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA", "")
    else:
        home = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(home):
            home = os.path.expanduser(os.path.join("~", ".cache"))
    return Path(home, "viddiff") if os.path.isabs(home) else None


def private_folder() -> Path:
    """A folder in the system's one for temporary files. OSError unless it is this user's alone."""
    if not hasattr(os, "geteuid"):
        raise NotADirectoryError("no user is known")
    user = os.geteuid()
    folder = Path(tempfile.gettempdir(), f"viddiff-{user}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not this user's alone")
    return folder


def _write(path: Path, content: bytes) -> None:
    """Write a file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # others may read what an administrator has installed
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
