"""Measure speed by preset beside x265, SVT-AV1 and dav1d, and memory by length.

    python scripts/speed.py CLIP --out speed

Each case is one command: of `viddiff`, or of the ffmpeg binary of the package imageio-ffmpeg (the extra
`bench`). It runs over several lengths of the clip. Cases take turns, round after round, so that other work
on the machine affects all of them. Results are medians of the rounds. The difference between the longest and
the shortest run gives the steady rate; the rest of the shortest is start-up. Memory is the sum of the peaks
of all processes of a command. Shared libraries count for each process, so the real memory is less. What the
networks alone reach on one core comes from `kernel_speed`.
"""

import argparse
import contextlib
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmark import commit, cpu_model, write
from kernel_speed import network_gmacs, peak_gmacs
from points import ffmpeg
from report import plain

from viddiff import __version__
from viddiff.codec.engine.instruction_sets import instruction_sets
from viddiff.encoder.presets import PRESETS
from viddiff.networks.enhancement_config import SMALL

POLL_SECONDS = 0.02
"""Interval at which memory and the end of a command are checked."""
ENCODERS = {
    "x265 medium": ("libx265", "-preset", "medium", "-crf", "26", "-x265-params", "log-level=error"),
    "SVT-AV1 preset 6": ("libsvtav1", "-preset", "6", "-crf", "36"),
    "SVT-AV1 preset 4": ("libsvtav1", "-preset", "4", "-crf", "36"),
    "SVT-AV1 preset 8": ("libsvtav1", "-preset", "8", "-crf", "36"),
}
"""Other encoders, as arguments of ffmpeg."""
BASE_ONLY, DAV1D = "--base-only", "dav1d"
"""Decoders of the base alone: this project's, and ffmpeg with dav1d."""


@dataclass(frozen=True)
class Case:
    """A case to measure."""

    work: str
    """"encode" or "decode"."""
    coder: str
    """A preset, one of ENCODERS, BASE_ONLY or DAV1D."""
    workers: int | None
    """Processes. None: as many processes and threads as the program chooses."""

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"{self.work} {self.coder}" + ("" if self.workers is None else f", {self.workers} workers")


@dataclass(frozen=True)
class Run:
    """Result of one command."""

    wall_s: float
    cpu_s: float
    """Of all its processes together."""
    peak_mib: float | None
    """None where there is no /proc."""


@dataclass(frozen=True)
class Result:
    """Medians of the runs of a case, by length."""

    case: Case
    runs: dict[int, Run]
    """By number of frames, in increasing order."""

    @property
    def fps(self) -> float | None:
        """Steady rate in frames per second of wall clock. None if the runs are too short."""
        return self._rate([run.wall_s for run in self.runs.values()])

    @property
    def cpu_fps(self) -> float | None:
        """Steady rate in frames per second of processor time."""
        return self._rate([run.cpu_s for run in self.runs.values()])

    @property
    def startup_s(self) -> float | None:
        """Seconds that do not depend on the length."""
        fewest = min(self.runs)
        return None if self.fps is None else self.runs[fewest].wall_s - fewest / self.fps

    def _rate(self, seconds: list[float]) -> float | None:
        spent = seconds[-1] - seconds[0]
        return (max(self.runs) - min(self.runs)) / spent if spent > 0 else None


def viddiff(*arguments: str) -> list[str]:
    """A command of this project."""
    return [sys.executable, "-m", "viddiff", *arguments]


def run(command: list[str]) -> Run:
    """Run a command. Raises SystemExit if it fails."""
    peaks, spent = dict[int, float](), dict[int, float]()
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            for pid in processes(process.pid):
                peaks[pid] = max(peaks.get(pid, 0.0), peak_mib(pid))
                spent[pid] = max(spent.get(pid, 0.0), cpu_s(pid))
            time.sleep(POLL_SECONDS)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{shlex.join(command)} failed:\n{said.read().decode(errors='replace').strip()}")
    spent[process.pid] = usage.ru_utime + usage.ru_stime
    return Run(wall, sum(spent.values()), sum(peaks.values()) or None)


def processes(pid: int) -> Iterator[int]:
    """The process and its descendants, according to /proc."""
    yield pid
    children = list[int]()
    with contextlib.suppress(OSError):  # it has ended
        for threads in Path(f"/proc/{pid}/task").glob("*/children"):
            children += map(int, threads.read_text().split())
    for child in children:
        yield from processes(child)


