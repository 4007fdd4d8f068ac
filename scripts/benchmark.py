"""Rate-distortion curves, BD-rates and speeds of viddiff beside x265, SVT-AV1 and VVenC on the same frames.

    python scripts/benchmark.py CLIPS ... --out benchmark --viddiff "slow=--preset slow"

writes results.md, results.json, rd.png and size-NAME.svg to the output folder. Each point of a curve is a
job for one core; what the other codecs gave is kept in a cache and used again where clip, frames, command and
version are the same. Of viddiff the whole .vdf is counted, written and read by the program that users run.
"""

import argparse
import fnmatch
import hashlib
import json
import multiprocessing
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from points import (
    Codec,
    FfmpegCodec,
    Point,
    Source,
    Viddiff,
    anchors,
    ffmpeg,
    measure_point,
    now,
)
from report import Clip, bd_rates, markdown, plain, summary
from result_plots import curves_plot, sizes_plots

from viddiff.config import QUALITIES
from viddiff.errors import ViddiffError
from viddiff.media.ffmpeg_program import ffmpeg_version
from viddiff.media.vmaf import has_vmaf
from viddiff.version import __version__

SUFFIXES = {".mkv", ".mp4", ".mov", ".webm", ".avi", ".y4m"}
DEFAULT_ANCHORS = ("x265", "svt6", "svt4")


@dataclass(frozen=True)
class Job:
    """One point to measure."""

    video: Path
    codec: Codec
    setting: int
    frames: int | None
    vmaf: bool


@dataclass(frozen=True)
class Cache:
    """Points on disk, each in a file of its own that is named by what the point depends on."""

    folder: Path
    fresh: bool = False
    """Ignore what is there, and write it anew."""

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"

    def get(self, key: str, vmaf: bool) -> Point | None:
        """A point measured before, with VMAF if that is wanted."""
        path = self._path(key)
        if self.fresh or not path.exists():
            return None
        point = Point.of(json.loads(path.read_text())["point"])
        return None if vmaf and point.fidelity.vmaf is None else point

    def put(self, key: str, point: Point) -> None:
        """Keep a point."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self._path(key), json.dumps({"key": key, "point": plain(point)}, indent=1))


def describe(video: Path, frames: int | None) -> Clip:
    """What a clip is, without any point."""
    with tempfile.TemporaryDirectory(prefix="viddiff-benchmark-") as folder:
        source = Source.read(video, Path(folder), frames)
    info = source.info
    size = info.width, info.height, info.bit_depth, source.frames, float(info.frame_rate)
    return Clip(source.name, *size, source.digest, source.notes)


def measure(job: Job) -> Point:
    """Do a job."""
    with tempfile.TemporaryDirectory(prefix="viddiff-benchmark-") as folder:
        return measure_point(
            job.codec, job.setting, Source.read(job.video, Path(folder), job.frames), job.vmaf
        )


def run(
    videos: list[Path], codecs: list[Codec], frames: int | None, vmaf: bool, cache: Cache, workers: int
) -> list[Clip]:
    """Measure every codec's curve on every clip, as many points at a time as there are workers."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        clips = list(pool.map(describe, videos, [frames] * len(videos)))
        waiting = []
        for video, clip in zip(videos, clips, strict=True):
            for codec in codecs:
                for setting in codec.ladder:
                    job = Job(video, codec, setting, frames, vmaf)
                    key = cache_key(clip, codec, setting)
                    point = cache.get(key, vmaf) if key else None
                    waiting.append((clip, codec.name, key, point or pool.submit(measure, job)))
        try:
            for clip, name, key, found in waiting:
                kept = isinstance(found, Point)
                point = found if isinstance(found, Point) else found.result()
                clip.points.setdefault(name, []).append(point)
                tell(clip, name, point, " (kept)" if kept else "")
                if key and not kept:
                    cache.put(key, point)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return clips


def cache_key(clip: Clip, codec: Codec, setting: int) -> str | None:
    """All that a point of another codec depends on; None for viddiff, which changes."""
    if not isinstance(codec, FfmpegCodec):
        return None
    command = " ".join(codec.arguments(setting))
    return f"{clip.digest} {clip.frames} frames, ffmpeg {ffmpeg_version(ffmpeg())} {command}"


