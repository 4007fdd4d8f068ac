"""What to compare."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from viddiff.comparison.frame_list import is_frame_list
from viddiff.comparison.inputs import Reading
from viddiff.comparison.report import is_report
from viddiff.config import MAX_GOP
from viddiff.media.other_codecs import OTHER_CODECS, OtherCodec
from viddiff.pipeline.job_values import among, check_engine, check_source, within
from viddiff.pipeline.measures import METRICS
from viddiff.pipeline.output_file import OutputFile, where
from viddiff.plots import new_figure

PICTURES = 3
"""How many of the worst frames of each file a report shows."""


@dataclass(frozen=True, kw_only=True)
class CompareJob:
    """What to compare. Raises ValueError if an option is out of range."""

    reference: Path
    files: tuple[Path, ...]
    metrics: tuple[str, ...] | None = None
    """Of `measures.METRICS`. None: all that this machine has."""
    against: tuple[str, ...] = ()
    """Names of other codecs that encode the reference, see `OTHER_CODECS`."""
    gop: int | None = None
    """Longest distance between their keyframes, in frames. None: that of the files."""
    scale: bool = False
    """Bring files of another size to the reference's."""
    stored_times: bool = False
    """Match by the times in the files. Otherwise both count from their first frames."""
    csv: Path | None = None
    """A file for the scores of all frames."""
    html: Path | None = None
    """A file for the report."""
    force: bool = False
    """Replace these files if they are what a comparison writes."""
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        check_engine(self.reading.engine, self.reading.device)
        if not self.files:
            raise ValueError("name a file to compare with the reference")
        for name in self.metrics or ():
            among("metric", name, METRICS)
        for name in self.against:
            among("codec", name, tuple(OTHER_CODECS))
        if self.csv is not None and self.csv == self.html:
            raise ValueError("the list of frames and the report are two files")
        if self.gop is not None:
            within("gop", self.gop, range(1, MAX_GOP + 1))
        if self.reading.workers is not None:
            within("workers", self.reading.workers, range(1, 1 << 31))

    @property
    def codecs(self) -> tuple[OtherCodec, ...]:
        """The other codecs, each once."""
        return tuple(OTHER_CODECS[name] for name in dict.fromkeys(self.against))

    @property
    def readings(self) -> int:
        """How often the reference is read: for each file, and twice for each encode by another codec."""
        return len(self.files) + 2 * sum(len(codec.settings) for codec in self.codecs)

    @property
    def pictures(self) -> int:
        """How many of the worst frames of each file the report shows."""
        return PICTURES if self.html is not None else 0

    @cached_property
    def outputs(self) -> dict[str, OutputFile]:
        """The files to write: "csv", "html"."""
        found = {}
        if self.csv is not None:
            found["csv"] = OutputFile(where(self.csv), self.force, is_frame_list, "such a list of frames")
        if self.html is not None:
            found["html"] = OutputFile(where(self.html), self.force, is_report, "such a report")
        return found

    def check_files(self) -> None:
        """Raises ViddiffError if a file does not exist, or if an output cannot be written."""
        for path in (self.reference, *self.files):
            check_source(path, str(path))
        for output in self.outputs.values():
            output.check()
        if self.html is not None:
            new_figure(1, 1, "--html")
