"""Shells complete commands, options and their values: click's scripts, without anything heavy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class

from viddiff.cli import main

SHELLS = ["bash", "zsh", "fish"]


def completed(shell: str, *words: str) -> list[str]:
    """What a shell offers for the last of `words`."""
    kind = get_completion_class(shell)
    assert kind is not None
    items = kind(main, {}, "viddiff", "_VIDDIFF_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [item.value if item.type == "plain" else item.type for item in items]


@pytest.mark.parametrize("shell", SHELLS)
def test_names_are_completed(shell: str) -> None:
    assert completed(shell, "") == sorted(main.commands)
    assert completed(shell, "encode", "--qu") == ["--quality", "--quiet"]
    assert completed(shell, "encode", "--preset", "") == [
        "fastest",
        "faster",
        "fast",
        "default",
        "slow",
        "slower",
        "slowest",
    ]
    assert completed(shell, "decode", "--format", "m") == ["mkv", "mp4", "mov"]
    assert completed(shell, "encode", "hol") == ["file"]
    assert completed(shell, "decode", "a.vdf", "") == ["file"]
    for name, command in main.commands.items():
        options = {word for option in command.params for word in option.opts if word.startswith("--")}
        assert options <= set(completed(shell, name, "--"))


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_are_made(shell: str) -> None:
    """By the command itself, as the documentation says."""
    words = {"COMP_WORDS": "viddiff encode --low", "COMP_CWORD": "2"} if shell != "fish" else {}
    words |= {"COMP_WORDS": "viddiff encode --low", "COMP_CWORD": "--low"} if shell == "fish" else {}
    for kind, expected in (("source", "_VIDDIFF_COMPLETE"), ("complete", "--low-delay")):
        result = subprocess.run(
            [sys.executable, "-m", "viddiff"],
            env={**os.environ, **words, "_VIDDIFF_COMPLETE": f"{shell}_{kind}"},
            capture_output=True,
            text=True,
        )
        assert expected in result.stdout, result.stderr


def test_it_is_documented() -> None:
    folder = Path(__file__).parents[1] / "docs"
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.md"))
    for shell in SHELLS:
        assert f"_VIDDIFF_COMPLETE={shell}_source" in text
