"""Several processes train one network, as torchrun starts them: one gradient, one result, and kills."""

import json
import os
import random
import signal
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_enhancement import fresh, options_of, write_tiles
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.multiprocessing import get_context

from viddiff.cli import main
from viddiff.codec import enhancement_weights
from viddiff.codec.enhancement_module import network_of, weights_of
from viddiff.codec.tensor_file import stated
from viddiff.errors import ViddiffError
from viddiff.training import enhancement
from viddiff.training import run as training_run
from viddiff.training.enhancement import EnhancementOptions, train
from viddiff.training.enhancement_loss import SSIM_SHARE, tile_losses
from viddiff.training.enhancement_samples import TileCollector, TileShards
from viddiff.training.enhancement_scenes import AS_THEY_ARE
from viddiff.training.learner import Learner
from viddiff.training.ranks import ALONE, Ranks

STEPS, BATCH, KILLED_AT = 30, 4, 15


def work(options: EnhancementOptions) -> None:
    """What each rank does. The first one is killed once. Notes are left for the tests."""
    torch.set_num_threads(1)
    ranks, folder = Ranks.of_environment(), options.data
    begun, average = enhancement.EnhancementTraining.step, Ranks.average_
    enhancement._BETWEEN = 1.0
    training_run._LINE_MINUTES = 0  # the state is written after each step

    def step(training: Any, share: float) -> dict[str, float]:
        learner = training.learner
        if ranks.first and learner.step == KILLED_AT and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        values = begun(training, share)
        note = {"step": learner.step, **values, "sum": checksum(learner.parameters.values())}
        with open(folder / f"{ranks.number}.jsonl", "a") as file:
            file.write(json.dumps(note) + "\n")
        return values

    def averaged(self: Ranks, loss: Tensor, parameters: Any) -> None:
        average(self, loss, parameters)
        path = folder / f"gradient-{self.number}.pt"
        if not path.exists():
            torch.save([parameter.grad for parameter in parameters], path)

    enhancement.EnhancementTraining.step = step  # type: ignore[method-assign, assignment]
    Ranks.average_ = averaged  # type: ignore[method-assign]
    lines = list[dict[str, Any]]()
    network = train(replace(options, ranks=ranks), lines.append)
    (folder / f"{ranks.number}.json").write_text(
        json.dumps({"lines": lines, "hash": weights_of(network).hash().hex()})
    )


def checksum(tensors: Any) -> int:
    return zlib.crc32(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> EnhancementOptions:
    """Two ranks under torchrun's agent. The first is killed half-way."""
    folder = tmp_path_factory.mktemp("ranks")
    enhancement_weights.save(folder / "init.safetensors", fresh())
    options = options_of(
        folder, 48, steps=STEPS, batch=BATCH, exact_share=1.0, init=folder / "init.safetensors"
    )
    changed = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in changed}
    get_context("forkserver").set_forkserver_preload(["viddiff.training.enhancement", "test_ranks"])
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="this run",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=1,
        start_method="forkserver",
    )
    elastic_launch(config, work)(options)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return options


def notes(options: EnhancementOptions, rank: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (options.data / f"{rank}.jsonl").read_text().splitlines()]


def test_gradients_are_those_of_all_tiles(trained: EnhancementOptions) -> None:
    """Each rank draws its own, and both have the mean."""
    assert trained.init is not None
    network = network_of(enhancement_weights.load(trained.init)).requires_grad_(True).train()
    tiles = TileShards(trained.samples / "train")
    batches = [tiles.batch(BATCH, random.Random(f"0 {rank} 0"), True) for rank in range(2)]
    assert not torch.equal(batches[0].decoded, batches[1].decoded)
    torch.cat([tile_losses(network, batch).mixed(SSIM_SHARE) for batch in batches]).mean().backward()  # type: ignore[no-untyped-call]
    for rank in range(2):
        found = torch.load(trained.data / f"gradient-{rank}.pt")
        for parameter, gradient in zip(network.parameters(), found, strict=True):
            expected = parameter.grad
            if expected is None:
                assert gradient is None, "the network for frames alone does not move"
                continue
            limit = 1e-3 * float(expected.abs().max()) + 1e-6
            assert torch.allclose(gradient, expected, rtol=0, atol=limit)


