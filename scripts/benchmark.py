"""Rate-distortion curves, BD-rates and speeds of viddiff beside x264, x265 and SVT-AV1 on the same frames.

    python scripts/benchmark.py CLIPS_DIR --out benchmark

writes results.md, results.json, rd.png and anchors.json to the output folder. The other codecs' figures are
kept in anchors.json and reused where clip, frames and command are the same. viddiff runs in this process on
one thread and its whole .vdf file is counted; every file is decoded again and must give exactly the frames
that the encoder reconstructed.
"""

import argparse
import fnmatch
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from anchors import (
    ANCHORS,
    KEYFRAME_INTERVAL,
    Anchor,
    Point,
    Source,
    Spent,
    ffmpeg_version,
    has_vmaf,
    measure,
    measure_anchor,
    now,
    raw_frames,
)
from report import VIDDIFF, ClipResult, Ledger, bd_rates, markdown, plain, plot, summary

from viddiff import __version__
from viddiff.codec import checkpoint
from viddiff.codec.weights import Codec
from viddiff.config import QUALITIES
from viddiff.container.format import Writer
from viddiff.encoder.gop_encoder import CodedGroup, GopEncoder
from viddiff.encoder.options import EncodeOptions
from viddiff.encoder.presets import PRESETS
from viddiff.errors import ViddiffError
from viddiff.frame import Frame
from viddiff.pipeline import serial
from viddiff.pipeline.output import Output

SUFFIXES = {".mkv", ".mp4", ".mov", ".webm", ".avi", ".y4m"}
Cache = dict[str, dict[str, Any]]
"""Points of the anchors as plain data, by what they depend on."""


@dataclass(frozen=True)
class Settings:
    """What to measure, the same for every clip."""

    weights: Path | None
    device: str
    qualities: tuple[int, ...]
    """Empty: only the anchors."""
    anchors: tuple[str, ...]
    frames: int | None
    vmaf: bool
    low_delay: bool
    preset: str
    """Effort of viddiff's encoder."""


def measure_viddiff(
    source: Source, weights: Codec, options: EncodeOptions, vmaf: bool
) -> tuple[Point, Ledger]:
    """Encode the clip, decode it again, compare the two and measure. Raises SystemExit if they differ."""
    coded, decoded = source.path.with_name("viddiff.vdf"), source.path.with_name("viddiff.yuv")
    reconstructed: list[str] = []

    def note(group: CodedGroup) -> None:
        reconstructed.extend(map(digest, group.frames))

    watch = Watch()
    with coded.open("wb") as out:
        encoder = GopEncoder(weights, source.info, options)
        account = serial.encode(source, encoder, Output(Writer(out, encoder.header)), watch=note)
    encoding, watch, times = watch.read(), Watch(), []
    with coded.open("rb") as file, decoded.open("wb") as raw:
        for frame in serial.decode(file, weights):
            raw.writelines(plane.data for plane in frame.planes)
            times.append(frame.pts)
    decoding = watch.read()
    shown = [digest(frame) for frame in raw_frames(decoded, source.info, tuple(times))]
    check_exact(source, options.quality, tuple(times), reconstructed, shown)
    size, fidelity = coded.stat().st_size, measure(source, decoded, vmaf)
    point = Point(options.quality, size, fidelity, encoding, decoding, now())
    return point, Ledger.of(options.quality, account)


class Watch:
    """Measures time from its making on."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Spent:
        """Time spent up to now."""
        return Spent(time.perf_counter() - self._wall, time.process_time() - self._cpu)


def digest(frame: Frame) -> str:
    """SHA-256 of a frame's samples."""
    return hashlib.sha256(b"".join(plane.tobytes() for plane in frame.planes)).hexdigest()


def check_exact(
    source: Source, quality: int, times: tuple[int, ...], reconstructed: list[str], shown: list[str]
) -> None:
    """End the run unless the decoder shows all frames, at their times, as the encoder reconstructed them."""
    where = f"{source.name} at quality {quality}"
    if times != source.times:
        raise SystemExit(
            f"{where}: the decoder's {len(times)} frame times are not the clip's {len(source)} times"
        )
    pairs = itertools.zip_longest(reconstructed, shown)
    wrong = [i for i, (encoder, decoder) in enumerate(pairs) if encoder != decoder]
    if wrong:
        raise SystemExit(
            f"{where}: {len(wrong)} of {len(shown)} decoded frames, the first of them {wrong[0]}, "
            "differ from the encoder's reconstruction"
        )


def anchor_curve(
    anchor: Anchor, source: Source, vmaf: bool, cache: Cache
) -> Iterator[tuple[Point, str, bool]]:
    """Each point of an anchor's ladder, what to keep it under, and whether it had been kept."""
    for crf in anchor.ladder:
        command = " ".join(anchor.arguments(crf))
        key = f"{source.name} {source.digest[:16]}, {len(source)} frames, ffmpeg {ffmpeg_version()} {command}"
        known = cache.get(key)
        if known is not None and (known["fidelity"]["vmaf"] is not None or not vmaf):
            yield Point.of(known), key, True
        else:
            yield measure_anchor(anchor, crf, source, vmaf), key, False


