"""`viddiff train`."""

import json
from pathlib import Path
from typing import Any

import click

from viddiff.cli import options
from viddiff.errors import OutputError, ViddiffError


@click.command("train")
@click.option(
    "--data",
    type=options.PATH,
    required=True,
    metavar="DIR",
    help="Folder of videos to train on, in any format.",
)
@click.option(
    "--out",
    type=options.PATH,
    default=Path("weights.safetensors"),
    show_default=True,
    help="Weights to write.",
)
@click.option(
    "--valid", type=options.PATH, metavar="DIR", help="Folder of videos for validation.  [default: none]"
)
@click.option(
    "--plot",
    type=options.PATH,
    metavar="PNG",
    help="Draw curves and BD-rates of the validations to this file. Needs --valid and matplotlib.",
)
@click.option(
    "--init", type=options.PATH, metavar="FILE", help="Weights to start from.  [default: the released ones]"
)
@click.option("--fresh", is_flag=True, help="Start from the untrained DCT codec.")
@click.option(
    "--cache", type=options.PATH, metavar="DIR", help="Folder for samples.  [default: beside the weights]"
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Duration of the training in minutes.",
)
@click.option(
    "--steps",
    type=click.IntRange(0),
    metavar="N",
    help="Stop after at most N steps. 0: only choose pictures for --library.",
)
@click.option("--batch", type=click.IntRange(1), default=12, show_default=True, help="Crops per step.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Highest learning rate.",
)
@click.option(
    "--library",
    type=click.IntRange(0, 64),
    default=8,
    show_default=True,
    metavar="N",
    help="Largest number of pictures of the footage to store with the weights. Keyframes are predicted from "
    "them. Footage of moving cameras gets none.",
)
@click.option("--resume", is_flag=True, help="Continue the last run with the same --out.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random numbers.")
@click.option(
    "--log", type=options.PATH, metavar="FILE", help="Append every line of the log to FILE, as JSON."
)
@options.combined(options.device_option, options.json_option, options.force_option)
def train_command(
    data: Path,
    out: Path,
    init: Path | None,
    fresh: bool,
    log: Path | None,
    as_json: bool,
    force: bool,
    **choices: Any,
) -> None:
    """Train the networks on a folder of videos and write weights for --weights.

    Prints a line a minute to stderr, or to stdout as JSON with --json. The weights store pictures of the
    footage (see --library): protect them like the footage.

    \b
    Example:
      viddiff train --data footage --out mine.safetensors --max-minutes 600
    """
    if fresh and init:
        raise click.UsageError("use either --fresh or --init")
    if choices["plot"] and not choices["valid"]:
        raise click.UsageError("--plot needs validation videos: add --valid")
    if not data.is_dir():
        raise ViddiffError(f"{data} is not a folder")

    import cv2
    import torch

    from viddiff.codec.tensor_file import stated_hash
    from viddiff.pipeline.device import choose_device
    from viddiff.pipeline.weights_search import keep_copy, released_weights
    from viddiff.plots import new_figure
    from viddiff.training.train import TrainOptions, train

    if out.exists():
        if not stated_hash(out):
            raise OutputError(f"{out} exists, and it is not a file of weights: choose another name")
        if not (force or choices["resume"]):
            raise OutputError(f"{out} exists; --force overwrites it, --resume goes on with it")
    if choices["plot"]:
        new_figure(1, 1)  # matplotlib is missed now, not at the first validation
    torch.set_num_threads(1)  # one thread is the fastest beside other processes
    cv2.setNumThreads(1)
    if init is None and not fresh and released_weights("none").exists():
        init = released_weights("none")

    def report(line: dict[str, Any]) -> None:
        text = json.dumps(line)
        if log is not None:
            with open(log, "a", encoding="utf-8") as file:
                file.write(text + "\n")
        if as_json:
            click.echo(text)
        else:
            click.echo("  ".join(f"{name} {value}" for name, value in line.items()), err=True)

    choices["device"] = choose_device(choices["device"])
    codec = train(TrainOptions(data=data, out=out, init=init, **choices), report)
    copy = keep_copy(out, codec.hash)
    report({"weights": str(out), "hash": codec.hash.hex(), "copy": copy and str(copy)})