def tell(clip: Clip, name: str, point: Point, remark: str) -> None:
    """A line of progress."""
    fidelity = point.fidelity
    vmaf = "" if fidelity.vmaf is None else f", VMAF {fidelity.vmaf:.1f}"
    speed = ", ".join(
        f"{work} {clip.frames / getattr(point, work).cpu_s:.1f} fps" for work in ("encode", "decode")
    )
    figures = f"{point.size_bytes} bytes, {fidelity.psnr_611:.2f} dB{vmaf}, {speed}{remark}"
    print(f"{clip.name}  {name} {point.setting}: {figures}", file=sys.stderr, flush=True)


def find_clips(places: list[Path], pattern: str) -> list[Path]:
    """Video files of folders by name, and single files."""
    found = []
    for place in places:
        if not place.exists():
            raise SystemExit(f"{place} is neither a folder of clips nor a clip")
        inside = [place] if place.is_file() else sorted(place.iterdir())
        found += [path for path in inside if path == place or path.suffix.lower() in SUFFIXES]
    matching = [path for path in found if fnmatch.fnmatch(path.name, pattern)]
    if not matching:
        raise SystemExit(f"no clip matches {pattern}")
    return matching


def write(path: Path, text: str) -> None:
    """Write a file, complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(text)
    temporary.replace(path)


def facts(codecs: list[Codec], clips: list[Clip], interval: int) -> dict[str, str]:
    """What was run, where and how, to be read beside the figures."""
    found = {
        "command": shlex.join(["python", *sys.argv]),
        "finished": f"{now()} UTC",
        "commit": commit(),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "software": f"viddiff {__version__}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "av")),
        "clips": f"{len(clips)}, {sum(clip.frames for clip in clips)} frames",
        "keyframes": f"at most {interval} frames apart, for every codec",
        "threads": "one for each codec, encoding and decoding; several points at a time",
        "bytes": "viddiff: the whole .vdf file; others: the raw elementary stream, no container, without SEI "
        "(x265) or temporal delimiters (SVT-AV1)",
        "PSNR": "from the mean squared error over all frames; 6:1:1 is (6 Y + U + V) / 8",
        "speed": "frames for each second of one core, the start of the program included",
    }
    for codec in codecs:
        program = ["viddiff", "encode"]
        if isinstance(codec, FfmpegCodec):
            program = ["ffmpeg"]
            found["ffmpeg"] = ffmpeg_version(ffmpeg())
        command = [*program, *codec.arguments("N")]
        dates = [point.measured for clip in clips for point in clip.points[codec.name]]
        found[codec.title] = f"`{shlex.join(command)}`, measured {min(dates)} to {max(dates)} UTC"
    return found


def commit() -> str:
    """Commit of the working copy, marked where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        name = subprocess.check_output([*git, "rev-parse", "HEAD"], stderr=subprocess.DEVNULL, text=True)
        changed = subprocess.check_output([*git, "status", "--porcelain"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.strip() + (" with changes" if changed.strip() else "")


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (names and names[0]) or platform.processor() or "unknown processor"


def _qualities(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) < QUALITIES for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of qualities from 0 to {QUALITIES - 1}")
    return tuple(sorted({int(part) for part in parts}))


def _anchors(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    known = anchors(1)
    if not set(names) <= set(known):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of codecs out of {', '.join(known)}")
    return names


def _viddiff(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, options = text.partition("=")
    if not equals or not re.fullmatch(r"\w+", name) or name in anchors(1):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=OPTIONS with a name of its own")
    return name, tuple(shlex.split(options))


def add_options(made: argparse.ArgumentParser, out: str) -> None:
    """Options that every benchmark has."""
    add = made.add_argument
    add("--out", type=Path, default=Path(out), help="folder for the results (default: %(default)s)")
    add("--cache", type=Path, help="folder for the other codecs' points (default: OUT/anchors)")
    add("--weights", type=Path, help="weights of viddiff (default: the released ones)")
    add("--qualities", type=_qualities, default=(13, 22, 31, 40), metavar="Q,Q,...",
        help="qualities of viddiff, 0..63 (default: 13,22,31,40)")  # fmt: skip
    add("--anchors", type=_anchors, default=DEFAULT_ANCHORS, metavar="NAME,...",
        help=f"codecs to compare with, of {', '.join(anchors(1))}; '' for none "
        f"(default: {','.join(DEFAULT_ANCHORS)})")  # fmt: skip
    add("--fresh-anchors", action="store_true", help="measure the other codecs again")
    add("--interval", type=int, default=128,
        help="most frames from one keyframe to the next, for all (default: %(default)s)")  # fmt: skip
    add("--vmaf", action=argparse.BooleanOptionalAction, default=True, help="measure VMAF")
    add("--workers", type=int, default=os.cpu_count() or 1,
        help="points measured at a time, one core each (default: all cores)")  # fmt: skip


def prepare(chosen: argparse.Namespace) -> Cache:
    """Check these options, leave out what cannot be measured, make the folder for the results."""
    if min(chosen.workers, chosen.interval) < 1:
        raise SystemExit("--workers and --interval must be at least 1")
    if chosen.vmaf and not has_vmaf():
        print("there is no ffmpeg with libvmaf: VMAF is left out", file=sys.stderr)
        chosen.vmaf = False
    chosen.out.mkdir(parents=True, exist_ok=True)
    return Cache(chosen.cache or chosen.out / "anchors", chosen.fresh_anchors)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    ladders = "; ".join(f"{a.name}: {', '.join(map(str, a.ladder))}" for a in anchors(1).values())
    made = argparse.ArgumentParser(
        description="Rate-distortion curves, BD-rates and speeds of viddiff beside other codecs.",
        epilog=f"Settings of the others: {ladders}. Clips are coded as a whole unless --frames is given.",
    )
    add = made.add_argument
    add("clips", type=Path, nargs="+", metavar="CLIPS", help="folder of clips, or a clip")
    add("--viddiff", type=_viddiff, action="append", metavar="NAME=OPTIONS",
        help="viddiff at some options of `viddiff encode`, under a name; may be given several times "
        "(default: viddiff= for none)")  # fmt: skip
    add("--anchors-only", action="store_true", help="leave viddiff out; needs no weights")
    add("--frames", type=int, help="only this many frames of each clip")
    add("--match", default="*", metavar="GLOB", help="only clips whose file name matches")
    add_options(made, "benchmark")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the results, print the BD-rates, draw."""
    chosen = parser().parse_args(arguments)
    if chosen.frames is not None and chosen.frames < 1:
        raise SystemExit("--frames must be at least 1")
    tests: list[Codec] = []
    if not chosen.anchors_only:
        for name, options in chosen.viddiff or [("viddiff", ())]:
            title = " ".join(["viddiff", *options])
            tests.append(Viddiff(name, title, options, chosen.weights, chosen.qualities, chosen.interval))
    codecs: list[Codec] = [*(anchors(chosen.interval)[name] for name in chosen.anchors), *tests]
    if not codecs or len({codec.name for codec in codecs}) < len(codecs):
        raise SystemExit("there must be something to measure, each under a name of its own")
    videos = find_clips(chosen.clips, chosen.match)
    cache = prepare(chosen)
    try:
        clips = run(videos, codecs, chosen.frames, chosen.vmaf, cache, chosen.workers)
    except (ViddiffError, OSError) as error:
        raise SystemExit(str(error)) from error
    titles = {codec.name: codec.title for codec in codecs}
    names = [codec.name for codec in tests]
    rates = bd_rates(clips, names)
    known = facts(codecs, clips, chosen.interval)
    write(chosen.out / "results.md", markdown(clips, rates, titles, known))
    data = {"facts": known, "titles": titles, "bd_rates": plain(rates), "clips": plain(clips)}
    write(chosen.out / "results.json", json.dumps(data, indent=1))
    print(summary(rates, titles))
    try:
        curves_plot(clips, titles, chosen.out / "rd.png")
        sizes = [path.name for path in sizes_plots(rates, names, titles, chosen.out)]
    except ViddiffError as error:
        raise SystemExit(str(error)) from error
    print(f"\nwritten to {chosen.out}: {', '.join(['results.md', 'results.json', 'rd.png', *sizes])}")


if __name__ == "__main__":
    main()