def test_ranks_have_one_network(trained: EnhancementOptions) -> None:
    first, second = ({note["step"]: note for note in notes(trained, rank)} for rank in range(2))
    assert set(first) == set(range(STEPS))
    assert first == second
    ends = [json.loads((trained.data / f"{rank}.json").read_text()) for rank in range(2)]
    assert ends[0]["hash"] == ends[1]["hash"] == enhancement_weights.load(trained.out).hash().hex()
    assert ends[1]["lines"] == [], "only the first rank reports"


def test_a_killed_rank_goes_on(trained: EnhancementOptions) -> None:
    """From its last state, without --resume. Nobody goes on from what has ended."""
    assert [note["step"] for note in notes(trained, 0)] == list(range(STEPS))
    lines = json.loads((trained.data / "0.json").read_text())["lines"]
    assert [line["step"] for line in lines] == list(range(KILLED_AT + 1, STEPS + 1))
    assert stated(trained.state, "run") == ""


def test_two_ranks_learn_like_one_with_twice_the_batch(
    trained: EnhancementOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means of ten steps are as far apart as chance allows; the loss falls by more than that."""
    monkeypatch.setattr(training_run, "_LINE_MINUTES", 0)
    monkeypatch.setattr(enhancement, "_BETWEEN", 1.0)
    lines = list[dict[str, Any]]()
    alone = replace(trained, out=tmp_path / "alone.safetensors", cache=trained.samples, batch=2 * BATCH)
    train(alone, lines.append)
    losses = [[line["loss"] for line in lines], [note["loss"] for note in notes(trained, 0)]]
    one, two = (np.reshape(values, (-1, 10)) for values in losses)
    error = np.sqrt((one.var(1, ddof=1) + two.var(1, ddof=1)) / 10)
    assert (np.abs(one.mean(1) - two.mean(1)) < 4 * error).all()
    for curve in (one, two):
        assert curve[0].mean() - curve[-1].mean() > 4 * error.max()


def test_ranks_share_a_folder_of_shards(tmp_path: Path) -> None:
    """Each writes under numbers that no other one uses."""
    collectors = [TileCollector(tmp_path, tmp_path, AS_THEY_ARE, 0, Ranks(rank, 3)) for rank in range(3)]
    assert [collector.next_number() for collector in collectors] == [0, 1, 2]
    write_tiles(tmp_path, 1, 1)
    assert [collector.next_number() for collector in collectors] == [3, 4, 2]
    assert TileCollector(tmp_path, tmp_path, AS_THEY_ARE, 0).next_number() == 2


def test_only_the_own_state_is_gone_on_with(tmp_path: Path) -> None:
    learner = Learner.of(network_of(fresh()).named_parameters())
    learner.optimizer = torch.optim.AdamW(learner.parameters.values())
    for run in ("a", ""):
        learner.run = run
        learner.save(tmp_path / "w.resume", {})
        assert Ranks(run="a").own(tmp_path / "w.resume") == (run == "a")
        assert not Ranks(run="b").own(tmp_path / "w.resume")
        assert not ALONE.own(tmp_path / "w.resume")
    assert not Ranks(run="a").own(tmp_path / "none.resume")


def torchrun_says(patch: pytest.MonkeyPatch, rank: int, count: int, run: str = "a") -> None:
    names = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": run}
    for name, value in names.items():
        patch.setenv(name, str(value))


def test_the_command_goes_on_over_its_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights with the name are still refused."""
    options = options_of(tmp_path, 4)
    enhancement_weights.save(options.out, fresh())
    (tmp_path / "footage").mkdir()
    choices = ["train", "--data", str(tmp_path / "footage"), "--out", str(options.out), "--steps", "1"]
    learner = Learner.of(network_of(fresh()).named_parameters())
    learner.optimizer = torch.optim.AdamW(learner.parameters.values())
    learner.run = "a"
    learner.save(options.state, {})
    for run, message in (("a", "no videos"), ("b", "--force overwrites it")):
        torchrun_says(monkeypatch, 0, 1, run)
        result = CliRunner().invoke(main, choices)
        assert result.exit_code == 1
        assert message in result.stderr


def test_networks_without_a_base_train_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun_says(monkeypatch, 1, 2)
    result = CliRunner().invoke(main, ["train", "--data", str(tmp_path), "--base", "none"])
    assert result.exit_code == 1
    assert "without torchrun" in result.stderr


def test_each_rank_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ViddiffError, match="1 GPUs"), Ranks(1, 2, 1).together("cuda"):
        pass
