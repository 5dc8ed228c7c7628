"""`make audit` tells "nothing is known against it" from "nobody could be asked"."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SPEC = importlib.util.spec_from_file_location("audit", Path(__file__).parents[2] / "tools" / "audit.py")
assert SPEC
assert SPEC.loader
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

GOOD: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
BAD: dict[str, Any] = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
UNASKED: dict[str, Any] = {"name": "c", "version": "1", "skip_reason": "not found"}


@pytest.mark.parametrize(("packages", "code"), [([GOOD], 0), ([GOOD, BAD], 1), ([BAD, UNASKED], 1), ([GOOD, UNASKED], 2),
                                                ([UNASKED], 2), ([], 2)])
def test_the_exit_code_tells_known_unknown_and_clean_apart(packages: list[dict[str, Any]], code: int) -> None:
    assert audit.verdict({"dependencies": packages})[0] == code


def test_a_vulnerability_is_named_with_the_version_that_mends_it() -> None:
    assert audit.verdict({"dependencies": [BAD]})[1][0] == "b 2: PYSEC-1; mended in: 3"
