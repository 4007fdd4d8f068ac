"""`viddiff batch --ray`: two nodes, one of which is killed."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture
from test_cli import write

from viddiff.cli import main
from viddiff.pipeline.batch.ray_cluster import on_ray

ray = pytest.importorskip("ray")
pytest.importorskip("ray.cluster_utils")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes. The first is that of the batch, and runs no tasks."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


def node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, memory=4 << 30, object_store_memory=80 << 20)


def run(address: str, source: Path, out: Path, weights: Path, *options: str) -> Result:
    arguments = ["batch", source, out, "--gop", 3, "--weights", weights, "--min-age", "0s", "--ray", address]
    return CliRunner().invoke(main, [str(a) for a in [*arguments, *options]])


def test_a_node_is_killed_and_the_work_is_done(cluster: Any, weights: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    write(source / "0.mkv", moving_picture(32, 32, 5))
    for number in range(1, 6):
        shutil.copy(source / "0.mkv", source / f"{number}.mkv")
    (source / "bad.mkv").write_bytes(b"no video")
    dies, _ = node(cluster), node(cluster)
    begun = []

    def kill() -> None:
        while not list(out.rglob("*.vdf*")):
            time.sleep(0.05)
        begun.append(len(list(out.glob("*.vdf"))))
        cluster.remove_node(dies, allow_graceful=False)

    killer = Thread(target=kill, daemon=True)
    killer.start()
    result = run(cluster.address, source, out, weights, "--json", "--verify")
    killer.join()
    assert begun[0] < 6, "it was killed while there was work"
    assert result.exit_code == 3, result.output
    *outcomes, totals = [json.loads(line) for line in result.stdout.splitlines()]
    assert (totals["done"], totals["failed"]) == (6, 1)
    assert {outcome["source"] for outcome in outcomes if outcome["state"] == "failed"} == {
        str(source / "bad.mkv")
    }
    assert len({(out / f"{number}.mkv.vdf").read_bytes() for number in range(6)}) == 1
    records = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert {record["output"] for record in records if not record["error"]} == {
        f"{number}.mkv.vdf" for number in range(6)
    }
    assert all(record["verified"] for record in records if not record["error"])
    again = run(cluster.address, source, out, weights, "--json")
    assert json.loads(again.stdout.splitlines()[-1])["skipped"] == 6, again.output


def test_sigterm_is_ours(cluster: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Ray would print a stack, and end with an exit code of its own."""
    came, before = list[int](), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with on_ray(cluster.address):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]
    assert "SIGTERM" not in capfd.readouterr().err


def test_places_on_servers(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    from s3_server import BUCKET, S3Server
    from test_batch_remote import archived

    server = S3Server()
    for name, value in server.settings.items():
        monkeypatch.setenv(name, value)
    write(tmp_path / "a.mkv", moving_picture(32, 32, 5))
    for number in range(2):
        server.put(f"cameras/{number}.mkv", (tmp_path / "a.mkv").read_bytes())
    places = [f"s3://{BUCKET}/cameras", f"s3://{BUCKET}/archive", "--scratch", tmp_path / "work"]
    choices = ["--weights", weights, "--gop", 3, "--min-age", "0s", "--ray", "local", "--delete-source"]
    result = CliRunner().invoke(main, [str(a) for a in ["batch", *places, *choices, "--json"]])
    server.stop()
    assert result.exit_code == 0, result.output
    assert set(archived(server)) == {"0.mkv.vdf", "1.mkv.vdf"}
    assert server.objects("cameras/") == {}
    assert len((tmp_path / "work" / "manifest.jsonl").read_text().splitlines()) == 2


def test_no_cluster_is_said_in_one_sentence(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    result = run("nonsense", tmp_path / "source", tmp_path / "out", weights)
    assert result.exit_code == 1
    assert "there is no Ray cluster at nonsense" in result.stderr
