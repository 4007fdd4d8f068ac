"""What `encode` makes of its targets of size, rate and quality, on videos of real length.

    python scripts/check_targets.py CLIPS ... --out targets.jsonl [--divide 2] [--preset fastest] [--gop 25]
    python scripts/check_targets.py --table targets.jsonl

Each clip becomes a source without loss, of a part of its width and height with --divide, with a track of
noise as Opus (16 kbit/s). It is encoded with --quality 32, and then with one target after the other. The
targets of size and rate ask for four fifths of what quality 32 took. A line of JSON for each clip and target
says what was asked for, what was predicted, and what came. All is measured from outside: sizes from the file
system, scores by ffmpeg (libvmaf, psnr, xpsnr) from decoded frames, the decoder's buffer from the bytes of
the file. Lines that are there already are not measured again.

--table prints the lines as a table in Markdown.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from viddiff.cli import NOT_WORTH_IT
from viddiff.container.reader import Reader
from viddiff.errors import ViddiffError
from viddiff.media.ffmpeg_program import find_ffmpeg
from viddiff.media.video_reader import VideoReader

SHARE = 0.8
"""Of the size at quality 32, what targets of size and rate ask for."""
SOUND = 16_000
"""Bits per second."""
STREAM_S = 60
"""Least length of a stream: clips are repeated."""
UNREACHABLE = "even at quality 63"
"""What the program says of a score that it cannot reach."""
ALIKE = "settb=1/25,setpts=N,setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
"""For ffmpeg's filters, which match frames by time and would convert colours that only one of them names."""
TIGHT = 0.9, 1.1
"""Shares of the size at quality 32 that --max-encoded-percent allows: too little, and enough."""
Event = tuple[Fraction, int]
"""When a chunk leaves a decoder's buffer, in seconds, and its bytes."""


@dataclass(frozen=True)
class Row:
    """What came of a target. Units are bytes, bits a second, the measure's own, or percent."""

    clip: str
    target: str
    asked: float
    predicted: float | None
    got: float
    kept: bool
    """Whether the target was reached, or refused where that was right."""
    quality: float | None
    encodes: int | None
    """Of the whole video, where the program says it."""
    seconds: float
    """All that the command took."""


@dataclass(frozen=True)
class Encoded:
    """What a command made. values: its result in JSON, empty if there is none."""

    path: Path
    code: int
    values: dict[str, Any]
    errors: str
    seconds: float

    @property
    def size_bytes(self) -> int:
        """Size of the file, 0 if there is none."""
        return self.path.stat().st_size if self.path.exists() else 0