def peak_mib(pid: int) -> float:
    """Peak resident memory of a process; 0 if unknown."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(sizes[0]) / 1024 if sizes else 0.0


def cpu_s(pid: int) -> float:
    """Processor time of a process; 0 if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    cases: list[Case], lengths: list[int], rounds: int, common: list[str], clip: Path
) -> list[Result]:
    """Run every case over all lengths, round after round. common: options of encode.

    The first case encodes what others decode.
    """
    runs: dict[tuple[Case, int], list[Run]] = {(case, frames): [] for case in cases for frames in lengths}
    with tempfile.TemporaryDirectory(prefix="viddiff-speed-") as name:
        folder = Path(name)
        for number in range(rounds):
            for frames in lengths:
                for case in cases:
                    if case.coder == DAV1D:
                        run(viddiff("base", *_files(folder, cases[0], frames), "--force", "--quiet"))
                    taken = run(command_of(case, frames, common, clip, folder, cases[0]))
                    runs[case, frames].append(taken)
                    title = f"round {number + 1}: {case.title}, {frames} frames"
                    print(f"{title}: {taken.wall_s:.2f} s", file=sys.stderr, flush=True)
    return [Result(case, {frames: middle(runs[case, frames]) for frames in lengths}) for case in cases]


def _files(folder: Path, case: Case, frames: int) -> tuple[str, str]:
    """What a case encodes, and its base."""
    coded = folder / f"{case.coder}-{frames}.vdf"
    return str(coded), str(coded.with_suffix(".mp4"))


def command_of(
    case: Case, frames: int, common: list[str], clip: Path, folder: Path, encoded: Case
) -> list[str]:
    """The command of a case. Decoding uses the file of `encoded`."""
    foreign = [ffmpeg(), "-v", "error", "-nostdin", "-y"]
    if case.coder in ENCODERS:
        reading = ["-i", str(clip), "-frames:v", str(frames), "-an", "-sn"]
        return [*foreign, *reading, "-c:v", *ENCODERS[case.coder], str(folder / "other.mkv")]
    coded, base = _files(folder, encoded, frames)
    if case.coder == DAV1D:
        shown = ["-f", "rawvideo", "-pix_fmt", "yuv420p", str(folder / "decoded.yuv")]
        return [*foreign, "-c:v", "libdav1d", "-i", base, *shown]
    ends = [] if case.workers is None else ["--workers", str(case.workers)]
    ends += ["--force", "--quiet"]
    if case.work == "encode":
        coded, _ = _files(folder, case, frames)
        options = ["--frames", str(frames), "--preset", case.coder, *common, *ends]
        return viddiff("encode", str(clip), coded, *options)
    only = [BASE_ONLY] if case.coder == BASE_ONLY else []
    return viddiff("decode", coded, str(folder / "decoded.y4m"), *only, *ends)


def middle(runs: list[Run]) -> Run:
    """The median of each value, and the highest peak."""
    peaks = [run.peak_mib for run in runs if run.peak_mib is not None]
    return Run(
        median(run.wall_s for run in runs), median(run.cpu_s for run in runs), max(peaks) if peaks else None
    )


def ratios(results: list[Result]) -> dict[str, float]:
    """Ratios of steady rates: more workers to fewer, other presets to the default, all to other codecs."""
    found = {}
    for base in results:
        for other in results:
            a, b = base.case, other.case
            if a.work != b.work or base.fps is None or other.fps is None:
                continue
            if a.coder == b.coder and a.workers and b.workers and a.workers < b.workers:
                found[f"{a.work} {a.coder}, {b.workers} workers / {a.workers}"] = other.fps / base.fps
            if a.coder == "default" != b.coder and b.coder in PRESETS and a.workers == b.workers:
                found[f"{a.work}, {b.coder} / default"] = other.fps / base.fps
            if a.coder in (*ENCODERS, DAV1D) and b.coder in (*PRESETS, BASE_ONLY):
                found[f"{b.title} / {a.coder}"] = other.fps / base.fps
    return found


