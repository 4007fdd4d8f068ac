"""Output of commands: JSON, notes, sizes, without control codes from hostile files.

If stderr cannot be written, the command continues: its work is worth more than its messages.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import click

_JOINERS = "\u200c\u200d"
"""Characters that are not printable by themselves, but that scripts and emoji need."""


def print_json(values: dict[str, Any], err: bool = False) -> None:
    """Print one JSON object on a line of stdout, or of stderr if data goes to stdout."""
    click.echo(json.dumps(values, default=path_text), err=err)


def path_text(path: str | Path) -> str:
    """A path as text that is the same in every locale: UTF-8, other bytes as half surrogates (PEP 383)."""
    return os.fsencode(path).decode(errors="surrogateescape")


def objects(as_json: bool, stdout: bool) -> TextIO | None:
    """Stream for JSON, if it is asked for. stdout: data goes there."""
    return (sys.stderr if stdout else sys.stdout) if as_json else None


def say(line: str) -> None:
    """Print a line on stderr, if possible."""
    with suppress(OSError):
        click.echo(line, err=True)


def printable(text: str) -> str:
    """`text` on one line and without control codes. It may come from a hostile file."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() or c in _JOINERS else "\N{REPLACEMENT CHARACTER}" for c in line)


def print_notes(notes: Iterable[str], quiet: bool) -> None:
    """Print notes for the user on stderr."""
    for note in () if quiet else notes:
        say(f"Note: {printable(note)}")


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"Note: {record.getMessage()}")


@contextmanager
def notes_of_compiling(quiet: bool) -> Iterator[None]:
    """Say, if it comes to that, that code is compiled, which happens once after an installation."""
    logger, notes = logging.getLogger("viddiff.native_code"), _Notes()
    before = logger.level
    if not quiet:
        logger.setLevel(logging.INFO)
        logger.addHandler(notes)
    try:
        yield
    finally:
        logger.removeHandler(notes)
        logger.setLevel(before)


@contextmanager
def notes_of_errors(quiet: bool) -> Iterator[None]:
    """Print the notes of an error that ends the block."""
    try:
        yield
    except BaseException as error:
        print_notes(getattr(error, "__notes__", ()), quiet)
        raise


def size_text(size: float) -> str:
    """Text for a size: 1234567 is "1.23 MB"."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def time_text(seconds: float) -> str:
    """Text for a time, in the form of --start: 83.5 is "01:23.500"."""
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:02}:{minutes:02}:{rest:06.3f}" if hours else f"{minutes:02}:{rest:06.3f}"


def sentence(error: BaseException) -> str:
    """The message of an error on one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return printable(text) or type(error).__name__


def say_ended(error: BaseException, outcome: str) -> int:
    """Say what ended a job whose file is complete, and return the exit code."""
    if isinstance(error, KeyboardInterrupt):
        say(f"Interrupted: {printable(outcome)}")
        return 130
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        say(f"Ended{_by_signal(code)}: {printable(outcome)}")
        return code
    say(f"Error: {sentence(error)}; {printable(outcome)}")
    return 1


def _by_signal(code: int) -> str:
    """Text for an exit code: " by SIGTERM" for 143, and so on."""
    with suppress(ValueError):
        return f" by {signal.Signals(code - 128).name}"
    return ""
