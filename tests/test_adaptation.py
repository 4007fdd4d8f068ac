"""encode --adapt: what it refuses, what it finds, when the file carries it, and how it is resumed."""

import json
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import moving_picture, restless, same, tuned
from test_cli import read, refused, run, write

from viddiff.codec.enhancement_module import network_of, weights_of
from viddiff.codec.enhancement_weights import EnhancementWeights, load
from viddiff.codec.file_network import pack_network, unpack_network
from viddiff.container.format import framed_size
from viddiff.container.reader import Reader
from viddiff.frame import VideoInfo
from viddiff.networks.bounds import UNIT
from viddiff.pipeline.adaptation import Adaptation
from viddiff.pipeline.batch.job import BatchJob
from viddiff.pipeline.encode_file import encode_file
from viddiff.pipeline.encode_job import EncodeJob
from viddiff.pipeline.status import Observer, Status, ignore
from viddiff.training import adaptation
from viddiff.training.adaptation import rounded
from viddiff.training.enhancement import EnhancementOptions, solve_tail_
from viddiff.training.enhancement_samples import TileShards, code_base, tiles_of, write_shard

Parameters = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four GOPs of eight frames, as large as training needs."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write(path, moving_picture(160, 160, 32))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small frames."""
    path = tmp_path_factory.mktemp("small") / "small.mkv"
    write(path, moving_picture(48, 32, 12))
    return path


def network_in(path: Path) -> bytes | None:
    with open(path, "rb") as file:
        return Reader(file).header.network


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--adapt", 0), "more than 0"),
        (("--adapt", "nan"), "more than 0"),
        (("--adapt", 1, "--base", "none"), "AV1 base"),
        (("--adapt", 1, "--preset", "fast"), "a preset with networks"),
        (("--adapt", 1, "--size", "1M"), "--quality"),
        (("--adapt", 1, "--min-psnr", 40), "--quality"),
        (("--adapt", 1, "--max-encoded-percent", 80), "--quality"),
    ],
)
def test_options_that_do_not_go_with_it(
    small: Path, tmp_path: Path, options: tuple[Any, ...], words: str
) -> None:
    assert words in refused(run("encode", small, tmp_path / "out.vdf", *options), 2)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["-", "rtsp://camera/1", ":0"])
def test_live_sources_and_pipes_cannot_be_read_before(source: str, tmp_path: Path) -> None:
    device = ("--input-format", "x11grab") if source == ":0" else ()
    result = run("encode", source, tmp_path / "out.vdf", "--adapt", 1, "--low-delay", *device)
    assert "--adapt needs a file as input" in refused(result, 2)


def test_a_batch_has_none() -> None:
    job = EncodeJob(source="a.mkv", target="a.vdf", adapt=1.0)
    with pytest.raises(ValueError, match="tunes no networks"):
        BatchJob(sources=["a"], target=Path("b"), encode=job)


