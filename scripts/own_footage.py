"""What weights of their own bring to cameras: train on one recording, judge on another.

    python scripts/own_footage.py --pair door-monday.mkv door-tuesday.mkv --out own-footage

For each pair of recordings of one camera:

1. TRAIN is divided: `viddiff train` learns from its first four fifths and is validated on the last fifth.
   Both are copied without loss.
2. Training starts from the released weights. `viddiff train` writes the best ones that it validated, which
   may be those that it started from.
3. JUDGE is coded as a whole with the released weights, with those of the training and by other codecs.

It writes results.md and results.json to the output folder, and for each pair a folder with its weights and
the log of its training. What other codecs gave is cached as in benchmark.py.
"""

import argparse
import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmark import Cache, add_options, facts, prepare, run, write
from points import BenchmarkError, Codec, Spent, Viddiff, anchors
from points import run as run_program
from report import BdRate, Clip, bd_rates, markdown, plain, summary

from viddiff.encoder.presets import PRESETS
from viddiff.errors import ViddiffError
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.weights_search import released_weights

VALID_PART = 5
"""One frame of so many, the last ones, validates."""


@dataclass(frozen=True)
class Pair:
    """Two recordings of one camera."""

    train: Path
    judge: Path

    @property
    def name(self) -> str:
        """What folders and tables call it."""
        return f"{self.judge.stem} after {self.train.stem}"


@dataclass(frozen=True)
class Training:
    """What training gave."""

    frames: int
    valid_frames: int
    steps: int
    minutes: float
    spent: Spent
    loss_before: float
    """Validation loss before the first step. It is 1 without enhancement."""
    loss_after: float
    """The least of all validations, whose weights were written."""

    @property
    def better(self) -> bool:
        """Whether the weights are others than those that training started from."""
        return self.loss_after < self.loss_before

    def __str__(self) -> str:
        result = "" if self.better else ": the weights stay as they were"
        return (
            f"{self.frames} frames, {self.valid_frames} to validate; {self.steps} steps in "
            f"{self.minutes:.1f} minutes, {self.spent.cpu_s:.0f} s of CPU in all; validation loss "
            f"{self.loss_before:.4f} to {self.loss_after:.4f}{result}"
        )


def divide(video: Path, folder: Path) -> tuple[int, int]:
    """Copy a video to `train` and `valid` below a folder. Returns their numbers of frames."""
    with VideoReader(video) as reader:
        count = sum(1 for _ in reader)
    valid = count // VALID_PART
    if not valid:
        raise BenchmarkError(f"{video} has {count} frames; training needs at least {VALID_PART}")
    copy(video, folder / "train", 0, count - valid)
    copy(video, folder / "valid", count - valid, valid)
    return count - valid, valid


