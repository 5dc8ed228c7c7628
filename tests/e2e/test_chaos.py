"""The kill matrix in its short form, as CI runs it: `make chaos`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.conftest import REPOSITORY


@pytest.mark.timeout(900)
def test_a_run_that_is_killed_and_gone_on_with_ends_as_if_it_had_not_been(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.chaos", "--json"], cwd=REPOSITORY, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, check=False)
    assert done.stdout, done.stderr
    figures = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n  chaos: {figures}", flush=True)
    assert figures["violations"] == 0, done.stderr
    assert done.returncode == 0, done.stderr
    assert figures["boundaries_killed"] >= 10
    assert figures["pairs"] >= 6  # of 7: a child may have ended before it could be hit
    assert figures["resumes"] >= figures["boundaries_killed"] + figures["pairs"]
