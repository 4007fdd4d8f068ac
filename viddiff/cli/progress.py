"""Progress on stderr: a bar on a terminal, otherwise lines after 1, 2, 4, 8, .. seconds; JSON for scripts."""

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from viddiff.pipeline.quality_goal import GoalReport
    from viddiff.pipeline.status import Status


class Progress:
    """Counts frames, with or without a known total. `label` names the work. A quiet one prints nothing."""

    def __init__(
        self,
        label: str,
        total: int | None,
        quiet: bool = False,
        stream: TextIO | None = None,
        objects: TextIO | None = None,
        prefix: str = "",
        about: Mapping[str, Any] | None = None,
        counted: str = "frames",
    ) -> None:
        """stream: for text, stderr by default. objects: for a JSON object every second.

        prefix: before the label in text. about: more fields of the objects. counted: "frames" or "seconds".
        """
        self._counted = counted
        self._prefix, self._about = prefix, about or {}
        self._label, self._total, self._quiet = label, total, quiet
        self._stream, self._objects = sys.stderr if stream is None else stream, objects
        self._started = time.monotonic()
        self._next_line = self._next_object = 1.0
        self._bar: Any = None
        self.frames = 0

    def __enter__(self) -> Self:
        if not self._quiet and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=self._prefix + self._label,
                total=self._total,
                unit=f" {self._counted}",
                file=self._stream,
                dynamic_ncols=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started

    def update(
        self, frames: int, size_bytes: int | None = None, target: dict[str, Any] | None = None
    ) -> None:
        """`frames` are done so far, and `size_bytes` are written. target: what is known of it, for JSON."""
        added, self.frames = frames - self.frames, frames
        if self._objects is not None and not self._quiet and self.seconds >= self._next_object:
            self._next_object = self.seconds + 1
            print(json.dumps(self._object(size_bytes, target)), file=self._objects, flush=True)
        size = "" if size_bytes is None else f"{size_bytes / 1000:.1f} kB"
        if size and (predicted := self._predicted(size_bytes)) is not None:
            size += f" of about {predicted / 1000:.1f} kB"
        if self._bar is not None:
            self._bar.set_postfix_str(size, refresh=False)
            self._bar.update(added)
        elif not self._quiet and self.seconds >= self._next_line:
            while self._next_line <= self.seconds:
                self._next_line *= 2
            print(self._line(size), file=self._stream, flush=True)

    def _line(self, size: str) -> str:
        rate = self.frames / max(self.seconds, 1e-9)
        parts = [f"{self.frames}{f'/{self._total}' if self._total else ''} {self._counted}"]
        if self._counted == "frames":
            parts.append(f"{rate:.2f} fps")
        if (left := self._left(rate)) is not None:
            parts.append(f"{left:.0f} s left")
        return f"{self._prefix}{self._label}: " + ", ".join(parts + [size] * bool(size))

    def _object(self, size_bytes: int | None, target: dict[str, Any] | None) -> dict[str, Any]:
        rate = self.frames / max(self.seconds, 1e-9)
        return {
            "progress": self._label,
            "frames": self.frames,
            "total": self._total,
            "counted": self._counted,
            "seconds": round(self.seconds, 3),
            "fps": round(rate, 3),
            "eta": self._left(rate),
            "bytes": size_bytes,
            "predicted_bytes": self._predicted(size_bytes),
            "target": target,
            **self._about,
        }

    def _left(self, rate: float) -> float | None:
        """Seconds left, if known."""
        if not self._total or not rate:
            return None
        return round(max(self._total - self.frames, 0) / rate, 3)

    def _predicted(self, size_bytes: int | None) -> int | None:
        """Final size, if later frames take as many bytes as those so far."""
        if size_bytes is None or not self._total or not self.frames:
            return None
        return round(size_bytes * max(self._total / self.frames, 1))


def target_values(report: "GoalReport | None") -> dict[str, Any] | None:
    """What is known of a quality that is searched for, as JSON values."""
    if report is None:
        return None
    values = asdict(report)
    for name in ("predicted", "reached"):
        values[name] = None if values[name] is None else round(values[name], 4)
    return values


class Watcher:
    """Shows the progress of a job, stage by stage. Shows nothing if stderr cannot be written."""

    def __init__(
        self,
        quiet: bool,
        objects: TextIO | None,
        prefix: str = "",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """objects: stream for JSON, or None. prefix: before the text. about: more fields of the JSON."""
        self._quiet, self._objects, self._prefix, self._about = quiet, objects, prefix, about
        self._stage, self._shown = "", Progress("", None, quiet=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._shown.__exit__()

    def __call__(self, status: "Status") -> None:
        """Show a job's status."""
        with suppress(OSError):
            if status.stage != self._stage:
                self._shown.__exit__()
                self._stage = status.stage
                self._shown = Progress(
                    status.stage,
                    status.total,
                    self._quiet,
                    objects=self._objects,
                    prefix=self._prefix,
                    about=self._about,
                    counted=status.counted,
                )
                self._shown.__enter__()
            if status.frames:
                self._shown.update(status.frames, status.size_bytes, target_values(status.quality_goal))
