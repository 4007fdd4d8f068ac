"""The documentation describes every command, option and field, and its examples run."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from test_tracks import Sound, Source

from viddiff.cli import main
from viddiff.pipeline.batch.manifest import Recording
from viddiff.tracks import Attachment

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
README_WORDS = 900


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with short videos: in.mp4, and in.mkv with tags, chapters and an attachment."""
    folder = tmp_path_factory.mktemp("sources")
    Source([Sound()], frames=25).write(folder / "in.mp4")
    attachments = [Attachment("a.ttf", "font/ttf", b"font")]
    chapters = [(0, 400, "One"), (400, 1000, "Two")]
    Source([Sound()], tags={"title": "T"}, chapters=chapters, attachments=attachments).write(
        folder / "in.mkv"
    )
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def sections(page: Path, level: str = "##") -> dict[str, str]:
    """Text of a page by heading."""
    parts = re.split(rf"^{level} (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first_cells(text: str) -> str:
    """The first column of all tables in a text."""
    return "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))


def named(cells: str) -> set[str]:
    """Words in backquotes, up to the first blank."""
    return {name.split()[0] for name in re.findall(r"`([^`]+)`", cells)}


def options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and "--help" not in parameter.opts:
            yield from parameter.opts


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= README_WORDS


@pytest.mark.parametrize("name", main.commands)
def test_every_option_is_described_and_no_other(name: str) -> None:
    described = named(first_cells(sections(DOCS / "cli.md")[f"viddiff {name}"]))
    assert {option for option in described if option.startswith("-")} == set(options(main.commands[name]))


@pytest.mark.parametrize("name", main.commands)
def test_every_choice_and_default_is_described(name: str) -> None:
    text = sections(DOCS / "cli.md")[f"viddiff {name}"]
    rows = {line.split("|")[1].split("`")[1].split()[0]: line for line in text.splitlines() if "| `-" in line}
    for parameter in main.commands[name].params:
        if not isinstance(parameter, click.Option) or "--help" in parameter.opts:
            continue
        row = rows[parameter.opts[0]]
        if isinstance(parameter.type, click.Choice):
            assert all(choice in row for choice in parameter.type.choices), row
        if parameter.show_default and not parameter.is_flag:
            default, stated = parameter.default, row.split("|")[2].strip()
            assert stated == (f"{default:g}" if isinstance(default, float) else str(default)), row


def fields(value: Any) -> set[str]:
    """All names in a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(fields, value.values()))
    return set().union(*map(fields, value)) if isinstance(value, list) else set()


OPEN = {"facts", "scores", "tags", "video_tags", "mastering_display", "parts_kmac_per_pixel"}
"""Objects whose names do not come from viddiff, or are described in their own row."""


def closed(value: Any) -> Any:
    """A JSON value without the content of objects in `OPEN`."""
    if isinstance(value, dict):
        return {name: None if name in OPEN else closed(inner) for name, inner in value.items()}
    return [closed(inner) for inner in value] if isinstance(value, list) else value


def test_every_json_field_is_described(sources: Path, weights: Path, tmp_path: Path) -> None:
    vdf, described = tmp_path / "a.vdf", sections(DOCS / "json.md")
    common = ("--json", "-q", "--weights", weights)
    results = {
        "encode": run("encode", sources / "in.mkv", vdf, *common),
        "decode": run("decode", vdf, tmp_path / "a.mp4", *common),
        "compare": run("compare", sources / "in.mkv", vdf, "--against", "x264", *common),
        "cut": run("cut", vdf, tmp_path / "part.vdf", "--json"),
        "join": run("join", vdf, vdf, tmp_path / "both.vdf", "--json"),
        "thumbnail": run("thumbnail", vdf, tmp_path / "a.png", "--json", "--weights", weights),
        "info": run("info", vdf, "--json"),
        "info --model": run("info", "--model", "--json", "--weights", weights),
    }
    for section, result in results.items():
        assert result.exit_code == 0, result.output
        printed = fields(closed(json.loads(result.stdout.splitlines()[-1])))
        assert named(first_cells(described[section])) <= printed <= named(described[section]), section
        for example in re.findall(r"```json\n(.+?)\n```", described[section], re.DOTALL):
            assert fields(json.loads(example)) == printed


def test_every_json_field_of_a_batch_is_described(sources: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    out, described = tmp_path / "out", sections(DOCS / "json.md")
    common = ("--json", "-q", "--weights", weights, "--min-age", "0s", "--gop", 5)
    result = run("batch", sources / "in.mp4", tmp_path / "bad.mp4", out, *common)
    assert result.exit_code == 3, result.output
    lines = result.stdout.splitlines()
    manifest = (out / "manifest.jsonl").read_text().splitlines()
    for section, line in (("batch", lines[0]), ("batch totals", lines[-1]), ("manifest", manifest[0])):
        printed = fields(json.loads(line))
        (example,) = re.findall(r"```json\n(.+?)\n```", described[section], re.DOTALL)
        assert fields(json.loads(example)) == printed
        assert named(first_cells(described[section])) <= printed <= named(described[section]), section
    assert named(first_cells(described["manifest recordings"])) == set(Recording.__dataclass_fields__)


def test_the_example_of_progress_has_the_fields_of_progress() -> None:
    text = sections(DOCS / "json.md")["Progress"]
    (example,) = re.findall(r"```json\n(.+?)\n```", text, re.DOTALL)
    assert fields(json.loads(example)) == named(first_cells(text))


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.+?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.name)
def test_python_examples_run(page: Path, sources: Path, tmp_path: Path) -> None:
    """Examples run in their own process, in another folder, in the order of the page."""
    shutil.copy(sources / "in.mp4", tmp_path)
    script = tmp_path / "example.py"
    script.write_text("if __name__ == '__main__':\n" + indented("\n".join(python_blocks(page))))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def indented(code: str) -> str:
    return "".join(f"    {line}\n" for line in code.splitlines())


def test_links_of_the_readme_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_and_modules_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:scripts|tests|viddiff|docs)/[a-z_./]+)[`A-Z]", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`viddiff\.([a-z_]+)`", text):
        folder = ROOT / "viddiff" / name
        assert folder.is_dir() or name in ("encode", "decode", "compare", "open", "load_weights"), name


def test_every_package_is_in_the_table() -> None:
    packages = {f"viddiff.{path.parent.name}" for path in (ROOT / "viddiff").glob("*/__init__.py")}
    described = named(first_cells(sections(DOCS / "architecture.md")["Packages"]))
    assert {name for name in described if "." in name} == packages


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_completion_script(shell: str) -> None:
    instruction = f"_VIDDIFF_COMPLETE={shell}_source viddiff"
    assert instruction in (DOCS / "completion.md").read_text(encoding="utf-8")
    script = complete(f"{shell}_source", {})
    assert "viddiff" in script
    assert f"_VIDDIFF_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["enc"], {"encode"}),
        (["encode", "--pres"], {"--preset"}),
        (["encode", "--preset", "sl"], {"slow", "slower", "slowest"}),
    ],
)
def test_shells_complete(shell: str, words: list[str], expected: set[str]) -> None:
    line = {"COMP_WORDS": " ".join(["viddiff", *words]), "COMP_CWORD": str(len(words))}
    if shell == "fish":  # it gives the word itself, not its number
        line["COMP_CWORD"] = words[-1]
    assert expected <= set(re.split(r"[,\s]+", complete(f"{shell}_complete", line)))


def complete(instruction: str, line: dict[str, str]) -> str:
    """Output of viddiff when a shell asks for completions."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_VIDDIFF_COMPLETE": instruction, **line}
    code = "import sys; sys.argv = ['viddiff']; from viddiff.cli import main; main(prog_name='viddiff')"
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    ).stdout