def test_small_frames_and_short_videos(small: Path, clip: Path, base_weights: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "out.vdf", ("--weights", base_weights, "--adapt", 0.01)
    assert "160x160" in refused(run("encode", small, out, *options))
    assert not any(tmp_path.iterdir())
    result = run("encode", clip, out, *options, "--frames", 8)
    assert result.exit_code == 0, result.output
    assert "too short or too plain for a network of its own" in result.stderr
    assert network_in(out) == b""


@pytest.mark.parametrize("share", [0.3, 0.001])
def test_the_file_carries_what_pays(
    clip: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """After a short training, for a share of the bits that it would save. Decoders need nothing else."""
    monkeypatch.setattr(adaptation, "EnhancementOptions", partial(EnhancementOptions, steps=4))
    monkeypatch.setattr(adaptation, "_LEARNING_RATE", 0.1)
    monkeypatch.setattr(adaptation._Judge, "saved", lambda *_: share)
    out, origin = tmp_path / "out.vdf", load(base_weights)
    options = ("--weights", base_weights, "--gop", 8, "--quality", 10)
    result = run("encode", clip, out, *options, "--adapt", 600, "--verify", "--json")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout.splitlines()[-1])
    network = network_in(out)
    assert network is not None
    assert values["verified"]
    assert values["network"]["steps"] == 4
    assert values["network"]["carried"] == bool(network) == (share == 0.3)
    if not network:
        assert values["network"]["bytes"] > values["network"]["saved_bytes"]
        assert "the file has no network of its own" in result.stderr
        return
    assert values["network"]["bytes"] == len(network) < values["network"]["saved_bytes"]
    assert {"part": "network", "bytes": framed_size(len(network)), "level": None} in values["ledger"]
    assert sum(row["bytes"] for row in values["ledger"]) == values["bytes"] == out.stat().st_size
    assert unpack_network(origin, network).hash() != origin.hash()
    shown = tmp_path / "shown.mkv"
    assert run("decode", out, shown, "--lossless", "--weights", base_weights).exit_code == 0
    assert len(read(shown)) == 32


def test_networks_are_judged_by_what_they_leave(tmp_path: Path) -> None:
    """The one that is fitted to the errors saves bits, and the same one saves nothing."""
    frames = moving_picture(160, 160, 9, bit_depth=10)
    tiles = tiles_of(frames, code_base(frames, 200, 6), 200, random.Random(0), 8)
    write_shard(tmp_path, 0, tiles)
    idle = restless()
    zeros = {name: 0 * idle.integers[name] for name in ("tail.weight", "tail.bias")}
    still = EnhancementWeights(idle.config, {**idle.integers, **zeros})
    shards = TileShards(tmp_path)
    assert adaptation._Judge(shards, VideoInfo(160, 160, 8), idle, "cpu").saved(idle) == 0
    judge = adaptation._Judge(shards, VideoInfo(160, 160, 8), still, "cpu")
    assert judge.saved(still) == 0
    network = network_of(still).requires_grad_(True).train()
    batch = shards.batch(8, random.Random(1))
    solve_tail_(network, iter([batch]))
    better = weights_of(network)
    assert judge.saved(better) > 0
    assert adaptation._Judge(shards, VideoInfo(160, 160, 8), better, "cpu").saved(still) < 0


def test_a_network_that_does_not_pay(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    """The file is the one without, and a note says why."""
    out, plain = tmp_path / "out.vdf", tmp_path / "plain.vdf"
    options = ("--weights", base_weights, "--gop", 8, "--quality", 10)
    seen = list[Status]()

    def poor(job: EncodeJob, observer: Observer) -> Adaptation:
        observer(Status("adapt, training", 1, 1, counted="seconds"))
        return Adaptation(b"", 5000, 4000, 10)

    job = EncodeJob(source=str(clip), target=out, weights=base_weights, gop=8, quality=10, adapt=1.0)
    result = encode_file(job, seen.append, adapt=poor)
    assert result.notes == (
        "the file has no network of its own: it would take 5000 bytes, and is expected to save 4000",
    )
    assert any(status.counted == "seconds" for status in seen)
    assert run("encode", clip, plain, *options).exit_code == 0
    assert out.read_bytes() == plain.read_bytes()


def test_resuming_trains_once(small: Path, base_weights: Path, tmp_path: Path) -> None:
    """An encode that was stopped goes on with the network that it has, or without one if it had none."""
    origin = load(base_weights)

    def never(job: EncodeJob, observer: Observer) -> Adaptation:
        raise AssertionError("trained again")

    for number, network in enumerate((pack_network(origin, tuned(origin)), b"")):
        out, whole = tmp_path / f"{number}.vdf", tmp_path / f"{number} whole.vdf"
        job = EncodeJob(
            source=str(small), target=out, weights=base_weights, gop=4, adapt=1.0, shorten=False, workers=1
        )
        found = Adaptation(network, len(network), 10_000)

        def stop(status: Status) -> None:
            if status.stage == "encode" and status.frames >= 9:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            encode_file(job, stop, adapt=lambda *_, found=found: found)
        assert not out.exists()
        result = encode_file(replace(job, resume=True), ignore, adapt=never)
        assert result.adaptation == Adaptation(network, len(network))
        assert result.notes == ()
        encode_file(replace(job, target=whole), ignore, adapt=lambda *_, found=found: found)
        assert out.read_bytes() == whole.read_bytes()
        assert network_in(out) == network


def test_without_a_whole_gop_it_begins_anew(small: Path, base_weights: Path, tmp_path: Path) -> None:
    """Stopped while it trains, an encode leaves nothing behind."""

    def stopped(job: EncodeJob, observer: Observer) -> Adaptation:
        raise KeyboardInterrupt

    job = EncodeJob(source=str(small), target=tmp_path / "a.vdf", weights=base_weights, adapt=1.0)
    with pytest.raises(KeyboardInterrupt):
        encode_file(job, ignore, adapt=stopped)
    assert not any(tmp_path.iterdir())


def test_the_file_holds_what_was_encoded(small: Path, base_weights: Path, tmp_path: Path) -> None:
    """In several processes, encrypted, and into a pipe."""
    origin = load(base_weights)
    network = pack_network(origin, tuned(origin))
    found, shown = Adaptation(network, len(network), 10_000), list[Any]()
    for workers in (1, 2):
        out = tmp_path / f"{workers}.vdf"
        job = EncodeJob(
            source=str(small),
            target=out,
            weights=base_weights,
            gop=4,
            adapt=1.0,
            workers=workers,
            verify=True,
        )
        encode_file(job, ignore, adapt=lambda *_: found)
        decoded = tmp_path / f"{workers}.mkv"
        assert run("decode", out, decoded, "--lossless", "--weights", base_weights).exit_code == 0
        shown.append(read(decoded))
    assert same(*shown)
    assert (tmp_path / "1.vdf").read_bytes() == (tmp_path / "2.vdf").read_bytes()
    with open(tmp_path / "pipe.vdf", "wb") as pipe:
        encode_file(replace(job, target=pipe, verify=False), ignore, adapt=lambda *_: found)
    assert (tmp_path / "pipe.vdf").read_bytes() == (tmp_path / "1.vdf").read_bytes()


def floats_of(weights: EnhancementWeights) -> Parameters:
    """Parameters of the network with these integers."""
    found = Parameters()
    for name in weights.config.layers():
        weight, bias, exponent = (weights.integers[f"{name}.{p}"] for p in ("weight", "bias", "exponent"))
        scale = 2.0 ** -exponent.astype(np.float64)
        found[f"{name}.weight"] = torch.from_numpy(weight * scale[:, None, None, None])
        found[f"{name}.bias"] = torch.from_numpy(bias * scale / UNIT)
    return found


def test_differences_are_rounded() -> None:
    origin = restless()
    new = tuned(origin, largest=9)
    fine = rounded(origin, floats_of(new), 1, last_layers=False)
    assert fine.hash() == new.hash()
    assert rounded(origin, floats_of(origin), 4, last_layers=False).hash() == origin.hash()
    coarse = rounded(origin, floats_of(new), 4, last_layers=False)
    for name in origin.config.layers():
        changes = coarse.integers[f"{name}.weight"].astype(int) - origin.integers[f"{name}.weight"]
        wanted = new.integers[f"{name}.weight"].astype(int) - origin.integers[f"{name}.weight"]
        assert not (changes % 4).any()
        assert (np.abs(changes - wanted) <= 4).all()
        assert not changes[np.abs(wanted) <= 2].any()
    assert len(pack_network(origin, coarse)) < len(pack_network(origin, fine))
    last = rounded(origin, floats_of(tuned(origin, seed=1)), 1, last_layers=True)
    changed = {name for name, array in last.integers.items() if (array != origin.integers[name]).any()}
    assert changed
    assert all("after" in name or "tail" in name for name in changed)


def test_integers_stay_in_range() -> None:
    """However far the training goes."""
    origin = restless()
    far = {name: tensor * 1000 for name, tensor in floats_of(origin).items()}
    assert rounded(origin, far, 1, last_layers=False).config == origin.config


def test_it_needs_networks_that_enhance(clip: Path, weights: Path, tmp_path: Path) -> None:
    result = run("encode", clip, tmp_path / "out.vdf", "--weights", weights, "--adapt", 1)
    assert "AV1 base" in refused(result)
