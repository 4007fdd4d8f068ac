"""The audit's reading of licences and of pip-audit's answers."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import audit


@pytest.mark.parametrize(
    ("metadata", "stated", "fine"),
    [
        ({"license_expression": "MIT OR Apache-2.0"}, "MIT OR Apache-2.0", True),
        ({"license_expression": "GPL-3.0-only OR BSD-3-Clause"}, "GPL-3.0-only OR BSD-3-Clause", True),
        ({"license_expression": "GPL-3.0-only AND MIT"}, "GPL-3.0-only AND MIT", False),
        ({"license": "BSD 3-Clause\n\nCopyright"}, "BSD 3-Clause", True),
        (
            {"classifier": ["License :: OSI Approved :: Apache Software License"]},
            "Apache Software License",
            True,
        ),
        ({"license": "COMMITTED"}, "COMMITTED", False),
        ({"license": None, "classifier": ["Topic :: Video"]}, "", False),
    ],
)
def test_licences(metadata: dict[str, object], stated: str, fine: bool) -> None:
    assert audit.licence({"name": "a"} | metadata) == stated
    assert audit.allowed(stated) is fine


def test_what_no_service_answers_for_is_not_passed_over() -> None:
    packages = ["a==1", "B==2", "c==3"]
    answers = [
        {"name": "a", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]},
        {"name": "b", "version": "2", "vulns": []},
        {"name": "c", "skip_reason": "Dependency not found"},
    ]
    known, unknown = audit.read_findings(json.dumps({"dependencies": answers}), packages)
    assert known == ["a==1: PYSEC-1, mended in ['2']"]
    assert unknown == ["c==3"]
    assert audit.read_findings("", packages) == ([], packages)