@dataclass(frozen=True)
class Case:
    """A clip that is ready, and how it is encoded."""

    name: str
    source: Path
    duration_s: Fraction
    common: tuple[str, ...]
    plain_bytes: int = 0
    """Size at quality 32."""

    def encode(self, *options: object, pipe: bool = False) -> Encoded:
        """Encode the clip, from a pipe if so wanted. Raises ViddiffError if that fails, and is no refusal."""
        out = self.source.with_name("out.vdf")
        out.unlink(missing_ok=True)
        command = ["encode", "-" if pipe else self.source, out, *self.common, *options, "--json", "--quiet"]
        began = time.monotonic()
        with self.source.open("rb") as file:
            done = subprocess.run(
                [sys.executable, "-m", "viddiff", *map(str, command)],
                stdin=file if pipe else subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
        if done.returncode not in (0, NOT_WORTH_IT) and UNREACHABLE not in done.stderr:
            raise ViddiffError(f"{self.name}, {' '.join(map(str, options))}: {done.stderr.strip()}")
        lines = done.stdout.splitlines()
        values = json.loads(lines[-1]) if lines else {}
        return Encoded(out, done.returncode, values, done.stderr, time.monotonic() - began)

    def row(self, target: str, encoded: Encoded, asked: float, got: float, kept: bool, **others: Any) -> Row:
        """The row of a target. others: predicted."""
        goal = encoded.values.get("target") or {}
        predicted = others.get("predicted", goal.get("predicted"))
        return Row(
            clip=self.name,
            target=target,
            asked=asked,
            predicted=predicted,
            got=round(got, 4),
            kept=kept,
            quality=encoded.values.get("quality"),
            encodes=goal.get("encodes"),
            seconds=round(encoded.seconds, 1),
        )


# --- measures from outside -----------------------------------------------------------------------------


def ffmpeg() -> str:
    """ffmpeg with libvmaf and xpsnr. Raises SystemExit if there is none."""
    return find_ffmpeg("libvmaf") or sys.exit(
        "this needs an ffmpeg with libvmaf: pip install 'viddiff[vmaf]'"
    )


def frame_scores(decoded: Path, source: Path, measure: str) -> list[float]:
    """Scores of all frames: vmaf, or psnr or xpsnr as (6 Y + U + V) / 8."""
    log = decoded.with_name("scores")
    log.unlink(missing_ok=True)
    what = f"libvmaf=log_fmt=json:log_path={log}" if measure == "vmaf" else f"{measure}=stats_file={log}"
    pair = "[b][a]" if measure == "xpsnr" else "[a][b]"  # xpsnr weighs errors by its first video
    graph = f"[0:v]{ALIKE}[a];[1:v]{ALIKE}[b];{pair}{what}"
    command = [ffmpeg(), "-v", "error", "-nostdin", "-i", decoded, "-i", source, "-lavfi", graph]
    subprocess.run([*map(str, command), "-f", "null", "-"], check=True)
    if measure == "vmaf":
        return [frame["metrics"]["vmaf"] for frame in json.loads(log.read_text())["frames"]]
    planes = [
        re.findall(r"(?:psnr_|XPSNR )[yuv]: *([\d.]+|inf)", line) for line in log.read_text().splitlines()
    ]
    return [(6 * float(y) + float(u) + float(v)) / 8 for y, u, v in (each for each in planes if each)]


def pooled(scores: Iterable[float], pool: str) -> float:
    """One number from the scores of frames. Pools as `viddiff compare` documents them."""
    values = np.array(list(scores))
    if pool == "p5":
        return float(np.percentile(values, 5))
    return float(values.mean() if pool == "mean" else 1 / np.mean(1 / (values + 1)) - 1)


def events(data: bytes) -> list[Event]:
    """Chunks of frames in a file, each with the background in front of it. Reads the bytes themselves."""
    sizes, at, background = list[int](), 8, 0
    while at < len(data):
        kind, end, length, shift = data[at], at + 1, 0, 0
        while True:
            length |= (data[end] & 127) << shift
            shift, end = shift + 7, end + 1
            if data[end - 1] < 128:
                break
        end += length + 4
        if kind == 6:
            background += end - at
        elif kind in (2, 3):
            sizes.append(end - at + background)
            background = 0
        at = end
    reader = Reader(io.BytesIO(data))
    times = [chunk.times[0] * reader.header.video.time_base for chunk in reader]
    return list(zip(times, sizes, strict=True))


def least_filled(found: list[Event], maxrate: int, bufsize: int) -> Fraction:
    """Share of the buffer that is filled when it is emptiest: a leaky bucket, nine tenths full at first."""
    filled, least, before = Fraction(9 * bufsize, 10), Fraction(bufsize), found[0][0]
    for time_s, size in found:
        filled = min(Fraction(bufsize), filled + maxrate * (time_s - before)) - 8 * size
        least, before = min(least, filled), time_s
    return least / bufsize


# --- targets -------------------------------------------------------------------------------------------


def size(case: Case) -> Row:
    """--size: never exceeded."""
    asked = int(SHARE * case.plain_bytes)
    encoded = case.encode("--size", asked)
    return case.row("size", encoded, asked, encoded.size_bytes, encoded.size_bytes <= asked)


def bitrate(case: Case) -> Row:
    """--bitrate between files: not exceeded."""
    asked = int(8 * SHARE * case.plain_bytes / case.duration_s)
    encoded = case.encode("--bitrate", asked)
    got = float(8 * encoded.size_bytes / case.duration_s)
    return case.row("bitrate", encoded, asked, got, got <= asked)


def stream(case: Case) -> Row:
    """--bitrate from a pipe, in one pass: within a tenth after a minute."""
    asked = int(8 * SHARE * case.plain_bytes / case.duration_s)
    times = -(-STREAM_S // case.duration_s)
    path = case.source.with_name("stream.mkv")
    command = [ffmpeg(), "-v", "error", "-nostdin", "-y", "-stream_loop", times - 1, "-i", case.source]
    subprocess.run([*map(str, command), "-c", "copy", str(path)], check=True)
    encoded = replace(case, source=path).encode("--bitrate", asked, pipe=True)
    path.unlink()
    got = float(8 * encoded.size_bytes / (times * case.duration_s))
    return case.row("bitrate, one pass", encoded, asked, got, abs(got - asked) <= 0.1 * asked)


def quality(case: Case, measure: str, wanted: float, pool: str = "mean") -> Row:
    """--min-vmaf, --min-psnr or --min-xpsnr: reached, or refused if quality 63 does not reach it."""
    encoded = case.encode(f"--min-{measure}", wanted, "--pool", pool)
    name = f"min-{measure}, {pool}"
    if encoded.code:
        said = float(encoded.errors.partition(" is ")[2].partition(",")[0])
        got = score(case, case.encode("--quality", 63), measure, pool)
        return case.row(name, encoded, wanted, got, got < wanted, predicted=said)
    got = score(case, encoded, measure, pool)
    return case.row(name, encoded, wanted, got, got >= wanted - 0.05)


def score(case: Case, encoded: Encoded, measure: str, pool: str) -> float:
    """What ffmpeg says of a file."""
    decoded = encoded.path.with_suffix(".y4m")
    command = ["decode", encoded.path, decoded, "--force", "--quiet", "--workers", 1]
    subprocess.run([sys.executable, "-m", "viddiff", *map(str, command)], check=True, capture_output=True)
    scores = frame_scores(decoded, case.source, measure)
    decoded.unlink()
    assert len(scores) == encoded.values["frames"]
    return pooled(scores, pool)


def percent(case: Case, share: float) -> Row:
    """--max-encoded-percent: a file that is too large is refused, and gets no name."""
    source_bytes = case.source.stat().st_size
    asked = 100 * share * case.plain_bytes / source_bytes
    encoded = case.encode("--max-encoded-percent", asked)
    got = 100 * encoded.size_bytes / source_bytes
    said = re.search(r"would become about (\d+)", encoded.errors)
    predicted = int(said[1]) if said else encoded.values.get("predicted_bytes")
    promised = None if predicted is None else round(100 * predicted / source_bytes, 4)
    kept = encoded.code == NOT_WORTH_IT and not got if share < 1 else 0 < got <= asked
    name = "max-encoded-percent, " + ("too little" if share < 1 else "enough")
    return case.row(name, encoded, round(asked, 4), got, kept, predicted=promised)


def buffer(case: Case) -> Row:
    """--maxrate and --bufsize of a second: the buffer never runs empty. In percent of the buffer."""
    pictures = case.plain_bytes - SOUND / 8 * case.duration_s
    maxrate = int(8 * SHARE * pictures / case.duration_s)
    encoded = case.encode("--maxrate", maxrate, "--bufsize", maxrate)
    got = 100 * float(least_filled(events(encoded.path.read_bytes()), maxrate, maxrate))
    predicted = 100 * encoded.values["buffer"]["least_filled"]
    return case.row("maxrate and bufsize", encoded, 0, got, got >= 0, predicted=round(predicted, 4))


TARGETS: dict[str, Callable[[Case], Row]] = {
    "size": size,
    "bitrate": bitrate,
    "bitrate, one pass": stream,
    "min-vmaf, mean": lambda case: quality(case, "vmaf", 93),
    "min-psnr, mean": lambda case: quality(case, "psnr", 38),
    "min-xpsnr, mean": lambda case: quality(case, "xpsnr", 40),
    "min-xpsnr, p5": lambda case: quality(case, "xpsnr", 40, "p5"),
    "max-encoded-percent, too little": lambda case: percent(case, TIGHT[0]),
    "max-encoded-percent, enough": lambda case: percent(case, TIGHT[1]),
    "maxrate and bufsize": buffer,
}


def prepared(clip: Path, folder: Path, divide: int, common: tuple[str, ...]) -> Case:
    """The source of a clip, encoded once with --quality 32."""
    source = folder / "in.mkv"
    noise = ("-f", "lavfi", "-i", "anoisesrc=amplitude=0.1:sample_rate=48000:seed=1")
    sound = ("-c:a", "libopus", "-b:a", str(SOUND), "-shortest")
    picture = (
        "-c:v",
        "ffv1",
        "-pix_fmt",
        "yuv420p",
        *("-vf", f"scale=trunc(iw/{2 * divide})*2:trunc(ih/{2 * divide})*2:flags=lanczos"),
    )
    command = [
        ffmpeg(),
        "-v",
        "error",
        "-nostdin",
        "-y",
        "-i",
        str(clip),
        *noise,
        "-map",
        "0:v",
        "-map",
        "1:a",
    ]
    subprocess.run([*command, *picture, *sound, str(source)], check=True)
    with VideoReader(source) as reader:
        duration, count = reader.info.frame_rate, sum(1 for _ in reader)
    assert duration
    case = Case(clip.stem, source, count / duration, common)
    return replace(case, plain_bytes=case.encode("--quality", 32).size_bytes)


def measure(clips: list[Path], out: Path, divide: int, common: tuple[str, ...]) -> None:
    """Measure what is not in `out` yet, and append it line by line."""
    lines = out.read_text().splitlines() if out.exists() else []
    done = {(row["clip"], row["target"]) for row in map(json.loads, lines)}
    for clip in clips:
        left = [name for name in TARGETS if (clip.stem, name) not in done]
        if not left:
            continue
        with tempfile.TemporaryDirectory(prefix="viddiff-targets-") as folder:
            case = prepared(clip, Path(folder), divide, common)
            for name in left:
                try:
                    line = json.dumps(asdict(TARGETS[name](case)))
                except ViddiffError as error:
                    print(error, file=sys.stderr, flush=True)
                    continue
                with out.open("a") as file:
                    file.write(line + "\n")
                print(line, flush=True)


def table(out: Path) -> str:
    """The lines as a table, sorted by target."""
    rows = [Row(**json.loads(line)) for line in out.read_text().splitlines()]
    head = ("target", "clip", "asked", "predicted", "got", "kept", "quality", "encodes", "seconds")
    found = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in sorted(rows, key=lambda row: (list(TARGETS).index(row.target), row.clip)):
        cells = [row.target, row.clip, *(_short(n) for n in (row.asked, row.predicted, row.got))]
        cells += [
            "yes" if row.kept else "**no**",
            _short(row.quality),
            _short(row.encodes),
            f"{row.seconds:.0f}",
        ]
        found.append("| " + " | ".join(cells) + " |")
    return "\n".join(found)


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 1000 or value == int(value) else f"{value:.2f}"


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, default=Path("targets.jsonl"))
    parser.add_argument("--divide", type=int, default=1, help="width and height by this")
    parser.add_argument("--preset", default="fastest")
    parser.add_argument("--gop", type=int, default=25)
    parser.add_argument("--table", type=Path, help="print the table of these lines")
    given = parser.parse_args()
    if given.table:
        print(table(given.table))
        return
    common = ("--preset", given.preset, "--gop", str(given.gop), "--workers", "1", "--force")
    measure(given.clips, given.out, given.divide, common)


if __name__ == "__main__":
    main()
