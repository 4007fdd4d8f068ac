"""What commands print: JSON, notes, sizes; nothing that a hostile file could command a terminal with.

A stderr that cannot be written never ends a command: its work is worth more than its words.
"""

import json
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import click

_JOINERS = "\u200c\u200d"
"""Not printable by themselves, but scripts and emoji need them."""


def print_json(values: dict[str, Any], err: bool = False) -> None:
    """One JSON object on a line of stdout; of stderr where data goes to stdout."""
    click.echo(json.dumps(values), err=err)


def objects(as_json: bool, stdout: bool) -> TextIO | None:
    """Where JSON goes, if it is asked for; stdout: whether data goes there."""
    return (sys.stderr if stdout else sys.stdout) if as_json else None


def say(line: str) -> None:
    """A line on stderr, if that can be written."""
    with suppress(OSError):
        click.echo(line, err=True)


def printable(text: str) -> str:
    """`text`, which may come from a hostile file, on one line and without what commands a terminal."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() or c in _JOINERS else "\N{REPLACEMENT CHARACTER}" for c in line)


def print_notes(notes: Iterable[str], quiet: bool) -> None:
    """What the user should know of, on stderr."""
    for note in () if quiet else notes:
        say(f"Note: {printable(note)}")


@contextmanager
def notes_of_errors(quiet: bool) -> Iterator[None]:
    """Print what an error that ends the block adds to its message."""
    try:
        yield
    except BaseException as error:
        print_notes(getattr(error, "__notes__", ()), quiet)
        raise


def size_text(size: float) -> str:
    """1234567 as "1.23 MB"."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def sentence(error: BaseException) -> str:
    """What went wrong, on one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return printable(text) or type(error).__name__


def say_ended(error: BaseException, outcome: str) -> int:
    """Say what ended a job whose file is complete all the same; the exit code."""
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
    """The words " by SIGTERM" for the exit code 143, and so on."""
    with suppress(ValueError):
        return f" by {signal.Signals(code - 128).name}"
    return ""
