"""Report of `scripts/audit`: licences from pip's installation report, and vulnerabilities from pip-audit.

Licences are those that packages state. Wheels bundle libraries under other licences: those of av contain
FFmpeg with x264 and x265 (GPL), those of OpenCV contain FFmpeg (LGPL).
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ALLOWED = ("MIT", "BSD", "0BSD", "Apache", "ISC", "MPL", "PSF", "Zlib", "HPND", "BSL-1.0", "CC0", "NVIDIA")
"""Licences that viddiff's dependencies may have, as whole words or before a hyphen."""
STATES_NONE = {"cuda-toolkit": "NVIDIA Proprietary"}
"""Packages that state no licence, and the licence of their parts."""


def licence(metadata: dict[str, Any]) -> str:
    """The licence that a package states: an SPDX expression, a line of text, or classifiers."""
    text = metadata.get("license_expression") or (metadata.get("license") or "").strip().split("\n")[0]
    kinds = [c.split(" :: ")[-1] for c in metadata.get("classifier", ()) if c.startswith("License ::")]
    return text or " OR ".join(kinds) or STATES_NONE.get(metadata["name"], "")


def allowed(expression: str) -> bool:
    """True if each part of the expression, or one of its alternatives, is in ALLOWED."""
    words = "|".join(map(re.escape, ALLOWED))
    return all(
        any(re.search(rf"(^|[\W_])({words})($|[\W_])", choice) for choice in part.split(" OR "))
        for part in expression.strip("()").split(" AND ")
    )


def vulnerabilities(packages: list[str]) -> tuple[list[str], list[str]]:
    """Known vulnerabilities of `packages` (name==version), one line each, and packages without an answer."""
    with tempfile.TemporaryDirectory() as folder:
        needed, found = Path(folder) / "needed.txt", Path(folder) / "found.json"
        needed.write_text("\n".join(packages))
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(needed), "--no-deps"]
        command += ["--disable-pip", "--progress-spinner=off", "--format=json", f"--output={found}"]
        subprocess.run(command, capture_output=True)
        text = found.read_text() if found.exists() else ""
    return read_findings(text, packages)


def read_findings(text: str, packages: list[str]) -> tuple[list[str], list[str]]:
    """The same from pip-audit's JSON, which omits packages that its service does not know."""
    try:
        answers = {entry["name"].lower(): entry for entry in json.loads(text)["dependencies"]}
    except (ValueError, KeyError):
        return [], packages
    known, unknown = list[str](), list[str]()
    for package in packages:
        answer = answers.get(package.split("==")[0].lower(), {})
        if "vulns" not in answer:
            unknown.append(package)
        known += [f"{package}: {v['id']}, mended in {v['fix_versions']}" for v in answer.get("vulns", ())]
    return known, unknown


def main(report: Path) -> int:
    """Print everything, and return the exit code."""
    resolved = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    resolved = [metadata for metadata in resolved if metadata["name"] != "viddiff"]
    code = 0
    print("Licences")
    for metadata in sorted(resolved, key=lambda m: m["name"].lower()):
        stated = licence(metadata)
        fine = allowed(stated)
        code = code if fine else 1
        verdict = stated or "none stated"
        print(f"  {metadata['name']} {metadata['version']}: {verdict}{'' if fine else '  NOT ALLOWED'}")
    packages = [f"{metadata['name']}=={metadata['version']}" for metadata in resolved]
    known, unknown = vulnerabilities(packages)
    print(f"Vulnerabilities: {len(known)} known of {len(packages) - len(unknown)} packages")
    for line in known:
        print(f"  {line}")
    if unknown:
        print(
            f"NOT CHECKED for vulnerabilities: {len(unknown)} of {len(packages)} packages, for which the "
            "service of pip-audit gave no answer; is it out of reach?"
        )
    return 1 if known or code else 2 if unknown else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
