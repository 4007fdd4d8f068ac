"""`viddiff train`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viddiff.cli import options
from viddiff.errors import OutputError, ViddiffError

if TYPE_CHECKING:
    from viddiff.training.ranks import Ranks
    from viddiff.training.run import Report


@click.command("train", short_help="Train the networks on your footage.")
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
    "--base",
    type=click.Choice(["av1", "none"]),
    default="av1",
    show_default=True,
    help="What will carry the frames of files with these weights, as in `encode`.",
)
@click.option(
    "--valid", type=options.PATH, metavar="DIR", help="Folder of videos for validation.  [default: none]"
)
@click.option(
    "--plot",
    type=options.PATH,
    metavar="PNG",
    help="Draw the curves of the validations to this file. Needs --valid and matplotlib.",
)
@click.option(
    "--init", type=options.PATH, metavar="FILE", help="Weights to start from.  [default: the released ones]"
)
@click.option("--fresh", is_flag=True, help="Start from untrained networks.")
@click.option(
    "--update",
    is_flag=True,
    help="Go on from the weights in --out with new footage, and replace them if that makes them better on "
    "--valid. Not with --base none.",
)
@click.option(
    "--network",
    type=click.Choice(["small", "large"]),
    help="Size of the network. A larger one than that of the weights to start from begins with their result. "
    "Not with --base none.  [default: that of the weights to start from; small with --fresh]",
)
@click.option(
    "--augment",
    is_flag=True,
    help="Train not only on the footage as it is, but also on stills (.jpg, .png) in it, on screens of text, "
    "and on reduced, faded or noisy footage. The released weights were made so. Not with --base none.",
)
@click.option(
    "--cache", type=options.PATH, metavar="DIR", help="Folder for samples.  [default: beside the weights]"
)
@click.option(
    "--cache-size",
    "capacity",
    callback=options.amount,
    metavar="BYTES",
    help="Largest size of that folder; new samples replace the oldest. 3,300 need 1G. "
    "Not with --base none.  [default: 2G]",
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
@click.option(
    "--batch",
    type=click.IntRange(1),
    metavar="N",
    help="Samples in a step.  [default: 4, or 12 with --base none]",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    metavar="R",
    help="Highest learning rate.  [default: 0.002, or 0.001 with --base none]",
)
@click.option(
    "--ssim-share",
    type=click.FloatRange(0, 1),
    metavar="S",
    help="Share of SSIM in the loss, 0 to 1. With more of it, VMAF gains and PSNR loses a little. "
    "Not with --base none.  [default: 0.5]",
)
@click.option(
    "--library",
    type=click.IntRange(0, 64),
    metavar="N",
    help="Largest number of pictures of the footage to store with the weights. Keyframes are predicted from "
    "them. Footage of moving cameras gets none. Only with --base none.  [default: 8]",
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the network first, which takes minutes. On some processors steps are faster then. "
    "Ignored without a C++ compiler. Not with --base none.",
)
@click.option("--resume", is_flag=True, help="Continue the last run with the same --out.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random numbers.")
@click.option(
    "--log", type=options.PATH, metavar="FILE", help="Append every line of the log to FILE, as JSON."
)
@options.combined(options.device_option, options.json_option, options.force_option)
def train_command(
    data: Path,
    base: str,
    init: Path | None,
    fresh: bool,
    update: bool,
    log: Path | None,
    as_json: bool,
    force: bool,
    **choices: Any,
) -> None:
    """Train the networks on a folder of videos and write weights for `encode --weights`.

    Prints a line a minute to stderr, or to stdout as JSON with --json. With --base none, the weights store
    pictures of the footage (see --library): protect them like the footage.

    torchrun runs this command on several GPUs or machines: see the documentation.

    \b
    Example:
      viddiff train --data footage --out mine.safetensors --max-minutes 15
    """
    _check_usage(base, init, fresh, choices | {"update": update})
    if not data.is_dir():
        raise ViddiffError(f"{data} is not a folder")

    import cv2
    import torch

    from viddiff.codec.tensor_file import stated_hash
    from viddiff.pipeline.device import choose_device
    from viddiff.pipeline.weights_search import keep_copy, released_weights, weights_to_encode
    from viddiff.plots import check_plot, new_figure
    from viddiff.training.ranks import Ranks

    out, ranks = choices["out"], Ranks.of_environment()
    if base == "none" and ranks.count > 1:
        raise ViddiffError("--base none trains in one process: start it without torchrun")
    if update:
        init = out
        if not out.exists():
            raise ViddiffError(f"there are no weights to update: {out} is missing")
    if ranks.first:
        _check_out(out, data, force or update, choices["resume"], ranks)
    if choices["plot"]:
        new_figure(1, 1)  # matplotlib is missed now, not at the first validation
        check_plot(choices["plot"])
    torch.set_num_threads(1)  # one thread is the fastest beside other processes
    cv2.setNumThreads(1)
    if init is not None:
        init = weights_to_encode(init, base)
    elif not fresh and released_weights(base).exists():
        init = released_weights(base)

    report = _reporter(log, as_json) if ranks.first else _silence
    choices["device"] = choose_device(choices["device"])
    given = {name: value for name, value in choices.items() if value is not None}
    if base == "av1":
        _train_enhancement(report, data=data, init=init, ranks=ranks, **given)
    else:
        _train_codec(report, data=data, init=init, **given)
    if ranks.first:
        digest = stated_hash(out)
        copy = keep_copy(out, bytes.fromhex(digest))
        report({"weights": str(out), "hash": digest, "copy": copy and str(copy)})


def _check_usage(base: str, init: Path | None, fresh: bool, choices: dict[str, Any]) -> None:
    if fresh + bool(init) + choices["update"] > 1:
        raise click.UsageError("use one of --fresh, --init and --update")
    if choices["update"] and not choices["valid"]:
        raise click.UsageError("--update needs validation videos, which decide: add --valid")
    if choices["plot"] and not choices["valid"]:
        raise click.UsageError("--plot needs validation videos: add --valid")
    if base == "av1" and choices["library"] is not None:
        raise click.UsageError("--library is only for --base none")
    if base == "av1" and choices["steps"] == 0:
        raise click.UsageError("--steps 0 chooses pictures for the library, which is only for --base none")
    for name, option in (
        ("augment", "--augment"),
        ("capacity", "--cache-size"),
        ("compiled", "--compile"),
        ("network", "--network"),
        ("ssim_share", "--ssim-share"),
        ("update", "--update"),
    ):
        if base == "none" and choices[name] is not None and choices[name] is not False:
            raise click.UsageError(f"{option} is only for --base av1")


def _reporter(log: Path | None, as_json: bool) -> "Report":
    def report(line: dict[str, Any]) -> None:
        text = json.dumps(line)
        if log is not None:
            with open(log, "a", encoding="utf-8") as file:
                file.write(text + "\n")
        if as_json:
            click.echo(text)
        else:
            click.echo("  ".join(f"{name} {value}" for name, value in line.items()), err=True)

    return report


def _silence(line: dict[str, Any]) -> None:
    """What ranks other than the first one report."""


def _check_out(out: Path, data: Path, force: bool, resume: bool, ranks: "Ranks") -> None:
    from viddiff.codec.tensor_file import stated_hash
    from viddiff.training.run import RunOptions

    if not out.exists():
        return
    if not stated_hash(out):
        raise OutputError(f"{out} exists, and it is not a file of weights: choose another name")
    if not (force or RunOptions(data, out, resume=resume, ranks=ranks).goes_on):
        raise OutputError(f"{out} exists; --force overwrites it, --resume goes on with it")


def _train_enhancement(report: "Report", network: str | None = None, **given: Any) -> None:
    from viddiff.networks.enhancement_config import NETWORKS
    from viddiff.training.enhancement import EnhancementOptions, train

    train(EnhancementOptions(config=NETWORKS.get(network or ""), **given), report)


def _train_codec(report: "Report", augment: bool, compiled: bool, **given: Any) -> None:
    from viddiff.training.train import TrainOptions, train

    train(TrainOptions(**given), report)
