"""Measure the compiled engine against torch: processor time a frame on one core, and what a layer reaches.

python scripts/engine_speed.py
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from viddiff.codec.engine.enhancement import EnhancementEngine
from viddiff.codec.engine.instruction_sets import instruction_sets
from viddiff.codec.enhancement_module import weights_of
from viddiff.codec.enhancer import Enhancer
from viddiff.frame import Frame
from viddiff.media.av1_headers import Coding
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement_config import CONDITIONS, LARGE, SMALL

SIZES = ((352, 288), (1280, 720))


def cpu_ms(work: Callable[[], object], rounds: int) -> float:
    """Median processor time of the work, without its first run."""
    work()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * median(times)


def main() -> None:
    """Print a line for each network, size and way."""
    torch.set_num_threads(1)
    rng, coding = np.random.default_rng(0), Coding(120, False)
    for config in (SMALL, LARGE):
        weights, condition = weights_of(EnhancementNetwork(config)), np.zeros(CONDITIONS, np.int64)
        for width, height in SIZES:
            shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
            y, u, v = (rng.integers(0, 1024, shape).astype(np.uint16) for shape in shapes)
            frame = Frame(y, u, v)
            title, macs = f"{config.name} {width}x{height}", config.macs() * width * height
            module = Enhancer(weights, engine="torch")
            ways: dict[str, Callable[[], Any]] = {"torch": partial(module.correction, frame, coding, 140)}
            for instructions in instruction_sets():
                engine = EnhancementEngine(config, weights.integers, instructions)
                ways[instructions.name] = partial(engine.correction, frame, condition)
            for name, work in ways.items():
                ms = cpu_ms(work, 5)
                print(f"{title:16} {name:12} {ms:8.2f} ms {macs / ms / 1e6:6.1f} GMAC/s", flush=True)


if __name__ == "__main__":
    main()