def copy(video: Path, folder: Path, start: int, frames: int) -> None:
    """Copy some frames of a video into a folder, without loss; the first gets the time 0."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{video.stem}.mkv"
    target.unlink(missing_ok=True)
    with (
        VideoReader(video, start=start, frames=frames) as reader,
        VideoWriter(target, reader.info, lossless=True) as writer,
    ):
        first = None
        for frame in reader:
            first = frame.pts if first is None else first
            writer.write(dataclasses.replace(frame, pts=frame.pts - first))


def train(pair: Pair, folder: Path, init: Path, chosen: argparse.Namespace) -> Training:
    """Train in a folder. Its `weights.safetensors` are the best ones."""
    frames, valid_frames = divide(pair.train, folder)
    out, log = folder / "weights.safetensors", folder / "training.jsonl"
    print(f"{pair.name}: trains for {chosen.minutes:g} minutes, see {log}", file=sys.stderr, flush=True)
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "viddiff", "train", "--data", "train", "--valid", "valid", "--force"]
    command += ["--init", str(init.resolve()), "--out", out.name, "--log", log.name, "--json"]
    command += ["--max-minutes", f"{chosen.minutes:g}"]
    command += [] if chosen.steps is None else ["--steps", f"{chosen.steps}"]
    finished = run_program(command, folder)
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    validations = [line for line in lines if "validation_loss" in line]
    losses, last = [line["validation_loss"] for line in validations], validations[-1]
    place = last["step"], last["minutes"]
    return Training(frames, valid_frames, *place, finished.spent, losses[0], min(losses))


def viddiffs(kind: str, weights: Path, chosen: argparse.Namespace) -> list[Codec]:
    """viddiff with some weights, at each preset."""
    return [
        Viddiff(
            f"{kind}_{preset}",
            f"viddiff --preset {preset}, {kind} weights",
            ("--preset", preset),
            weights,
            chosen.qualities,
            chosen.interval,
        )
        for preset in chosen.presets
    ]


def judge(
    pair: Pair, own: Path | None, codecs: list[Codec], chosen: argparse.Namespace, cache: Cache
) -> Clip:
    """Measure all codecs, and viddiff with its own weights if there are any, on the other recording."""
    all_codecs = codecs if own is None else [*codecs, *viddiffs("own", own, chosen)]
    (clip,) = run([pair.judge], all_codecs, None, chosen.vmaf, cache, chosen.workers)
    if own is None:
        for preset in chosen.presets:
            clip.points[f"own_{preset}"] = clip.points[f"released_{preset}"]
    return dataclasses.replace(clip, name=pair.name)


def rates_of(clips: list[Clip], presets: tuple[str, ...]) -> list[BdRate]:
    """Own weights against the released ones, and both against the other codecs."""
    rates = []
    for preset in presets:
        names = f"released_{preset}", f"own_{preset}"
        both = [dataclasses.replace(clip, points={n: clip.points[n] for n in names}) for clip in clips]
        rates += bd_rates(both, names[1:])
    tests = [f"{kind}_{preset}" for preset in presets for kind in ("own", "released")]
    return rates + [rate for rate in bd_rates(clips, tests) if rate.test in tests]


def _presets(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if not set(names) <= set(PRESETS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of presets out of {', '.join(PRESETS)}")
    return names


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description="What weights of their own bring to cameras.")
    add = made.add_argument
    add("--pair", type=Path, nargs=2, action="append", required=True, metavar=("TRAIN", "JUDGE"),
        help="two recordings of one camera; may be given several times")  # fmt: skip
    add("--minutes", type=float, default=15.0, help="duration of each training (default: %(default)g)")
    add("--steps", type=int, help="end each training after so many steps")
    add("--presets", type=_presets, default=("default",), metavar="NAME,...",
        help="presets of viddiff (default: default)")  # fmt: skip
    add_options(made, "own-footage")
    return made


def pairs_of(chosen: argparse.Namespace) -> list[Pair]:
    """The pairs, each of which exists and has a name of its own."""
    pairs = [Pair(*paths) for paths in chosen.pair]
    for path in (path for paths in chosen.pair for path in paths if not path.is_file()):
        raise SystemExit(f"{path} is not a file")
    if len({pair.name for pair in pairs}) < len(pairs):
        raise SystemExit("two pairs have the same file names")
    return pairs


def main(arguments: list[str] | None = None) -> None:
    """Train, judge, write the results, print the BD-rates."""
    chosen = parser().parse_args(arguments)
    pairs = pairs_of(chosen)
    if chosen.minutes <= 0 or (chosen.steps is not None and chosen.steps < 1):
        raise SystemExit("--minutes and --steps must be more than 0")
    cache = prepare(chosen)
    init = chosen.weights or released_weights("av1")
    codecs = [
        *(anchors(chosen.interval)[name] for name in chosen.anchors),
        *viddiffs("released", init, chosen),
    ]
    trainings, clips = dict[str, Training](), list[Clip]()
    try:
        for pair in pairs:
            folder = chosen.out / pair.name.replace(" ", "-")
            trainings[pair.name] = trained = train(pair, folder, init, chosen)
            print(f"{pair.name}: {trained}", file=sys.stderr, flush=True)
            own = folder / "weights.safetensors" if trained.better else None
            clips.append(judge(pair, own, codecs, chosen, cache))
    except (ViddiffError, OSError) as error:
        raise SystemExit(str(error)) from error
    titles = {codec.name: codec.title for codec in [*codecs, *viddiffs("own", init, chosen)]}
    rates = rates_of(clips, chosen.presets)
    known = facts(codecs, clips, chosen.interval)
    known |= {f"training for {name}": str(training) for name, training in trainings.items()}
    write(chosen.out / "results.md", markdown(clips, rates, titles, known))
    data = {"facts": known, "titles": titles, "trainings": plain(trainings)}
    data |= {"bd_rates": plain(rates), "clips": plain(clips)}
    write(chosen.out / "results.json", json.dumps(data, indent=1))
    print(summary(rates, titles))
    print(f"\nwritten to {chosen.out}: results.md, results.json")


if __name__ == "__main__":
    main()
