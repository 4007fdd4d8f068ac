#!/usr/bin/env python
"""Fuzz everything that reads files, guided by coverage (atheris, the extra `fuzz`).

Anything except a result or a ViddiffError within time and memory is a finding. One small input of each
finding is kept in tests/data/bad, where a test runs it. See docs/fuzzing.md.

    scripts/fuzz_decode.py --minutes 10                   # all targets share the time
    scripts/fuzz_decode.py --minutes 60 --target decode --corpus ~/corpus
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import fuzz_targets  # noqa: E402

BAD = ROOT / "tests" / "data" / "bad"
COMPILED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "viddiff").rglob("*.py")
    if re.search("^@(compiled|kernel)$", path.read_text(), re.M)
]
"""Modules that numba compiles. Compiled code cannot be traced: targets of pictures leave it untraced. Targets
of bytes run it as Python, which also notices indexes out of bounds.
"""
KEPT_BYTES = 4096
"""Largest input that is kept for its ending."""
MEMORY_MIB = 4096
"""Memory of a whole instrumented process. `fuzz_targets` has the tighter bound for each input."""


def slug(text: str) -> str:
    """File name for a message, without its numbers and folders."""
    words = re.sub(r"\S*/", "", text.lower())
    return re.sub(r"[\W\d_]+", "-", words).strip("-")[:60].strip("-")


class Keeper:
    """Keeps findings: one small input of each in BAD, and one of each other ending in `endings`."""

    def __init__(self, target: str, endings: Path) -> None:
        self.target, self.endings, self.known = target, endings, set[str]()
        endings.mkdir(parents=True, exist_ok=True)

    def keep(self, folder: Path, ending: str, data: bytes) -> None:
        """Keep `data`, unless there is a smaller input with this ending."""
        path = folder / f"{slug(ending)}.bin"
        if not path.exists() or path.stat().st_size > len(data):
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def ended(self, ending: str, data: bytes) -> None:
        """Keep an input for each new way to end."""
        if ending != "result" and len(data) <= KEPT_BYTES:
            self.keep(self.endings, ending, data)


def work(target: str, seconds: int, corpus: Path, endings: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    whole = fuzz_targets.KINDS[target].module == "fuzz_bytes"
    os.environ["NUMBA_DISABLE_JIT"] = str(int(whole))
    with atheris.instrument_imports(include=["viddiff"], exclude=[] if whole else COMPILED):
        function = fuzz_targets.load(target)
    from fuzz_mutate import MUTATORS, smaller

    keeper = Keeper(target, endings)

    def finding(data: bytes) -> str:
        try:
            fuzz_targets.check(function, data)
        except fuzz_targets.Finding as found:
            return str(found)
        return ""

    def one_input(data: bytes) -> None:
        try:
            keeper.ended(fuzz_targets.check(function, data), data)
        except fuzz_targets.Finding as found:
            message = str(found)
            if message not in keeper.known:
                keeper.known.add(message)
                data = smaller(target, data, lambda candidate: finding(candidate) == message)
                keeper.keep(BAD / target, message, data)
                print(f"FINDING {target}: {message} ({len(data)} bytes)", flush=True)

    begin = [*fuzz_targets.seeds(target), *(path.read_bytes() for path in (BAD / target).glob("*.bin"))]
    for number, seed in enumerate(begin):
        (corpus / f"seed{number}").write_bytes(seed)
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={fuzz_targets.KINDS[target].max_bytes}",
        "-timeout=120",
    ]
    arguments += [f"-rss_limit_mb={MEMORY_MIB}", "-print_final_stats=1", "-len_control=0"]
    arguments += [f"-artifact_prefix={corpus}/", str(corpus)]
    if target in MUTATORS:
        atheris.Setup(
            arguments,
            one_input,
            custom_mutator=lambda data, size, seed: MUTATORS[target](data, size, seed, atheris.Mutate),
        )
    else:
        atheris.Setup(arguments, one_input)
    atheris.Fuzz()


def fuzz(target: str, seconds: int, kept: Path) -> tuple[int, int]:
    """Fuzz one target in a new process, continuing from `kept`. Returns executions and findings."""
    corpus, endings, log = kept / target, kept / "endings" / target, kept / f"{target}.log"
    corpus.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--target", target, "--corpus", str(kept), "--worker", str(seconds)]
    with open(log, "wb") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    text = log.read_text(errors="replace")
    findings = re.findall(r"^FINDING .*", text, re.M)
    for artifact in corpus.glob("[clto]*-*"):  # crash, leak, timeout, oom: ends of the process itself
        (BAD / target).mkdir(parents=True, exist_ok=True)
        artifact.rename(BAD / target / f"{artifact.name[:16]}.bin")
        findings.append(f"FINDING {target}: {artifact.name}")
    counts = [int(a or b) for a, b in re.findall(r"^#(\d+)|number_of_executed_units: *(\d+)", text, re.M)]
    covered = (re.findall(r" cov: (\d+)", text) or ["0"])[-1]
    executions = max(counts, default=0)
    print("\n".join(findings), end="\n" if findings else "")
    print(
        f"{target}: {executions} executions, {len(findings)} findings, {covered} branches covered, "
        f"{len(list(endings.glob('*.bin')))} kinds of errors",
        flush=True,
    )
    if code and not findings:
        print(text[-2000:])
    return executions, len(findings) + (code != 0 and not findings)


def main() -> None:
    """Run the targets of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together")
    parser.add_argument("--target", choices=fuzz_targets.KINDS, help="only this one")
    parser.add_argument(
        "--corpus",
        type=Path,
        help="keep here what reached something new, and go on from it; endings/ has an input of each error",
    )
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        kept, target = options.corpus, options.target
        return work(target, options.worker, kept / target, kept / "endings" / target)
    names = [options.target] if options.target else list(fuzz_targets.KINDS)
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory() as temporary:
        kept = options.corpus or Path(temporary)
        seconds = max(int(options.minutes * 60 / len(names)), 1)
        results = [fuzz(name, seconds, kept) for name in names]
        print(f"{sum(r[0] for r in results)} executions, {sum(r[1] for r in results)} findings")
        sys.exit(any(r[1] for r in results))


if __name__ == "__main__":
    main()