def run_clip(video: Path, settings: Settings, cache: Cache) -> tuple[ClipResult, Cache]:
    """Measure one clip; also returns the anchors' points that were not in the cache."""
    points: dict[str, list[Point]] = {}
    ledgers, measured = [], {}
    with tempfile.TemporaryDirectory(prefix="viddiff-benchmark-") as folder:
        source = Source.read(video, Path(folder), settings.frames)
        for name in settings.anchors:
            points[name] = []
            for point, key, known in anchor_curve(ANCHORS[name], source, settings.vmaf, cache):
                points[name].append(point)
                tell(source, name, point, " (kept)" if known else "")
                if not known:
                    measured[key] = plain(point)
        for quality in settings.qualities:
            options = EncodeOptions(
                quality=quality,
                gop=KEYFRAME_INTERVAL,
                low_delay=settings.low_delay,
                preset=settings.preset,
            )
            point, ledger = measure_viddiff(
                source, load_weights(settings.weights, settings.device), options, settings.vmaf
            )
            points.setdefault(VIDDIFF, []).append(point)
            ledgers.append(ledger)
            tell(source, VIDDIFF, point)
    info = source.info
    size = (info.width, info.height, info.bit_depth, len(source), float(info.frame_rate))
    return ClipResult(source.name, *size, source.digest, source.notes, points, ledgers), measured


def tell(source: Source, name: str, point: Point, remark: str = "") -> None:
    """A line of progress."""
    fidelity = point.fidelity
    vmaf = "" if fidelity.vmaf is None else f", VMAF {fidelity.vmaf:.1f}"
    fps = [f"{len(source) / spent.wall_s:.1f} fps" for spent in (point.encode, point.decode)]
    speed = f"encode {fps[0]}, decode {fps[1]}"
    figures = f"{point.size_bytes} bytes, {fidelity.psnr_611:.2f} dB{vmaf}, {speed}{remark}"
    print(f"{source.name}  {name} {point.setting}: {figures}", file=sys.stderr, flush=True)


@functools.cache
def load_weights(weights: Path | None, device: str) -> Codec:
    """The codec, once in a process, which from then on computes with one thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        return checkpoint.load(weights, device)
    except (ViddiffError, OSError, ModuleNotFoundError) as error:
        if weights is not None:
            raise SystemExit(str(error)) from error
        raise SystemExit(f"no released weights can be loaded ({error}); name some by --weights") from error


def find_clips(folder: Path, pattern: str) -> list[Path]:
    """Video files of a folder by name, or the one file given."""
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise SystemExit(f"{folder} is neither a folder of clips nor a clip")
    videos = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    found = [path for path in videos if fnmatch.fnmatch(path.name, pattern)]
    if not found:
        raise SystemExit(f"{folder} has no clip that matches {pattern}")
    return found


def run_clips(clips: list[Path], settings: Settings, kept: Path, fresh: bool, jobs: int) -> list[ClipResult]:
    """Measure all clips, keeping the anchors' points after each."""
    cache: Cache = {} if not kept.exists() else json.loads(kept.read_text())
    usable = {} if fresh else cache
    results = []
    for result, measured in _outcomes(clips, settings, usable, jobs):
        results.append(result)
        if measured:
            cache.update(measured)
            write(kept, json.dumps(cache, indent=1))
    return results


def _outcomes(
    clips: list[Path], settings: Settings, cache: Cache, jobs: int
) -> Iterator[tuple[ClipResult, Cache]]:
    if jobs == 1:
        yield from (run_clip(clip, settings, cache) for clip in clips)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(run_clip, clips, itertools.repeat(settings), itertools.repeat(dict(cache)))


