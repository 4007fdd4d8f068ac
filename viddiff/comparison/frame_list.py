"""A comparison as CSV: a row for every frame of every file."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from viddiff.comparison.results import ComparedFile, Comparison
from viddiff.pipeline.measures import MEASURES

COLUMNS = ("file", "frame", "file_frame", "seconds", "match", "bits")
"""Columns before those of the measures."""


def is_frame_list(path: Path) -> bool:
    """Whether a file is a CSV that `write_frame_list` has written."""
    head = ",".join(COLUMNS).encode()
    with open(path, "rb") as file:
        return file.read(len(head)) == head


def write_frame_list(comparison: Comparison, file: BinaryIO) -> None:
    """Write a heading and the rows. Raises OSError."""
    names = [m.name for m in MEASURES if m.name in comparison.files[0].scores]
    text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *names])
    for compared in comparison.files:
        writer.writerows(_rows(compared, names))
    text.detach()


def _rows(compared: ComparedFile, names: list[str]) -> Iterator[list[object]]:
    table = compared.frames
    bits, matched = table.bits(), table.matched
    places = np.cumsum(matched) - 1
    scores = [table.scores(name) for name in names]
    for row, (ours, theirs, time) in enumerate(zip(table.reference, table.file, table.times, strict=True)):
        kind = "matched" if matched[row] else "missing" if theirs < 0 else "extra"
        found: list[object] = (
            [f"{column[places[row]]:.6f}" for column in scores] if matched[row] else [""] * len(names)
        )
        yield [
            compared.video.path,
            "" if ours < 0 else ours,
            "" if theirs < 0 else theirs,
            f"{time:.6f}",
            kind,
            "" if theirs < 0 else f"{bits[row]:.0f}",
            *found,
        ]
