"""Compare files with a reference, and with other codecs."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from viddiff.comparison.against import compare_against, interval_of
from viddiff.comparison.compare_job import CompareJob
from viddiff.comparison.comparer import Comparer
from viddiff.comparison.curves import bd_rates, curves
from viddiff.comparison.frame_list import write_frame_list
from viddiff.comparison.report import report
from viddiff.comparison.results import Comparison
from viddiff.media.other_codecs import libav_version
from viddiff.media.vmaf import vmaf_version
from viddiff.pipeline.measures import choose
from viddiff.pipeline.output_file import complete_file
from viddiff.pipeline.status import Observer, ignore
from viddiff.version import __version__


def compare_files(job: CompareJob, observer: Observer = ignore) -> Comparison:
    """Run `job`. Raises ViddiffError, OSError; no output is there then that was not there before."""
    job.check_files()
    with ExitStack() as stack:
        for output in job.outputs.values():
            stack.enter_context(output.claim())
        comparison = _compare(job, observer)
        for kind, output in job.outputs.items():
            with complete_file(output, lambda _: None) as file:
                if kind == "csv":
                    write_frame_list(comparison, file)
                else:
                    file.write(report(comparison))
    return comparison


def _compare(job: CompareJob, observer: Observer) -> Comparison:
    started = time.monotonic()
    metrics, notes = choose(job.metrics)
    comparer = Comparer(job, metrics, observer)
    comparer.check_sizes()
    names = distinct_names(job.files)
    files = [comparer.compare(path, name, job.pictures) for path, name in zip(job.files, names, strict=True)]
    interval = job.gop or interval_of(files)
    others = list(compare_against(job.codecs, comparer, interval))
    found = curves(files, others)
    facts = {"viddiff": __version__, "libav": libav_version()}
    if "vmaf" in metrics:
        facts["VMAF"] = vmaf_version()
    facts |= {codec.name: codec.settings_text(interval) for codec in job.codecs}
    return Comparison(
        reference=comparer.reference,
        files=tuple(files),
        others=tuple(others),
        curves=found,
        bd_rates=bd_rates(found),
        facts=facts,
        notes=(*comparer.notes, *notes),
        seconds=time.monotonic() - started,
    )


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Names for files: their own, with as many folders in front as it takes to tell them apart."""
    names = [path.name for path in paths]
    for count in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        if len(set(names)) == len(set(paths)):
            break
        names = ["/".join(path.parts[-count:]) for path in paths]
    return names
