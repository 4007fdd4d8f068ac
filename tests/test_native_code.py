"""Compiled code that is kept: loaded without numba, never when it is damaged, and missed by nobody."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from viddiff import native_code
from viddiff.cli.printing import notes_of_compiling
from viddiff.native_code import Functions


def doubled(numbers: Any, count: int) -> None:
    for n in range(count):
        numbers[n] = 2 * numbers[n]


FUNCTIONS: Functions = {"doubled": (doubled, ("int64*", "int64"))}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder for code."""
    monkeypatch.setattr(native_code, "_folders", lambda: iter([tmp_path / "kept"]))
    return tmp_path / "kept"


def works(function: Callable[..., None]) -> bool:
    numbers = np.arange(5)
    function(numbers.ctypes.data, len(numbers))
    return numbers.tolist() == [0, 2, 4, 6, 8]


def test_code_is_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert native_code.load("a.native") is None
    assert not native_code.is_kept("a.native")
    assert works(native_code.build(FUNCTIONS, "a.native")["doubled"])
    assert [path.name for path in folder.iterdir()] == ["a.native"]
    loaded = native_code.load("a.native")
    assert loaded is not None
    assert works(loaded["doubled"])
    assert native_code.is_kept("a.native")
    messages = [record.getMessage() for record in caplog.records if record.name == native_code.__name__]
    assert messages == ["compiling code for this processor; later runs start faster"]


@pytest.mark.parametrize("quiet", [False, True])
def test_commands_say_that_code_is_compiled(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with notes_of_compiling(quiet):
        logging.getLogger(native_code.__name__).info("compiling")
    logging.getLogger(native_code.__name__).info("again")
    assert capsys.readouterr().err == ("" if quiet else "Note: compiling\n")


def test_another_process_needs_no_numba(folder: Path) -> None:
    native_code.build(FUNCTIONS, "a.native")
    code = f"""if True:
        import sys
        from pathlib import Path
        import numpy as np
        from viddiff import native_code
        native_code._folders = lambda: [Path({str(folder)!r})]
        numbers = np.arange(5)
        native_code.load("a.native")["doubled"](numbers.ctypes.data, 5)
        assert numbers.tolist() == [0, 2, 4, 6, 8]
        assert not {{"numba", "torch"}} & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_damaged_code_is_not_loaded(folder: Path) -> None:
    native_code.build(FUNCTIONS, "a.native")
    path = folder / "a.native"
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole + b"x", whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        path.write_bytes(damaged)
        assert native_code.load("a.native") is None


def test_a_folder_that_cannot_be_used_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is where the folder should be: nobody can write there, not even an administrator."""
    (tmp_path / "file").touch()
    places = [tmp_path / "file", tmp_path / "file" / "below", tmp_path / "good"]
    monkeypatch.setattr(native_code, "_folders", lambda: iter(places[:2]))
    assert native_code.load("a.native") is None
    assert works(native_code.build(FUNCTIONS, "a.native")["doubled"])
    assert not native_code.is_kept("a.native")
    monkeypatch.setattr(native_code, "_folders", lambda: iter(places))
    native_code.build(FUNCTIONS, "a.native")
    assert native_code.load("a.native") is not None, "the next folder is taken"


def test_functions_that_need_more_are_refused(folder: Path) -> None:
    def allocating(numbers: Any, count: int) -> None:
        numbers[0] = len([n for n in range(count)])

    with pytest.raises(Exception, match=r"cannot be kept|Cannot|Failed|NRT"):
        native_code.build({"allocating": (allocating, ("int64*", "int64"))}, "b.native")
    assert not native_code.is_kept("b.native")


def test_names_tell_sources_and_processors_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a.py"
    source.write_text("one")
    first = native_code.kept_name("a", [source])
    assert first == native_code.kept_name("a", [source])
    source.write_text("two")
    second = native_code.kept_name("a", [source])
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    third = native_code.kept_name("a", [source])
    assert len({first, second, third}) == 3


def test_code_is_kept_where_only_its_user_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = native_code.private_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert native_code.private_folder() == folder
    folder.chmod(0o777)
    with pytest.raises(PermissionError):
        native_code.private_folder()
    folder.rmdir()
    (tmp_path / "other").mkdir()
    folder.symlink_to(tmp_path / "other")
    with pytest.raises(PermissionError):
        native_code.private_folder()
