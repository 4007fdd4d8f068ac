"""Packages form layers, modules have no cycles, and each outside library is used in one place."""

import ast
import graphlib
from pathlib import Path

import pytest

import viddiff

ROOT = Path(viddiff.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
CORE = "core"
"""The package of the modules at the top level."""
MAY_IMPORT: dict[str, set[str]] = {
    CORE: set(),
    "media": {CORE},
    "container": {CORE},
    "metrics": {CORE},
    "networks": {CORE},
    "codec": {CORE, "media", "container", "networks"},
    "encoder": {CORE, "media", "container", "networks", "codec"},
    "pipeline": {CORE, "metrics", "media", "container", "networks", "codec", "encoder"},
    "training": {CORE, "metrics", "media", "container", "networks", "codec", "encoder", "pipeline"},
    "comparison": {CORE, "metrics", "media", "container", "networks", "codec", "encoder", "pipeline"},
    "serving": {CORE, "media", "container", "networks", "codec", "encoder", "pipeline"},
    "cli": {
        *(CORE, "metrics", "media", "container", "networks", "codec", "encoder", "pipeline", "training"),
        *("comparison", "serving"),
    },
}
FRONT_DOOR = {"__init__", "__main__"}
"""They may import everything. No other module imports them."""
OWNERS = {
    "av": {"media"},
    "constriction": {"codec.entropy"},
    "click": {"cli"},
    "imageio_ffmpeg": {"media.ffmpeg_program"},
    "jinja2": {"comparison.report"},
    "tqdm": {"cli.progress"},
    "plotille": {"cli.bits_plot"},
    "matplotlib": {"plots"},
    "safetensors": {
        "codec.tensor_file",
    },
    "torchvision": {"training.samples"},
    "cryptography": {"container.sealing"},
    "fsspec": {"pipeline.batch.servers.sftp_store"},
    "paramiko": {"pipeline.batch.servers.sftp_store"},
    "s3fs": {"pipeline.batch.servers.s3_store"},
    "botocore": {"pipeline.batch.servers.s3_store"},
    "aiohttp": {"pipeline.batch.servers.s3_store"},
    "numba": {
        "code_cache",
        "codec.engine.block_kernels",
        "codec.engine.int16_kernels",
        "codec.engine.kernels",
        "codec.engine.motion_kernels",
        "codec.engine.picture_kernels",
        "compiled",
        "encoder.hadamard",
        "native_code",
    },
    "llvmlite": {
        "codec.engine.block_kernels",
        "codec.engine.int16_kernels",
        "codec.engine.picture_kernels",
        "encoder.hadamard",
        "native_code",
    },
}
"""Packages or modules that use a library. No others do."""
FREE_OF = {
    CORE: {"torch", "cv2"},
    "media": {"torch"},
    "container": {"numpy", "torch", "cv2"},
    "metrics": {"torch", "io", "pathlib"},
    "networks": {"cv2", "io", "pathlib"},
}


def package(module: str) -> str:
    """The package of a module, by its name below `viddiff`."""
    first, dot, _ = module.partition(".")
    return first if dot or first in MAY_IMPORT else CORE


def imports(module: str) -> set[str]:
    """Full names of all imports of a module."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            base = node.module or ""
            for alias in node.names:
                below = f"{base}.{alias.name}".removeprefix("viddiff.")
                names.add(f"viddiff.{below}" if base.startswith("viddiff") and below in MODULES else base)
    return names


def inner_imports(module: str) -> set[str]:
    """Modules below `viddiff` that a module imports, by name."""
    return {
        n.removeprefix("viddiff").removeprefix(".") or "__init__"
        for n in imports(module)
        if n.split(".")[0] == "viddiff"
    }


@pytest.mark.parametrize("module", sorted(set(MODULES) - FRONT_DOOR))
def test_packages_depend_one_way(module: str) -> None:
    here = package(module)
    for name in inner_imports(module):
        there = package(name)
        assert name not in FRONT_DOOR, f"{module} must not import {name}"
        assert there == here or there in MAY_IMPORT[here], f"{module} must not import {name}"


@pytest.mark.parametrize("module", sorted(set(MODULES) - FRONT_DOOR))
def test_outside_libraries_have_owners(module: str) -> None:
    for name in imports(module):
        top = name.partition(".")[0]
        owners = OWNERS.get(top, {module})
        assert {module, package(module)} & owners, f"{module} must not import {top}"
        assert top not in FREE_OF.get(package(module), ()), f"{module} must not import {top}"


def test_modules_have_no_cycles() -> None:
    graph = {module: inner_imports(module) - {module} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


def test_networks_do_not_open_files() -> None:
    for module, path in MODULES.items():
        if package(module) == "networks":
            calls = [
                n.func.id
                for n in ast.walk(ast.parse(path.read_text()))
                if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
            ]
            assert "open" not in calls


def test_each_module_says_what_it_is() -> None:
    for module, path in MODULES.items():
        assert (ast.get_docstring(ast.parse(path.read_text())) or "").strip(), f"{module} has no docstring"
