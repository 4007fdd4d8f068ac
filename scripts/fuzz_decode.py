#!/usr/bin/env python
"""Coverage-guided fuzzing (atheris, the extra `fuzz`) of all that reads files: anything but a result or a
ViddiffError, in time and memory, is a finding. Each kind is made small and kept in tests/data/bad.

    scripts/fuzz_decode.py --minutes 10                   # shared by all targets
    scripts/fuzz_decode.py --minutes 60 --target decode
"""

import argparse
import contextlib
import io
import re
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
BAD = ROOT / "tests" / "data" / "bad"
NAMES = ("header", "container", "entropy", "weights", "sealed", "decode")
MAX_BYTES = {
    "header": 200,
    "container": 4096,
    "entropy": 600,
    "weights": 1 << 19,
    "sealed": 20_000,
    "decode": 6000,
}
MEMORY_MIB = 4096
"""Of a whole process, instrumented; `fuzz_targets` has the tighter bound for each input."""


def seeds(target: str) -> list[bytes]:
    """Sound inputs to begin with."""
    import fuzz_targets
    import numpy as np

    from viddiff import checkpoint
    from viddiff.codec import EncodeOptions, encode
    from viddiff.config import ModelConfig
    from viddiff.container import META, PACKETS, TRACK, Header, KeyChunk, PredictedChunk, Writer
    from viddiff.entropy import SymbolEncoder
    from viddiff.frame import Frame, VideoInfo
    from viddiff.sealing import SealedWriter

    def synthetic() -> bytes:
        out = io.BytesIO()
        writer = Writer(out, Header(VideoInfo(32, 16, time_base=Fraction(1, 90)), bytes(32), "tiny", 16))
        tags = (
            b'{"tags": {"a": "b"}, "chapters": [[0, 5, 1, 25, {}]], "video": {"tags": {}, "disposition": 1}}'
        )
        writer.attach(META, bytes([len(tags)]) + tags)
        track = b'{"kind": "audio", "codec": "opus", "time_base": [1, 48], "format": "matroska", '
        track += b'"tags": {}, "disposition": 0, "details": {}}'
        writer.attach(TRACK, bytes([len(track)]) + track)
        for gop in range(3):
            writer.write(KeyChunk(20 * gop, b"abc"))
            writer.attach(PACKETS, bytes([1, 0, 4, 2, 7, 7, 3, 1, 8]))
            writer.write(PredictedChunk((20 * gop + 2, 20 * gop + 5, 20 * gop + 6), b"\0xyz"))
        writer.finish()
        return out.getvalue()

    def real(size: int, bit_depth: int, options: EncodeOptions) -> bytes:
        rng, out = np.random.default_rng(1), io.BytesIO()
        kind, top = (np.uint8, 256) if bit_depth == 8 else (np.uint16, 1024)
        shapes = (size, size), (size // 2, size // 2), (size // 2, size // 2)
        base = [rng.integers(0, top, s).astype(kind) for s in shapes]
        frames = [Frame(*(np.roll(p, t, 0) for p in base), t) for t in range(6)]
        encode(frames, VideoInfo(size, size, bit_depth), out, fuzz_targets.tiny_codec(), options)
        return out.getvalue()

    def symbols(coder: str) -> bytes:
        encoder = SymbolEncoder(coder)  # type: ignore[arg-type]
        indexes = np.arange(40) % 5 - 1
        encoder.put(np.where(indexes < 0, 0, indexes * 50), indexes, fuzz_targets.some_tables())
        return bytes([coder == "huffman", 40, 0, 0]) + encoder.finish()

    def sealed(data: bytes) -> bytes:
        out = io.BytesIO()
        writer = SealedWriter(out, fuzz_targets.KEY, salt=bytes(32))
        writer.write(data)
        writer.finish()
        return out.getvalue()

    if target == "header":
        return [Header(VideoInfo(32, 16), bytes(32), name, 16).pack() for name in ("", "größer")]
    if target == "container":
        return [synthetic()]
    if target == "entropy":
        return [symbols("ans"), symbols("huffman"), bytes([2, 40, 200, 40, 0])]
    if target == "sealed":
        return [sealed(synthetic()), sealed(synthetic() + bytes(9000)), sealed(b"")]
    if target == "weights":
        codec = checkpoint.untrained(ModelConfig("tiny", quarter=1, eighth=1, hyper=1))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tiny.safetensors"
            checkpoint.save(path, codec.model, codec.motion, codec.tables)
            return [path.read_bytes()]
    return [
        real(16, 8, EncodeOptions(gop=6)),
        real(16, 8, EncodeOptions(gop=3, entropy="huffman")),
        real(24, 10, EncodeOptions(gop=6, low_delay=True, quality=10)),
        real(64, 8, EncodeOptions(gop=6, quality=5)),
    ]


def work(target: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["viddiff"]):
        import fuzz_targets
    from fuzz_mutate import MUTATORS, smaller

    function, known = fuzz_targets.TARGETS[target], set[str]()

    def finding(data: bytes) -> str:
        try:
            fuzz_targets.check(function, data)
        except fuzz_targets.Finding as found:
            return str(found)
        return ""

    def one_input(data: bytes) -> None:
        message = finding(data)
        if message and message not in known:
            known.add(message)
            data = smaller(target, data, lambda candidate: finding(candidate) == message)
            name = re.sub(r"\W+", "-", message.lower())
            (BAD / target).mkdir(parents=True, exist_ok=True)
            (BAD / target / f"{name}.bin").write_bytes(data)
            print(f"FINDING {target}: {message} ({len(data)} bytes)", flush=True)

    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed{number}").write_bytes(seed)
    arguments = [sys.argv[0], f"-max_total_time={seconds}", f"-max_len={MAX_BYTES[target]}", "-timeout=120"]
    arguments += [
        f"-rss_limit_mb={MEMORY_MIB}",
        "-print_final_stats=1",
        "-len_control=0",
        f"-artifact_prefix={corpus}/",
    ]
    if target in MUTATORS:
        atheris.Setup(
            [*arguments, str(corpus)],
            one_input,
            custom_mutator=lambda data, size, seed: MUTATORS[target](data, size, seed, atheris.Mutate),
        )
    else:
        atheris.Setup([*arguments, str(corpus)], one_input)
    atheris.Fuzz()


def fuzz(target: str, seconds: int) -> tuple[int, int]:
    """Fuzz one target in a process of its own; executions and findings."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        command = [
            sys.executable,
            __file__,
            "--worker",
            str(seconds),
            "--corpus",
            str(corpus),
            "--target",
            target,
        ]
        with open(log, "wb") as file:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
        text = log.read_text(errors="replace")
        findings = re.findall(r"^FINDING .*", text, re.M)
        for artifact in corpus.glob("[clto]*-*"):  # crash, leak, timeout, oom: ends of the process itself
            (BAD / target).mkdir(parents=True, exist_ok=True)
            (BAD / target / f"{artifact.name[:16]}.bin").write_bytes(artifact.read_bytes())
            findings.append(f"FINDING {target}: {artifact.name}")
        counts = [
            int(n)
            for n in re.findall(r"^#(\d+)|number_of_executed_units: *(\d+)", text, re.M)
            for n in n
            if n
        ]
        covered = re.findall(r" cov: (\d+)", text)
        for line in findings:
            print(line)
        print(
            f"{target}: {max(counts, default=0)} executions, {len(findings)} findings, coverage {covered[-1:]}",  # noqa: E501
            flush=True,
        )
        if code and not findings:
            print(text[-2000:])
        return max(counts, default=0), len(findings) + (code != 0 and not findings)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together")
    parser.add_argument("--target", choices=NAMES, help="only this one")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.target, options.worker, options.corpus)
    names = [options.target] if options.target else NAMES
    with contextlib.suppress(KeyboardInterrupt):
        results = [fuzz(name, max(int(options.minutes * 60 / len(names)), 1)) for name in names]
        print(f"{sum(r[0] for r in results)} executions, {sum(r[1] for r in results)} findings")
        sys.exit(any(r[1] for r in results))


if __name__ == "__main__":
    main()