def write(path: Path, text: str) -> None:
    """Write a file, complete or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    temporary.replace(path)


def facts(settings: Settings, clips: list[ClipResult]) -> dict[str, str]:
    """What was run, where and how, to be read beside the figures."""
    found = {
        "command": shlex.join(["python", *sys.argv]),
        "finished": f"{now()} UTC",
        "commit": commit(),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "software": f"viddiff {__version__}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {np.__version__}, PyAV {av.__version__}",
        "clips": f"{len(clips)}, {sum(clip.frames for clip in clips)} frames",
        "keyframes": f"at most {KEYFRAME_INTERVAL} frames apart, for every codec",
        "threads": "one for each codec, encoding and decoding",
        "bytes": "viddiff: the whole .vdf file; others: the raw elementary stream, no container, without SEI "
        "(x264, x265) or temporal delimiters (SVT-AV1)",
        "PSNR": "from the mean squared error over all frames; 6:1:1 is (6 Y + U + V) / 8",
    }
    if settings.qualities:
        loaded = load_weights(settings.weights, settings.device)
        delay = "low delay" if settings.low_delay else "hierarchy of B frames"
        found["viddiff"] = f"weights {loaded.name!r} {loaded.hash.hex()[:16]} on {loaded.device}, {delay}, "
        found["viddiff"] += f"preset {settings.preset}; "
        found["viddiff"] += "decoded frames equal the encoder's reconstruction in every file"
        found["time"] = "from and to files, without loading weights or starting ffmpeg; fps by the wall clock"
    if settings.anchors:
        found["ffmpeg"] = ffmpeg_version()
        for name in settings.anchors:
            command = " ".join(ANCHORS[name].arguments(0)).replace("-crf 0", "-crf N")
            found[ANCHORS[name].title] = f"`{command}`"
        dates = [p.measured for clip in clips for name in settings.anchors for p in clip.points[name]]
        found["other codecs measured"] = f"{min(dates)} to {max(dates)} UTC"
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
    if not set(names) <= set(ANCHORS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of codecs out of {', '.join(ANCHORS)}")
    return names


def parser() -> argparse.ArgumentParser:
    """The command line."""
    ladders = "; ".join(f"{a.name}: {', '.join(map(str, a.ladder))}" for a in ANCHORS.values())
    made = argparse.ArgumentParser(
        description="Rate-distortion curves, BD-rates and speeds of viddiff beside x264, x265 and SVT-AV1.",
        epilog=f"CRF ladders: {ladders}. All of every clip is coded unless --frames says otherwise.",
    )
    add = made.add_argument
    add("clips_dir", type=Path, metavar="CLIPS_DIR", help="folder of clips, or one clip")
    add("--out", type=Path, default=Path("benchmark"), help="folder for the results (default: %(default)s)")
    add("--weights", type=Path, help="weights of viddiff (default: the released ones)")
    add("--qualities", type=_qualities, default=(20, 28, 36, 44), metavar="Q,Q,...",
        help="qualities of viddiff, 0..63 (default: 20,28,36,44)")  # fmt: skip
    add("--frames", type=int, help="only this many frames of each clip")
    add("--anchors", type=_anchors, default=tuple(ANCHORS), metavar="NAME,...",
        help="codecs to compare with; '' for none (default: x264,x265,svtav1)")  # fmt: skip
    add("--anchors-only", action="store_true", help="leave viddiff out; needs no weights")
    add("--fresh-anchors", action="store_true", help="measure the other codecs again")
    add("--vmaf", action=argparse.BooleanOptionalAction, default=True, help="measure VMAF and MS-SSIM")
    add("--clips", default="*", metavar="GLOB", help="only clips whose file name matches")
    add("--jobs", type=int, default=1, help="clips measured at a time, each by a process (default: 1)")
    add("--low-delay", action="store_true", help="viddiff predicts from the past alone (the others do not)")
    add(
        "--preset", choices=tuple(PRESETS), default="default", help="effort of viddiff (default: %(default)s)"
    )
    add("--device", default="cpu", help="where viddiff's networks run (default: cpu)")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the results, print the BD-rates."""
    chosen = parser().parse_args(arguments)
    if chosen.jobs < 1 or (chosen.frames is not None and chosen.frames < 1):
        raise SystemExit("--jobs and --frames must be at least 1")
    if chosen.anchors_only and not chosen.anchors:
        raise SystemExit("--anchors-only with no anchor leaves nothing to measure")
    clips = find_clips(chosen.clips_dir, chosen.clips)
    try:
        settings = Settings(
            weights=chosen.weights,
            device=chosen.device,
            qualities=() if chosen.anchors_only else chosen.qualities,
            anchors=chosen.anchors,
            frames=chosen.frames,
            vmaf=chosen.vmaf and has_vmaf(),
            low_delay=chosen.low_delay,
            preset=chosen.preset,
        )
        if chosen.vmaf and not settings.vmaf:
            print("this ffmpeg has no libvmaf: VMAF and MS-SSIM are left out", file=sys.stderr)
        if settings.qualities:
            load_weights(settings.weights, settings.device)
        chosen.out.mkdir(parents=True, exist_ok=True)
        results = run_clips(clips, settings, chosen.out / "anchors.json", chosen.fresh_anchors, chosen.jobs)
        known = facts(settings, results)
    except ViddiffError as error:
        raise SystemExit(str(error)) from error
    rates = bd_rates(results)
    write(chosen.out / "results.md", markdown(results, rates, known))
    data = {"facts": known, "bd_rates": plain(rates), "clips": plain(results)}
    write(chosen.out / "results.json", json.dumps(data, indent=1))
    plot(results, chosen.out / "rd.png")
    print(summary(rates))
    print(f"\nwritten to {chosen.out}: results.md, results.json, rd.png")


if __name__ == "__main__":
    main()
