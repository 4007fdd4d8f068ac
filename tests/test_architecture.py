"""Modules depend one way, and each outside library is used in one place."""

import ast
from pathlib import Path

import pytest

import viddiff

ROOT = Path(viddiff.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
OWNERS = {
    "av": {
        *("demuxer", "video", "videowriter", "keyframe", "picture", "filters", "streamheader"),
        *("trackreader", "trackwriter", "description", "opus", "failures", "continuity", "slots"),
    },
    "constriction": {"entropy"},
    "click": {"cli"},
    "tqdm": {"progress"},
    "plotille": {"gops"},
    "matplotlib": {"figure"},
    "safetensors": {"checkpoint", "train_state"},
    "torchvision": {"data"},
    "cryptography": {"sealing"},
    "numba": {"compiled", "hadamard"},
    "llvmlite": {"hadamard"},
}
LAYERS = [
    {"errors", "config", "effort", "failures", "__init__", "compiled", "quickstart"},
    {"figure"},
    {"display"},
    {"frame"},
    {
        "container",
        "entropy",
        "keyframe",
        "metrics",
        "models",
        "progress",
        "gop",
        "packet",
        "team",
        "hadamard",
        "digest",
    },
    {"residual_cost", "templates"},
    {"reader", "tracks", "block_search", "grouping", "sealing", "library"},
    {"search", "mode_choice"},
    {"lookahead"},
    {"description", "interleave", "trackfile", "partfile", "picture", "streamheader", "continuity", "slots"},
    {"opus", "trackwriter", "demuxer", "filters"},
    {"trackreader", "videowriter"},
    {"video", "schedule", "access"},
    {"gops", "library_choice"},
    {"checkpoint"},
    {"machine"},
    {"predicted", "motion_search", "temporal_filter"},
    {"predicted_encoder"},
    {"encoder", "calibration"},
    {"output"},
    {"codec"},
    {"recovery"},
    {"data", "parallel"},
    {"rates", "whitening", "selftest", "verify", "streaming"},
    {"train_pass", "validation"},
    {"train_state"},
    {"train"},
    {"cli"},
    {"__main__"},
]
FREE_OF = {
    "container": {"numpy", "torch"},
    "reader": {"numpy", "torch"},
    "tracks": {"numpy", "torch"},
    "interleave": {"numpy", "torch"},
    "trackfile": {"numpy", "torch"},
    "access": {"numpy", "torch"},
    "schedule": {"numpy", "torch"},
    "partfile": {"numpy", "torch"},
    "sealing": {"numpy", "torch"},
    "models": {"av", "click", "constriction", "safetensors", "cv2", "io", "pathlib"},
}


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            base = f"viddiff.{module}".rstrip(".") if node.level else module
            names |= {f"{base}.{alias.name}" for alias in node.names} if base == "viddiff" else {base}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path: Path) -> None:
    rank = {name: level for level, names in enumerate(LAYERS) for name in names}
    here = part(path)
    assert here in rank, f"give {here} its place in LAYERS"
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert here in OWNERS.get(top, {here}), f"{here} must not import {top}"
        assert top not in FREE_OF.get(here, ()), f"{here} must not import {top}"
        if top == "viddiff" and rest:
            inner = rest.split(".")[0]
            inner = inner if inner in rank else "__init__"  # names such as __version__
            assert inner == here or rank[inner] < rank[here], f"{here} must not import {inner}"


def test_models_do_not_open_files() -> None:
    for path in (ROOT / "models").glob("*.py"):
        calls = [
            n.func.id
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
        assert "open" not in calls