def markdown(results: list[Result], facts: dict[str, str]) -> str:
    """All results as tables."""
    lengths = list(results[0].runs)
    rows = [["", "by", "workers", "fps", "frames per CPU s", "start-up, s"]]
    rows[0] += [f"MiB, {frames} frames" for frames in lengths]
    for result in results:
        figures = (result.fps, result.cpu_fps, result.startup_s)
        row = [result.case.work, result.case.coder, str(result.case.workers or "own choice")]
        row += ["–" if figure is None else f"{figure:.2f}" for figure in figures]
        peaks = [run.peak_mib for run in result.runs.values()]
        rows.append(row + ["–" if peak is None else f"{peak:.0f}" for peak in peaks])
    rows.insert(1, ["---"] * len(rows[0]))
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    compared = "\n".join(f"* {name}: {ratio:.2f}" for name, ratio in ratios(results).items())
    known = "\n".join(f"* {name}: {fact}" for name, fact in facts.items())
    compared = compared or "* the runs are too short to tell"
    return f"{table}\n\nRatios of the steady rates:\n\n{compared}\n\n{known}\n"


def network_facts() -> dict[str, str]:
    """What the networks reach on one core."""
    best = instruction_sets()[0]
    rate, peak = network_gmacs(best, SMALL, 1280, 720), peak_gmacs(best)
    said = f"{rate:.0f} GMAC/s of one core, {rate / peak:.0%} of the peak of {best.name}, {peak:.0f}"
    return {f"network {SMALL.name} at 1280x720": said}


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of positive numbers")
    return sorted({int(part) for part in parts})


def _presets(text: str) -> list[str]:
    if not set(text.split(",")) <= set(PRESETS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of presets out of {', '.join(PRESETS)}")
    return list(dict.fromkeys(text.split(",")))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = made.add_argument
    add("clip", type=Path, help="as long as the longest of --lengths")
    add("--out", type=Path, default=Path("speed"), help="folder for the results (default: %(default)s)")
    add("--lengths", type=_numbers, default=[64, 256], metavar="N,N", help="frames (default: 64,256)")
    add("--gop", type=int, default=128, help="longest GOP (default: %(default)s)")
    add("--workers", type=_numbers, default=[None], metavar="N,..", help="processes (default: automatic)")
    add("--presets", type=_presets, default=list(PRESETS), metavar="NAME,..",
        help="the first one with all --workers, others with the fewest (default: all)")  # fmt: skip
    add("--alone", action="store_true", help="measure no other codec")
    add("--no-base", action="store_true", help="measure files without an AV1 base, alone")
    add("--quality", type=int, default=32, help="0..63 (default: %(default)s)")
    add("--rounds", type=int, default=3, help="of all the cases (default: %(default)s)")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table and write it."""
    chosen = parser().parse_args(arguments)
    presets = sorted(chosen.presets, key=lambda name: name != "default")
    cases = [Case("encode", presets[0], workers) for workers in chosen.workers]
    cases += [Case("encode", preset, chosen.workers[0]) for preset in presets[1:]]
    cases += [Case("decode", presets[0], workers) for workers in chosen.workers]
    if not chosen.no_base:
        cases.append(Case("decode", BASE_ONLY, chosen.workers[0]))
    if not (chosen.alone or chosen.no_base):
        cases += [Case("encode", name, None) for name in ENCODERS] + [Case("decode", DAV1D, None)]
    common = ["--gop", str(chosen.gop), "--quality", str(chosen.quality)]
    common += ["--base", "none"] if chosen.no_base else []
    results = measure(cases, chosen.lengths, chosen.rounds, common, chosen.clip)
    facts: dict[str, str] = {
        "command": shlex.join(["python", *sys.argv]),
        "clip": chosen.clip.name,
        "commit": commit(),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "software": f"viddiff {__version__}, Python {platform.python_version()}",
        "load before": ", ".join(f"{load:.2f}" for load in os.getloadavg()),
        **network_facts(),
    }
    data: dict[str, Any] = {"facts": facts, "ratios": ratios(results), "results": plain(results)}
    for row, result in zip(data["results"], results, strict=True):
        row |= {"fps": result.fps, "cpu_fps": result.cpu_fps, "startup_s": result.startup_s}
    chosen.out.mkdir(parents=True, exist_ok=True)
    write(chosen.out / "speed.json", json.dumps(data, indent=1))
    write(chosen.out / "speed.md", markdown(results, facts))
    print(markdown(results, facts))


if __name__ == "__main__":
    main()
