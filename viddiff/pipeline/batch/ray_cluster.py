"""Units of a batch on a Ray cluster, whose nodes share the file systems of sources and target.

Each unit is a task, which Ray starts again elsewhere if its process or node dies. What an earlier attempt has
coded is continued, as after any kill. One actor, on the node of the batch itself, appends to the manifest: so
the manifest has one writer, and a line is on the disk before the file gets its name, on whatever node.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from viddiff.errors import ViddiffError
from viddiff.pipeline.batch.job import BatchJob, Outcome
from viddiff.pipeline.batch.manifest import Manifest, Record
from viddiff.pipeline.batch.reasons import failure
from viddiff.pipeline.batch.run import Execute, attempt_unit
from viddiff.pipeline.batch.seen import Seen
from viddiff.pipeline.batch.units import Shard, Unit
from viddiff.pipeline.batch.weights_map import WeightsMap

MEMORY_OF_WORKER = 3 << 30
"""Bytes of memory that a task reserves for each CPU."""
ATTEMPTS = 5
"""How often a task starts anew when its process or node dies."""


@contextmanager
def on_ray(address: str) -> Iterator[Execute]:
    """What encodes units on a cluster: "auto", "local" (this machine alone) or "host:port".

    Raises ViddiffError if Ray is not installed or the cluster cannot be reached.
    """
    try:
        import ray
        from ray._private import worker
    except ImportError as error:
        raise ViddiffError("--ray needs Ray: pip install 'viddiff[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    vars(worker)["listen_error_messages"] = lambda *_: None  # it would print to stdout, among our JSON
    try:
        with _sigterm_kept():
            ray.init(
                address=address,
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level=logging.FATAL,
            )
    except Exception as error:  # Ray raises bare ones, too
        raise ViddiffError(f"there is no Ray cluster at {address}") from error
    try:
        yield _encode
    finally:
        ray.shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM: that of Ray would print a stack and end with another exit code."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _encode(job: BatchJob, manifest: Manifest, to_do: list[tuple[Unit, Seen]]) -> Iterator[Outcome]:
    """Encode units side by side. Raises ViddiffError or OSError if the batch as a whole cannot go on."""
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if not to_do:
        return
    job = _anywhere(job)
    cpus = job.encode.workers or 1
    needs = {"num_cpus": cpus, "memory": cpus * MEMORY_OF_WORKER}
    _check_fits(ray.nodes(), cpus)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    writer = ray.remote(_Writer).options(num_cpus=0, scheduling_strategy=here).remote(job.target, job.shard)
    task = ray.remote(_attempt).options(max_retries=ATTEMPTS, **needs)
    tasks = {task.remote(job, writer, unit, seen): (unit, seen) for unit, seen in to_do}
    while tasks:
        (done,), _ = ray.wait(list(tasks), num_returns=1)
        unit, seen = tasks.pop(done)
        try:
            yield ray.get(done)
        except RayTaskError as error:
            raise error.cause from error
        except RayError:
            reason = f"its process or node died {ATTEMPTS + 1} times"
            ray.get(writer.append.remote(failure(unit, seen, reason, 0.0)))
            yield Outcome(unit, "failed", reason, seen.size)


def _attempt(job: BatchJob, writer: Any, unit: Unit, seen: Seen) -> Outcome:
    """The task of a unit."""
    return attempt_unit(job, _DistantManifest(job, writer), unit, seen)


class _Writer:
    """The actor that appends to the manifest."""

    def __init__(self, target: Path, shard: Shard) -> None:
        self._manifest = Manifest(target, shard)
        self._appending = self._manifest.appending()
        self._appending.__enter__()

    def append(self, record: Record) -> None:
        """Write a line to the disk."""
        self._manifest.append(record)

    def finished(self, output: str) -> list[Record]:
        """Records of all encodes to a file that have not failed."""
        return self._manifest.finished(output)

    def joined(self, name: str) -> list[Record]:
        """Records of all joined files that hold a unit."""
        return self._manifest.joined(name)


class _DistantManifest(Manifest):
    """The manifest as a task sees it."""

    def __init__(self, job: BatchJob, writer: Any) -> None:
        super().__init__(job.target, job.shard)
        self._writer = writer

    def finished(self, output: str) -> list[Record]:
        """As the writer knows them now."""
        import ray

        records: list[Record] = ray.get(self._writer.finished.remote(output))
        return records

    def joined(self, name: str) -> list[Record]:
        """As the writer knows them now."""
        import ray

        records: list[Record] = ray.get(self._writer.joined.remote(name))
        return records

    def learn(self, record: Record) -> None:
        """Returns when the line is on the disk."""
        self.append(record)

    def append(self, record: Record) -> None:
        """Returns when the line is on the disk."""
        import ray

        ray.get(self._writer.append.remote(record))


def _anywhere(job: BatchJob) -> BatchJob:
    """The same job for a process with another working folder."""
    weights, rows = job.encode.weights, job.weights.rows
    encode = replace(job.encode, weights=_absolute(weights), workers=job.encode.workers or 1)
    named = WeightsMap(tuple((pattern, str(_absolute(name))) for pattern, name in rows))
    return replace(job, target=job.target.absolute(), encode=encode, weights=named)


def _absolute(weights: "str | os.PathLike[str] | None") -> "str | os.PathLike[str] | None":
    """Weights by their absolute path, if they are a file and not the digits of a hash."""
    return os.path.abspath(weights) if weights is not None and os.path.exists(weights) else weights


def _check_fits(nodes: list[dict[str, Any]], cpus: int) -> None:
    """Raises ViddiffError if no node can ever run a task."""
    found = [node["Resources"] for node in nodes if node["Alive"]]
    memory = cpus * MEMORY_OF_WORKER
    if not any(node.get("CPU", 0) >= cpus and node.get("memory", 0) >= memory for node in found):
        raise ViddiffError(
            f"no node of the Ray cluster has {cpus} CPUs and {memory >> 30} GiB of memory for a file: "
            "choose fewer --workers"
        )
